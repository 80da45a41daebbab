//! Flow accounting in the broker core: a stream whose body never ends, half a window of it each round. Every byte is
//! taken off what the consumer was granted and off the provider's credit, the provider grants each frame's bytes again,
//! and the broker those that have left (§4).

mod common;

use common::frames::request_head;
use common::world::World;
use corelay::base::limits::Limits;
use corelay::broker::core::COPY_BELOW;
use corelay::protocol::{Flags, FrameType, HEADER_LEN, Header, Role};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const STREAM: u32 = 1;

/// Bytes of a round. The broker may keep just under a quarter of the window to itself, so the next half is granted.
fn round_bytes() -> u32 {
    Limits::default().window / 2
}

struct Stream {
    world: World,
    consumer: usize,
    provider: usize,
    /// A round's frames: whole, or only their headers where the bodies come by reference.
    data: Vec<u8>,
    frame: usize,
    /// The provider's CREDITs.
    credits: Vec<u8>,
    /// Bytes the consumer may send.
    granted: u32,
}

impl Stream {
    fn new(frame: usize) -> Stream {
        let mut world = World::new(1);
        let window = Limits::default().window;
        let provider = world.connect(Role::Provider, window, 1);
        let consumer = world.connect(Role::Consumer, window, 0);
        let mut opening = Vec::new();
        request_head(STREAM, 0, Flags::NONE, &mut opening);
        world.receive(consumer, &mut opening);
        world.turn(|_, _| ());
        let mut data = Vec::new();
        for _ in 0..round_bytes() as usize / frame {
            data.extend_from_slice(&Header::new(FrameType::Data, STREAM).length(frame as u32).encode());
            data.resize(data.len() + if frame < COPY_BELOW { frame } else { 0 }, 1);
        }
        Stream { world, consumer, provider, data, frame, credits: Vec::new(), granted: window }
    }

    /// Half a window of body goes through, and at least so much may be sent again.
    fn round(&mut self) {
        let bytes = round_bytes();
        self.granted -= bytes;
        if self.frame < COPY_BELOW {
            self.world.receive(self.consumer, &mut self.data);
        } else {
            for header in self.data.chunks(HEADER_LEN) {
                self.world.receive(self.consumer, &mut header.to_vec());
                self.world.receive_body(self.consumer, self.frame);
            }
        }
        let mut taken = 0;
        for _ in 0..100 {
            self.world.turn(|client, header| {
                if client == self.consumer {
                    self.granted += header.arg;
                } else {
                    taken += header.length;
                    let credit = Header::new(FrameType::Credit, header.stream).arg(header.length);
                    self.credits.extend_from_slice(&credit.encode());
                }
            });
            if !self.credits.is_empty() {
                self.world.receive(self.provider, &mut self.credits);
                self.credits.clear();
            }
            if taken == bytes && self.granted >= bytes {
                return self.world.check();
            }
        }
        panic!("of {bytes} bytes {taken} went through; {} may be sent", self.granted);
    }
}

fn credit(c: &mut Criterion) {
    let mut group = c.benchmark_group("credit");
    group.throughput(Throughput::Bytes(round_bytes().into()));
    for (name, frame) in [("128 KiB in 1 KiB frames", 1024), ("128 KiB in 64 KiB pieces, by reference", 64 * 1024)] {
        group.bench_function(name, |b| {
            let mut stream = Stream::new(frame);
            b.iter(|| stream.round());
        });
    }
    group.finish();
}

criterion_group!(benches, credit);
criterion_main!(benches);

//! The request path of the broker core: bytes in, batches out, no kernel. One iteration is a turn in which 16 consumers
//! send 64 small requests each to 4 providers, and a turn in which those answer.

use std::cell::Cell;

use corelay::base::limits::Limits;
use corelay::base::{Batch, ChannelId, Key, Leases, Piece, Time};
use corelay::broker::core::{COPY_BELOW, Core, Options, Output};
use corelay::protocol::{Flags, FrameType, HEADER_LEN, Header, Hello, Role, VERSION};
use criterion::{Criterion, Throughput, criterion_group};
use uuid::Uuid;

const CONSUMERS: usize = 16;
const IN_FLIGHT: u32 = 64;
const PROVIDERS: usize = 4;

/// One buffer, lent for each call.
struct OneBuffer {
    bytes: Vec<u8>,
    count: Cell<u32>,
}

impl Leases for OneBuffer {
    fn bytes(&self, piece: Piece) -> &[u8] {
        &self.bytes[piece.offset as usize..][..piece.len as usize]
    }
    fn retain(&self, _: Piece) {
        self.count.set(self.count.get() + 1);
    }
    fn release(&self, _: Piece) {
        self.count.set(self.count.get() - 1);
    }
}

struct World {
    core: Core,
    now: Time,
    consumers: Vec<Key>,
    providers: Vec<Key>,
    pool: OneBuffer,
}

impl World {
    fn new() -> World {
        let options = Options {
            core: 0,
            cores: 1,
            server: Uuid::nil(),
            seed: 1,
            secret: 2,
            limits: Limits::default(),
            channels: Vec::new(),
            copy_below: COPY_BELOW,
            meters: 256,
        };
        let core = Core::new(options, Time::from_nanos(1));
        let pool = OneBuffer { bytes: Vec::new(), count: Cell::new(0) };
        let mut world = World { core, now: Time::from_nanos(1), consumers: Vec::new(), providers: Vec::new(), pool };
        world.providers = (0..PROVIDERS).map(|_| world.open(Role::Provider, 1024)).collect();
        world.consumers = (0..CONSUMERS).map(|_| world.open(Role::Consumer, 0)).collect();
        world.outputs(|_, _| ());
        world
    }

    fn open(&mut self, role: Role, max_concurrent: u32) -> Key {
        let key = self.core.connected(self.now, String::new());
        // the handle is the key, so that outputs find their way back
        self.core.attach(key, key.pack());
        let mut hello = Vec::new();
        let channel = ChannelId::named("bench");
        let (client, name) = (Uuid::nil(), String::new());
        Hello {
            version: VERSION,
            role,
            features: 0,
            channel,
            client,
            window: 65536,
            max_concurrent,
            token: vec![],
            name,
        }
        .encode(&mut hello)
        .unwrap();
        self.receive(key, &mut hello);
        key
    }

    fn receive(&mut self, key: Key, bytes: &mut Vec<u8>) {
        std::mem::swap(&mut self.pool.bytes, bytes);
        let piece = Piece { buffer: 0, generation: 0, offset: 0, len: self.pool.bytes.len() as u32 };
        self.core.received(self.now, key, piece, &self.pool);
        std::mem::swap(&mut self.pool.bytes, bytes);
    }

    fn outputs(&mut self, mut each: impl FnMut(Key, &Batch)) {
        while self.core.next_action().is_some() {}
        let mut sent = Vec::new();
        while let Some(output) = self.core.next_output(&self.pool) {
            let Output::Socket { handle, mut batch } = output else { unreachable!("one core") };
            each(Key::unpack(handle), &batch);
            batch.sent = batch.total;
            sent.push((Key::unpack(handle), batch));
        }
        for (key, batch) in sent {
            self.core.sent(self.now, key, batch, false, &self.pool);
        }
        self.core.end_turn(false, &self.pool);
    }
}

fn requests(size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for stream in 1..=IN_FLIGHT {
        let header = Header::new(FrameType::Request, stream).flags(Flags::END).length(16 + size as u32);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&[7; 16]);
        bytes.resize(bytes.len() + size, 1);
    }
    bytes
}

/// Answers to all requests in a batch.
fn answers(batch: &Batch, size: usize, out: &mut Vec<u8>) {
    let mut at = 0;
    while at < batch.staged.len() {
        let header = Header::decode(batch.staged[at..][..HEADER_LEN].try_into().unwrap());
        at += HEADER_LEN + header.length as usize;
        let answer = Header::new(FrameType::Response, header.stream).flags(Flags::END).length(size as u32);
        out.extend_from_slice(&answer.encode());
        out.resize(out.len() + size, 2);
    }
}

/// A turn of requests and a turn of answers, again and again.
struct Pipelined {
    world: World,
    asked: Vec<u8>,
    answered: Vec<(Key, Vec<u8>)>,
}

impl Pipelined {
    fn new(size: usize) -> Pipelined {
        let world = World::new();
        let answered = world.providers.iter().map(|&key| (key, Vec::new())).collect();
        Pipelined { world, asked: requests(size), answered }
    }

    fn turns(&mut self, size: usize) {
        let world = &mut self.world;
        world.now = world.now + std::time::Duration::from_micros(100);
        for n in 0..CONSUMERS {
            let key = world.consumers[n];
            world.receive(key, &mut self.asked);
        }
        world.core.advance(world.now);
        world.outputs(|to, batch| {
            let (_, out) = self.answered.iter_mut().find(|(key, _)| *key == to).expect("a provider");
            answers(batch, size, out);
        });
        for (key, out) in &mut self.answered {
            world.receive(*key, out);
            out.clear();
        }
        world.outputs(|_, batch| assert!(batch.total > 0));
    }
}

fn pipelined(c: &mut Criterion) {
    let mut group = c.benchmark_group("core");
    group.throughput(Throughput::Elements(CONSUMERS as u64 * u64::from(IN_FLIGHT)));
    group.bench_function("16x64 of 64 bytes", |b| {
        let mut work = Pipelined::new(64);
        b.iter(|| work.turns(64));
    });
    group.finish();
}

criterion_group!(benches, pipelined);

/// With `CORELAY_BENCH_TURNS=N`, N iterations and nothing else: for `valgrind --tool=callgrind`, whose counts don't
/// depend on what else the machine does.
fn main() {
    match std::env::var("CORELAY_BENCH_TURNS").ok().and_then(|turns| turns.parse::<u32>().ok()) {
        Some(turns) => {
            let mut work = Pipelined::new(64);
            (0..turns).for_each(|_| work.turns(64));
        }
        None => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}

//! Rounds of requests and answers through a [`World`].

use std::time::Duration;

use corelay::broker::core::COPY_BELOW;
use corelay::protocol::{Flags, HEADER_LEN, Role};

use super::frames::{REQUEST_HEAD, requests, response, response_head};
use super::world::World;

/// Who asks whom, and for how much at once.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Cores of the broker; the channel is spread over all.
    pub cores: u16,
    pub consumers: usize,
    /// Requests of each consumer at a time.
    pub in_flight: u32,
    pub providers: usize,
    /// Bytes of each request, and of each answer.
    pub body: usize,
    /// Flags of the requests besides END.
    pub flags: Flags,
}

impl Load {
    /// 64-byte messages on one core.
    pub const fn small(consumers: usize, in_flight: u32) -> Load {
        Load { cores: 1, consumers, in_flight, providers: 4, body: 64, flags: Flags::NONE }
    }

    /// Requests in a round.
    pub const fn requests(&self) -> u64 {
        self.consumers as u64 * self.in_flight as u64
    }
}

/// The clients of a [`Load`].
pub struct Requests {
    pub world: World,
    load: Load,
    consumers: Vec<usize>,
    /// What every consumer sends in a round.
    asked: Vec<u8>,
    /// What each provider sends next. Providers are the first clients.
    answers: Vec<Vec<u8>>,
}

impl Requests {
    pub fn new(load: Load) -> Requests {
        let mut world = World::new(load.cores);
        let room = load.requests() as u32;
        for number in 0..load.providers {
            assert_eq!(world.connect(Role::Provider, 64 * 1024, room), number);
        }
        let consumers = (0..load.consumers).map(|_| world.connect(Role::Consumer, 64 * 1024, 0)).collect();
        let mut asked = requests(load.in_flight, load.body, load.flags);
        if load.body >= COPY_BELOW {
            asked = asked.chunks(REQUEST_HEAD + load.body).flat_map(|frame| &frame[..REQUEST_HEAD]).copied().collect();
        }
        let room = load.requests() as usize * (HEADER_LEN + if load.body < COPY_BELOW { load.body } else { 0 });
        let answers = (0..load.providers).map(|_| Vec::with_capacity(room)).collect();
        Requests { world, load, consumers, asked, answers }
    }

    /// Every consumer sends all its requests; turns go by until all are answered.
    pub fn round(&mut self) {
        let Requests { world, load, consumers, asked, answers } = self;
        world.pass(Duration::from_micros(100));
        for &consumer in &*consumers {
            send(world, consumer, asked, REQUEST_HEAD, load.body);
        }
        let mut unanswered = load.requests();
        let mut turns = 0;
        while unanswered > 0 || answers.iter().any(|out| !out.is_empty()) {
            for (provider, out) in answers.iter_mut().enumerate() {
                send(world, provider, out, HEADER_LEN, load.body);
                out.clear();
            }
            world.turn(|client, header| {
                if !header.flags.has(Flags::END) {
                    return;
                }
                match answers.get_mut(client) {
                    Some(out) if load.body < COPY_BELOW => response(header.stream, load.body, out),
                    Some(out) => response_head(header.stream, load.body, out),
                    None => unanswered -= 1,
                }
            });
            turns += 1;
            assert!(turns < 1000, "{unanswered} requests are never answered");
        }
        world.check();
    }
}

/// Small frames arrive as they are, in one buffer; large ones are given by their heads alone, each of which has its
/// body follow in a buffer of its own, so that it can be passed on by reference.
fn send(world: &mut World, client: usize, bytes: &mut Vec<u8>, head: usize, body: usize) {
    if body < COPY_BELOW {
        if !bytes.is_empty() {
            world.receive(client, bytes);
        }
        return;
    }
    let mut one = Vec::with_capacity(head);
    for head in bytes.chunks(head) {
        one.clear();
        one.extend_from_slice(head);
        world.receive(client, &mut one);
        world.receive_body(client, body);
    }
}

//! Broker cores and all their clients in one thread: bytes in, batches out, no kernel and no clock.

use std::cell::Cell;
use std::time::Duration;

use corelay::base::limits::Limits;
use corelay::base::{Batch, ChannelId, Key, Leases, Piece, Time};
use corelay::broker::core::{Action, COPY_BELOW, Channel, Core, LinkKind, Options, Output};
use corelay::protocol::{HEADER_LEN, Header, Role};
use uuid::Uuid;

use super::frames::{CHANNEL, hello};

/// Two receive buffers: what was received last, and a large body that is received again and again.
#[derive(Default)]
struct Pool {
    last: Vec<u8>,
    body: Vec<u8>,
    leases: Cell<u32>,
}

const LAST: u32 = 0;
const BODY: u32 = 1;

impl Leases for Pool {
    fn bytes(&self, piece: Piece) -> &[u8] {
        let buffer = if piece.buffer == BODY { &self.body } else { &self.last };
        &buffer[piece.offset as usize..][..piece.len as usize]
    }
    fn retain(&self, piece: Piece) {
        assert_eq!(piece.buffer, BODY, "a small frame was passed on by reference");
        self.leases.set(self.leases.get() + 1);
    }
    fn release(&self, _: Piece) {
        self.leases.set(self.leases.get() - 1);
    }
}

/// One or more cores of a broker. Clients are numbered in the order they come.
pub struct World {
    cores: Vec<Core>,
    /// Where each client is.
    clients: Vec<(usize, Key)>,
    now: Time,
    pool: Pool,
    sent: Vec<(Key, Batch)>,
    crossing: Vec<(u16, LinkKind, Batch)>,
}

impl World {
    /// With more than one core, the channel is spread over all.
    pub fn new(cores: u16) -> World {
        let now = Time::from_nanos(1);
        let spread = Channel {
            id: ChannelId::named(CHANNEL),
            spread: cores,
            window: None,
            queue_requests: None,
            queue_bytes: None,
        };
        let options = Options {
            core: 0,
            cores,
            server: Uuid::nil(),
            seed: 1,
            secret: 2,
            limits: Limits::default(),
            channels: vec![spread],
            copy_below: COPY_BELOW,
            routes: Vec::new(),
            tap_bytes: 0,
            access: Default::default(),
            meters: 256,
        };
        let cores = (0..cores).map(|core| Core::new(Options { core, ..options.clone() }, now)).collect();
        World { cores, clients: Vec::new(), now, pool: Pool::default(), sent: Vec::new(), crossing: Vec::new() }
    }

    /// A client says HELLO and is welcomed.
    pub fn connect(&mut self, role: Role, window: u32, max_concurrent: u32) -> usize {
        let client = self.clients.len();
        let key = self.cores[0].connected(self.now, String::new());
        // the handle is the client's number, so that outputs find their way back
        self.cores[0].attach(key, client as u64);
        self.clients.push((0, key));
        self.receive(client, &mut hello(role, window, max_concurrent));
        while let (at, _) = self.clients[client]
            && let Some(action) = self.cores[at].next_action()
        {
            let Action::Move { core, moved, .. } = action else { continue };
            let to = &mut self.cores[usize::from(core)];
            let key = to.moved_in(self.now, &moved);
            to.attach_moved(self.now, key, client as u64, &moved);
            self.clients[client] = (usize::from(core), key);
        }
        self.turn(|_, _| ());
        client
    }

    /// The clock goes on.
    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// The broker receives these bytes from a client.
    pub fn receive(&mut self, client: usize, bytes: &mut Vec<u8>) {
        std::mem::swap(&mut self.pool.last, bytes);
        let len = self.pool.last.len() as u32;
        self.input(client, Piece { buffer: LAST, generation: 0, offset: 0, len });
        std::mem::swap(&mut self.pool.last, bytes);
    }

    /// It receives so many bytes of body, in a buffer of their own.
    pub fn receive_body(&mut self, client: usize, len: usize) {
        if self.pool.body.len() < len {
            assert_eq!(self.pool.leases.get(), 0, "the buffer grows while it is leased");
            self.pool.body.resize(len, 1);
        }
        self.input(client, Piece { buffer: BODY, generation: 0, offset: 0, len: len as u32 });
    }

    fn input(&mut self, client: usize, piece: Piece) {
        let (core, key) = self.clients[client];
        self.cores[core].received(self.now, key, piece, &self.pool);
    }

    /// A turn of each core. `each` is shown every frame's header, with the client that gets it.
    pub fn turn(&mut self, mut each: impl FnMut(usize, Header)) {
        for at in 0..self.cores.len() {
            let (core, now) = (&mut self.cores[at], self.now);
            core.advance(now);
            while let Some(action) = core.next_action() {
                assert!(!matches!(action, Action::Close { .. }), "a client broke the protocol");
            }
            while let Some(output) = core.next_output(&self.pool) {
                match output {
                    Output::Socket { handle, mut batch } => {
                        frames(&batch, &self.pool, |header| each(handle as usize, header));
                        batch.sent = batch.total;
                        self.sent.push((self.clients[handle as usize].1, batch));
                    }
                    Output::Link { core, kind, batch } => self.crossing.push((core, kind, batch)),
                }
            }
            for (key, batch) in self.sent.drain(..) {
                core.sent(now, key, batch, false);
            }
            for (to, kind, batch) in self.crossing.drain(..) {
                self.cores[at].link_sent(now, to, kind);
                let to = &mut self.cores[usize::from(to)];
                batch.for_each_unsent(&self.pool, |bytes| to.link_received(now, at as u16, kind, bytes));
                // as the shards do: its buffers ride home
                self.cores[at].recycle(batch);
            }
            self.cores[at].end_turn(false, &self.pool);
        }
    }

    /// Asserts that nothing leased was kept.
    pub fn check(&self) {
        assert_eq!(self.pool.leases.get(), 0, "leases that never came home");
    }

    /// Requests that went to another core.
    pub fn passed_on(&self) -> u64 {
        self.cores.iter().map(|core| core.counters().passed_on).sum()
    }
}

/// The headers of the frames in a batch; it ends with a whole one.
fn frames(batch: &Batch, pool: &Pool, mut each: impl FnMut(Header)) {
    let mut body = 0;
    batch.for_each_unsent(pool, |mut bytes| {
        loop {
            let passed = bytes.len().min(body);
            bytes = &bytes[passed..];
            body -= passed;
            let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { break };
            let header = Header::decode(header);
            (body, bytes) = (header.length as usize, rest);
            each(header);
        }
    });
    assert_eq!(body, 0, "a batch ends in the middle of a frame");
}

//! What stands in for shards, reactors and the kernel: sockets, receive buffers, the mesh, the clock.
//!
//! ```text
//!   client ── up ──► [network] ── deliver ──► Core ── batch ──► complete ──► [network] ── down ──► client
//!                                              ▲ ▼
//!                                     ring of items, one per ordered pair of cores; a core may sleep
//! ```
//!
//! It holds the core to the reactor's rules (one send a socket, no move with a receive in flight, no frame for a
//! socket that is closed), and it is the only one that moves bytes, so the caller decides how they are cut.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use corelay::auth::AccessList;
use corelay::base::{Batch, Key, Leases, NoLeases, Time};
use corelay::broker::core::{Action, Core, LinkKind, Options, Output};

use crate::companion::Companion;
use crate::pool::Pool;

/// How a socket is being received on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    Off,
    Once,
    Stream,
}

/// One connection, seen from both ends.
#[derive(Debug)]
pub(crate) struct Sock {
    pub(crate) shard: usize,
    pub(crate) key: Key,
    /// Sent by the client, not read by the broker.
    pub(crate) up: VecDeque<u8>,
    /// Taken by the broker's kernel, not read by the client.
    pub(crate) down: VecDeque<u8>,
    /// How much `down` holds before the socket is full.
    pub(crate) room: usize,
    pub(crate) receive: Receive,
    /// With the kernel.
    pub(crate) batch: Option<Batch>,
    pub(crate) wants_writable: bool,
    /// The client has closed.
    pub(crate) fin: bool,
    /// The broker was told so.
    fin_told: bool,
    /// The broker has shut its sending side.
    pub(crate) shut: bool,
    /// The broker has closed it.
    pub(crate) gone: bool,
    /// ... and dropped what was unsent.
    pub(crate) aborted: bool,
}

impl Sock {
    /// The client can read no more than what is in `down`.
    pub(crate) fn is_over(&self) -> bool {
        self.shut || self.gone
    }
}

/// A core with what surrounds it.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) core: Core,
    pub(crate) pool: Pool,
    /// Batches the mesh has not taken, in order.
    links: VecDeque<LinkOut>,
    pub(crate) sleep: Sleep,
    /// What other cores look at before they wake this one.
    sleeping: bool,
    pub(crate) reports: Vec<Action>,
    pub(crate) companion: Companion,
    turns: u64,
    /// The last turn in which the kernel had a batch.
    sending_until: u64,
}

#[derive(Debug)]
struct LinkOut {
    to: u16,
    kind: LinkKind,
    batch: Batch,
}

/// How far a core is on its way to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    Awake,
    /// Has looked at its rings and found nothing.
    Drowsy,
    Asleep,
}

/// Batches on their way between two cores.
#[derive(Debug, Default)]
struct Ring {
    items: VecDeque<(LinkKind, Batch)>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) shards: Vec<Shard>,
    pub(crate) socks: Vec<Sock>,
    /// By sender, then receiver.
    rings: Vec<Vec<Ring>>,
    /// Batches a ring holds, and bytes of one that a core is given at once.
    pub(crate) ring_items: usize,
    pub(crate) item_bytes: usize,
    /// The receive buffers are to be thought scarce.
    pub(crate) pressed: bool,
    pub(crate) tracing: bool,
}

/// Says what happens, when a run is replayed.
macro_rules! trace {
    ($world:expr, $($what:tt)*) => {
        if $world.tracing {
            eprintln!("{:>12.6} {}", $world.now.as_nanos() as f64 / 1e9, format_args!($($what)*));
        }
    };
}
pub(crate) use trace;

impl World {
    /// Cores with these options, all alike but for `core` and `seed`.
    pub(crate) fn new(options: &Options) -> World {
        let now = Time::from_nanos(1_000_000_000);
        let cores = options.cores;
        let shard = |core| Shard {
            core: Core::new(Options { core, seed: options.seed.wrapping_add(u64::from(core)), ..options.clone() }, now),
            pool: Pool::default(),
            links: VecDeque::new(),
            sleep: Sleep::Awake,
            sleeping: false,
            reports: Vec::new(),
            companion: Companion::default(),
            turns: 0,
            sending_until: 0,
        };
        World {
            now,
            shards: (0..cores).map(shard).collect(),
            socks: Vec::new(),
            rings: (0..cores).map(|_| (0..cores).map(|_| Ring::default()).collect()).collect(),
            ring_items: 16,
            item_bytes: 4096,
            pressed: false,
            tracing: false,
        }
    }

    /// All cores learn of a new list of who may do what.
    pub(crate) fn set_access(&mut self, access: &Arc<AccessList>) {
        let now = self.now;
        for shard in 0..self.shards.len() {
            self.shards[shard].core.set_access(now, Arc::clone(access));
            self.wake(shard);
        }
    }

    /// A client connects; `shard` accepts.
    pub(crate) fn connect(&mut self, shard: usize) -> usize {
        let handle = self.socks.len();
        let core = &mut self.shards[shard].core;
        let key = core.connected(self.now, format!("client {handle}"));
        self.socks.push(Sock {
            shard,
            key,
            up: VecDeque::new(),
            down: VecDeque::new(),
            room: usize::MAX,
            receive: Receive::Off,
            batch: None,
            wants_writable: false,
            fin: false,
            fin_told: false,
            shut: false,
            gone: false,
            aborted: false,
        });
        core.attach(key, handle as u64);
        self.wake(shard);
        handle
    }

    /// Something happened on one of its sockets or timers.
    pub(crate) fn wake(&mut self, shard: usize) {
        self.shards[shard].sleep = Sleep::Awake;
        self.shards[shard].sleeping = false;
    }

    /// The broker reads up to `n` bytes. Says how many.
    pub(crate) fn deliver(&mut self, sock: usize, n: usize) -> usize {
        let s = &mut self.socks[sock];
        if s.receive == Receive::Off || s.gone {
            return 0;
        }
        let n = n.min(s.up.len());
        if n == 0 {
            if s.fin && s.up.is_empty() && !s.fin_told {
                s.fin_told = true;
                s.receive = Receive::Off;
                let (shard, key) = (s.shard, s.key);
                trace!(self, "socket {sock}: the client's FIN is read");
                self.wake(shard);
                self.shards[shard].core.lost(self.now, key);
                return 1;
            }
            return 0;
        }
        if s.receive == Receive::Once {
            s.receive = Receive::Off;
        }
        let bytes: Vec<u8> = s.up.drain(..n).collect();
        let (shard, key) = (s.shard, s.key);
        self.wake(shard);
        let shard = &mut self.shards[shard];
        let piece = shard.pool.lease(bytes, shard.turns);
        shard.core.received(self.now, key, piece, &shard.pool);
        shard.pool.release(piece);
        n
    }

    /// The kernel takes what fits of the batch that is out, at most `n` bytes. Says whether there was one.
    pub(crate) fn complete(&mut self, sock: usize, n: usize) -> bool {
        let s = &mut self.socks[sock];
        let Some(mut batch) = s.batch.take() else { return false };
        let lost = s.gone || s.fin_told || s.fin && s.up.is_empty();
        let fits = n.min(s.room.saturating_sub(s.down.len())).min(batch.remaining());
        let shard = &mut self.shards[s.shard];
        if !lost || s.gone && !s.aborted {
            let mut left = fits;
            let down = &mut s.down;
            let mut total = 0;
            batch.for_each_unsent(&shard.pool, |bytes| {
                let n = left.min(bytes.len());
                down.extend(&bytes[..n]);
                left -= n;
                total += bytes.len();
            });
            assert_eq!(total, batch.remaining(), "a batch's total is wrong");
            batch.sent += fits;
        }
        let (shard, key) = (s.shard, s.key);
        self.wake(shard);
        let shard = &mut self.shards[shard];
        shard.core.sent(self.now, key, batch, lost);
        true
    }

    /// The socket takes bytes again, if the core waits for that.
    pub(crate) fn writable(&mut self, sock: usize) -> bool {
        let s = &mut self.socks[sock];
        let ready = s.room > s.down.len() || s.fin_told;
        if !s.wants_writable || !ready || s.gone {
            return false;
        }
        s.wants_writable = false;
        let (shard, key) = (s.shard, s.key);
        self.wake(shard);
        self.shards[shard].core.writable(self.now, key);
        true
    }

    /// Deadlines that have passed.
    pub(crate) fn advance(&mut self, shard: usize) -> bool {
        let core = &mut self.shards[shard].core;
        let due = core.next_deadline().is_some_and(|at| at <= self.now);
        if due {
            self.wake(shard);
            self.shards[shard].core.advance(self.now);
        }
        due
    }

    /// The end of a turn: what the core wants done is done. Says whether there was anything.
    pub(crate) fn finish(&mut self, shard: usize) -> bool {
        let mut moved = false;
        loop {
            let mut any = false;
            while let Some(output) = {
                let Shard { core, pool, .. } = &mut self.shards[shard];
                core.next_output(pool)
            } {
                any = true;
                self.output(shard, output);
            }
            while let Some(action) = self.shards[shard].core.next_action() {
                any = true;
                self.action(shard, action);
            }
            moved |= any;
            if !any {
                break;
            }
        }
        let s = &mut self.shards[shard];
        while let Some(batch) = s.core.next_tapped() {
            moved = true;
            s.companion.hand_over(batch);
        }
        s.core.end_turn(self.pressed, &s.pool);
        s.turns += 1;
        self.check_leases(shard);
        moved | self.push(shard)
    }

    fn output(&mut self, shard: usize, output: Output) {
        match output {
            Output::Socket { handle, batch } => {
                let s = &mut self.socks[handle as usize];
                assert!(s.batch.is_none(), "a second send on socket {handle}");
                assert!(!s.gone && !s.shut, "a send on socket {handle}, which is closed");
                assert_eq!(s.shard, shard, "a send from the wrong core");
                assert!(batch.remaining() > 0, "an empty batch");
                s.batch = Some(batch);
            }
            Output::Link { core, kind, batch } => {
                let links = &mut self.shards[shard].links;
                let twice = links.iter().any(|link| (link.to, link.kind) == (core, kind));
                assert!(!twice, "a second batch on a link");
                assert!(batch.remaining() > 0, "an empty batch for a link");
                links.push_back(LinkOut { to: core, kind, batch });
            }
        }
    }

    fn action(&mut self, shard: usize, action: Action) {
        match action {
            Action::ReceiveOnce(handle) => {
                let s = &mut self.socks[handle as usize];
                assert_eq!(s.receive, Receive::Off, "a second receive on socket {handle}");
                if !s.fin_told {
                    s.receive = Receive::Once;
                }
            }
            Action::Receive(handle) => {
                let s = &mut self.socks[handle as usize];
                assert_ne!(s.receive, Receive::Stream, "a second receive on socket {handle}");
                if !s.fin_told {
                    s.receive = Receive::Stream;
                }
            }
            Action::NotifyWritable(handle) => {
                let s = &mut self.socks[handle as usize];
                assert!(!s.wants_writable, "asked twice for writable on socket {handle}");
                s.wants_writable = true;
            }
            Action::ShutdownWrite(handle) => {
                let s = &mut self.socks[handle as usize];
                assert!(s.batch.is_none(), "socket {handle} was shut with a send out");
                s.shut = true;
                trace!(self, "socket {handle}: the broker's FIN");
            }
            Action::Close { handle, abort } => {
                let s = &mut self.socks[handle as usize];
                assert!(!s.gone, "socket {handle} was closed twice");
                s.gone = true;
                s.aborted = abort;
                s.receive = Receive::Off;
                s.wants_writable = false;
                trace!(self, "socket {handle}: closed by the broker{}", if abort { ", aborted" } else { "" });
            }
            Action::Move { handle, core, moved } => {
                let to = usize::from(core);
                let s = &mut self.socks[handle as usize];
                assert_ne!(to, shard, "a move to where it is");
                assert_eq!(s.receive, Receive::Off, "socket {handle} moves with a receive in flight");
                assert!(s.batch.is_none() && !s.gone, "socket {handle} moves with a send in flight");
                s.shard = to;
                self.wake(to);
                let core = &mut self.shards[to].core;
                let key = core.moved_in(self.now, &moved);
                self.socks[handle as usize].key = key;
                core.attach_moved(self.now, key, handle, &moved);
                trace!(self, "socket {handle}: moved from core {shard} to core {to}");
            }
            Action::ReportShed { .. } | Action::Ended(_) | Action::Expelled(_) => {
                self.shards[shard].reports.push(action)
            }
            Action::Welcomed(_) | Action::ReportUnauthorized { .. } => {}
        }
    }

    /// Passes link batches into the rings as far as these have room, and wakes who sleeps.
    fn push(&mut self, shard: usize) -> bool {
        let mut moved = false;
        for _ in 0..self.shards[shard].links.len() {
            let link = self.shards[shard].links.pop_front().expect("counted");
            let LinkOut { to, kind, batch } = link;
            let ring = &mut self.rings[shard][usize::from(to)];
            if ring.items.len() >= self.ring_items {
                self.shards[shard].links.push_back(LinkOut { to, kind, batch });
                continue;
            }
            moved = true;
            ring.items.push_back((kind, batch));
            // the pushing side's half: publish, then look whether the other sleeps
            if self.shards[usize::from(to)].sleeping {
                self.wake(usize::from(to));
            }
            self.shards[shard].core.link_sent(self.now, to, kind);
        }
        moved
    }

    /// The core takes up to `items` out of its inbound rings, and keeps their buffers.
    pub(crate) fn pull(&mut self, shard: usize, items: usize) -> bool {
        let mut moved = false;
        for from in 0..self.shards.len() {
            for _ in 0..items {
                let Some((kind, batch)) = self.rings[from][shard].items.pop_front() else { break };
                moved = true;
                let (core, cut, now) = (&mut self.shards[shard].core, self.item_bytes, self.now);
                batch.for_each_unsent(&NoLeases, |bytes| {
                    bytes.chunks(cut).for_each(|part| core.link_received(now, from as u16, kind, part));
                });
                core.recycle(batch);
            }
        }
        moved
    }

    fn rings_empty(&self, shard: usize) -> bool {
        self.rings.iter().all(|rings| rings[shard].items.is_empty())
    }

    /// One step on a core's way to sleep; other cores run between two of them. Says whether it changed anything.
    pub(crate) fn doze(&mut self, shard: usize) -> bool {
        let empty = self.rings_empty(shard);
        let s = &mut self.shards[shard];
        match s.sleep {
            Sleep::Awake if empty && s.links.is_empty() && !s.core.has_backlog() => s.sleep = Sleep::Drowsy,
            Sleep::Awake | Sleep::Asleep => return false,
            Sleep::Drowsy => {
                // set "sleeping", then look again: whoever pushes before this sees no sleeper and wakes nobody
                s.sleeping = true;
                if empty {
                    s.sleep = Sleep::Asleep;
                } else {
                    s.sleep = Sleep::Awake;
                    s.sleeping = false;
                }
            }
        }
        true
    }

    /// A core's turn, but for its sockets: mesh, deadlines, output. Nothing happens on one that sleeps.
    pub(crate) fn turn(&mut self, shard: usize, items: usize) -> bool {
        let Shard { core, companion, .. } = &mut self.shards[shard];
        let (full, read) = (companion.full, companion.turn(|batch| core.recycle_tapped(batch)));
        // the companion wakes a core that waits for it
        if core.is_paused() && (read || core.tap_known().1 != full) {
            self.wake(shard);
        }
        let core = &self.shards[shard].core;
        let due = core.next_deadline().is_some_and(|at| at <= self.now);
        if self.shards[shard].sleep == Sleep::Asleep && !due {
            return read;
        }
        let Shard { core, companion, .. } = &mut self.shards[shard];
        core.tap_turn(companion.read, companion.full);
        let pulled = self.pull(shard, items);
        let due = self.advance(shard);
        let finished = self.finish(shard);
        pulled | due | finished | read
    }

    /// Everything that can move without the clock moves, in pieces of at most `piece` bytes. Says whether anything
    /// did.
    pub(crate) fn settle(&mut self, piece: usize) -> bool {
        let mut ever = false;
        for round in 0.. {
            assert!(round < 1_000_000, "the world does not come to rest");
            if !self.settle_once(piece) {
                return ever;
            }
            ever = true;
        }
        unreachable!()
    }

    /// One turn of every core, with up to `piece` bytes on every socket.
    pub(crate) fn settle_once(&mut self, piece: usize) -> bool {
        let mut moved = false;
        for sock in 0..self.socks.len() {
            moved |= self.deliver(sock, piece) > 0;
            moved |= self.complete(sock, piece.max(1));
            moved |= self.writable(sock);
        }
        for shard in 0..self.shards.len() {
            moved |= self.turn(shard, usize::MAX);
        }
        moved
    }

    /// Asserts that what the kernel has not got leaves the receive buffers soon, however slow its reader is.
    fn check_leases(&mut self, shard: usize) {
        let sending = self.socks.iter().any(|sock| sock.shard == shard && sock.batch.is_some());
        let s = &mut self.shards[shard];
        if sending {
            s.sending_until = s.turns;
        } else if let Some(since) = s.pool.oldest() {
            // twice 16 turns (LEASE_TURNS) in a stream's queue, and twice 16 behind a full socket
            let waited = s.turns - since.max(s.sending_until);
            assert!(waited <= 66, "a receive buffer was kept for {waited} turns");
        }
    }

    /// Asserts what must be true between any two steps.
    pub(crate) fn check(&self) {
        for shard in &self.shards {
            shard.core.check();
        }
    }

    /// Asserts that everybody having left, nothing is left behind.
    pub(crate) fn check_empty(&self) {
        for (index, shard) in self.shards.iter().enumerate() {
            assert!(shard.core.is_empty(), "core {index} is not empty at the end: {:#?}", shard.core.snapshot());
            assert_eq!(shard.pool.leased(), 0, "core {index}: leases that never came home");
            assert_eq!(shard.companion.open(), 0, "core {index}: copies that neither ended nor were aborted");
        }
        self.check_outcomes();
    }

    /// Asserts that each request was counted once, and one outcome of it, however many cores it crossed.
    fn check_outcomes(&self) {
        let all = || self.shards.iter().map(|shard| shard.core.counters());
        let requests: u64 = all().map(|counters| counters.requests).sum();
        let outcomes = all().map(|counters| {
            let answered = counters.answered + counters.oneway_answered;
            answered + counters.failed.iter().sum::<u64>() + counters.consumer_lost
        });
        assert_eq!(outcomes.sum::<u64>(), requests, "outcomes counted, and requests");
    }

    /// The clock goes on.
    pub(crate) fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// The earliest deadline of any core.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.shards.iter().filter_map(|shard| shard.core.next_deadline()).min()
    }

    /// Cores that sleep on something in their rings.
    pub(crate) fn check_wakeups(&self) {
        for (index, shard) in self.shards.iter().enumerate() {
            let slept_through = shard.sleep == Sleep::Asleep && !self.rings_empty(index);
            assert!(!slept_through, "lost wake-up: core {index} sleeps on a ring that is not empty");
        }
    }
}

//! One core's end of the mesh: rings to and from every other core.
//!
//! ```text
//!   core 0 ── ring 0→1 ──► core 1        items: batches of link frames, moved connections
//!          ◄── ring 1→0 ──
//! ```
//!
//! A full ring leaves items in this end's outbox; the core never waits for room, and always drains what comes in.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::admission::Counted;
use super::core::{LinkKind, Moved};
use crate::base::Batch;
use crate::reactor::mesh::{Consumer, Producer, Sleeper, ring};
use crate::reactor::{Reactor, Waker};
use crate::tls::Session;

/// Items a ring holds: some turns' worth, at one batch a link and turn.
const RING: usize = 256;
/// Items taken from one core in a turn: a loud core must not starve the sockets.
const PER_TURN: usize = 256;

/// Spent batches that wait for a ride home to one core, and the most bytes of each: together 128 KiB, half of what a
/// ring counts for in the limits' sum.
const HOMEWARD: usize = 8;
const HOMEWARD_BYTES: usize = 16 * 1024;

/// What crosses between cores.
#[derive(Debug)]
pub(super) enum Item {
    /// Frames of a link.
    Frames { kind: LinkKind, batch: Batch },
    /// The buffers of such a batch, back home: a core that says more than it hears would else allocate for ever.
    Spent(Batch),
    /// A connection that has said HELLO, with its TLS if it has any.
    Conn { fd: OwnedFd, counted: Counted, moved: Moved, tls: Option<Box<Session>> },
}

/// One core's end.
pub(super) struct Mesh {
    ports: Vec<Option<Port>>,
    sleeper: Arc<Sleeper>,
}

struct Port {
    to: Producer<Item>,
    from: Consumer<Item>,
    outbox: VecDeque<Item>,
    homeward: Homeward,
    pushed: bool,
    sleeper: Arc<Sleeper>,
    waker: Option<Waker>,
}

/// Spent batches of another core. They go with the next frames that go there: none is worth waking it.
#[derive(Default)]
pub(super) struct Homeward(Vec<Batch>);

impl Homeward {
    /// Takes a batch along, or gives it back where there is no room for it.
    pub(super) fn take(&mut self, batch: Batch) -> Option<Batch> {
        let bytes = batch.control.capacity() + batch.staged.capacity();
        if self.0.len() == HOMEWARD || bytes > HOMEWARD_BYTES || !batch.segments.is_empty() {
            return Some(batch);
        }
        self.0.push(batch);
        None
    }
}

impl Mesh {
    /// The ends of all cores.
    pub(super) fn full(cores: usize) -> Vec<Mesh> {
        let sleepers: Vec<Arc<Sleeper>> = (0..cores).map(|_| Arc::default()).collect();
        let mut ends: Vec<Mesh> = sleepers
            .iter()
            .map(|sleeper| Mesh { ports: (0..cores).map(|_| None).collect(), sleeper: Arc::clone(sleeper) })
            .collect();
        for a in 0..cores {
            for b in a + 1..cores {
                let (to_b, from_a) = ring(RING);
                let (to_a, from_b) = ring(RING);
                let port = |to, from, other: usize| Port {
                    to,
                    from,
                    outbox: VecDeque::new(),
                    homeward: Homeward::default(),
                    pushed: false,
                    sleeper: Arc::clone(&sleepers[other]),
                    waker: None,
                };
                ends[a].ports[b] = Some(port(to_b, from_b, b));
                ends[b].ports[a] = Some(port(to_a, from_a, a));
            }
        }
        ends
    }

    /// Tells how to wake the others; before the first turn.
    pub(super) fn set_wakers(&mut self, wakers: &[Waker]) {
        for (port, waker) in self.ports.iter_mut().zip(wakers) {
            if let Some(port) = port {
                port.waker = Some(waker.clone());
            }
        }
    }

    /// How many cores there are.
    pub(super) fn cores(&self) -> usize {
        self.ports.len()
    }

    /// Wakes all other cores, at the broker's end.
    pub(super) fn wake_all(&self) {
        self.ports.iter().flatten().filter_map(|port| port.waker.as_ref()).for_each(Waker::wake);
    }

    /// Puts an item on its way.
    pub(super) fn send(&mut self, core: u16, item: Item) {
        let port = self.ports[usize::from(core)].as_mut().expect("no core sends to itself");
        port.outbox.push_back(item);
    }

    /// Moves what waits into the rings, as far as they have room, and wakes the cores that sleep. Calls `delivered`
    /// with the core and link of each batch that is now the other core's.
    pub(super) fn flush(&mut self, reactor: &mut impl Reactor, mut delivered: impl FnMut(u16, LinkKind)) {
        for (core, port) in self.ports.iter_mut().enumerate() {
            let Some(port) = port else { continue };
            while let Some(item) = port.outbox.pop_front() {
                let kind = if let Item::Frames { kind, .. } = &item { Some(*kind) } else { None };
                if let Err(item) = port.to.push(item) {
                    port.outbox.push_front(item);
                    break;
                }
                port.pushed = true;
                if let Some(kind) = kind {
                    delivered(core as u16, kind);
                }
            }
            if std::mem::take(&mut port.pushed) {
                while let Some(batch) = port.homeward.0.pop() {
                    if let Err(Item::Spent(batch)) = port.to.push(Item::Spent(batch)) {
                        port.homeward.0.push(batch);
                        break;
                    }
                }
                port.to.flush();
                if port.sleeper.must_wake()
                    && let Some(waker) = &port.waker
                {
                    reactor.wake(waker);
                }
            }
        }
    }

    /// Takes in what the other cores sent, a bounded number of items, each shown with what goes home to its sender.
    /// Says whether more may be waiting.
    pub(super) fn drain(&mut self, mut each: impl FnMut(u16, Item, &mut Homeward)) -> bool {
        let mut more = false;
        for (core, port) in self.ports.iter_mut().enumerate() {
            let Some(port) = port else { continue };
            let mut taken = 0;
            while taken < PER_TURN
                && let Some(item) = port.from.pop()
            {
                taken += 1;
                each(core as u16, item, &mut port.homeward);
            }
            more |= taken == PER_TURN;
        }
        more
    }

    /// Announces that this core is about to sleep. `false`: something came in meanwhile, it must not.
    pub(super) fn prepare_sleep(&mut self) -> bool {
        self.sleeper.prepare_sleep();
        let idle = self.ports.iter_mut().flatten().all(|port| port.from.is_empty());
        if !idle {
            self.sleeper.awake();
        }
        idle
    }

    /// This core is awake again.
    pub(super) fn awake(&self) {
        self.sleeper.awake();
    }

    /// Whether items wait for room in a ring.
    pub(super) fn is_congested(&self) -> bool {
        self.ports.iter().flatten().any(|port| !port.outbox.is_empty())
    }
}

//! What joins a core and its companion: a ring of batches each way, and a few shared words.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::broker::core::Core;
use crate::forward;
use crate::reactor::mesh::{Consumer, Producer, Sleeper, ring};
use crate::reactor::{Reactor, Waker};

/// Batches the ring holds: each has at least 64 KiB where there are several.
const RING: usize = 128;

/// Shared words: the companion writes them, but for `waits` and `closed`, which are the core's.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Bytes the companion has read.
    pub(super) read: AtomicU64,
    /// Producers whose queue is full, as bits.
    pub(super) full: AtomicU64,
    /// The core has paused a channel: it is to be woken when something changes.
    pub(super) waits: AtomicBool,
    /// The core has ended: nothing more comes.
    pub(super) closed: AtomicBool,
    /// It was killed, rather than drained.
    pub(super) killed: AtomicBool,
    pub(super) companion: Sleeper,
    /// How to wake the core.
    pub(super) core: OnceLock<Waker>,
}

/// The core's end.
pub(in crate::broker) struct Outlet {
    to: Producer<Vec<u8>>,
    home: Consumer<Vec<u8>>,
    outbox: VecDeque<Vec<u8>>,
    words: Arc<Words>,
    companion: Waker,
    /// As the core's routes are numbered.
    producers: Vec<forward::Producer>,
    /// As `waits` was told last.
    waits: bool,
}

/// The companion's end.
pub(super) struct Intake {
    from: Consumer<Vec<u8>>,
    home: Producer<Vec<u8>>,
    pub(super) words: Arc<Words>,
    read: u64,
}

/// Both ends. `companion` wakes the companion's thread.
pub(super) fn join(companion: Waker) -> (Outlet, Intake) {
    let (to, from) = ring(RING);
    let (home_to, home_from) = ring(RING);
    let words = Arc::new(Words::default());
    let intake = Intake { from, home: home_to, words: Arc::clone(&words), read: 0 };
    (
        Outlet { to, home: home_from, outbox: VecDeque::new(), words, companion, producers: Vec::new(), waits: false },
        intake,
    )
}

impl Outlet {
    /// Tells the companion how to wake the core; before the core's first turn.
    pub(in crate::broker) fn set_waker(&self, core: Waker) {
        let _ = self.words.core.set(core);
    }

    /// Whose messages it hands over, as the core's routes are numbered.
    pub(super) fn set_producers(&mut self, producers: Vec<forward::Producer>) {
        self.producers = producers;
    }

    /// At the beginning of a turn: what the companion has read, and whom it can't serve, as of now.
    pub(in crate::broker) fn turn(&mut self, core: &mut Core) {
        while let Some(batch) = self.home.pop() {
            core.recycle_tapped(batch);
        }
        core.tap_turn(self.words.read.load(Ordering::Acquire), self.words.full.load(Ordering::Acquire));
    }

    /// At the end of a turn: hands over what was copied in it. Wakes the companion at most once, with the reactor's next
    /// wait.
    pub(in crate::broker) fn hand_over(&mut self, core: &mut Core, reactor: &mut impl Reactor) {
        if self.waits != core.is_paused() {
            self.waits = core.is_paused();
            self.words.waits.store(self.waits, Ordering::SeqCst);
        }
        while let Some(batch) = core.next_tapped() {
            self.outbox.push_back(batch);
        }
        if core.tap_known().1 != 0 {
            let drops = core.tap_dropped().iter();
            self.producers.iter().zip(drops).for_each(|(producer, drops)| producer.set_refused(drops.queue_full));
        }
        if self.push() && self.words.companion.must_wake() {
            reactor.wake(&self.companion);
        }
    }

    /// Moves what waits into the ring, as far as there is room: whether there was anything to move.
    fn push(&mut self) -> bool {
        while let Some(batch) = self.outbox.pop_front() {
            if let Err(batch) = self.to.push(batch) {
                self.outbox.push_front(batch);
                break;
            }
        }
        self.to.flush()
    }

    /// Whether batches wait for room in the ring, or a channel for the companion: the core is not to sleep for long.
    pub(in crate::broker) fn is_congested(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether something may have changed since the turn began that a paused channel waits for. To be asked before the
    /// core sleeps: afterwards it is woken.
    pub(in crate::broker) fn has_news(&self, core: &Core) -> bool {
        core.is_paused()
            && core.tap_known() != (self.words.read.load(Ordering::SeqCst), self.words.full.load(Ordering::SeqCst))
    }

    /// The core ends at once, and so does the companion.
    pub(in crate::broker) fn kill(&self) {
        self.words.killed.store(true, Ordering::Release);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // its thread ends now, and may wait for room: the companion is told to make it
        let is_alone = |words: &Arc<Words>| words.killed.load(Ordering::Acquire) || Arc::strong_count(words) == 1;
        self.push();
        while !self.outbox.is_empty() && !is_alone(&self.words) {
            self.companion.wake();
            std::thread::yield_now();
            self.push();
        }
        self.words.closed.store(true, Ordering::Release);
        self.companion.wake();
    }
}

impl Intake {
    /// The next batch.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.from.pop()
    }

    /// A batch has been read: its buffer goes home, if there is room on the way.
    pub(super) fn give_back(&mut self, batch: Vec<u8>) {
        self.read += batch.len() as u64;
        let _ = self.home.push(batch);
        self.home.flush();
        self.words.read.store(self.read, Ordering::SeqCst);
    }

    /// Says whose queues are full, and wakes the core if it waits for such news, or for what was read.
    pub(super) fn tell(&self, full: u64, has_read: bool) {
        let changed = self.words.full.swap(full, Ordering::SeqCst) != full;
        if (changed || has_read)
            && self.words.waits.load(Ordering::SeqCst)
            && let Some(core) = self.words.core.get()
        {
            core.wake();
        }
    }

    /// Whether nothing waits and nothing will come. The order matters: what was flushed before `closed` is then seen.
    pub(super) fn is_over(&mut self) -> bool {
        self.words.closed.load(Ordering::Acquire) && self.from.is_empty()
    }

    /// Announces sleep; `false`: something came in meanwhile.
    pub(super) fn prepare_sleep(&mut self) -> bool {
        self.words.companion.prepare_sleep();
        let idle = self.from.is_empty() && !self.words.closed.load(Ordering::Acquire);
        if !idle {
            self.words.companion.awake();
        }
        idle
    }

    pub(super) fn awake(&self) {
        self.words.companion.awake();
    }
}

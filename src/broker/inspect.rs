//! Questions to the cores, answered in their turns: how anybody outside sees what a core's own thread alone may touch.
//!
//! ```text
//!   admin thread ── ask ──► desk ── one question a turn ──► View ── answer ──► admin thread
//!                    └──── wakes the core if it sleeps
//! ```
//!
//! Nothing is published that nobody asked for. A core looks at one flag a turn, takes a lock only when it is set, and
//! answers one question a turn; what is long comes in pages, so no answer holds up a turn for more than some tens of
//! microseconds.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::companion::CoreProducer;
use super::core::{ChannelSnapshot, ConnSnapshot, Core, Figures, Meter, Page};
use super::options::{Io, ListenAddr, ServerOptions};
use super::server::Stopper;
use super::shard::TlsFigures;
use super::tell::Told;
use crate::base::{Histogram, Time};

/// Questions that may wait for one core: an asker that does not wait for answers is its own fault.
const WAITING: usize = 1024;

type Question = Box<dyn FnOnce(&View<'_>) + Send>;

/// Where one core finds the questions to it.
#[derive(Default)]
pub(super) struct Desk {
    waiting: AtomicBool,
    /// `None` once the core has ended.
    questions: Mutex<Option<VecDeque<Question>>>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Desk {
    pub(super) fn new() -> Desk {
        Desk { waiting: AtomicBool::new(false), questions: Mutex::new(Some(VecDeque::new())) }
    }

    /// Puts a question; `false`, and the question dropped, where nobody will answer.
    fn put(&self, question: Question) -> bool {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        match questions.as_mut().filter(|questions| questions.len() < WAITING) {
            Some(questions) => {
                questions.push_back(question);
                self.waiting.store(true, Ordering::Release);
                true
            }
            None => false,
        }
    }

    /// Whether a question waits.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Answers one question. An asker may hold the lock just now: then it is the next turn's.
    pub(super) fn answer(&self, view: &View<'_>) {
        let Ok(mut questions) = self.questions.try_lock() else { return };
        let question = questions.as_mut().and_then(VecDeque::pop_front);
        self.waiting.store(questions.as_ref().is_some_and(|questions| !questions.is_empty()), Ordering::Release);
        drop(questions);
        if let Some(question) = question {
            question(view);
        }
    }

    /// The core has ended: who waits learns that there is no answer.
    pub(super) fn close(&self) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What a core shows of itself, in the middle of its turn. Every look is bounded.
#[derive(Debug)]
pub struct View<'a> {
    pub(super) core: &'a Core,
    pub(super) turns: &'a Turns,
    pub(super) told: Told,
    /// Receive buffers: how many, and how many are free.
    pub(super) buffers: (usize, usize),
    pub(super) tls: TlsFigures,
}

/// What a shard measures of its turns.
#[derive(Debug)]
pub(super) struct Turns {
    lengths: Histogram,
    thread: u32,
}

impl Turns {
    pub(super) fn new() -> Turns {
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        Turns { lengths: Histogram::new(), thread }
    }

    /// A turn is over.
    pub(super) fn ended(&mut self, began: Time, ended: Time) {
        self.lengths.record(ended.nanos_since(began));
    }
}

/// The figures of one core's loop.
#[derive(Clone, Debug)]
pub struct ShardFigures {
    /// Those of its broker core.
    pub core: Figures,
    /// How long its turns took, from waking up to going to sleep: system calls that wait and send are not in it.
    pub turns: Histogram,
    /// What was told in log and traces, and what was not.
    pub told: Told,
    /// The kernel's id of its thread.
    pub thread: u32,
    /// Receive buffers.
    pub buffers: usize,
    /// Of them, those that nobody leases.
    pub buffers_free: usize,
    /// TLS handshakes and sessions.
    pub tls: TlsFigures,
}

impl View<'_> {
    /// The figures.
    #[must_use]
    pub fn figures(&self) -> ShardFigures {
        ShardFigures {
            core: self.core.figures(),
            turns: self.turns.lengths.clone(),
            told: self.told,
            thread: self.turns.thread,
            buffers: self.buffers.0,
            buffers_free: self.buffers.1,
            tls: self.tls,
        }
    }

    /// By producer, as [`CoreProducer`]s are numbered: messages that found no room on their way to it.
    #[must_use]
    pub fn not_handed_over(&self) -> Vec<u64> {
        self.core.tap_dropped().iter().map(|drops| drops.no_room).collect()
    }

    /// Some of the connections; begin with 0.
    #[must_use]
    pub fn connections_from(&self, from: u32) -> Page<ConnSnapshot> {
        self.core.connections_from(from)
    }

    /// Some of the channels; begin with 0.
    #[must_use]
    pub fn channels_from(&self, from: u32) -> Page<ChannelSnapshot> {
        self.core.channels_from(from)
    }

    /// Some of the channels' meters; begin with 0.
    #[must_use]
    pub fn meters_from(&self, from: u32) -> Page<Meter> {
        self.core.meters_from(from)
    }

    /// The sum of some of the channels' meters, and where to go on; begin with 0.
    #[must_use]
    pub fn meters_sum_from(&self, from: u32) -> (Meter, Option<u32>) {
        self.core.meters_sum_from(from)
    }
}

/// Looks into a running [`Server`](super::Server), from any thread. Cloning gives another handle to the same.
///
/// ```
/// use std::sync::mpsc;
/// let server = corelay::Server::bind("127.0.0.1:0").unwrap();
/// let (answer, answered) = mpsc::channel();
/// server.inspector().ask(0, move |core| {
///     let _ = answer.send(core.figures().core.connections);
/// });
/// assert_eq!(answered.recv(), Ok(0));
/// # server.kill();
/// ```
#[derive(Clone, Debug)]
pub struct Inspector {
    desks: Arc<[Desk]>,
    stopper: Stopper,
    options: Arc<ServerOptions>,
    addrs: Arc<[ListenAddr]>,
    io: Io,
    cpus: Arc<[usize]>,
    producers: Arc<[CoreProducer]>,
}

impl Inspector {
    pub(super) fn new(
        desks: Arc<[Desk]>,
        stopper: Stopper,
        options: ServerOptions,
        addrs: &[ListenAddr],
        io: Io,
        cpus: &[usize],
        producers: Vec<CoreProducer>,
    ) -> Inspector {
        Inspector {
            desks,
            stopper,
            options: Arc::new(options),
            addrs: addrs.into(),
            io,
            cpus: cpus.into(),
            producers: producers.into(),
        }
    }

    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> u16 {
        self.desks.len() as u16
    }

    /// Has the core call `question` in its next turn or one soon after, on its own thread: it should only take what it
    /// wants to know and send it on, without waiting for anything. Where there is no such core, or it has ended,
    /// `question` is dropped without being called; that is how to learn of it.
    pub fn ask(&self, core: u16, question: impl FnOnce(&View<'_>) + Send + 'static) {
        if self.desks.get(usize::from(core)).is_some_and(|desk| desk.put(Box::new(question))) {
            self.stopper.wake(core);
        }
    }

    /// Whether the broker is on its way to its end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.stopper.is_stopping()
    }

    /// Ends the broker.
    #[must_use]
    pub fn stopper(&self) -> &Stopper {
        &self.stopper
    }

    /// The options it runs with, the limits as the machine allows them.
    #[must_use]
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// The same, to be kept.
    pub(super) fn shared_options(&self) -> Arc<ServerOptions> {
        Arc::clone(&self.options)
    }

    /// Where it listens, as bound.
    #[must_use]
    pub fn addrs(&self) -> &[ListenAddr] {
        &self.addrs
    }

    /// Which reactor runs it.
    #[must_use]
    pub fn io(&self) -> Io {
        self.io
    }

    /// The producers, those of the first core first.
    #[must_use]
    pub fn producers(&self) -> &[CoreProducer] {
        &self.producers
    }

    /// The CPUs of the cores, in order.
    #[must_use]
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    use crate::base::limits::Limits;
    use crate::broker::core::Options;

    fn core() -> Core {
        let options = Options {
            core: 0,
            cores: 1,
            server: uuid::Uuid::nil(),
            seed: 1,
            secret: 1,
            limits: Limits::default(),
            channels: Vec::new(),
            copy_below: 2048,
            routes: Vec::new(),
            tap_bytes: 0,
            access: Arc::default(),
            meters: 1,
        };
        Core::new(options, Time::ZERO)
    }

    #[test]
    fn a_turn_answers_one_question_and_an_ended_core_none() {
        let (core, turns, desk) = (core(), Turns::new(), Desk::new());
        let (told, tls) = (Told::default(), TlsFigures::default());
        let view = View { core: &core, turns: &turns, told, buffers: (64, 60), tls };
        let (answer, answered) = mpsc::channel();
        for n in 0..3 {
            let answer = answer.clone();
            assert!(desk.put(Box::new(move |view| answer.send((n, view.figures().buffers_free)).unwrap())));
        }
        desk.answer(&view);
        assert_eq!((answered.try_recv(), answered.try_recv().is_err()), (Ok((0, 60)), true));
        assert!(desk.is_waiting());
        desk.answer(&view);
        assert_eq!(answered.try_recv(), Ok((1, 60)));
        desk.close();
        desk.answer(&view);
        assert!(!desk.is_waiting() && answered.try_recv().is_err());
        assert!(!desk.put(Box::new(|_| unreachable!("the core has ended"))));
    }

    #[test]
    fn so_many_questions_may_wait() {
        let desk = Desk::new();
        assert!((0..WAITING).all(|_| desk.put(Box::new(|_| ()))));
        assert!(!desk.put(Box::new(|_| ())));
    }
}

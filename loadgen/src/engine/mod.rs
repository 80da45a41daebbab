//! The load engine: one thread drives many connections, consumers and providers both, on one ring.
//!
//! ```text
//!            ┌─ send what is due ◄─ schedule          (open loop)
//!   a turn:  ├─ flush: one send for each connection that has something
//!            ├─ wait: one kernel entry
//!            └─ completions ─► provider: answer
//!                           └► consumer: record, begin the next   (closed loop)
//! ```
//!
//! Once warm, a request allocates nothing; the clock is read once a turn and once for each received piece.

mod conns;
mod record;
mod worker;

pub use conns::Conns;
pub use record::{Counts, Interval, LATE, Recorder, Whole, new_histogram};
pub use worker::Worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::schedule::Arrivals;
use crate::size::Size;

/// How requests are begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// At intended times, whatever the answers do.
    Open {
        /// Requests a second, over all threads.
        rate: f64,
        /// How they are spaced.
        arrivals: Arrivals,
    },
    /// The next one when one is answered, so many at a time on each consumer.
    Closed,
}

/// What one thread is told. Times are nanoseconds from `epoch`.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Its number, of `threads`.
    pub thread: usize,
    /// How many threads there are.
    pub threads: usize,
    /// How requests are begun.
    pub mode: Mode,
    /// How large they are.
    pub size: Size,
    /// For sizes and arrivals.
    pub seed: u64,
    /// When the run began.
    pub epoch: Instant,
    /// From here on requests are recorded.
    pub warm: u64,
    /// From here on none is begun.
    pub end: u64,
    /// How long answers are waited for after that.
    pub patience: u64,
    /// Length of an interval of the report.
    pub interval: u64,
    /// Measured requests after which the thread ends, if not before.
    pub requests: Option<u64>,
    /// How long it looks for work before it sleeps.
    pub spin: u64,
    /// Threads whose requests are not all done.
    pub running: Arc<AtomicUsize>,
    /// Ends the run early.
    pub stop: Arc<AtomicBool>,
}

impl Orders {
    /// A thread's requests are done: it is counted out, once. Whether all threads' are: until then its providers serve
    /// the others.
    pub(crate) fn leave(&self, left: &mut bool) -> bool {
        if !std::mem::replace(left, true) {
            self.running.fetch_sub(1, Ordering::AcqRel);
        }
        self.running.load(Ordering::Acquire) == 0
    }
}

/// What a load thread runs.
pub trait Driver {
    /// Runs from `epoch`, the start of its clock, to the end.
    ///
    /// # Errors
    /// What the kernel said, if it can't go on.
    fn run(&mut self, epoch: Instant) -> io::Result<()>;

    /// Why connections ended, the first few.
    fn complaints(&mut self) -> Vec<String>;
}

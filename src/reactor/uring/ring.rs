//! The two queues shared with the kernel: handing submissions over, taking completions out.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use crate::base::Key;

/// What a completion belongs to. With a slot and its generation it makes up the submission's `user_data`:
/// generation (32 bits), kind (4), slot (28).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Op {
    /// Of no interest: cancellations, wake-ups of others.
    Ignore = 0,
    Receive,
    Send,
    Writable,
    Accept,
    /// Somebody wakes us.
    Woken,
}

const SLOT_BITS: u32 = 28;
/// Slots a reactor can have: more than a process can have descriptors.
pub(super) const MAX_SLOTS: u32 = 1 << SLOT_BITS;
const KIND_MASK: u64 = 0xf << SLOT_BITS;

impl Op {
    /// The `user_data` of this operation on that slot.
    pub(super) fn on(self, key: Key) -> u64 {
        key.pack() | (self as u64) << SLOT_BITS
    }

    fn of(user_data: u64) -> Op {
        match (user_data & KIND_MASK) >> SLOT_BITS {
            1 => Op::Receive,
            2 => Op::Send,
            3 => Op::Writable,
            4 => Op::Accept,
            5 => Op::Woken,
            _ => Op::Ignore,
        }
    }
}

/// A completion, copied out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) op: Op,
    pub(super) key: Key,
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether the operation goes on and will complete again.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer the kernel took for it.
    pub(super) fn buffer(&self) -> Option<u32> {
        cqueue::buffer_select(self.flags).map(u32::from)
    }
}

pub(super) struct Ring {
    uring: IoUring,
    /// Submissions for which the queue had no room, in order.
    overflow: VecDeque<squeue::Entry>,
}

impl Ring {
    pub(super) fn new(uring: IoUring) -> Ring {
        Ring { uring, overflow: VecDeque::new() }
    }

    /// Queues a submission; the next [`Ring::enter`] hands it over.
    ///
    /// # Safety
    /// What the entry points to must stay valid and, where the kernel writes, untouched until its completion; its
    /// descriptor must stay open until the entry has been handed over.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: passed on to the caller.
        if !self.overflow.is_empty() || unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.overflow.push_back(entry);
        }
    }

    /// Ends the operation with this `user_data`, if it is still there; it completes in any case.
    pub(super) fn cancel(&mut self, user_data: u64) {
        let entry = io_uring::opcode::AsyncCancel::new(user_data).build();
        // SAFETY: points to nothing and has no descriptor.
        unsafe { self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(Op::Ignore as u64)) };
    }

    /// Whether every submission has been handed over.
    pub(super) fn all_submitted(&mut self) -> bool {
        self.overflow.is_empty() && self.uring.submission().is_empty()
    }

    /// Whether completions are there that no [`Ring::take`] has shown, or work that would make some.
    pub(super) fn is_ready(&mut self) -> bool {
        if !self.uring.completion().is_empty() {
            return true;
        }
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether completions wait in the kernel for room in the queue.
    pub(super) fn has_overflowed(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Whether more completions can be had by entering again.
    pub(super) fn has_deferred(&mut self) -> bool {
        self.uring.submission().taskrun()
    }

    /// Hands all submissions over, then waits for one completion at most as long as `timeout` (`None`: for ever).
    /// `false` where the kernel did not take all, because it is out of memory or completions must be taken first.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        loop {
            self.top_up();
            let timeout = if self.overflow.is_empty() { timeout } else { Some(Duration::ZERO) };
            let nothing = timeout == Some(Duration::ZERO);
            if nothing && self.uring.submission().is_empty() && !self.is_ready() {
                return Ok(true);
            }
            let before = self.uring.submission().len();
            match self.enter_once(timeout) {
                Ok(()) => {}
                Err(error) => match error.raw_os_error() {
                    // Time is up, or a signal came in: both after the submissions were taken, if any.
                    Some(libc::ETIME | libc::EINTR) => {}
                    Some(libc::EBUSY | libc::EAGAIN) => return Ok(false),
                    _ => return Err(error),
                },
            }
            if self.all_submitted() {
                return Ok(true);
            }
            if self.uring.submission().len() == before {
                return Ok(false);
            }
        }
    }

    fn enter_once(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let submissions = self.uring.submission().len() as u32;
        // Without GETEVENTS the kernel would not run what it deferred.
        let flags = EnterFlags::GETEVENTS;
        let submitter = self.uring.submitter();
        let entered = match timeout {
            // No timespec: arming a timer that has run out already costs a trip through the scheduler.
            // SAFETY: no argument; what the submissions point to was promised to `push`.
            Some(Duration::ZERO) => unsafe { submitter.enter::<libc::sigset_t>(submissions, 0, flags.bits(), None) },
            // SAFETY: as above.
            None => unsafe { submitter.enter::<libc::sigset_t>(submissions, 1, flags.bits(), None) },
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                let flags = flags | EnterFlags::EXT_ARG;
                // SAFETY: as above; the argument is of the kind that EXT_ARG says, and lives until the call returns.
                unsafe { submitter.enter(submissions, 1, flags.bits(), Some(&args)) }
            }
        };
        entered.map(drop)
    }

    fn top_up(&mut self) {
        if self.overflow.is_empty() {
            return;
        }
        let mut queue = self.uring.submission();
        while let Some(entry) = self.overflow.front() {
            // SAFETY: promised to `push`.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.overflow.pop_front();
        }
    }

    /// Polls for something to happen, without sleeping, at most `how_long`.
    pub(super) fn spin(&mut self, how_long: Duration) {
        let start = Instant::now();
        while !self.is_ready() && start.elapsed() < how_long {
            std::hint::spin_loop();
        }
    }

    /// Copies out all the completions that are there.
    pub(super) fn take(&mut self, into: &mut Vec<Completion>) {
        into.clear();
        into.extend(self.uring.completion().map(|entry| Completion {
            op: Op::of(entry.user_data()),
            key: Key::unpack(entry.user_data() & !KIND_MASK),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_goes_there_and_back() {
        for op in [Op::Ignore, Op::Receive, Op::Send, Op::Writable, Op::Accept, Op::Woken] {
            let key = Key::unpack(0xfedc_ba98_0fff_fffe);
            let user_data = op.on(key);
            assert_eq!(Op::of(user_data), op);
            assert_eq!(Key::unpack(user_data & !KIND_MASK), key);
        }
    }
}

//! One io_uring of one thread.

use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, squeue};

use super::buffers::Buffers;

/// Operations one turn can queue before it has to enter the kernel twice.
const ENTRIES: u32 = 4096;

/// A completion, copied out of the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cqe {
    pub(super) user: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

impl Cqe {
    /// Whether the operation goes on.
    #[inline]
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The buffer the kernel picked.
    #[inline]
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// The ring: operations in, one kernel entry a turn, completions out.
pub(super) struct Ring {
    ring: IoUring,
    /// Operations whose last completion has not come.
    outstanding: u32,
}

impl Ring {
    /// A ring for this thread alone.
    pub(super) fn new() -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(ENTRIES * 4)
            .build(ENTRIES)
            .map_err(|error| {
                let hint = "io_uring with DEFER_TASKRUN (Linux 6.1) is needed: check the kernel's version, \
                            kernel.io_uring_disabled, and the container's seccomp profile";
                io::Error::new(error.kind(), format!("{error}; {hint}"))
            })?;
        Ok(Ring { ring, outstanding: 0 })
    }

    /// For what is registered with the kernel at the start.
    pub(super) fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// All memory it points to must stay valid and unmoved until its last completion.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: passed on to the caller.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                self.outstanding += 1;
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    /// Submits what is queued; completions stay in the ring.
    pub(super) fn submit(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        buffers.publish();
        match self.ring.submit() {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Submits what is queued and waits for completions: until one is there, or `timeout` has passed. They are
    /// appended to `into`.
    pub(super) fn turn(
        &mut self,
        buffers: &mut Buffers,
        timeout: Option<Duration>,
        into: &mut Vec<Cqe>,
    ) -> io::Result<()> {
        buffers.publish();
        let entered = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(Duration::ZERO) => self.ring.submit(),
            Some(timeout) => {
                let limit = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        match entered {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        for entry in self.ring.completion() {
            let cqe = Cqe { user: entry.user_data(), result: entry.result(), flags: entry.flags() };
            self.outstanding -= u32::from(!cqe.more());
            into.push(cqe);
        }
        Ok(())
    }
}

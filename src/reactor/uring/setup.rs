//! Building a ring with what the running kernel has, found out by doing.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::{Builder, IoUring, cqueue, opcode, squeue, types::Fd};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::buffers::{BufferRing, GROUP};
use super::ring::Ring;
use super::{SendMode, Uring, send};
use crate::base::Table;
use crate::reactor::pool::Pool;
use crate::reactor::{Options, Waker, sys};

/// Why there is no io_uring to be had, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel knows no io_uring at all.
    #[error("this kernel has no io_uring: run Linux 6.1 or later, or use --io epoll")]
    Unsupported,
    /// The administrator switched it off.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled is {level}): set it with `sysctl -w \
         kernel.io_uring_disabled=0`, or use --io epoll"
    )]
    Disabled {
        /// The value of the sysctl.
        level: u8,
    },
    /// A seccomp profile or security module forbids it, as Docker's and containerd's default profiles do.
    #[error(
        "io_uring is forbidden to this process, as by the default seccomp profile of Docker and containerd: allow \
         io_uring_setup, io_uring_enter and io_uring_register in the profile (Docker: --security-opt \
         seccomp=profile.json), or use --io epoll"
    )]
    Forbidden,
    /// Something this reactor is built on is missing.
    #[error("this kernel's io_uring lacks {missing}: run Linux 6.1 or later, or use --io epoll")]
    TooOld {
        /// What is missing.
        missing: &'static str,
    },
    /// The rings can't be locked in memory.
    #[error(
        "the memory lock limit of {limit} bytes is too low for io_uring's queues: raise it (`ulimit -l`, systemd's \
         LimitMEMLOCK=, Docker's --ulimit memlock=), or use --io epoll"
    )]
    MemoryLock {
        /// RLIMIT_MEMLOCK.
        limit: u64,
    },
    /// Anything else.
    #[error("{doing} failed: {source}")]
    Other {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SetupError {
    fn other(doing: &'static str) -> impl Fn(io::Error) -> SetupError {
        move |source| SetupError::Other { doing, source }
    }

    /// What a failing step means.
    fn because(doing: &'static str, missing: &'static str, source: io::Error) -> SetupError {
        match source.raw_os_error() {
            Some(libc::ENOSYS) => SetupError::Unsupported,
            Some(libc::EPERM | libc::EACCES) => match disabled_level() {
                Some(level) if level > 0 => SetupError::Disabled { level },
                _ => SetupError::Forbidden,
            },
            Some(libc::EINVAL) => SetupError::TooOld { missing },
            Some(libc::ENOMEM) => match sys::memory_lock_limit() {
                Some(limit) => SetupError::MemoryLock { limit },
                None => SetupError::Other { doing, source },
            },
            _ => SetupError::Other { doing, source },
        }
    }
}

fn disabled_level() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Completions that fit, for each submission: one submission of a multishot makes many.
const COMPLETIONS: u32 = 4;

pub(super) fn build(options: &Options, mode: Option<SendMode>) -> Result<Uring, SetupError> {
    let mut uring = make_ring(options)?;
    let pool = Pool::new(options.buffers, options.buffer_size).map_err(SetupError::other("making receive buffers"))?;
    let mut buffers = BufferRing::register(&uring, &pool).map_err(|error| {
        SetupError::because("registering receive buffers", "provided-buffer rings (Linux 5.19)", error)
    })?;
    buffers.refill(&pool);
    let probed = probe(&mut uring, &mut buffers, &pool)?;
    buffers.refill(&pool);
    let registered = register(&uring, &pool);
    let waker = Waker::new().map_err(SetupError::other("making an eventfd"))?;
    let mut reactor = Uring {
        ring: Ring::new(uring),
        buffers,
        pool,
        registered,
        mode: mode.unwrap_or(probed),
        spin: options.spin,
        sockets: Table::new(),
        listeners: Table::new(),
        waker,
        woken_armed: false,
        ending: false,
        waking: Vec::new(),
        parked: VecDeque::new(),
        unconfirmed: Vec::new(),
        prompt: false,
        behind: false,
        freed: false,
        closing: Vec::new(),
        sent: VecDeque::new(),
        events: VecDeque::new(),
        stretches: Vec::new(),
        completions: Vec::new(),
    };
    reactor.arm_waker();
    Ok(reactor)
}

/// The ring with the most this kernel offers. An unknown flag is EINVAL.
fn make_ring(options: &Options) -> Result<IoUring, SetupError> {
    let flavours: [fn(&mut Builder) -> &mut Builder; 3] = [
        // Linux 6.1: completions' work is done when we enter, never in between.
        |builder| builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag(),
        // Linux 6.0, 5.19: at least no interrupt for it.
        |builder| builder.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag(),
        |builder| builder.setup_coop_taskrun().setup_taskrun_flag(),
    ];
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for flavour in flavours {
        let mut builder = IoUring::builder();
        // A fork must not share the queues.
        builder.dontfork().setup_clamp().setup_submit_all().setup_cqsize(options.entries.max(2) * COMPLETIONS);
        match flavour(&mut builder).build(options.entries.max(2)) {
            Ok(uring) => return check_features(uring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(error) => {
                last = error;
                break;
            }
        }
    }
    Err(SetupError::because("io_uring_setup", "cooperative task running (Linux 5.19)", last))
}

fn check_features(uring: IoUring) -> Result<IoUring, SetupError> {
    let has = uring.params();
    let needed = [
        (has.is_feature_nodrop(), "lossless completions (Linux 5.5)"),
        (has.is_feature_ext_arg(), "waiting with a timeout (Linux 5.11)"),
        (has.is_feature_skip_cqe_on_success(), "submissions without completions (Linux 5.17)"),
    ];
    match needed.iter().find(|(has, _)| !has) {
        Some(&(_, missing)) => Err(SetupError::TooOld { missing }),
        None => Ok(uring),
    }
}

/// Pinned once, the pool's pages need no look-up where a send or receive names them by index. Nothing depends on it.
fn register(uring: &IoUring, pool: &Pool) -> bool {
    let memory = pool.memory();
    let all = libc::iovec { iov_base: memory.base().as_ptr().cast(), iov_len: memory.len() };
    // SAFETY: the mapping outlives the ring: the reactor drops it later.
    unsafe { uring.submitter().register_buffers(&[all]) }.is_ok()
}

/// Tries multishot receive and sends without completion on a pair of sockets.
fn probe(uring: &mut IoUring, buffers: &mut BufferRing, pool: &Pool) -> Result<SendMode, SetupError> {
    let failed = SetupError::other("probing io_uring on a pair of sockets");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, peer) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|error| failed(error.into()))?;
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).map_err(|error| failed(error.into()))?;
    let fd = Fd(ours.as_raw_fd());

    let mut multishot = false;
    rustix::io::write(&peer, b"x").map_err(|error| failed(error.into()))?;
    submit(uring, opcode::RecvMulti::new(fd, GROUP).build()).map_err(&failed)?;
    // The byte, then the end of the stream, for nothing of this may be in flight later.
    for _ in 0..2 {
        for entry in wait(uring).map_err(&failed)? {
            if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
                buffers.took_one();
                pool.put_back(u32::from(buffer));
            }
            multishot |= entry.result() == 1 && cqueue::more(entry.flags());
        }
        if !multishot {
            return Err(SetupError::TooOld { missing: "multishot receive (Linux 6.0)" });
        }
        rustix::net::shutdown(&peer, rustix::net::Shutdown::Write).map_err(|error| failed(error.into()))?;
    }
    probe_sends(uring, fd, &peer).map_err(failed)
}

/// Whether a whole send makes no completion, and a short one and a refused one make theirs at once.
fn probe_sends(uring: &mut IoUring, fd: Fd, peer: &impl std::os::fd::AsFd) -> io::Result<SendMode> {
    static BLOB: [u8; 256 << 10] = [0; 256 << 10];
    let send = |len: usize| {
        opcode::Send::new(fd, BLOB.as_ptr(), len as u32).flags(send::FLAGS).build().flags(Flags::SKIP_SUCCESS)
    };
    submit(uring, send(1))?;
    let whole = uring.completion().next().is_none()
        && matches!(rustix::net::recv(peer, &mut [0u8; 8][..], RecvFlags::DONTWAIT), Ok((1, _)));
    submit(uring, send(BLOB.len()))?;
    let short = uring.completion().next().is_some_and(|entry| (1..BLOB.len() as i32).contains(&entry.result()));
    submit(uring, send(BLOB.len()))?;
    let refused = uring.completion().next().is_some_and(|entry| entry.result() == -libc::EAGAIN);
    Ok(if whole && short && refused { SendMode::Silent } else { SendMode::Completions })
}

fn submit(uring: &mut IoUring, entry: squeue::Entry) -> io::Result<()> {
    // SAFETY: entries of the probe point to constants, or take buffers from the ring; its sockets stay open until
    // the last submission is consumed, and the kernel holds them where it still uses them.
    unsafe { uring.submission().push(&entry) }.map_err(io::Error::other)?;
    let flags = io_uring::EnterFlags::GETEVENTS.bits();
    // SAFETY: no argument.
    unsafe { uring.submitter().enter::<libc::sigset_t>(1, 0, flags, None) }.map(drop)
}

fn wait(uring: &mut IoUring) -> io::Result<Vec<cqueue::Entry>> {
    let timeout = io_uring::types::Timespec::from(Duration::from_secs(1));
    let args = io_uring::types::SubmitArgs::new().timespec(&timeout);
    match uring.submitter().submit_with_args(1, &args) {
        Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error),
        _ => Ok(uring.completion().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_names_its_remedy() {
        let text = |code| SetupError::because("x", "y", io::Error::from_raw_os_error(code)).to_string();
        for code in [libc::ENOSYS, libc::EPERM, libc::EINVAL] {
            assert!(text(code).contains("--io epoll"), "{}", text(code));
        }
        assert!(text(libc::EINVAL).contains("lacks y: run Linux 6.1"));
        assert!(text(libc::EMFILE).contains("x failed: Too many open files"));
    }

    #[test]
    fn impossible_pools_are_refused() {
        let options = Options { buffers: 3, ..Options::default() };
        assert!(matches!(Uring::new(&options), Err(SetupError::Other { .. })));
    }

    /// This is no requirement of the broker, but of the machines its tests are run on: elsewhere the probe's
    /// verdict would go unnoticed.
    #[test]
    fn this_kernel_sends_silently() {
        assert_eq!(Uring::new(&Options::default()).expect("io_uring").send_mode(), SendMode::Silent);
    }
}

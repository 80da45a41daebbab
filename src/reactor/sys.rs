//! The clock, limits and CPUs of the process, and the last acts of a socket: thin, safe wrappers.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::base::Time;

/// The present, on CLOCK_MONOTONIC.
#[must_use]
pub fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Never negative: the clock starts at boot.
    Time::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// Raises the limit of open descriptors to what the process may have, and says how many those are.
///
/// # Errors
/// What setrlimit(2) says.
pub fn raise_nofile() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// How many bytes the process may lock in memory; `None`: no limit.
#[must_use]
pub fn memory_lock_limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// Bytes of memory the process has resident; 0 where /proc doesn't say.
#[must_use]
pub fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<usize> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size()
}

/// Has the heap give all free pages back to the system. Each part of the heap is locked while it is looked through:
/// some milliseconds for 100 MiB. Does nothing where the C library isn't glibc.
#[allow(unsafe_code)]
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim(3) may be called by any thread at any time; it touches nothing that is allocated.
        unsafe { libc::malloc_trim(0) };
    }
}

/// The CPUs the calling thread may run on, in ascending order.
///
/// # Errors
/// What sched_getaffinity(2) says.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// EINVAL where the process may not use that CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Closes a socket on which nothing is in flight.
///
/// Closing with unread bytes makes TCP send RST and forget what it had yet to deliver, so these are read first;
/// a peer that goes on sending gets its RST later, when what was sent to it is mostly there.
pub(super) fn close_socket(fd: OwnedFd, abort: bool) {
    if abort {
        // Fails on a socket that isn't TCP, where there is no RST to send either.
        let _ = rustix::net::sockopt::set_socket_linger(&fd, Some(Duration::ZERO));
        return;
    }
    // Fails where the peer is gone already.
    if rustix::net::shutdown(&fd, Shutdown::Write).is_err() {
        return;
    }
    // MSG_TRUNC discards without copying on TCP. 100 x 64 KiB are more than a receive buffer holds (tcp_rmem's
    // default maximum is 6 MiB), and an end for a peer that fills it as fast.
    let mut scrap = [MaybeUninit::<u8>::uninit(); 64 << 10];
    for _ in 0..100 {
        match rustix::net::recv(&fd, &mut scrap[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, n)) if n > 0 => {}
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_on() {
        let first = now();
        assert!(first > Time::ZERO);
        assert!(now() >= first);
    }

    #[test]
    fn a_trimmed_heap_is_smaller() {
        // small ones, so that they are on the heap; the last keeps the heap's end where it is
        let mut crowd: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; 64 << 10]).collect();
        let full = resident();
        let last = crowd.pop();
        drop(crowd);
        trim_heap();
        // other tests of this process allocate meanwhile, but not that much
        assert!(!cfg!(target_env = "gnu") || resident() + (30 << 20) < full, "{} after {full}", resident());
        drop(last);
    }

    #[test]
    fn limits_and_cpus_are_there() {
        assert!(raise_nofile().expect("within the hard limit") > 0);
        assert_eq!(raise_nofile().ok(), getrlimit(Resource::Nofile).current.or(Some(u64::MAX)));
        let cpus = allowed_cpus().expect("a mask");
        assert!(!cpus.is_empty());
        let last = *cpus.last().expect("one at least");
        std::thread::spawn(move || {
            pin(last).expect("an allowed CPU");
            assert_eq!(allowed_cpus().expect("a mask"), [last]);
            assert!(pin(1 << 20).is_err());
        })
        .join()
        .expect("pinned");
    }
}

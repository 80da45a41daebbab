//! What this process uses of the machine, from /proc.

use std::fs;
use std::time::Duration;

/// What this process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time of all threads, ended ones included.
    pub(super) cpu: Duration,
    /// Resident memory, in bytes.
    pub(super) resident: u64,
    /// The most it ever was.
    pub(super) peak: u64,
    /// Open descriptors.
    pub(super) files: u64,
}

/// What it has used; zero where /proc doesn't say.
pub(super) fn usage() -> Usage {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Usage {
        cpu: Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec.unsigned_abs() as u32),
        resident: field(&status, "VmRSS:").unwrap_or(0) << 10,
        peak: field(&status, "VmHWM:").unwrap_or(0) << 10,
        files: fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64),
    }
}

/// CPU time of one thread of this process.
pub(super) fn thread_cpu(thread: u32) -> Option<Duration> {
    // the first number is the time on a CPU, in nanoseconds; `stat` would count ticks of 10 ms
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let used = usage();
        assert!(used.cpu > Duration::ZERO && used.resident > 100_000 && used.peak >= used.resident && used.files > 2);
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        assert!(thread_cpu(thread).is_some());
        assert_eq!(thread_cpu(u32::MAX), None);
    }
}

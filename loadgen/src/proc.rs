//! What processes and threads use of the machine, from /proc.

use std::fs;
use std::path::Path;

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The most it ever had resident, in bytes.
    pub peak: u64,
    /// Context switches: it waited.
    pub voluntary: u64,
    /// Context switches: it was made to wait.
    pub involuntary: u64,
}

/// What process `pid` has used; `None` if there is none.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    let base = format!("/proc/{pid}");
    let mut usage = Usage::default();
    for thread in fs::read_dir(format!("{base}/task")).ok()?.flatten() {
        usage.cpu_ns += schedstat(&thread.path())?;
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        usage.voluntary += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        usage.involuntary += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    let status = fs::read_to_string(format!("{base}/status")).ok()?;
    usage.resident = field(&status, "VmRSS:")? << 10;
    usage.peak = field(&status, "VmHWM:")? << 10;
    Some(usage)
}

/// CPU time of one thread of this process, in nanoseconds.
#[must_use]
pub fn thread_cpu(thread: u32) -> Option<u64> {
    schedstat(Path::new(&format!("/proc/self/task/{thread}")))
}

/// The first number of schedstat is the time on a CPU, in nanoseconds. The stat file of the process would do, but
/// counts in ticks of 10 ms.
fn schedstat(task: &Path) -> Option<u64> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Time that the hypervisor gave to others, over all CPUs, in ticks of 10 ms.
#[must_use]
pub fn stolen_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let cpu = stat.lines().next().unwrap_or_default();
    cpu.split_whitespace().nth(8).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// Kernel, CPU and number of CPUs, for the head of a report.
#[must_use]
pub fn machine() -> String {
    let uname = rustix::system::uname();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("{} {}, {cpus} x {model}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let before = usage(std::process::id()).unwrap();
        let mut sum = 0u64;
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 20 {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }
        let after = usage(std::process::id()).unwrap();
        assert!(after.cpu_ns > before.cpu_ns, "{sum}");
        assert!(after.resident > 100_000 && after.peak >= after.resident);
        assert_eq!(usage(u32::MAX), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmHWM:\t  12 kB\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(3));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(4));
        assert_eq!(field(status, "VmHWM:"), Some(12));
    }
}

//! What processes and threads use of the machine, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::admin::{self, AdminError};

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads, in nanoseconds.
    pub cpu_ns: u64,
    /// CPU time of its busiest thread, in nanoseconds.
    pub busiest_ns: u64,
    /// How long its threads were ready to run, but something else ran on their CPU, in nanoseconds.
    pub waited_ns: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The most it ever had resident, in bytes.
    pub peak: u64,
    /// Context switches: it waited.
    pub voluntary: u64,
    /// Context switches: it was made to wait.
    pub involuntary: u64,
    /// Requests it has counted itself; only a broker's admin address tells. It doesn't tell of context switches and
    /// single threads.
    pub requests: Option<u64>,
}

/// Whose use of the machine is reported, and who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A process of this machine, by /proc.
    Pid(u32),
    /// A broker, by its admin address.
    Admin(SocketAddr),
}

/// Why nothing is known of a [`Target`].
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No such process, or not ours to see.
    #[error("there is no process {0}, or it may not be watched")]
    Pid(u32),
    /// The admin address.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

impl Target {
    /// What it has used since its start.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn usage(self) -> Result<Usage, TargetError> {
        match self {
            Target::Pid(pid) => usage(pid).ok_or(TargetError::Pid(pid)),
            Target::Admin(addr) => {
                let varz = admin::varz(addr)?;
                let cpu_ns = (varz.cpu_seconds * 1e9) as u64;
                let requests = Some(varz.requests);
                Ok(Usage { cpu_ns, resident: varz.resident_bytes, requests, ..Usage::default() })
            }
        }
    }
}

/// What process `pid` has used; `None` if there is none.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    let base = format!("/proc/{pid}");
    let mut usage = Usage::default();
    for thread in fs::read_dir(format!("{base}/task")).ok()?.flatten() {
        // a thread may have ended since it was listed
        let Some((cpu, waited)) = schedstat(&thread.path()) else { continue };
        usage.cpu_ns += cpu;
        usage.busiest_ns = usage.busiest_ns.max(cpu);
        usage.waited_ns += waited;
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        usage.voluntary += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        usage.involuntary += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    let status = fs::read_to_string(format!("{base}/status")).ok()?;
    usage.resident = field(&status, "VmRSS:")? << 10;
    usage.peak = field(&status, "VmHWM:")? << 10;
    Some(usage)
}

/// CPU time of each thread of process `pid`, in nanoseconds, by thread id.
#[must_use]
pub fn threads(pid: u32) -> BTreeMap<u32, u64> {
    let Ok(listed) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    let entry = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        Some((id, schedstat(&entry.path())?.0))
    };
    listed.flatten().filter_map(entry).collect()
}

/// Files process `pid` has open.
#[must_use]
pub fn open_files(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// CPU time of one thread of this process, and how long it was ready to run while something else ran on its CPU; in
/// nanoseconds.
#[must_use]
pub fn thread_cpu(thread: u32) -> Option<(u64, u64)> {
    schedstat(Path::new(&format!("/proc/self/task/{thread}")))
}

/// The first number of schedstat is the time on a CPU, the second the time spent waiting for one, in nanoseconds. The
/// stat file of the process would do for the first, but counts in ticks of 10 ms.
fn schedstat(task: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
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

/// Kernel, CPU and number of CPUs, for the head of a report; and how this process is scheduled, with all that it
/// starts, where that is not as usual (`chrt(1)`).
#[must_use]
pub fn machine() -> String {
    let uname = rustix::system::uname();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let (system, release) = (uname.sysname().to_string_lossy(), uname.release().to_string_lossy());
    format!("{system} {release}, {cpus} x {model}{}", real_time(&stat))
}

/// The real-time policy and priority in a process's `stat` (proc_pid_stat(5)), if it has one.
fn real_time(stat: &str) -> String {
    // behind the name, which may have any character in it
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    match (fields.get(37), fields.get(38)) {
        (Some(priority), Some(&"1")) => format!(", all under SCHED_FIFO {priority}"),
        (Some(priority), Some(&"2")) => format!(", all under SCHED_RR {priority}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_scheduling_is_told() {
        let stat = |policy: &str| {
            let fields: Vec<_> = (3..=52).map(|n| n.to_string()).collect();
            let mut fields: Vec<_> = fields.iter().map(String::as_str).collect();
            (fields[37], fields[38]) = ("10", policy);
            format!("1 (a ) b) {}", fields.join(" "))
        };
        assert_eq!(real_time(&stat("0")), "");
        assert_eq!(real_time(&stat("1")), ", all under SCHED_FIFO 10");
        assert_eq!(real_time(&stat("2")), ", all under SCHED_RR 10");
        assert_eq!(real_time(""), "");
    }

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
        assert!(after.busiest_ns <= after.cpu_ns);
        assert_eq!(usage(u32::MAX), None);
        assert!(threads(std::process::id()).len() > 1 && open_files(std::process::id()).unwrap() > 3);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmHWM:\t  12 kB\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(3));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(4));
        assert_eq!(field(status, "VmHWM:"), Some(12));
    }
}

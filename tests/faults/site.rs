//! A broker with a bystander, before, during and after a fault.
//!
//! ```text
//!   start ─► warm ─► p99, memory, descriptors ─► the fault, bystander running ─► all of its clients gone
//!                                                                                      │
//!              every answer right; descriptors as before; full form: p99, memory  ◄────┘
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use corelay::broker::Io;
use tempfile::TempDir;

use crate::bystander::{Bystander, Times};
use crate::cases::Case;
use crate::run::{Broker, corelay, eventually};

/// How long a phase is measured in the full form.
const PHASE: Duration = Duration::from_secs(3);
/// The full form's bound on p99 after a fault, as a multiple of the one before. Of three phases one must keep it: a
/// shared machine has bad seconds of its own.
const WORSE: u32 = 2;
/// What memory may have grown by, in bytes: a core keeps up to 3 MiB of output buffers for the next busy turn, tables of
/// up to 4,096 entries stay as long as they have become, and free memory that shares a page with some in use stays too.
const SLACK: usize = 8 << 20;
/// The broker trims its heap when it has seen twice, five seconds apart, that there is something to give back
/// (`cli/heap.rs`); and some for a busy machine.
const TRIMMED: Duration = Duration::from_secs(20);

/// What a fault is done to.
pub struct Site {
    pub broker: Broker,
    /// Its TCP address: the clients of the channel at fault use it.
    pub addr: SocketAddr,
    pub bystander: Bystander,
    pub io: Io,
    pub full: bool,
    /// Has the broker's Unix socket, and goes with the site.
    pub dir: TempDir,
    settings: Vec<String>,
}

/// What a process has of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident, in bytes.
    pub memory: usize,
    pub descriptors: usize,
}

/// What a run showed.
#[derive(Debug)]
pub struct Row {
    seen: String,
    before: Times,
    during: Times,
    after: Times,
    first: Usage,
    last: Usage,
}

impl Site {
    /// The fault, to the end of all its connections.
    fn suffer(&mut self, case: &Case, before: Usage) -> String {
        let seen = (case.fault)(self);
        eventually("the fault's connections to be gone", || descriptors(&self.broker) <= before.descriptors);
        seen
    }

    /// Starts a broker as the case wants it. `None`: that can't be had here, which was said.
    fn start(case: &Case, io: Io, full: bool) -> Option<Site> {
        let dir = TempDir::new().expect("a directory");
        let settings: Vec<String> = case.settings(full);
        let mut command = (case.launch)(&line(io, &dir, "127.0.0.1:0", &settings), dir.path())?;
        let broker = Broker::spawn(&mut command);
        let addr = broker.addr.parse().expect("a TCP address");
        let bystander = Bystander::start(&socket(&dir));
        Some(Site { broker, addr, bystander, io, full, dir, settings })
    }

    /// The small or the full form's number.
    pub fn scale<T>(&self, small: T, full: T) -> T {
        if self.full { full } else { small }
    }

    /// A broker of the same settings, on this TCP address.
    pub fn again(&self, listen: &str) -> Command {
        let mut command = corelay(&[]);
        command.args(&line(self.io, &self.dir, listen, &self.settings)[1..]);
        command
    }

    pub fn usage(&self) -> Usage {
        Usage { memory: memory(&self.broker), descriptors: descriptors(&self.broker) }
    }

    /// CPU time the broker's threads have had.
    pub fn cpu(&self) -> Duration {
        cpu(self.broker.id())
    }
}

/// The broker's command line, program first.
fn line(io: Io, dir: &TempDir, listen: &str, settings: &[String]) -> Vec<String> {
    let io = io.to_string();
    let line = ["serve", "--listen", listen, "--listen", &socket(dir), "--cores", "1", "--no-pin", "--io", &io];
    let mut line: Vec<String> = line.map(String::from).to_vec();
    line.insert(0, env!("CARGO_BIN_EXE_corelay").to_owned());
    if !settings.iter().any(|setting| setting == "--log") {
        line.extend(["--log", "error"].map(String::from));
    }
    line.extend(settings.iter().cloned());
    line
}

fn socket(dir: &TempDir) -> String {
    format!("unix:{}", dir.path().join("socket").display())
}

fn memory(broker: &Broker) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().strip_suffix(" kB").expect("in kB").trim().parse::<usize>().expect("a number") * 1024
}

fn descriptors(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.id())).expect("it runs").count()
}

/// CPU time of all threads, from the scheduler's own count.
fn cpu(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let nanos = threads.flatten().filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Runs a case. `None` where it can't be had here.
pub fn run(case: &Case, io: Io, full: bool) -> Option<Row> {
    // thousands of clients are in this process
    corelay::reactor::sys::raise_nofile().expect("the soft limit may be raised to the hard one");
    let mut site = Site::start(case, io, full)?;
    let phase = full.then_some(PHASE);
    if full {
        site.bystander.measure(Some(Duration::from_secs(1)));
    }
    let before = site.bystander.measure(phase);
    let first = site.usage();
    let seen = site.suffer(case, first);
    let during = site.bystander.lap();
    site.bystander.pace(None);
    let mut after = site.bystander.measure(phase);
    for _ in 0..2 {
        if full && after.p99 > before.p99 * WORSE {
            after = site.bystander.measure(phase);
        }
    }
    if full {
        // gives up in the assertion below
        let settled = Instant::now() + TRIMMED;
        while memory(&site.broker) > first.memory + SLACK && Instant::now() < settled {
            thread::sleep(Duration::from_millis(100));
        }
    }
    let last = site.usage();
    let row = Row { seen, before, during, after, first, last };
    eprintln!("{} on {io}: {row}", case.name);
    let wrong = site.bystander.wrong();
    assert!(wrong.is_empty(), "the bystander got {} wrong answers, first: {}", wrong.len(), wrong[0]);
    assert!(case.ends_it || site.bystander.lost() == 0, "the bystander lost {} requests", site.bystander.lost());
    assert_eq!(last.descriptors, first.descriptors, "descriptors after it");
    if full {
        assert!(last.memory <= first.memory + SLACK, "{} bytes, before it {}", last.memory, first.memory);
        assert!(after.p99 <= before.p99 * WORSE, "p99 went from {:?} to {:?}", before.p99, after.p99);
    } else if last.memory > first.memory + SLACK {
        // the heap has not been trimmed yet: the same must not take as much again
        site.suffer(case, first);
        let again = site.usage().memory;
        assert!(again <= last.memory + SLACK, "{} bytes, after {} the first time", again, last.memory);
    }
    site.bystander.stop();
    Some(row)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let Row { seen, before, during, after, first, last } = self;
        let p99 = |times: &Times| format!("{:.2} ms", times.p99.as_secs_f64() * 1e3);
        write!(f, "{seen} | {}, {}, {} | ", p99(before), p99(during), p99(after))?;
        write!(f, "{:.1} to {:.1} MiB | ", mib(first.memory), mib(last.memory))?;
        write!(f, "{} to {} |", first.descriptors, last.descriptors)
    }
}

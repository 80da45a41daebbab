//! What a warm broker asks of the kernel, seen by strace: system calls are shared by all requests of a turn, and its
//! thread never takes a lock that another one holds.
//!
//! strace starts the broker, for that is allowed where attaching to a stranger is not. It writes down each call with
//! its time, and what falls between two readings of the same clock here is counted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use corelay::protocol::Flags;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cli::run::{Broker, without_settings};
use crate::common::peers::{Consumer, provider};

const ROUNDS: u32 = 500;

/// Whether processes can be traced here; if not, says why aloud, and fails where CI has to see to it.
fn can_trace() -> bool {
    let why = match Command::new("strace").args(["-o", "/dev/null", "true"]).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("strace does not start ({error}); Debian has it in the package strace"),
    };
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("SKIPPED: {why}");
    false
}

/// A broker whose system calls are written down.
struct Traced {
    broker: Broker,
    pid: Pid,
    log: PathBuf,
    _dir: TempDir,
}

impl Traced {
    fn start(io: &str) -> Traced {
        let dir = TempDir::new().expect("a directory");
        let log = dir.path().join("calls");
        let mut strace = Command::new("strace");
        // of all threads, with the time of day, strings cut short
        strace.args(["-f", "-ttt", "-qq", "-s", "0", "-e", "signal=none", "-o"]).arg(&log);
        strace.arg(env!("CARGO_BIN_EXE_corelay"));
        strace.args(["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--no-pin", "--log", "warn", "--io", io]);
        without_settings(&mut strace);
        let broker = Broker::spawn(&mut strace);
        let pid = calls(&log).first().map(|call| call.thread).expect("its first call was execve");
        Traced { broker, pid, log, _dir: dir }
    }

    /// The thread of its only core.
    fn shard(&self) -> Pid {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("it runs");
        let shard = threads
            .map(|thread| thread.expect("a thread").path())
            .find(|thread| std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "corelay-0"));
        let id = shard.and_then(|thread| thread.file_name()?.to_str()?.parse().ok());
        id.and_then(Pid::from_raw).expect("a thread called corelay-0")
    }

    /// All calls of all threads, when it has ended.
    fn stop(mut self) -> Vec<Call> {
        kill_process(self.pid, Signal::TERM).expect("it runs");
        assert_eq!(self.broker.process.code(), Some(0), "the broker ends well");
        calls(&self.log)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // without strace it would run on
        if self.broker.process.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}

/// A system call that was begun.
struct Call {
    thread: Pid,
    /// Seconds since 1970.
    at: f64,
    name: String,
}

/// The calls in strace's log, as in `1234  1700000000.123456 read(3, ""..., 10) = 5`.
fn calls(log: &PathBuf) -> Vec<Call> {
    let text = std::fs::read_to_string(log).expect("strace writes it");
    let call = |line: &str| {
        let mut words = line.split_whitespace();
        let thread = Pid::from_raw(words.next()?.parse().ok()?)?;
        let at = words.next()?.parse().ok()?;
        // what resumes has been counted when it began
        let (name, _) = words.next()?.split_once('(')?;
        Some(Call { thread, at, name: name.to_owned() })
    };
    text.lines().filter_map(call).collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// The calls a system may make often: more than one in a hundred requests.
type Hot = &'static [&'static str];
const URING: Hot = &["io_uring_enter"];
const EPOLL: Hot = &["epoll_wait", "epoll_pwait", "epoll_pwait2", "recvfrom", "sendto", "sendmsg"];

/// Drives rounds of requests through a broker. Its warm core may make at most so many system calls a request, few but
/// the hot ones, and none for a lock.
fn few_calls(io: &str, in_flight: u32, most: f64, hot: Hot) {
    if !can_trace() {
        return;
    }
    let broker = Traced::start(io);
    let addr = broker.broker.addr.parse().expect("an address");
    let provider = provider(addr, 1024, 64);
    let mut consumer = Consumer::connect(addr, in_flight, 64, Flags::NONE);
    (0..ROUNDS / 4).for_each(|_| consumer.round());
    let shard = broker.shard();
    let start = now();
    (0..ROUNDS).for_each(|_| consumer.round());
    let end = now();
    drop(consumer);
    let calls = broker.stop();
    provider.join().expect("the provider does not panic");

    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for call in calls.into_iter().filter(|call| call.thread == shard && (start..end).contains(&call.at)) {
        *counts.entry(call.name).or_default() += 1;
    }
    let requests = f64::from(ROUNDS * in_flight);
    let a_request = f64::from(counts.values().sum::<u32>()) / requests;
    println!("{io}, {in_flight} in flight: {a_request:.3} system calls a request: {counts:?}");
    assert!(a_request > 0.0, "none was seen");
    assert!(a_request <= most, "{a_request:.3} system calls a request: {counts:?}");
    assert!(!counts.contains_key("futex"), "a lock was fought for: {counts:?}");
    let other = counts.iter().find(|&(name, &n)| !hot.contains(&name.as_str()) && f64::from(n) > requests / 100.0);
    assert!(other.is_none(), "{other:?} is none of {hot:?}: {counts:?}");
}

// Pipelined, 64 requests share a turn, and so do their answers: a call each on io_uring (0.03 a request), three on
// epoll (0.09). A slow machine may cut a round into some more turns.

#[test]
fn pipelined_requests_share_their_calls_on_uring() {
    few_calls("uring", 64, 0.15, URING);
}

#[test]
fn pipelined_requests_share_their_calls_on_epoll() {
    few_calls("epoll", 64, 0.4, EPOLL);
}

// One at a time, a request and its answer are a turn each.

#[test]
fn a_single_request_takes_two_calls_on_uring() {
    few_calls("uring", 1, 2.5, URING);
}

#[test]
fn a_single_request_takes_six_calls_on_epoll() {
    few_calls("epoll", 1, 7.5, EPOLL);
}

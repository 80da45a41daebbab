//! Starting processes, and waiting for what they do.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The command, with nothing in its environment that could change what it does.
pub fn corelay(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelay"));
    command.args(line);
    without_settings(&mut command);
    command
}

/// Takes what could change the broker's settings out of a command's environment.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if ["CORELAY_", "PRODUCER_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

/// A process that is ended with the test.
#[derive(Debug)]
pub struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts it; stdin and stdout are ours.
    pub fn start(command: &mut Command) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Process(command.spawn().expect("the corelay binary starts"))
    }

    pub fn stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().expect("stdin is piped")
    }

    pub fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().expect("stdout is piped"))
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.0);
        rustix::process::kill_process(id, signal).expect("it still runs");
    }

    /// Its exit code, when it has ended.
    pub fn code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process to end", || {
            status = self.0.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

/// Waits until `done`.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process with this id is there, and no mere zombie.
pub fn is_alive(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    state.is_some_and(|state| state != b'Z' && state != b'X')
}

/// A broker on a port of its own.
#[derive(Debug)]
pub struct Broker {
    pub process: Process,
    pub addr: String,
    /// Held open, as whoever starts a broker does.
    _stdout: BufReader<ChildStdout>,
}

impl Broker {
    pub fn start() -> Broker {
        Broker::spawn(Broker::line().args(["--log", "warn"]))
    }

    /// With its log to be read.
    pub fn logging() -> (Broker, BufReader<ChildStderr>) {
        Broker::logging_with(&[])
    }

    /// The same, with these arguments besides.
    pub fn logging_with(more: &[&str]) -> (Broker, BufReader<ChildStderr>) {
        let mut broker = Broker::spawn(Broker::line().args(["--log", "info"]).args(more).stderr(Stdio::piped()));
        let log = broker.process.0.stderr.take().expect("stderr is piped");
        (broker, BufReader::new(log))
    }

    fn line() -> Command {
        corelay(&["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--no-pin"])
    }

    pub fn spawn(command: &mut Command) -> Broker {
        let mut process = Process::start(command);
        let mut stdout = process.stdout();
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Broker { process, addr, _stdout: stdout }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// A subcommand that talks to this broker.
    pub fn command(&self, line: &[&str]) -> Command {
        let mut command = corelay(line);
        command.env("CORELAY_SERVER", &self.addr);
        command
    }

    /// A provider. It may not be connected yet when this returns: send requests with `--wait`.
    pub fn reply(&self, line: &[&str]) -> Process {
        Process::start(self.command(&["reply"]).args(line))
    }

    /// A request with this body, to its end.
    pub fn request(&self, line: &[&str], body: &[u8]) -> Output {
        finish(self.command(&["request"]).args(line), body)
    }
}

/// Runs a command to its end, with these bytes on its stdin.
pub fn finish(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut input = child.stdin.take().expect("stdin is piped");
    let stdin = stdin.to_vec();
    let feed = thread::spawn(move || {
        // a command need not read it all
        let _ = input.write_all(&stdin);
    });
    let output = child.wait_with_output().expect("a child of ours");
    feed.join().expect("feeding does not panic");
    output
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts the exit code, showing what was said where it is another.
#[track_caller]
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stderr: {}", text(&output.stderr));
}

/// Reads exactly `len` bytes as text.
pub fn read_text(from: &mut impl Read, len: usize) -> String {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).expect("so many bytes");
    text(&bytes)
}

/// `len` bytes that no shift or repetition of a part resembles.
pub fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

//! Brokers as child processes: started on a CPU of their own, ended by their process id, whatever happens.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a child may take until it listens.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end when asked to.
const STOP: Duration = Duration::from_secs(2);

/// Why a child could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("can't start {what}: {source}")]
    Start {
        /// Its path.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It was not there in time.
    #[error("{what} did not say where it listens: {why}")]
    Silent {
        /// Its path.
        what: String,
        /// What happened instead.
        why: String,
    },
}

/// A running child; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    /// The last line it wrote to standard error: why it failed, if it did.
    complaint: Arc<Mutex<String>>,
    complaints: Option<JoinHandle<()>>,
    /// Kept open: a child must not fail because nobody reads what it says.
    output: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `command` on `cpus`; on all, if they are none.
    ///
    /// # Errors
    /// [`ChildError::Start`].
    pub fn start(mut command: Command, cpus: &[usize]) -> Result<Running, ChildError> {
        let what = named(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = on_cpus(cpus, || command.spawn());
        let mut child = started.map_err(|source| ChildError::Start { what: what.clone(), source })?;
        let output = child.stdout.take().map(BufReader::new);
        let complaint = Arc::new(Mutex::new(String::new()));
        let complaints = child.stderr.take().map(|errors| {
            let complaint = Arc::clone(&complaint);
            std::thread::spawn(move || keep_last(errors, &complaint))
        });
        Ok(Running { child, what, complaint, complaints, output })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line `listening on ADDR...` and returns what follows, word by word.
    ///
    /// # Errors
    /// [`ChildError::Silent`] if it ends or takes too long.
    pub fn addresses(&mut self) -> Result<Vec<String>, ChildError> {
        let mut output = self.output.take().expect("asked once");
        let (found, wait) = channel();
        // a blocking read can't be given a time limit: it is done beside, and ends with the child
        std::thread::spawn(move || {
            let mut line = String::new();
            while output.read_line(&mut line).is_ok_and(|n| n > 0) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let _ = found.send(rest.split_whitespace().map(str::to_owned).collect());
                }
                line.clear();
            }
        });
        wait.recv_timeout(START).map_err(|error| match error {
            RecvTimeoutError::Timeout => self.silent("nothing for 10 s"),
            RecvTimeoutError::Disconnected => self.ended(),
        })
    }

    /// Waits until something accepts connections at `addr`.
    ///
    /// # Errors
    /// [`ChildError::Silent`] if it ends or takes too long.
    pub fn await_port(&mut self, addr: SocketAddr) -> Result<(), ChildError> {
        let until = Instant::now() + START;
        while Instant::now() < until {
            if TcpStream::connect(addr).is_ok() {
                return Ok(());
            }
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return Err(self.ended());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.silent("nothing for 10 s"))
    }

    fn silent(&self, why: &str) -> ChildError {
        ChildError::Silent { what: self.what.clone(), why: why.to_owned() }
    }

    /// It ended: with what it said last.
    fn ended(&mut self) -> ChildError {
        // its end closes the pipe; one that only closed its output is not waited for
        let gone = matches!(self.child.try_wait(), Ok(Some(_)));
        if let Some(complaints) = self.complaints.take().filter(|complaints| gone || complaints.is_finished()) {
            let _ = complaints.join();
        }
        let said = self.complaint.lock().map(|said| said.clone()).unwrap_or_default();
        if said.is_empty() { self.silent("it ended") } else { self.silent(&format!("it ended with: {said}")) }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let until = Instant::now() + STOP;
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, for people: not the one that starts it.
fn named(command: &Command) -> String {
    let mut args = command.get_args();
    let program = match args.next() {
        Some(first) if first == "child" => args.next(),
        _ => None,
    };
    program.unwrap_or(command.get_program()).to_string_lossy().into_owned()
}

/// Reads to the end; the last line stays.
fn keep_last(errors: impl Read, last: &Mutex<String>) {
    for line in BufReader::new(errors).lines() {
        let Ok(line) = line else { return };
        if let (false, Ok(mut last)) = (line.trim().is_empty(), last.lock()) {
            *last = line.trim().chars().take(500).collect();
        }
    }
}

/// Runs `start` with this thread bound to `cpus`, which what it starts inherits.
fn on_cpus<T>(cpus: &[usize], start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if cpus.is_empty() {
        return start();
    }
    let before = rustix::thread::sched_getaffinity(None)?;
    crate::run::bind(cpus)?;
    let result = start();
    rustix::thread::sched_setaffinity(None, &before)?;
    result
}

/// A port of the loopback that is free now.
///
/// # Errors
/// If there is none.
pub fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_heard_bound_and_ended() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo starting; echo listening on 127.0.0.1:7 and more; exec sleep 60"]);
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let cpus: Vec<_> = (0..1024).filter(|&cpu| allowed.is_set(cpu)).take(1).collect();
        let mut running = Running::start(command, &cpus).unwrap();
        assert_eq!(running.addresses().unwrap(), ["127.0.0.1:7", "and", "more"]);
        let pid = running.pid();
        assert!(running.is_running());
        drop(running);
        assert_eq!(crate::proc::usage(pid), None, "it is gone");
    }

    #[test]
    fn one_that_ends_at_once_is_told() {
        let mut running = Running::start(Command::new("true"), &[]).unwrap();
        assert!(running.addresses().unwrap_err().to_string().contains("it ended"));
        let mut command = Command::new("sh");
        command.args(["-c", "echo first >&2; echo no such device >&2; exit 1"]);
        let mut running = Running::start(command, &[]).unwrap();
        while running.is_running() {
            std::thread::yield_now();
        }
        let told = running.addresses().unwrap_err().to_string();
        assert_eq!(told, "sh did not say where it listens: it ended with: no such device");
        let missing = Running::start(Command::new("/no/such/broker"), &[]).unwrap_err();
        assert!(missing.to_string().starts_with("can't start /no/such/broker"));
    }
}

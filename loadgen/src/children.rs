//! Brokers as child processes: started on a CPU of their own, ended by their process id, whatever happens.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
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
    /// Kept open: a child must not fail because nobody reads what it says.
    output: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `command` on `cpu`.
    ///
    /// # Errors
    /// [`ChildError::Start`].
    pub fn start(mut command: Command, cpu: Option<usize>) -> Result<Running, ChildError> {
        let what = command.get_program().to_string_lossy().into_owned();
        let started = on_cpu(cpu, || command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn());
        let mut child = started.map_err(|source| ChildError::Start { what: what.clone(), source })?;
        let output = child.stdout.take().map(BufReader::new);
        Ok(Running { child, what, output })
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
            RecvTimeoutError::Disconnected => self.silent("it ended"),
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
                return Err(self.silent("it ended"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.silent("nothing for 10 s"))
    }

    fn silent(&self, why: &str) -> ChildError {
        ChildError::Silent { what: self.what.clone(), why: why.to_owned() }
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

/// Runs `start` with this thread bound to `cpu`, which what it starts inherits.
fn on_cpu<T>(cpu: Option<usize>, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(cpu) = cpu else { return start() };
    let before = rustix::thread::sched_getaffinity(None)?;
    crate::run::bind(cpu)?;
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
        let cpu = rustix::thread::sched_getaffinity(None).map(|set| (0..1024).find(|&cpu| set.is_set(cpu))).unwrap();
        let mut running = Running::start(command, cpu).unwrap();
        assert_eq!(running.addresses().unwrap(), ["127.0.0.1:7", "and", "more"]);
        let pid = running.pid();
        assert!(running.is_running());
        drop(running);
        assert_eq!(crate::proc::usage(pid), None, "it is gone");
    }

    #[test]
    fn one_that_ends_at_once_is_told() {
        let mut running = Running::start(Command::new("true"), None).unwrap();
        assert!(running.addresses().unwrap_err().to_string().contains("it ended"));
        let missing = Running::start(Command::new("/no/such/broker"), None).unwrap_err();
        assert!(missing.to_string().starts_with("can't start /no/such/broker"));
    }
}

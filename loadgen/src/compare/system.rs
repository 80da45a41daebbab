//! Who is compared, and how each is started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use super::work::Work;
use crate::children::{ChildError, Running, free_port};
use crate::dial::{Addr, BadAddr};

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// The bare byte pump between paired connections.
    Limit,
    /// corelay on io_uring.
    Corelay,
    /// corelay on epoll.
    CorelayEpoll,
    /// nats-server: request and reply by a queue group and inboxes.
    Nats,
    /// ZeroMQ's ROUTER/DEALER proxy.
    Zmq,
}

impl System {
    /// All there are.
    pub const ALL: [System; 5] = [System::Limit, System::Corelay, System::CorelayEpoll, System::Nats, System::Zmq];

    /// Whether it can do this work at all: NATS takes 1 MiB at most (64 at the very most), ZeroMQ holds messages whole.
    #[must_use]
    pub fn can(self, work: &Work) -> bool {
        work.size.max() <= 1 << 20 || !matches!(self, System::Nats | System::Zmq)
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            System::Limit => "limit",
            System::Corelay => "corelay",
            System::CorelayEpoll => "corelay-epoll",
            System::Nats => "nats",
            System::Zmq => "zmq",
        })
    }
}

impl FromStr for System {
    type Err = String;

    fn from_str(text: &str) -> Result<System, String> {
        let found = System::ALL.into_iter().find(|system| system.to_string() == text);
        found.ok_or_else(|| "expected limit, corelay, corelay-epoll, nats or zmq".to_owned())
    }
}

/// Where the binaries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brokers {
    /// This program: the limit's relay and the ZeroMQ proxy run in it.
    pub own: PathBuf,
    /// The `corelay` binary.
    pub corelay: PathBuf,
    /// The `nats-server` binary, if there is one.
    pub nats: Option<PathBuf>,
    /// Microseconds that relay and corelay look for work before they sleep.
    pub spin_us: u64,
}

/// Why a broker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// It said it listens where nobody can.
    #[error(transparent)]
    Addr(#[from] BadAddr),
    /// No port.
    #[error("no free port: {0}")]
    Port(#[from] std::io::Error),
    /// It isn't there.
    #[error("{0}")]
    Missing(&'static str),
}

/// How to speak to a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// corelay's frames: to a broker, or to the relay.
    Frames {
        /// Where.
        addr: Addr,
        /// Whether it is a broker.
        broker: bool,
    },
    /// NATS.
    Nats(Addr),
    /// ZeroMQ.
    Zmtp {
        /// Where consumers connect.
        front: Addr,
        /// Where providers connect.
        back: Addr,
    },
}

/// A broker that runs.
#[derive(Debug)]
pub struct Broker {
    process: Running,
    /// How to speak to it.
    pub link: Link,
}

impl Broker {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Brokers {
    /// Whether `system` is there to be started, so that it may be left out.
    #[must_use]
    pub fn has(&self, system: System) -> bool {
        match system {
            System::Limit => true,
            System::Corelay | System::CorelayEpoll => self.corelay.is_file(),
            System::Nats => self.nats.is_some(),
            System::Zmq => cfg!(feature = "zmq"),
        }
    }

    /// Starts a broker on `cpu`, listening on the loopback.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, system: System, cpu: usize) -> Result<Broker, StartError> {
        match system {
            System::Limit => {
                let spin = self.spin_us.to_string();
                self.announced(
                    command(&self.own, &["pump", "--listen", "127.0.0.1:0", "--spin-us", &spin]),
                    cpu,
                    system,
                )
            }
            System::Corelay => self.announced(self.corelay("uring", cpu), cpu, system),
            System::CorelayEpoll => self.announced(self.corelay("epoll", cpu), cpu, system),
            System::Zmq => self.announced(command(&self.own, &["zmq-proxy"]), cpu, system),
            System::Nats => self.nats(cpu),
        }
    }

    fn corelay(&self, io: &str, cpu: usize) -> Command {
        let cores = format!("{cpu}-{cpu}");
        let mut command = command(&self.corelay, &["serve", "--listen", "127.0.0.1:0", "--cores", &cores, "--io", io]);
        if self.spin_us > 0 {
            command.args(["--spin-us", &self.spin_us.to_string()]);
        }
        command
    }

    /// One that says where it listens.
    fn announced(&self, command: Command, cpu: usize, system: System) -> Result<Broker, StartError> {
        let mut process = Running::start(command, Some(cpu))?;
        let said = process.addresses()?;
        let word = |n: usize| said.get(n).map_or("", String::as_str).parse::<Addr>();
        let link = match system {
            System::Zmq => Link::Zmtp { front: word(0)?, back: word(1)? },
            _ => Link::Frames { addr: word(0)?, broker: system != System::Limit },
        };
        Ok(Broker { process, link })
    }

    fn nats(&self, cpu: usize) -> Result<Broker, StartError> {
        let missing = StartError::Missing("nats-server is not on the PATH; name it by --nats");
        let path = self.nats.as_ref().ok_or(missing)?;
        let addr = free_port()?;
        let port = addr.port().to_string();
        let mut process = Running::start(command(path, &["-a", "127.0.0.1", "-p", &port]), Some(cpu))?;
        process.await_port(addr)?;
        Ok(Broker { process, link: Link::Nats(Addr::Tcp(addr)) })
    }
}

fn command(path: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(args);
    command
}

/// A program on the PATH.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

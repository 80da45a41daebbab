//! Who is compared, and how each is started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use super::work::{Kind, Layout, Work};
use crate::children::{ChildError, Running, free_port};
use crate::dial::{Addr, BadAddr};

/// The channel of all works.
pub(super) const CHANNEL: &str = "loadgen";

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// The bare byte pump between paired connections.
    Limit,
    /// corelay on io_uring.
    Corelay,
    /// The same, looking for work for a while before it sleeps. Compared only when asked for: it takes a whole CPU.
    CorelaySpin,
    /// corelay on epoll.
    CorelayEpoll,
    /// nats-server: request and reply by a queue group and inboxes.
    Nats,
    /// ZeroMQ's ROUTER/DEALER proxy.
    Zmq,
}

impl System {
    /// All there are.
    pub const ALL: [System; 6] =
        [System::Limit, System::Corelay, System::CorelaySpin, System::CorelayEpoll, System::Nats, System::Zmq];

    /// Whether it is corelay, in one way or the other.
    #[must_use]
    pub fn is_corelay(self) -> bool {
        matches!(self, System::Corelay | System::CorelaySpin | System::CorelayEpoll)
    }

    /// Whether it can do this work at all: NATS takes 1 MiB at most (64 at the very most), ZeroMQ holds messages whole;
    /// channels and their cores are corelay's; the limit's connections are nothing but their sockets.
    #[must_use]
    pub fn can(self, work: &Work) -> bool {
        let large = work.size.max() > 1 << 20;
        let connections = work.kind != Kind::Requests;
        match self {
            _ if work.layout != Layout::One => self.is_corelay(),
            System::Limit => !connections,
            System::Nats => !large,
            System::Zmq => !large && !connections,
            System::Corelay | System::CorelaySpin | System::CorelayEpoll => true,
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            System::Limit => "limit",
            System::Corelay => "corelay",
            System::CorelaySpin => "corelay-spin",
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
        found.ok_or_else(|| "expected limit, corelay, corelay-spin, corelay-epoll, nats or zmq".to_owned())
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
    /// The one that looks for work before it sleeps: the limit, or [`System::CorelaySpin`].
    pub spins: System,
    /// For so many microseconds.
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
            System::Corelay | System::CorelaySpin | System::CorelayEpoll => self.corelay.is_file(),
            System::Nats => self.nats.as_ref().is_some_and(|path| path.is_file()),
            System::Zmq => cfg!(feature = "zmq"),
        }
    }

    /// The version a broker states, if it does.
    #[must_use]
    pub fn version(&self, system: System) -> Option<String> {
        let path = match system {
            System::Limit => return Some(env!("CARGO_PKG_VERSION").to_owned()),
            System::Corelay | System::CorelaySpin | System::CorelayEpoll => &self.corelay,
            System::Nats => self.nats.as_ref()?,
            System::Zmq => return zmq_version(),
        };
        let told = Command::new(path).arg("--version").stderr(Stdio::null()).output().ok()?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let word = told
            .split_whitespace()
            .find(|word| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))?;
        Some(word.trim_start_matches('v').to_owned())
    }

    /// Starts a broker on `cpus`, listening on the loopback.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, system: System, cpus: &[usize], layout: Layout) -> Result<Broker, StartError> {
        match system {
            System::Limit => {
                let command = self.command(&self.own, &["pump", "--listen", "127.0.0.1:0"]);
                self.announced(command, cpus, system)
            }
            System::Corelay | System::CorelaySpin => self.announced(self.corelay("uring", cpus, layout), cpus, system),
            System::CorelayEpoll => self.announced(self.corelay("epoll", cpus, layout), cpus, system),
            System::Zmq => self.announced(self.command(&self.own, &["zmq-proxy"]), cpus, system),
            System::Nats => self.nats(cpus),
        }
    }

    fn corelay(&self, io: &str, cpus: &[usize], layout: Layout) -> Command {
        // as ranges: a single number would be how many
        let cores: Vec<_> = cpus.iter().map(|cpu| format!("{cpu}-{cpu}")).collect();
        let args = ["serve", "--listen", "127.0.0.1:0", "--cores", &cores.join(","), "--io", io];
        let mut command = self.command(&self.corelay, &args);
        if layout == Layout::Spread {
            command.args(["--set", &format!("channel.{CHANNEL}.spread={}", cpus.len())]);
        }
        command
    }

    /// One that says where it listens.
    fn announced(&self, mut command: Command, cpus: &[usize], system: System) -> Result<Broker, StartError> {
        if system == self.spins {
            command.args(["--spin-us", &self.spin_us.to_string()]);
        }
        let mut process = Running::start(command, cpus)?;
        let said = process.addresses()?;
        let word = |n: usize| said.get(n).map_or("", String::as_str).parse::<Addr>();
        let link = match system {
            System::Zmq => Link::Zmtp { front: word(0)?, back: word(1)? },
            _ => Link::Frames { addr: word(0)?, broker: system != System::Limit },
        };
        Ok(Broker { process, link })
    }

    fn nats(&self, cpus: &[usize]) -> Result<Broker, StartError> {
        let missing = StartError::Missing("nats-server is not on the PATH; name it by --nats");
        let path = self.nats.as_ref().ok_or(missing)?;
        let addr = free_port()?;
        let port = addr.port().to_string();
        let mut process = Running::start(self.command(path, &["-a", "127.0.0.1", "-p", &port]), cpus)?;
        process.await_port(addr)?;
        Ok(Broker { process, link: Link::Nats(Addr::Tcp(addr)) })
    }

    /// A program that ends when this one does, even if this one is killed.
    fn command(&self, path: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.own);
        command.arg("child").arg(path).args(args);
        command
    }
}

#[cfg(feature = "zmq")]
fn zmq_version() -> Option<String> {
    let (major, minor, patch) = zmq::version();
    Some(format!("{major}.{minor}.{patch}"))
}

#[cfg(not(feature = "zmq"))]
fn zmq_version() -> Option<String> {
    None
}

/// A program on the PATH.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

//! Connecting: sockets, and the handshakes of each protocol. Blocking, before the clock runs.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use corelay::base::ChannelId;
use corelay::protocol::{Code, FrameType, HEADER_LEN, Header, Hello, MAX_HANDSHAKE_FRAME, Role, VERSION, Welcome};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::frames::{FrameConsumer, FrameProvider, Terms};
use crate::size::Size;
use crate::wire::{Consumer, Provider};

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a broker listens: `host:port`, or `unix:/path`.
///
/// ```
/// use loadgen::dial::Addr;
/// for text in ["127.0.0.1:9090", "unix:/run/corelay.sock"] {
///     assert_eq!(text.parse::<Addr>()?.to_string(), text);
/// }
/// # Ok::<(), loadgen::dial::BadAddr>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addr {
    /// An address and port.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// An address that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: expected host:port or unix:/path")]
pub struct BadAddr(String);

impl FromStr for Addr {
    type Err = BadAddr;

    fn from_str(text: &str) -> Result<Addr, BadAddr> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Addr::Unix(path.into()));
        }
        let found = text.to_socket_addrs().map_err(|_| BadAddr(text.to_owned()))?;
        let found: Vec<_> = found.collect();
        let first = found.iter().find(|addr| addr.is_ipv4()).or(found.first());
        first.map(|&addr| Addr::Tcp(addr)).ok_or_else(|| BadAddr(text.to_owned()))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(addr) => addr.fmt(f),
            Addr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a connection could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No socket.
    #[error("can't connect to {addr}: {source}")]
    Connect {
        /// Where.
        addr: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The other side ended or stalled the handshake.
    #[error("handshake with {addr} failed: {source}")]
    Handshake {
        /// Where.
        addr: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The other side refused.
    #[error("{addr} refused the connection: {why}")]
    Refused {
        /// Where.
        addr: String,
        /// What it said.
        why: String,
    },
}

/// A connected socket, with a time limit on reading and writing.
pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    addr: String,
}

impl Socket {
    /// Connects.
    pub(crate) fn connect(addr: &Addr) -> Result<Socket, DialError> {
        let fd = match addr {
            Addr::Tcp(tcp) => TcpStream::connect_timeout(tcp, PATIENCE)
                .and_then(|stream| stream.set_nodelay(true).map(|()| OwnedFd::from(stream))),
            Addr::Unix(path) => UnixStream::connect(path).map(OwnedFd::from),
        };
        let fd = fd.map_err(|source| DialError::Connect { addr: addr.to_string(), source })?;
        let socket = Socket { fd, addr: addr.to_string() };
        for direction in [Timeout::Recv, Timeout::Send] {
            let set = set_socket_timeout(&socket.fd, direction, Some(PATIENCE));
            set.map_err(|error| socket.failed(error.into()))?;
        }
        Ok(socket)
    }

    fn failed(&self, source: io::Error) -> DialError {
        DialError::Handshake { addr: self.addr.clone(), source }
    }

    pub(crate) fn refused(&self, why: impl Into<String>) -> DialError {
        DialError::Refused { addr: self.addr.clone(), why: why.into() }
    }

    pub(crate) fn write(&self, mut bytes: &[u8]) -> Result<(), DialError> {
        while !bytes.is_empty() {
            let sent = rustix::io::write(&self.fd, bytes).map_err(|error| self.failed(error.into()))?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    pub(crate) fn read_exact(&self, bytes: &mut [u8]) -> Result<(), DialError> {
        let mut have = 0;
        while have < bytes.len() {
            match rustix::io::read(&self.fd, &mut bytes[have..]) {
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => have += n,
                Err(error) => return Err(self.failed(error.into())),
            }
        }
        Ok(())
    }

    /// Reads up to and with `end`, one byte at a time: nothing beyond it is taken.
    pub(crate) fn read_until(&self, end: &[u8], limit: usize) -> Result<Vec<u8>, DialError> {
        let mut bytes = Vec::new();
        let until = Instant::now() + PATIENCE;
        while !bytes.ends_with(end) {
            if bytes.len() >= limit || Instant::now() > until {
                return Err(self.refused("no end of line in its greeting"));
            }
            let mut one = [0];
            self.read_exact(&mut one)?;
            bytes.push(one[0]);
        }
        Ok(bytes)
    }

    /// The socket without the time limits, for the engine.
    pub(crate) fn into_fd(self) -> Result<OwnedFd, DialError> {
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&self.fd, direction, None).map_err(|error| self.failed(error.into()))?;
        }
        Ok(self.fd)
    }
}

/// Makes the connections of one protocol. Numbers count from 0, consumers and providers apart.
pub trait Dial {
    /// Its consumer.
    type Consumer: Consumer + Send + 'static;
    /// Its provider.
    type Provider: Provider + Send + 'static;

    /// Whether consumers and providers are paired one to one, in the order they connect.
    fn is_paired(&self) -> bool {
        false
    }

    /// Connects a consumer. Also returns how many requests it may have in flight.
    ///
    /// # Errors
    /// [`DialError`].
    fn consumer(&mut self, number: usize) -> Result<(OwnedFd, Self::Consumer, u32), DialError>;

    /// Connects a provider.
    ///
    /// # Errors
    /// [`DialError`].
    fn provider(&mut self, number: usize) -> Result<(OwnedFd, Self::Provider), DialError>;
}

/// What connections of corelay's own protocol need, to a broker or to the limit's relay.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Where.
    pub addr: Addr,
    /// Whether there is a broker, with handshake and windows; else a relay.
    pub broker: bool,
    /// Connections are dealt out over these.
    pub channels: Vec<ChannelId>,
    /// Body bytes each side takes on a new stream.
    pub window: u32,
    /// What a provider states.
    pub max_concurrent: u32,
    /// Requests a consumer may have in flight; the broker may allow fewer.
    pub slots: u32,
    /// Largest piece of a streamed body.
    pub chunk: u32,
    /// Timeout of each request, in ms.
    pub timeout_ms: u32,
    /// Sizes of the answers.
    pub response: Size,
    /// For the sizes.
    pub seed: u64,
    /// What proves who it is.
    pub token: corelay::base::Secret,
    /// With TLS, and the CA of the broker's certificate: the client library alone can.
    pub tls_ca: Option<PathBuf>,
}

impl Frames {
    fn dial(&self, role: Role, number: usize) -> Result<(OwnedFd, Terms, u32), DialError> {
        let socket = Socket::connect(&self.addr)?;
        if !self.broker {
            let (may_send, takes) = (u64::MAX, u64::MAX);
            let terms = Terms { may_send, takes, chunk: self.chunk, timeout_ms: self.timeout_ms };
            return Ok((socket.into_fd()?, terms, self.slots));
        }
        let hello = Hello {
            version: VERSION,
            role,
            features: 0,
            channel: self.channels[number % self.channels.len()],
            client: uuid::Uuid::new_v4(),
            window: self.window,
            max_concurrent: if role == Role::Provider { self.max_concurrent } else { 0 },
            token: self.token.clone(),
            name: "loadgen".into(),
        };
        let welcome = handshake(&socket, &hello)?;
        let terms = Terms {
            may_send: u64::from(welcome.window),
            takes: u64::from(self.window),
            chunk: self.chunk.min(welcome.max_frame.saturating_sub(64)),
            timeout_ms: self.timeout_ms,
        };
        Ok((socket.into_fd()?, terms, self.slots.min(welcome.max_streams)))
    }
}

impl Dial for Frames {
    type Consumer = FrameConsumer;
    type Provider = FrameProvider;

    fn is_paired(&self) -> bool {
        !self.broker
    }

    fn consumer(&mut self, number: usize) -> Result<(OwnedFd, FrameConsumer, u32), DialError> {
        let (fd, terms, slots) = self.dial(Role::Consumer, number)?;
        Ok((fd, FrameConsumer::new(terms, slots, self.seed ^ (number as u64) << 40), slots))
    }

    fn provider(&mut self, number: usize) -> Result<(OwnedFd, FrameProvider), DialError> {
        let (fd, terms, _) = self.dial(Role::Provider, number)?;
        Ok((fd, FrameProvider::new(terms, self.response.clone(), self.seed ^ number as u64)))
    }
}

fn handshake(socket: &Socket, hello: &Hello) -> Result<Welcome, DialError> {
    let mut frame = Vec::new();
    hello.encode(&mut frame).map_err(|error| socket.refused(error.to_string()))?;
    socket.write(&frame)?;
    let mut head = [0; HEADER_LEN];
    socket.read_exact(&mut head)?;
    let header = Header::decode(&head);
    if header.length > MAX_HANDSHAKE_FRAME {
        return Err(socket.refused("what it sent is no corelay frame"));
    }
    let mut payload = vec![0; header.length as usize];
    socket.read_exact(&mut payload)?;
    match header.frame_type() {
        Some(FrameType::Welcome) => Welcome::decode(&payload).map_err(|error| socket.refused(error.to_string())),
        Some(FrameType::Error) => {
            let code = Code::from_wire(header.code).map_or("an unknown code", Code::name);
            Err(socket.refused(format!("{code}: {}", String::from_utf8_lossy(&payload))))
        }
        kind => Err(socket.refused(format!("{kind:?} in place of WELCOME"))),
    }
}

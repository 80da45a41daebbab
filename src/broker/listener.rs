//! Listening sockets, and who is at the other end of an accepted one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tracing::{info, warn};

use super::options::ListenAddr;
use super::server::ServerError;

/// Between two attempts to bind an address in use.
const BETWEEN_BINDS: Duration = Duration::from_millis(10);

/// A bound, listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) socket: Socket,
    /// As bound: with the port that was picked.
    pub(super) addr: ListenAddr,
}

impl Listener {
    /// Binds and listens; connections wait in the kernel until a core accepts.
    ///
    /// # Errors
    /// [`ServerError::Bind`], with what to do: `flag` is the one that sets the address.
    pub(crate) fn bind(addr: &ListenAddr, flag: &str) -> Result<Listener, ServerError> {
        let bound = match addr {
            ListenAddr::Tcp(tcp) => bind_tcp(*tcp, ListenAddr::Tcp),
            ListenAddr::Tls(tcp) => bind_tcp(*tcp, ListenAddr::Tls),
            ListenAddr::Unix(path) => bind_unix(path),
        };
        bound.map_err(|source| ServerError::Bind { addr: addr.to_string(), hint: hint(&source, addr, flag), source })
    }

    /// As [`Listener::bind`], but an address in use is tried again until then: a predecessor may just have ended. The
    /// kernel dismantles the rings of a process that was killed, and with them its listeners, some moments after its end.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub(super) fn bind_by(addr: &ListenAddr, flag: &str, until: Instant) -> Result<Listener, ServerError> {
        let begin = Instant::now();
        let mut told = false;
        loop {
            match Listener::bind(addr, flag) {
                Err(ServerError::Bind { source, .. })
                    if source.kind() == io::ErrorKind::AddrInUse && Instant::now() < until =>
                {
                    if !std::mem::replace(&mut told, true) {
                        let left = until - begin;
                        warn!(
                            "{addr} is in use, by a predecessor that is ending? Trying for {left:.1?} (server.bind_timeout)"
                        );
                    }
                    std::thread::sleep(BETWEEN_BINDS);
                }
                bound => {
                    if told && bound.is_ok() {
                        info!("{addr} was free after {:.1?}", begin.elapsed());
                    }
                    return bound;
                }
            }
        }
    }

    /// Where it listens, with the port that was picked.
    #[cfg(feature = "telemetry")]
    pub(crate) fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// One more descriptor of the socket, for one core to accept on.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }
}

/// The files of Unix sockets. They go when listening ends, so that a successor can bind, and not again later, for by
/// then they may be the successor's.
#[derive(Debug, Default)]
pub(super) struct SocketFiles(Mutex<Vec<PathBuf>>);

impl SocketFiles {
    pub(super) fn of(listeners: &[Listener]) -> SocketFiles {
        let files = listeners.iter().filter_map(|listener| match &listener.addr {
            ListenAddr::Unix(path) => Some(path.clone()),
            ListenAddr::Tcp(_) | ListenAddr::Tls(_) => None,
        });
        SocketFiles(Mutex::new(files.collect()))
    }

    /// Removes them, the first time.
    pub(super) fn remove(&self) {
        let files = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for file in files {
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The kernel's bound on a listen backlog, /proc/sys/net/core/somaxconn: listen(2) cuts to it.
fn backlog() -> i32 {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    somaxconn.and_then(|text| text.trim().parse().ok()).unwrap_or(4096)
}

fn bind_tcp(addr: SocketAddr, kind: fn(SocketAddr) -> ListenAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // a restart must not wait for the last connections' TIME_WAIT
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(backlog())?;
    socket.set_nonblocking(true)?;
    let bound = socket.local_addr()?.as_socket().expect("a TCP socket has an IP address");
    Ok(Listener { socket, addr: kind(bound) })
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let addr = socket2::SockAddr::unix(path)?;
    // a file left by a broker that was killed: nobody answers on it
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        match probe.connect(&addr) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&addr)?;
    socket.listen(backlog())?;
    socket.set_nonblocking(true)?;
    Ok(Listener { socket, addr: ListenAddr::Unix(path.to_owned()) })
}

fn hint(error: &io::Error, addr: &ListenAddr, flag: &str) -> String {
    match (error.kind(), addr) {
        (io::ErrorKind::AddrInUse, ListenAddr::Tcp(_) | ListenAddr::Tls(_)) => {
            format!(
                "another process has the port: stop it (ss -ltnp shows it), or pick another with {flag}; port 0 picks \
                 a free one"
            )
        }
        (io::ErrorKind::AddrInUse, ListenAddr::Unix(_)) => {
            format!("another process listens there: stop it, or pick another path with {flag}")
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            "no interface of this machine has the address (ip addr shows them)".to_owned()
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, and a socket file a writable directory".to_owned()
        }
        _ => format!("check the address given with {flag}: host:port, tls://host:port or unix:/path"),
    }
}

/// The other end of an accepted socket.
pub(super) struct Peer {
    /// For people.
    pub name: String,
    /// For the limit per address; none on Unix sockets.
    pub ip: Option<IpAddr>,
}

impl Peer {
    /// Who is at the other end; also sets what every accepted socket needs.
    pub(super) fn of(fd: &OwnedFd) -> Peer {
        let socket = SockRef::from(fd);
        match socket.peer_addr().ok().and_then(|addr| addr.as_socket()) {
            Some(addr) => {
                // output leaves in full batches; Nagle would only hold the last one back
                let _ = socket.set_tcp_nodelay(true);
                Peer { name: addr.to_string(), ip: Some(addr.ip().to_canonical()) }
            }
            None => Peer { name: "unix".to_owned(), ip: None },
        }
    }
}

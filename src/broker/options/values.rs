//! Addresses, cores and kinds of I/O, and how they are written.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// A value that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?}: expected {expected}")]
pub struct BadValue {
    /// What was given.
    pub given: String,
    /// What would do.
    pub expected: &'static str,
}

/// Where to accept connections: `host:port`, `tls://host:port`, or `unix:/path`.
///
/// A host name is looked up when it is read; its first IPv4 address is taken, else its first. Port 0 lets the kernel
/// pick one.
///
/// ```
/// use corelay::broker::ListenAddr;
/// for text in ["127.0.0.1:9090", "[::1]:0", "tls://127.0.0.1:9443", "unix:/run/corelay.sock"] {
///     assert_eq!(text.parse::<ListenAddr>()?.to_string(), text);
/// }
/// # Ok::<(), corelay::broker::BadValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An address and port.
    Tcp(SocketAddr),
    /// The same, with TLS.
    Tls(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// The longest path a Unix socket can have, in bytes (unix(7)).
const MAX_UNIX_PATH: usize = 107;

impl FromStr for ListenAddr {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<ListenAddr, BadValue> {
        let bad = |expected| BadValue { given: text.into(), expected };
        if let Some(path) = text.strip_prefix("unix:") {
            let usable = !path.ends_with('/') && (1..=MAX_UNIX_PATH).contains(&path.len());
            return usable.then(|| ListenAddr::Unix(path.into())).ok_or(bad("unix: and a path of 1 to 107 bytes"));
        }
        let (kind, host_port): (fn(SocketAddr) -> ListenAddr, _) = match text.strip_prefix("tls://") {
            Some(rest) => (ListenAddr::Tls, rest),
            None => (ListenAddr::Tcp, text),
        };
        if let Ok(addr) = host_port.parse() {
            return Ok(kind(addr));
        }
        let parts = host_port.rsplit_once(':');
        let is_host = |host: &str| !host.is_empty() && !host.contains('/');
        if !parts.is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok()) {
            return Err(bad("host:port, tls://host:port or unix:/path"));
        }
        let found = host_port.to_socket_addrs().map_err(|_| bad("a host name that can be looked up"))?;
        let found: Vec<_> = found.collect();
        let first = found.iter().find(|addr| addr.is_ipv4()).or(found.first());
        first.map(|&addr| kind(addr)).ok_or(bad("a host name with an address"))
    }
}

impl ListenAddr {
    /// The address and port, unless it is a Unix socket.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            ListenAddr::Tcp(addr) | ListenAddr::Tls(addr) => Some(*addr),
            ListenAddr::Unix(_) => None,
        }
    }

    /// Whether connections there are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, ListenAddr::Tls(_))
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> ListenAddr {
        ListenAddr::Tcp(addr)
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(addr) => addr.fmt(f),
            ListenAddr::Tls(addr) => write!(f, "tls://{addr}"),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which cores run the broker: `auto`, a number of cores, or a list of CPUs as taskset(1) writes them.
///
/// ```
/// use corelay::broker::Cores;
/// assert_eq!("4".parse(), Ok(Cores::Count(4)));
/// assert_eq!("0-2,6".parse(), Ok(Cores::List(vec![0, 1, 2, 6])));
/// assert_eq!("3-3".parse(), Ok(Cores::List(vec![3])));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// The CPUs of the affinity mask, at most the cgroup's quota.
    Auto,
    /// So many of those.
    Count(usize),
    /// These CPUs.
    List(Vec<usize>),
}

/// The most CPUs Linux is built for.
const MAX_CPUS: usize = 8192;

impl FromStr for Cores {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Cores, BadValue> {
        let bad = || BadValue { given: text.into(), expected: "auto, a number of cores, or CPUs such as 0-3,6" };
        if text == "auto" {
            return Ok(Cores::Auto);
        }
        if let Ok(count) = text.parse() {
            return if (1..=MAX_CPUS).contains(&count) { Ok(Cores::Count(count)) } else { Err(bad()) };
        }
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) else { return Err(bad()) };
            if from > to || to >= MAX_CPUS || cpus.iter().any(|cpu| (from..=to).contains(cpu)) {
                return Err(bad());
            }
            cpus.extend(from..=to);
        }
        Ok(Cores::List(cpus))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::Auto => f.write_str("auto"),
            Cores::Count(count) => count.fmt(f),
            // a lone number would be a count
            Cores::List(cpus) if cpus.len() == 1 => write!(f, "{0}-{0}", cpus[0]),
            Cores::List(cpus) => {
                let texts: Vec<_> = cpus.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

/// How the kernel is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring, or epoll where that can't be had.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

impl FromStr for Io {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Io, BadValue> {
        match text {
            "auto" => Ok(Io::Auto),
            "uring" | "io_uring" => Ok(Io::Uring),
            "epoll" => Ok(Io::Epoll),
            _ => Err(BadValue { given: text.into(), expected: "auto, uring or epoll" }),
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Io::Auto => "auto",
            Io::Uring => "uring",
            Io::Epoll => "epoll",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        assert_eq!("localhost:7".parse(), Ok(ListenAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 7)))));
        assert_eq!("tls://localhost:7".parse(), Ok(ListenAddr::Tls(SocketAddr::from(([127, 0, 0, 1], 7)))));
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in [
            "tls://",
            "tls://:1",
            "tls:127.0.0.1:1",
            "https://a:1",
            "",
            "9090",
            ":9090",
            "127.0.0.1",
            "127.0.0.1:70000",
            "unix:",
            "no-such-host.invalid:1",
            &long,
        ] {
            assert_eq!(bad.parse::<ListenAddr>().unwrap_err().given, bad);
        }
    }

    #[test]
    fn cores_are_told_from_what_is_none() {
        for text in ["auto", "1", "8", "3-3", "0,1,2,6"] {
            assert_eq!(text.parse::<Cores>().unwrap().to_string(), text);
        }
        for bad in ["", "0", "-1", "two", "3-1", "1,1", "0-2,2", "0,", "9999999"] {
            assert!(bad.parse::<Cores>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_kind_of_io_comes_back() {
        for io in [Io::Auto, Io::Uring, Io::Epoll] {
            assert_eq!(io.to_string().parse(), Ok(io));
        }
        assert!("select".parse::<Io>().is_err());
    }
}

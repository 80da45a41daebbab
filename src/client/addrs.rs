//! Where brokers are: TCP addresses and Unix sockets, one or several.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use uuid::Uuid;

use super::{Error, ErrorKind};
use crate::base::ChannelId;

/// One broker's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Addr {
    /// `host:port`; the name is looked up at each attempt to connect.
    Tcp(String),
    /// The same, with TLS: `tls://host:port`. How it is checked is in [`Options`](super::Options).
    Tls(String),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(host_port) => f.write_str(host_port),
            Addr::Tls(host_port) => write!(f, "tls://{host_port}"),
            Addr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One or several brokers, tried in turn.
///
/// From text: `"host:port"`, `"tls://host:port"` (or `"corelays://host:port"`), `"unix:/path"`, or several of those
/// with commas between. Text that is no address is told by whoever connects, as [`ErrorKind::InvalidInput`].
///
/// ```
/// use corelay::client::Addrs;
/// let addrs = Addrs::from("broker-a:9090, broker-b:9090, unix:/run/corelay.sock");
/// assert_eq!(addrs.to_string(), "broker-a:9090,broker-b:9090,unix:/run/corelay.sock");
/// assert_eq!(Addrs::from(vec!["a:1", "b:2"]), Addrs::from("a:1,b:2"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addrs {
    list: Vec<Addr>,
    bad: Option<String>,
}

impl Addrs {
    /// The addresses, in the order they are tried.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where one is no address, or there is none.
    pub fn list(&self) -> Result<&[Addr], Error> {
        match &self.bad {
            Some(bad) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{bad:?} is no broker address: expected host:port, tls://host:port or unix:/path"),
            )),
            None if self.list.is_empty() => Err(Error::new(ErrorKind::InvalidInput, "no broker address given")),
            None => Ok(&self.list),
        }
    }

    fn none() -> Addrs {
        Addrs { list: Vec::new(), bad: None }
    }

    fn add(mut self, text: &str) -> Addrs {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match parse(part) {
                Some(addr) => self.list.push(addr),
                None => self.bad = self.bad.or_else(|| Some(part.to_owned())),
            }
        }
        self
    }
}

fn parse(text: &str) -> Option<Addr> {
    if let Some(path) = text.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| Addr::Unix(path.into()));
    }
    if let Some(host_port) = text.strip_prefix("tls://").or_else(|| text.strip_prefix("corelays://")) {
        return is_host_port(host_port).then(|| Addr::Tls(host_port.to_owned()));
    }
    is_host_port(text).then(|| Addr::Tcp(text.to_owned()))
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    !host.is_empty() && !host.contains('/') && !bare_v6 && port.parse::<u16>().is_ok()
}

impl fmt::Display for Addrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, addr) in self.list.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{addr}")?;
        }
        Ok(())
    }
}

impl From<&str> for Addrs {
    fn from(text: &str) -> Addrs {
        Addrs::none().add(text)
    }
}

impl From<String> for Addrs {
    fn from(text: String) -> Addrs {
        Addrs::from(text.as_str())
    }
}

impl From<&String> for Addrs {
    fn from(text: &String) -> Addrs {
        Addrs::from(text.as_str())
    }
}

impl From<SocketAddr> for Addrs {
    fn from(addr: SocketAddr) -> Addrs {
        Addrs::from(addr.to_string())
    }
}

impl From<Addr> for Addrs {
    fn from(addr: Addr) -> Addrs {
        Addrs { list: vec![addr], bad: None }
    }
}

impl<T> From<&[T]> for Addrs
where
    T: Clone + Into<Addrs>,
{
    fn from(each: &[T]) -> Addrs {
        each.iter().cloned().collect()
    }
}

impl<T: Into<Addrs>, const N: usize> From<[T; N]> for Addrs {
    fn from(each: [T; N]) -> Addrs {
        each.into_iter().collect()
    }
}

impl<T: Into<Addrs>> From<Vec<T>> for Addrs {
    fn from(each: Vec<T>) -> Addrs {
        each.into_iter().collect()
    }
}

impl<T: Into<Addrs>> FromIterator<T> for Addrs {
    fn from_iter<I: IntoIterator<Item = T>>(each: I) -> Addrs {
        each.into_iter().fold(Addrs::none(), |mut all, next| {
            let next: Addrs = next.into();
            all.list.extend(next.list);
            all.bad = all.bad.or(next.bad);
            all
        })
    }
}

/// A channel as callers give it: a [`ChannelId`], a [`Uuid`], or text that is a UUID or a name.
///
/// Text that is no channel is told by whoever connects, as [`ErrorKind::InvalidInput`].
#[derive(Clone, Debug)]
pub struct Channel(Result<ChannelId, String>);

impl Channel {
    pub(super) fn id(self) -> Result<ChannelId, Error> {
        self.0.map_err(|text| Error::new(ErrorKind::InvalidInput, text))
    }
}

impl From<ChannelId> for Channel {
    fn from(id: ChannelId) -> Channel {
        Channel(Ok(id))
    }
}

impl From<Uuid> for Channel {
    fn from(id: Uuid) -> Channel {
        Channel(Ok(id.into()))
    }
}

impl From<&str> for Channel {
    fn from(text: &str) -> Channel {
        Channel(text.parse().map_err(|bad: crate::base::channel::BadChannel| bad.to_string()))
    }
}

impl From<String> for Channel {
    fn from(text: String) -> Channel {
        Channel::from(text.as_str())
    }
}

impl From<&String> for Channel {
    fn from(text: &String) -> Channel {
        Channel::from(text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        for good in ["localhost:9090", "10.0.0.1:1", "[::1]:9090", "unix:/run/x.sock", "tls://a:1", "a:1,tls://[::1]:2"]
        {
            assert_eq!(Addrs::from(good).to_string(), good);
            assert!(Addrs::from(good).list().is_ok(), "{good}");
        }
        for bad in
            ["localhost", "a:70000", ":9090", "unix:", "::1:9090", "a:1,b", "tls://a", "tls://", "http://a:1", "", ","]
        {
            assert_eq!(Addrs::from(bad).list().unwrap_err().kind, ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn lists_of_anything_join() {
        assert_eq!(Addrs::from("corelays://a:1"), Addrs::from("tls://a:1"));
        let socket: SocketAddr = "[::1]:7".parse().unwrap();
        let all: Addrs = [Addrs::from("a:1,b:2"), Addrs::from(socket)].into();
        assert_eq!(all.to_string(), "a:1,b:2,[::1]:7");
        assert_eq!(Addrs::from(&["a:1", "b:2"][..]), Addrs::from("a:1,b:2"));
    }

    #[test]
    fn a_channel_is_told_from_what_is_none() {
        assert_eq!(Channel::from("orders").id().unwrap(), ChannelId::named("orders"));
        assert_eq!(Channel::from("").id().unwrap_err().kind, ErrorKind::InvalidInput);
    }
}

//! UDP.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use super::datagram::{DatagramClient, datagram_client};
use super::stream::{Dial, Times};
use super::wire::Socket;
use crate::forward::UrlError;
use crate::forward::framing::envelope_from_url;
use crate::forward::url::{Url, host_port};

/// The most bytes in a datagram over IPv4: 65,535 less the headers of IP (20) and UDP (8).
const MAX_DATAGRAM: u64 = 65_507;

/// Sends each message as one datagram, at most once: success means that the kernel has it.
///
/// `udp://host:port`; options `envelope` (`none`, `json`), `mtu` (65,507: more is too large, never cut),
/// `connect_timeout` (5 s; for looking up the name) and `send_timeout` (5 s).
///
/// Nobody says whether a datagram arrives. Where the target's machine answers that nobody listens (ICMP) before the call
/// is back, as this machine itself does, the message is in doubt: given up, and counted. A later answer is met by the
/// next message, which is tried again; what was sent before that is lost.
///
/// ```
/// use corelay::forward::{Client, UdpClient};
/// let client = UdpClient::new("127.0.0.1:9000")?;
/// assert_eq!(client.takes().max_body, Some(65_507));
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
#[derive(Debug)]
pub struct UdpClient {
    datagrams: DatagramClient<UdpDial>,
}

#[derive(Debug)]
struct UdpDial {
    host: String,
    port: u16,
}

impl Dial for UdpDial {
    async fn dial(&self) -> io::Result<Socket> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for target in tokio::net::lookup_host((&*self.host, self.port)).await? {
            let any = match target {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            };
            let socket = UdpSocket::bind(any).await?;
            match socket.connect(target).await {
                Ok(()) => return Ok(Socket::Udp(socket)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl UdpClient {
    const PROTOCOL: &'static str = "udp";

    /// To `host:port`.
    ///
    /// # Errors
    /// That is no `host:port`.
    pub fn new(address: &str) -> Result<UdpClient, UrlError> {
        UdpClient::from_url(Url::parse(&format!("udp://{address}"))?)
    }

    /// With so long for looking up the name, and for sending.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> UdpClient {
        self.datagrams.times = Times { connect_timeout: timeout, send_timeout: timeout };
        self
    }

    pub(in crate::forward) fn from_url(mut url: Url) -> Result<UdpClient, UrlError> {
        url.without_login()?;
        url.without_path()?;
        let (host, port) = url.place(None)?;
        let envelope = envelope_from_url(&mut url)?;
        let mtu = url.size("mtu")?.unwrap_or(MAX_DATAGRAM).min(MAX_DATAGRAM) as usize;
        let times = Times::from_url(&mut url)?;
        url.finish()?;
        let address = host_port(&host, port);
        Ok(UdpClient { datagrams: DatagramClient::new(UdpDial { host, port }, address, envelope, mtu, times) })
    }
}

datagram_client!(UdpClient);

//! TCP.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::stream::{Dial, StreamClient, Times, stream_client};
use super::wire::Socket;
use crate::forward::UrlError;
use crate::forward::framing::{Format, Framing};
use crate::forward::url::{Url, host_port};

/// A connection without traffic is asked after this long whether the other side is still there,
const KEEPALIVE: Duration = Duration::from_secs(30);
/// then this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// and so many times, so that one that is gone is noticed within a minute.
const KEEPALIVE_RETRIES: u32 = 3;

/// Sends over TCP, at most once: success means that the kernel has the message.
///
/// `tcp://host:port`; options `framing` (`len32`, `lines`, `raw`), `envelope` (`none`, `json`), `connect_timeout` (5 s),
/// and `send_timeout` (5 s): how long the target may go without taking anything.
///
/// ```
/// use std::time::Duration;
/// use corelay::forward::{Client, TcpClient};
/// let client = TcpClient::new("127.0.0.1:9000")?.with_timeout(Duration::from_secs(10));
/// assert_eq!((client.protocol_name(), client.address()), ("tcp", "127.0.0.1:9000"));
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
#[derive(Debug)]
pub struct TcpClient {
    stream: StreamClient<TcpDial>,
}

#[derive(Debug)]
pub(super) struct TcpDial {
    host: String,
    port: u16,
}

impl TcpDial {
    pub(super) fn new(host: String, port: u16) -> TcpDial {
        TcpDial { host, port }
    }

    /// Looks the name up each time: it may have moved.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(stream)
    }
}

impl Dial for TcpDial {
    async fn dial(&self) -> io::Result<Socket> {
        self.connect().await.map(Socket::Tcp)
    }
}

impl TcpClient {
    const PROTOCOL: &'static str = "tcp";

    /// To `host:port`, with lengths before messages and 5 s for everything.
    ///
    /// # Errors
    /// That is no `host:port`.
    pub fn new(address: &str) -> Result<TcpClient, UrlError> {
        TcpClient::from_url(Url::parse(&format!("tcp://{address}"))?)
    }

    /// With so long for connecting, and so long without progress when sending.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> TcpClient {
        (self.stream.connect_timeout, self.stream.send_timeout) = (timeout, timeout);
        self
    }

    /// With messages in another format.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> TcpClient {
        self.stream.format = format;
        self
    }

    pub(in crate::forward) fn from_url(mut url: Url) -> Result<TcpClient, UrlError> {
        url.without_login()?;
        url.without_path()?;
        let (host, port) = url.place(None)?;
        let format = Format::from_url(&mut url, Framing::Len32)?;
        let times = Times::from_url(&mut url)?;
        url.finish()?;
        let address = host_port(&host, port);
        Ok(TcpClient { stream: StreamClient::new(TcpDial::new(host, port), address, format, times) })
    }
}

stream_client!(TcpClient);

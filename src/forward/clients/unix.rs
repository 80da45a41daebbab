//! Unix sockets, of streams and of datagrams.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixDatagram, UnixStream};

use super::datagram::{DatagramClient, datagram_client};
use super::stream::{Dial, StreamClient, Times, stream_client};
use super::wire::Socket;
use crate::forward::framing::{Format, Framing, envelope_from_url};
use crate::forward::url::Url;
use crate::forward::{Client, UrlError};

/// The most bytes in one datagram unless `mtu` says otherwise: below `net.core.wmem_default` (208 KiB), which is what
/// a socket can send at once where nobody has changed it.
const MAX_DATAGRAM: u64 = 128 << 10;

/// Sends over a Unix stream socket, at most once: success means that the kernel has the message.
///
/// `unix:///path`; options as those of [`TcpClient`](super::TcpClient), and `type` (`stream`, or `datagram`, which makes a
/// [`UnixDatagramClient`]).
#[derive(Debug)]
pub struct UnixClient {
    stream: StreamClient<StreamDial>,
}

#[derive(Debug)]
struct StreamDial(PathBuf);

impl Dial for StreamDial {
    async fn dial(&self) -> io::Result<Socket> {
        UnixStream::connect(&self.0).await.map(Socket::Unix)
    }
}

impl UnixClient {
    const PROTOCOL: &'static str = "unix";

    /// To the socket at this path, with lengths before messages and 5 s for everything.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> UnixClient {
        UnixClient::with(path.as_ref().to_owned(), Format::default(), Times::default())
    }

    /// With so long for connecting, and so long without progress when sending.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> UnixClient {
        (self.stream.connect_timeout, self.stream.send_timeout) = (timeout, timeout);
        self
    }

    fn with(path: PathBuf, format: Format, times: Times) -> UnixClient {
        let address = path.display().to_string();
        UnixClient { stream: StreamClient::new(StreamDial(path), address, format, times) }
    }
}

stream_client!(UnixClient);

/// Sends each message as one datagram to a Unix socket, at most once: success means that it is in the target's queue,
/// whose length bounds what a target that dies can lose.
///
/// `unix:///path?type=datagram`; options `envelope`, `mtu` (128 KiB: more is too large, never cut), `connect_timeout` and
/// `send_timeout` (5 s each; a full queue is waited for so long).
#[derive(Debug)]
pub struct UnixDatagramClient {
    datagrams: DatagramClient<DatagramDial>,
}

#[derive(Debug)]
struct DatagramDial(PathBuf);

impl Dial for DatagramDial {
    async fn dial(&self) -> io::Result<Socket> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.0)?;
        Ok(Socket::UnixDatagram(socket))
    }
}

impl UnixDatagramClient {
    const PROTOCOL: &'static str = "unix";

    /// To the socket at this path.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> UnixDatagramClient {
        UnixDatagramClient::with(path.as_ref().to_owned(), false, MAX_DATAGRAM as usize, Times::default())
    }

    /// With so long for a full queue to have room.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> UnixDatagramClient {
        self.datagrams.times = Times { connect_timeout: timeout, send_timeout: timeout };
        self
    }

    fn with(path: PathBuf, envelope: bool, mtu: usize, times: Times) -> UnixDatagramClient {
        let address = path.display().to_string();
        UnixDatagramClient { datagrams: DatagramClient::new(DatagramDial(path), address, envelope, mtu, times) }
    }
}

datagram_client!(UnixDatagramClient);

/// Either of them.
pub(in crate::forward) fn from_url(mut url: Url) -> Result<Arc<dyn Client>, UrlError> {
    url.without_login()?;
    let path = url.file_path()?;
    let is_datagram = url.choice("type", &[("stream", false), ("datagram", true)], false)?;
    if is_datagram {
        let envelope = envelope_from_url(&mut url)?;
        let mtu = url.size("mtu")?.unwrap_or(MAX_DATAGRAM);
        let times = Times::from_url(&mut url)?;
        url.finish()?;
        let mtu = usize::try_from(mtu).unwrap_or(usize::MAX);
        return Ok(Arc::new(UnixDatagramClient::with(path, envelope, mtu, times)));
    }
    let format = Format::from_url(&mut url, Framing::Len32)?;
    let times = Times::from_url(&mut url)?;
    url.finish()?;
    Ok(Arc::new(UnixClient::with(path, format, times)))
}

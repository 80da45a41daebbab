//! Making transport connections.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

#[cfg(feature = "tls")]
use super::tls::Connector;
use super::{Addr, ErrorKind, Options};

/// A transport connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

pub(super) type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// What makes transport connections: sockets, or in tests pipes in memory.
pub(super) trait Dial: Send + Sync + 'static {
    fn dial<'a>(&'a self, addr: &'a Addr) -> Dialing<'a>;
}

/// TCP, with TLS or without, and Unix sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    #[cfg(feature = "tls")]
    tls: Connector,
}

impl Sockets {
    #[cfg_attr(not(feature = "tls"), expect(unused_variables))]
    pub(super) fn new(options: &Options) -> Sockets {
        Sockets {
            #[cfg(feature = "tls")]
            tls: Connector::new(options.tls.clone(), crate::tls::ALPN),
        }
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, host_port: &str, stream: TcpStream) -> io::Result<Box<dyn Io>> {
        Ok(Box::new(self.tls.connect(host_port, stream).await?))
    }

    #[cfg(not(feature = "tls"))]
    async fn secure(&self, _: &str, _: TcpStream) -> io::Result<Box<dyn Io>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this program was built without the feature tls of corelay"))
    }
}

/// What kind of failure it is: options that can't be used don't get better.
pub(super) fn kind(error: &io::Error) -> ErrorKind {
    #[cfg(feature = "tls")]
    if super::tls::is_unusable(error) {
        return ErrorKind::InvalidInput;
    }
    if error.kind() == io::ErrorKind::Unsupported { ErrorKind::InvalidInput } else { ErrorKind::Connection }
}

async fn tcp(host_port: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(host_port).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Dial for Sockets {
    fn dial<'a>(&'a self, addr: &'a Addr) -> Dialing<'a> {
        Box::pin(async move {
            match addr {
                Addr::Tcp(host_port) => Ok(Box::new(tcp(host_port).await?) as Box<dyn Io>),
                Addr::Tls(host_port) => self.secure(host_port, tcp(host_port).await?).await,
                Addr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Io>),
            }
        })
    }
}

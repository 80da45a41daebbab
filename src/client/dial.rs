//! Making transport connections.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Addr;

/// A transport connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

pub(super) type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// What makes transport connections: sockets, or in tests pipes in memory.
pub(super) trait Dial: Send + Sync + 'static {
    fn dial<'a>(&'a self, addr: &'a Addr) -> Dialing<'a>;
}

/// TCP and Unix sockets.
#[derive(Debug)]
pub(super) struct Sockets;

impl Dial for Sockets {
    fn dial<'a>(&'a self, addr: &'a Addr) -> Dialing<'a> {
        Box::pin(async move {
            match addr {
                Addr::Tcp(host_port) => {
                    let stream = TcpStream::connect(host_port.as_str()).await?;
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as Box<dyn Io>)
                }
                Addr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Io>),
            }
        })
    }
}

//! Pooled TCP connections.

use std::io;

use tokio::net::TcpStream;

use super::Factory;

/// Opens TCP connections to one address, with `TCP_NODELAY`.
///
/// What can be known of a TCP connection without a protocol: that the other side has not closed it, and sends nothing
/// unasked (a late answer to somebody else's request, say, which makes it unfit for the next user).
///
/// ```no_run
/// use corelay::toolkit::connection_pool::{Options, Pool, TcpFactory};
/// # fn example() -> Result<(), corelay::toolkit::connection_pool::InvalidOptions> {
/// let pool = Pool::new(TcpFactory::new("cache.internal:6379"), Options::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TcpFactory {
    addr: String,
}

impl TcpFactory {
    /// To `addr`, host and port: resolved anew for each connection.
    pub fn new(addr: impl Into<String>) -> TcpFactory {
        TcpFactory { addr: addr.into() }
    }
}

/// Nothing to read and not closed.
fn check(conn: &TcpStream) -> io::Result<()> {
    // a read of nothing-yet takes nothing away; anything else makes the connection unfit in any case
    match conn.try_read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed the connection")),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the other side sent something unasked")),
    }
}

impl Factory for TcpFactory {
    type Connection = TcpStream;
    type Error = io::Error;

    async fn create(&self) -> io::Result<TcpStream> {
        let conn = TcpStream::connect(&self.addr).await?;
        conn.set_nodelay(true)?;
        Ok(conn)
    }

    async fn validate(&self, conn: &mut TcpStream) -> io::Result<()> {
        check(conn)
    }

    fn is_broken(&self, conn: &TcpStream) -> bool {
        check(conn).is_err()
    }

    fn is_transient(&self, error: &io::Error) -> bool {
        !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied)
    }
}

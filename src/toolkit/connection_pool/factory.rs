//! What the pool asks of a kind of connection.

use std::future::Future;
use std::pin::Pin;

/// The orderly end of a connection, when it takes time: see [`Factory::close`].
pub type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Creates connections of one kind, and judges them.
///
/// Futures may be dropped before they end (a timeout, a caller that gave up): what they had begun is then lost, and
/// the pool closes the connection they worked on.
///
/// ```
/// use corelay::toolkit::connection_pool::{Factory, Options, Pool};
///
/// struct Numbers;
///
/// impl Factory for Numbers {
///     type Connection = u32;
///     type Error = std::io::Error;
///
///     async fn create(&self) -> Result<u32, std::io::Error> {
///         Ok(7)
///     }
///     async fn validate(&self, _: &mut u32) -> Result<(), std::io::Error> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(Numbers, Options::default())?;
/// assert_eq!(*pool.get().await?, 7);
/// # Ok(())
/// # }
/// ```
pub trait Factory: Send + Sync + 'static {
    /// The connection.
    type Connection: Send + 'static;
    /// What can go wrong with it.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Opens a connection. The pool bounds it by
    /// [`create_timeout`](super::Options::create_timeout).
    ///
    /// # Errors
    /// Whatever keeps it from being opened; see [`Factory::is_transient`].
    fn create(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Makes sure, by a round trip, that the other side still answers. The pool bounds it by
    /// [`validate_timeout`](super::Options::validate_timeout).
    ///
    /// # Errors
    /// Whatever says that the connection is of no use any more: the pool closes it.
    fn validate(&self, conn: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether [`reset`](Factory::reset) is to be called before a connection that was used is lent again. By default
    /// `false`.
    fn needs_reset(&self, conn: &Self::Connection) -> bool {
        let _ = conn;
        false
    }

    /// Brings a connection that was used to the state of a new one. Bounded as [`validate`](Factory::validate) is; it
    /// proves the connection alive as well. By default nothing.
    ///
    /// # Errors
    /// The connection is then closed and another one lent.
    fn reset(&self, conn: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = conn;
        async { Ok(()) }
    }

    /// Whether the connection is known to be of no use, found without waiting: asked each time it is lent (under the
    /// pool's lock, so it has to be quick) and given back. By default `false`.
    fn is_broken(&self, conn: &Self::Connection) -> bool {
        let _ = conn;
        false
    }

    /// Closes a connection. By default it is dropped; where an orderly end takes time (a goodbye to send), return the
    /// future that does it: it is run in the background and given 5 s.
    fn close(&self, conn: Self::Connection) -> Option<Closing> {
        drop(conn);
        None
    }

    /// Whether creating may succeed when tried again. A wrong password, say, is not transient: the caller then gets the
    /// error at once. By default `true`.
    fn is_transient(&self, error: &Self::Error) -> bool {
        let _ = error;
        true
    }
}

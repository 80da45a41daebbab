//! A connection in use.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::time::Instant;

use super::lease::{Turn, give_back};
use super::state::{Entry, State};
use super::{CloseReason, Error, Factory};

/// A connection in use. Dropped, wherever that happens, it goes back to the pool, or is closed if the factory says
/// that it [is broken](Factory::is_broken), its life is over, or enough are idle.
///
/// It borrows nothing, so it can move to another task, or to `spawn_blocking` for a connection that blocks.
///
/// ```
/// # use corelay::toolkit::connection_pool::{Options, Pool, TcpFactory};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let pool = Pool::new(TcpFactory::new(server.local_addr()?.to_string()), Options::default())?;
/// let conn = pool.get().await?;
/// conn.set_nodelay(true)?;
/// conn.discard(); // not to be used again
/// assert_eq!(pool.stats().open, 0);
/// # Ok(())
/// # }
/// ```
pub struct Guard<F: Factory> {
    held: Option<(Turn<F>, Entry<F::Connection>)>,
}

impl<F: Factory> Guard<F> {
    pub(super) fn new(turn: Turn<F>, entry: Entry<F::Connection>) -> Guard<F> {
        Guard { held: Some((turn, entry)) }
    }

    fn held(&self) -> &(Turn<F>, Entry<F::Connection>) {
        self.held.as_ref().expect("a guard has its connection until it is consumed")
    }

    fn held_mut(&mut self) -> &mut (Turn<F>, Entry<F::Connection>) {
        self.held.as_mut().expect("a guard has its connection until it is consumed")
    }

    /// Closes the connection instead of giving it back: for one whose state is unknown, after a protocol error, say.
    pub fn discard(mut self) {
        if let Some((turn, entry)) = self.held.take() {
            give_back(turn, entry, Some(CloseReason::Discarded));
        }
    }

    /// Takes the connection out of the pool for good: the pool may open another one in its place.
    #[must_use]
    pub fn detach(mut self) -> F::Connection {
        let (turn, entry) = self.held.take().expect("a guard has its connection until it is consumed");
        turn.0.lost_one(State::detach);
        entry.conn
    }

    /// The time a round trip to the other side takes.
    ///
    /// # Errors
    /// [`Error::Validate`] or [`Error::ValidateTimeout`]: the connection is of no use any more; discard it.
    pub async fn ping(&mut self) -> Result<Duration, Error<F::Error>> {
        let (turn, entry) = self.held_mut();
        let begin = Instant::now();
        turn.0.validate(&mut entry.conn).await?;
        Ok(begin.elapsed())
    }

    /// Time since the connection was opened.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.held().1.created.elapsed()
    }
}

impl<F: Factory> Deref for Guard<F> {
    type Target = F::Connection;

    fn deref(&self) -> &F::Connection {
        &self.held().1.conn
    }
}

impl<F: Factory> DerefMut for Guard<F> {
    fn deref_mut(&mut self) -> &mut F::Connection {
        &mut self.held_mut().1.conn
    }
}

impl<F: Factory> Drop for Guard<F> {
    fn drop(&mut self) {
        if let Some((turn, entry)) = self.held.take() {
            give_back(turn, entry, None);
        }
    }
}

impl<F: Factory<Connection: fmt::Debug>> fmt::Debug for Guard<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&**self).finish()
    }
}

//! A double for a server that connections are pooled to.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::toolkit::connection_pool::{Closing, Factory};

/// A make-believe server, and the [`Factory`] of connections to it: it counts, fails and takes its time as it is told.
/// Clones are the same server.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::time::pause();
/// use corelay::toolkit::connection_pool::{Options, Pool};
/// use corelay::toolkit::testing::FakeServer;
///
/// let server = FakeServer::default();
/// let pool = Pool::new(server.clone(), Options { max_open: 2, ..Options::default() })?;
/// let (one, two) = (pool.get().await?, pool.get().await?);
/// drop((one, two));
/// assert_eq!((server.open(), server.most_open()), (2, 2));
/// server.set_down(true);
/// assert!(pool.ping().await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct FakeServer(Arc<Mutex<Server>>);

#[derive(Debug, Default)]
struct Server {
    open: usize,
    most_open: usize,
    is_down: bool,
    is_refusing: bool,
    is_resetting: bool,
    connect_time: Duration,
    answer_time: Duration,
    close_time: Duration,
    asked: Vec<Instant>,
    validations: usize,
    resets: usize,
}

/// What a [`FakeServer`] that is down says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is down")]
pub struct ServerDown;

/// A connection to a [`FakeServer`]: open as long as it lives.
#[derive(Debug)]
pub struct FakeConnection {
    server: FakeServer,
    number: usize,
    is_broken: bool,
}

impl FakeConnection {
    /// Which one it is, from 1, of all that were asked for.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// It is known to be of no use from now on.
    pub fn break_off(&mut self) {
        self.is_broken = true;
    }
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        self.server.state().open -= 1;
    }
}

impl fmt::Debug for FakeServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeServer").field("open", &self.open()).finish_non_exhaustive()
    }
}

impl FakeServer {
    fn state(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While it is down, no connection is opened, and none answers.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// Its errors are lasting ones: trying again is of no use.
    pub fn set_refusing(&self, is_refusing: bool) {
        self.state().is_refusing = is_refusing;
    }

    /// Connections that were used need a reset.
    pub fn set_resetting(&self, is_resetting: bool) {
        self.state().is_resetting = is_resetting;
    }

    /// How long opening a connection takes.
    pub fn set_connect_time(&self, time: Duration) {
        self.state().connect_time = time;
    }

    /// How long a validation takes.
    pub fn set_answer_time(&self, time: Duration) {
        self.state().answer_time = time;
    }

    /// How long closing a connection takes.
    pub fn set_close_time(&self, time: Duration) {
        self.state().close_time = time;
    }

    /// Connections there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.state().open
    }

    /// The most there ever were.
    #[must_use]
    pub fn most_open(&self) -> usize {
        self.state().most_open
    }

    /// When connections were asked for, in this order.
    #[must_use]
    pub fn asked(&self) -> Vec<Instant> {
        self.state().asked.clone()
    }

    /// Validations it was asked for.
    #[must_use]
    pub fn validations(&self) -> usize {
        self.state().validations
    }

    /// Connections that were reset.
    #[must_use]
    pub fn resets(&self) -> usize {
        self.state().resets
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl Factory for FakeServer {
    type Connection = FakeConnection;
    type Error = ServerDown;

    async fn create(&self) -> Result<FakeConnection, ServerDown> {
        let (number, time) = {
            let mut state = self.state();
            state.asked.push(Instant::now());
            (state.asked.len(), state.connect_time)
        };
        pause(time).await;
        let mut state = self.state();
        if state.is_down {
            return Err(ServerDown);
        }
        state.open += 1;
        state.most_open = state.most_open.max(state.open);
        Ok(FakeConnection { server: self.clone(), number, is_broken: false })
    }

    async fn validate(&self, conn: &mut FakeConnection) -> Result<(), ServerDown> {
        let time = {
            let mut state = self.state();
            state.validations += 1;
            state.answer_time
        };
        pause(time).await;
        if self.state().is_down || conn.is_broken { Err(ServerDown) } else { Ok(()) }
    }

    fn needs_reset(&self, _: &FakeConnection) -> bool {
        self.state().is_resetting
    }

    async fn reset(&self, _: &mut FakeConnection) -> Result<(), ServerDown> {
        self.state().resets += 1;
        Ok(())
    }

    fn is_broken(&self, conn: &FakeConnection) -> bool {
        conn.is_broken
    }

    fn close(&self, conn: FakeConnection) -> Option<Closing> {
        let time = self.state().close_time;
        if time.is_zero() {
            return None;
        }
        Some(Box::pin(async move {
            pause(time).await;
            drop(conn);
        }))
    }

    fn is_transient(&self, _: &ServerDown) -> bool {
        !self.state().is_refusing
    }
}

//! What handles, guards and the upkeep share.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};

use super::lease::{Creating, Turn};
use super::state::{Entry, State};
use super::waiting::Alarms;
use super::{CloseReason, Error, Factory, Options, Stats};

/// How long the future of [`Factory::close`] may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Shared<F: Factory> {
    pub(super) factory: F,
    pub(super) options: Options,
    /// One turn per connection outside the idle list. Fair: first come, first served.
    pub(super) turns: Semaphore,
    state: Mutex<State<F::Connection>>,
    /// Acquisitions not served at once. The books look at it; it is counted outside of their lock.
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) alarms: Alarms,
    /// Something for the upkeep to do.
    pub(super) upkeep: Notify,
    /// A closed pool has one connection less.
    pub(super) fewer: Notify,
    runtime: Handle,
}

impl<F: Factory> Shared<F> {
    pub(super) fn new(factory: F, options: Options, runtime: Handle) -> Shared<F> {
        let waiting = Arc::<AtomicUsize>::default();
        Shared {
            factory,
            turns: Semaphore::new(options.max_open),
            state: Mutex::new(State::new(&options, waiting.clone())),
            waiting,
            alarms: Alarms::new(&runtime),
            upkeep: Notify::new(),
            fewer: Notify::new(),
            options,
            runtime,
        }
    }

    /// The books. A panic of the factory's under the lock leaves them right, so poison means nothing.
    pub(super) fn state(&self) -> MutexGuard<'_, State<F::Connection>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> Stats {
        self.state().stats()
    }

    /// Opens one connection, booked by `creating`. `attempts` counts.
    pub(super) async fn create(
        self: &Arc<Self>,
        creating: Creating<F>,
        attempts: usize,
    ) -> Result<Entry<F::Connection>, Error<F::Error>> {
        let limit = self.options.create_timeout;
        let made = timeout(limit, self.factory.create()).await;
        let now = Instant::now();
        let mut state = self.state();
        match made {
            Ok(Ok(conn)) => {
                state.count_created();
                creating.end(&mut state);
                let life = self.options.max_lifetime.map(|life| life.mul_f64(1.0 - fastrand::f64() / 10.0));
                Ok(Entry::new(conn, now, life.and_then(|life| now.checked_add(life))))
            }
            failed => {
                state.counts.create_failures += 1;
                drop(state);
                Err(match failed {
                    Ok(Err(source)) => Error::Create { attempts, source },
                    _ => Error::CreateTimeout { attempts, limit },
                })
            }
        }
    }

    /// Whether creating may be tried again after this.
    pub(super) fn is_transient(&self, error: &Error<F::Error>) -> bool {
        match error {
            Error::Create { source, .. } => self.factory.is_transient(source),
            error => error.is_retryable(),
        }
    }

    /// Validates, and counts it.
    pub(super) async fn validate(&self, conn: &mut F::Connection) -> Result<(), Error<F::Error>> {
        self.state().counts.checks += 1;
        let limit = self.options.validate_timeout;
        match timeout(limit, self.factory.validate(conn)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(Error::Validate { source }),
            Err(_) => Err(Error::ValidateTimeout { limit }),
        }
    }

    /// Makes a connection fit to be lent again.
    pub(super) async fn freshen(&self, entry: &mut Entry<F::Connection>) -> Result<(), Error<F::Error>> {
        let limit = self.options.validate_timeout;
        if entry.used && self.factory.needs_reset(&entry.conn) {
            match timeout(limit, self.factory.reset(&mut entry.conn)).await {
                Ok(Ok(())) => entry.used = false,
                Ok(Err(source)) => return Err(Error::Validate { source }),
                Err(_) => return Err(Error::ValidateTimeout { limit }),
            }
        } else {
            self.validate(&mut entry.conn).await?;
        }
        entry.alive_at = Instant::now();
        Ok(())
    }

    /// Closes a connection already booked as closing, in the background if that takes time. `turn` is kept until it is
    /// gone, so that no other connection takes its place before.
    pub(super) fn close(self: &Arc<Self>, conn: F::Connection, reason: CloseReason, turn: Option<Turn<F>>) {
        tracing::debug!(reason = reason.name(), "closing a pooled connection");
        let booked = Booked { shared: self.clone(), turn };
        if let Some(closing) = self.factory.close(conn) {
            // without its runtime the pool drops the connection, and the books are right all the same
            self.runtime.spawn(async move {
                let _ = timeout(CLOSE_TIMEOUT, closing).await;
                drop(booked);
            });
        }
    }

    /// Books that there is one connection less, and tells whom that concerns.
    pub(super) fn lost_one(&self, book: impl FnOnce(&mut State<F::Connection>)) {
        let mut state = self.state();
        book(&mut state);
        let (lacks, closed) = (state.lacks_idle(&self.options), state.closed);
        drop(state);
        if lacks {
            self.upkeep.notify_one();
        }
        if closed {
            self.fewer.notify_waiters();
        }
    }

    /// Closes all that is idle; what is in use follows as it is given back.
    pub(super) fn shut(self: &Arc<Self>) {
        let now = Instant::now();
        let idle = {
            let mut state = self.state();
            state.closed = true;
            let idle = std::mem::take(&mut state.idle);
            idle.iter().for_each(|_| state.count_closing(CloseReason::Shutdown, now));
            idle
        };
        self.turns.close();
        self.upkeep.notify_one();
        for entry in idle {
            self.close(entry.conn, CloseReason::Shutdown, None);
        }
        self.fewer.notify_waiters();
    }
}

/// Ends the booking of a connection that closes, whatever becomes of the task that closes it.
struct Booked<F: Factory> {
    shared: Arc<Shared<F>>,
    turn: Option<Turn<F>>,
}

impl<F: Factory> Drop for Booked<F> {
    fn drop(&mut self) {
        self.shared.lost_one(State::end_closing);
        self.turn.take();
    }
}

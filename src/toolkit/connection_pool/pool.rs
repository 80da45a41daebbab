//! Lending connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::lease::{Checking, Creating, Turn};
use super::metrics::PoolCollector;
use super::shared::Shared;
use super::state::Taken;
use super::waiting::Waiting;
use super::{CloseReason, Error, Factory, Guard, InvalidOptions, Options, Stage, Stats, upkeep};

/// A pool of connections. A cheap handle: clones share the same connections. When the last one is dropped the pool is
/// closed; guards stay usable.
///
/// ```
/// use std::time::Duration;
/// use corelay::toolkit::connection_pool::{Options, Pool, TcpFactory};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let addr = server.local_addr()?.to_string();
/// let options = Options { max_open: 2, acquire_timeout: Duration::from_millis(20), ..Options::default() };
/// let pool = Pool::new(TcpFactory::new(addr), options)?;
/// let (one, two) = (pool.get().await?, pool.get().await?);
/// println!("{}", pool.get().await.unwrap_err()); // no connection within 20ms: 2 of 2 in use, ...
/// # drop((one, two));
/// # Ok(())
/// # }
/// ```
pub struct Pool<F: Factory> {
    owner: Arc<Owner<F>>,
}

/// What all handles of a pool share, and its guards don't.
struct Owner<F: Factory>(Arc<Shared<F>>);

impl<F: Factory> Drop for Owner<F> {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl<F: Factory> Clone for Pool<F> {
    fn clone(&self) -> Pool<F> {
        Pool { owner: self.owner.clone() }
    }
}

impl<F: Factory> fmt::Debug for Pool<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("options", self.options()).field("stats", &self.stats()).finish()
    }
}

impl<F: Factory> Pool<F> {
    /// A pool, and the task that looks after it. Connections are opened when asked for, or in the background up to
    /// [`min_idle`](Options::min_idle).
    ///
    /// # Errors
    /// Contradictory options, and [`InvalidOptions::NoRuntime`] outside a tokio runtime.
    pub fn new(factory: F, options: Options) -> Result<Pool<F>, InvalidOptions> {
        options.check()?;
        let runtime = Handle::try_current().map_err(|_| InvalidOptions::NoRuntime)?;
        let shared = Arc::new(Shared::new(factory, options, runtime.clone()));
        runtime.spawn(upkeep::run(shared.clone()));
        Ok(Pool { owner: Arc::new(Owner(shared)) })
    }

    fn shared(&self) -> &Arc<Shared<F>> {
        &self.owner.0
    }

    /// A connection, within [`acquire_timeout`](Options::acquire_timeout). Where all are in use, callers are served in
    /// the order in which they came. Dropping the future gives up the place.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Create`] or [`Error::CreateTimeout`] after
    /// [`create_retries`](Options::create_retries), or at once for what is not
    /// [transient](Factory::is_transient); [`Error::Closed`].
    pub async fn get(&self) -> Result<Guard<F>, Error<F::Error>> {
        self.get_within(self.options().acquire_timeout).await
    }

    /// As [`Pool::get`], within `limit`.
    ///
    /// # Errors
    /// As [`Pool::get`].
    pub async fn get_within(&self, limit: Duration) -> Result<Guard<F>, Error<F::Error>> {
        let shared = self.shared();
        let picked = Turn::take_free(shared).map(|turn| pick(turn, None));
        if let Some(Picked::Lend(guard)) = picked {
            return Ok(guard);
        }
        let begin = Instant::now();
        let mut waiting = Waiting::begin(shared, begin);
        let mut progress = Progress::default();
        let got = tokio::select! {
            biased;
            got = acquire(shared, picked, &mut waiting, &mut progress) => Some(got),
            () = shared.alarms.ring(begin.checked_add(limit)) => None,
        };
        let waiting_then = waiting.end(got.is_none());
        got.unwrap_or_else(|| {
            let stats = shared.stats();
            Err(Error::Timeout {
                after: limit,
                stage: progress.stage,
                in_use: stats.in_use,
                max_open: stats.max_open,
                waiting: waiting_then,
                source: progress.failure,
            })
        })
    }

    /// An idle connection known to be in order, or `None` where there is none at this moment: never waits, never opens
    /// one.
    #[must_use]
    pub fn try_get(&self) -> Option<Guard<F>> {
        match pick(Turn::take_free(self.shared())?, None) {
            Picked::Lend(guard) => Some(guard),
            // not in an unknown state, only not looked at
            Picked::Check(checking) => {
                checking.keep();
                None
            }
            _ => None,
        }
    }

    /// Takes a connection and makes a round trip with it: its time, without that of the taking. For a service's own
    /// health check.
    ///
    /// # Errors
    /// As [`Pool::get`], and [`Error::Validate`] or [`Error::ValidateTimeout`]; the connection is then closed.
    pub async fn ping(&self) -> Result<Duration, Error<F::Error>> {
        let mut guard = self.get().await?;
        let time = guard.ping().await;
        if time.is_err() {
            guard.discard();
        }
        time
    }

    /// One consistent snapshot of what there is and what happened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.shared().options
    }

    /// The factory it was made with.
    #[must_use]
    pub fn factory(&self) -> &F {
        &self.shared().factory
    }

    /// Shows the pool's figures under `connection_pool_...`, read when the page is. Give a sub-registry with a
    /// label to tell several pools of one program apart.
    ///
    /// ```
    /// # use corelay::toolkit::connection_pool::{Options, Pool, TcpFactory};
    /// use prometheus_client::{encoding::text::encode, registry::Registry};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(TcpFactory::new("127.0.0.1:1"), Options::default())?;
    /// let mut registry = Registry::default();
    /// pool.register(registry.sub_registry_with_label(("pool".into(), "orders".into())));
    /// let mut page = String::new();
    /// encode(&mut page, &registry)?;
    /// assert!(page.contains(r#"connection_pool_max_open{pool="orders"} 10"#), "{page}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("connection_pool");
        registry.register_collector(Box::new(PoolCollector::new(self.shared())));
    }

    /// Closes the pool: no connection is lent any more, idle ones are closed at once, those in use as they come back.
    /// Resolves when none is left; bound it with [`tokio::time::timeout`] where a user may keep one for long. Dropping
    /// the future leaves the pool closed.
    pub async fn close(&self) {
        let shared = self.shared();
        shared.shut();
        loop {
            let mut fewer = std::pin::pin!(shared.fewer.notified());
            fewer.as_mut().enable();
            if shared.state().total() == 0 {
                return;
            }
            fewer.await;
        }
    }

    /// Whether the pool was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().state().closed
    }
}

/// How far an acquisition got, for the error it may end with.
struct Progress<E> {
    stage: Stage,
    failure: Option<E>,
}

impl<E> Default for Progress<E> {
    fn default() -> Progress<E> {
        Progress { stage: Stage::Waiting, failure: None }
    }
}

/// What there is for somebody who has a turn.
enum Picked<F: Factory> {
    Lend(Guard<F>),
    Check(Checking<F>),
    Create(Turn<F>, Creating<F>),
    /// The connection found had to be closed, for which the turn is needed.
    Closing,
    Closed,
}

fn pick<F: Factory>(turn: Turn<F>, waiting: Option<&mut Waiting<'_, F>>) -> Picked<F> {
    let shared = &turn.0;
    let now = Instant::now();
    let mut state = shared.state();
    let taken = state.take(&shared.factory, &shared.options, now);
    if let (Some(waiting), Taken::Lend(_)) = (waiting, &taken) {
        waiting.served(&mut state, now);
    }
    let lacks = shared.options.min_idle > 0 && state.lacks_idle(&shared.options);
    drop(state);
    if lacks {
        shared.upkeep.notify_one();
    }
    match taken {
        Taken::Lend(entry) => Picked::Lend(Guard::new(turn, entry)),
        Taken::Check(entry) => Picked::Check(Checking::new(turn, entry)),
        Taken::Create => {
            let creating = Creating::booked(shared);
            Picked::Create(turn, creating)
        }
        Taken::Close(entry, reason) => {
            let shared = shared.clone();
            shared.close(entry.conn, reason, Some(turn));
            Picked::Closing
        }
        Taken::Closed => Picked::Closed,
    }
}

/// The way to a connection that is not lent at once.
async fn acquire<F: Factory>(
    shared: &Arc<Shared<F>>,
    mut picked: Option<Picked<F>>,
    waiting: &mut Waiting<'_, F>,
    progress: &mut Progress<F::Error>,
) -> Result<Guard<F>, Error<F::Error>> {
    let mut backoff = None;
    let mut attempts = 0;
    loop {
        let next = match picked.take() {
            Some(next) => next,
            None => {
                progress.stage = Stage::Waiting;
                pick(Turn::wait(shared).await?, Some(&mut *waiting))
            }
        };
        match next {
            Picked::Lend(guard) => return Ok(guard),
            Picked::Closing => {}
            Picked::Closed => return Err(Error::Closed),
            Picked::Check(mut checking) => {
                progress.stage = Stage::Validating;
                if checking.freshen().await.is_ok() {
                    return lend(checking);
                }
                checking.close(CloseReason::Invalid);
            }
            Picked::Create(turn, creating) => {
                progress.stage = Stage::Creating;
                attempts += 1;
                let failed = match shared.create(creating, attempts).await {
                    Ok(entry) => return lend(Checking::new(turn, entry)),
                    Err(failed) => failed,
                };
                if attempts > shared.options.create_retries || !shared.is_transient(&failed) {
                    return Err(failed);
                }
                tracing::debug!(error = %failed, attempts, "a pooled connection could not be opened");
                if let Error::Create { source, .. } = failed {
                    progress.failure = Some(source);
                }
                let backoff = backoff.get_or_insert_with(|| shared.options.backoff());
                sleep(backoff.next().unwrap_or(shared.options.backoff_max)).await;
                picked = Some(pick(turn, Some(&mut *waiting)));
            }
        }
    }
}

fn lend<F: Factory>(checking: Checking<F>) -> Result<Guard<F>, Error<F::Error>> {
    checking.lend().map(|(turn, entry)| Guard::new(turn, entry)).ok_or(Error::Closed)
}

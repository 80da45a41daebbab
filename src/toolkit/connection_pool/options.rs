//! Sizes and times of a pool.

use std::time::Duration;

/// Which of several idle connections is lent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The one given back last: few connections stay busy and warm, the others reach their idle timeout.
    #[default]
    Newest,
    /// The one idle for longest: the load is spread evenly, and none idles long.
    Oldest,
}

/// Sizes and times of a pool.
///
/// ```
/// use corelay::toolkit::connection_pool::{InvalidOptions, Options};
/// let options = Options { max_open: 25, max_idle: Some(5), ..Options::default() };
/// assert!(options.check().is_ok());
/// let wrong = Options { min_idle: 6, ..options };
/// assert_eq!(wrong.check(), Err(InvalidOptions::MinAboveMaxIdle { min_idle: 6, max_idle: 5 }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections there are at most, those being opened and closed included. Default 10; at least 1.
    pub max_open: usize,
    /// Connections kept for later while nobody uses them; surplus ones are closed when given back, unless somebody
    /// waits. Default `None`: all; at most `max_open`. 0 closes every connection after its use.
    pub max_idle: Option<usize>,
    /// Idle connections kept ready, as far as `max_open` allows: opened in the background. Default 0; at most
    /// `max_idle`.
    pub min_idle: usize,
    /// How long [`Pool::get`](super::Pool::get) may take in all. Default 30 s.
    pub acquire_timeout: Duration,
    /// How long opening a connection may take, per attempt. Default 5 s.
    pub create_timeout: Duration,
    /// How often opening is tried again within one `get`, as long as the error is
    /// [transient](super::Factory::is_transient). Default 2.
    pub create_retries: usize,
    /// Wait before the first retry; doubles from there, with jitter of up to once its length. Default 50 ms.
    pub backoff_min: Duration,
    /// The longest wait between two attempts, before jitter. Default 2 s.
    pub backoff_max: Duration,
    /// How long a validation may take. Default 2 s.
    pub validate_timeout: Duration,
    /// A connection not known to be alive for this long is validated before it is lent. Zero validates always, `None`
    /// never. Default 1 s: a busy pool pays nothing, and a connection cut off during the night is noticed.
    pub validate_after: Option<Duration>,
    /// How often idle connections are validated in the background; dead ones are closed, and replaced up to
    /// `min_idle`. Default 30 s; `None` for never.
    pub health_interval: Option<Duration>,
    /// An idle connection nobody wanted for this long is closed, unless it is one of the `min_idle`. Default 10 min;
    /// `None` for never.
    pub idle_timeout: Option<Duration>,
    /// A connection older than this, less up to a tenth by chance, is closed as soon as nobody uses it. By chance so
    /// that connections opened together aren't all closed together. Default 30 min; `None` for never.
    pub max_lifetime: Option<Duration>,
    /// Which of several idle connections is lent first.
    pub order: Order,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_open: 10,
            max_idle: None,
            min_idle: 0,
            acquire_timeout: Duration::from_secs(30),
            create_timeout: Duration::from_secs(5),
            create_retries: 2,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            validate_timeout: Duration::from_secs(2),
            validate_after: Some(Duration::from_secs(1)),
            health_interval: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(10 * 60)),
            max_lifetime: Some(Duration::from_secs(30 * 60)),
            order: Order::Newest,
        }
    }
}

/// Why a pool can't be made of these [`Options`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOptions {
    /// Nothing could ever be lent.
    #[error("max_open is 0: expected at least 1")]
    NoConnections,
    /// More than tokio's semaphore counts.
    #[error("max_open is {0}: expected at most {most}", most = Options::MOST)]
    TooMany(usize),
    /// More idle than open.
    #[error("max_idle is {max_idle}, above max_open, which is {max_open}")]
    MaxIdleAboveMaxOpen {
        /// As given.
        max_idle: usize,
        /// As given.
        max_open: usize,
    },
    /// More kept ready than kept.
    #[error("min_idle is {min_idle}, above max_idle, which is {max_idle}")]
    MinAboveMaxIdle {
        /// As given.
        min_idle: usize,
        /// As given.
        max_idle: usize,
    },
    /// A time that must not be zero.
    #[error("{0} is zero: expected a time, or None where there is to be no limit")]
    ZeroTime(&'static str),
    /// The waits between attempts can't grow from one to the other.
    #[error("backoff_min is {min:?}, above backoff_max, which is {max:?}")]
    Backoff {
        /// As given.
        min: Duration,
        /// As given.
        max: Duration,
    },
    /// A pool looks after its connections in a task.
    #[error("a pool needs a tokio runtime, and was made outside of one")]
    NoRuntime,
}

impl Options {
    /// What `max_open` may be at most: what tokio's semaphore counts to.
    pub const MOST: usize = tokio::sync::Semaphore::MAX_PERMITS;

    /// Whether a pool can be made of them.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), InvalidOptions> {
        let Options { max_open, min_idle, .. } = *self;
        let max_idle = self.idle_limit();
        if max_open == 0 {
            return Err(InvalidOptions::NoConnections);
        }
        if max_open > Options::MOST {
            return Err(InvalidOptions::TooMany(max_open));
        }
        if max_idle > max_open {
            return Err(InvalidOptions::MaxIdleAboveMaxOpen { max_idle, max_open });
        }
        if min_idle > max_idle {
            return Err(InvalidOptions::MinAboveMaxIdle { min_idle, max_idle });
        }
        let times = [
            ("acquire_timeout", Some(self.acquire_timeout)),
            ("create_timeout", Some(self.create_timeout)),
            ("validate_timeout", Some(self.validate_timeout)),
            ("backoff_min", Some(self.backoff_min)),
            ("health_interval", self.health_interval),
            ("idle_timeout", self.idle_timeout),
            ("max_lifetime", self.max_lifetime),
        ];
        if let Some((name, _)) = times.iter().find(|(_, time)| *time == Some(Duration::ZERO)) {
            return Err(InvalidOptions::ZeroTime(name));
        }
        if self.backoff_min > self.backoff_max {
            return Err(InvalidOptions::Backoff { min: self.backoff_min, max: self.backoff_max });
        }
        Ok(())
    }

    /// How many may be idle.
    pub(super) fn idle_limit(&self) -> usize {
        self.max_idle.unwrap_or(self.max_open)
    }

    /// The waits between attempts to create: endless, for the caller to bound.
    pub(super) fn backoff(&self) -> backon::ExponentialBackoff {
        use backon::BackoffBuilder;
        backon::ExponentialBuilder::new()
            .with_min_delay(self.backoff_min)
            .with_max_delay(self.backoff_max)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

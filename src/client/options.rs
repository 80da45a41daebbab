//! How to connect.

use std::time::Duration;

use super::{Error, ErrorKind};
use crate::base::Secret;

/// What proves who the client is. Never shown by `Debug`.
pub type Token = Secret;

/// How to connect.
///
/// ```
/// use corelay::client::Options;
/// let options = Options::default().name("checkout").token("s3cret").window(1 << 20);
/// assert!(!format!("{options:?}").contains("s3cret"));
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// For people: shown in the broker's metrics and lists. Default: none.
    pub name: String,
    /// What proves who this is. Default: none.
    pub token: Option<Token>,
    /// How brokers at `tls://` addresses are checked, and what they are shown. Default: by the system's CAs.
    #[cfg(feature = "tls")]
    pub tls: super::Tls,
    /// Body bytes taken on a stream before the user has read any (§4): bounds what a stream holds in memory.
    /// Default 256 KiB; at least 1, at most 2^31 - 1.
    pub window: u32,
    /// The longest a connection attempt to one address may take, handshake included. Default 5 s.
    pub connect_timeout: Duration,
    /// Wait before the second attempt to connect; doubles from there, with jitter. Default 50 ms.
    pub backoff_min: Duration,
    /// The longest wait between two attempts. Default 2 s.
    pub backoff_max: Duration,
    /// How long after its timeout a request whose broker is silent is ended here. Default 250 ms.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: String::new(),
            token: None,
            #[cfg(feature = "tls")]
            tls: super::Tls::default(),
            window: 256 * 1024,
            connect_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            grace: Duration::from_millis(250),
        }
    }
}

impl Options {
    /// With this [`name`](Options::name).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Options {
        self.name = name.into();
        self
    }

    /// With this [`token`](Options::token).
    #[must_use]
    pub fn token(mut self, token: impl Into<Token>) -> Options {
        self.token = Some(token.into());
        self
    }

    /// With this [`tls`](Options::tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: super::Tls) -> Options {
        self.tls = tls;
        self
    }

    /// With this [`window`](Options::window), in bytes.
    #[must_use]
    pub fn window(mut self, bytes: u32) -> Options {
        self.window = bytes;
        self
    }

    /// With this [`connect_timeout`](Options::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = timeout;
        self
    }

    /// With waits between attempts from [`min`](Options::backoff_min) to [`max`](Options::backoff_max).
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Options {
        self.backoff_min = min;
        self.backoff_max = max;
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.window == 0 || self.window > crate::protocol::MAX_CREDIT {
            let text = format!("window of {} bytes: expected 1 to 2147483647", self.window);
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }
}

/// How long `connect_with_retry` goes on trying.
///
/// ```
/// use corelay::client::Retry;
/// use std::time::Duration;
/// let ten_times = Retry::from(10);
/// let a_minute = Retry::from(Duration::from_secs(60));
/// # let _ = (ten_times, a_minute);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At most this many rounds over all addresses.
    Attempts(u32),
    /// Until this much time has passed.
    For(Duration),
}

impl From<u32> for Retry {
    fn from(attempts: u32) -> Retry {
        Retry::Attempts(attempts)
    }
}

impl From<Duration> for Retry {
    fn from(time: Duration) -> Retry {
        Retry::For(time)
    }
}

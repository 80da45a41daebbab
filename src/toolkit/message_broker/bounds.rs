//! How long something may take.

use std::time::Duration;

use tokio::time::timeout;

use super::{Error, ErrorKind};

/// Bounds a call to a system: [`ErrorKind::Timeout`] after `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = |_| Err(Error::new(ErrorKind::Timeout, format!("{what}: not within {limit:?}")));
    timeout(limit, call).await.unwrap_or_else(late)
}

/// # Errors
/// [`ErrorKind::Invalid`] for a timeout of zero: every call would be late.
pub(super) fn check_timeout(timeout: Duration) -> Result<(), Error> {
    if timeout.is_zero() {
        return Err(Error::new(ErrorKind::Invalid, "timeout is 0: expected more"));
    }
    Ok(())
}

//! `/log`: what the process logs, and changing it while it runs.

use std::fmt::Debug;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tracing::info;

use super::state::State as Shared;

/// The longest filter that is read, in bytes.
pub(super) const MAX_FILTER: usize = 4096;

/// What the process logs. Whoever set its log up implements this, and hands it to the admin endpoint
/// ([`Extras`](super::Extras)).
///
/// ```
/// use corelay::telemetry::LogFilter;
/// #[derive(Debug)]
/// struct Fixed;
/// impl LogFilter for Fixed {
///     fn current(&self) -> String {
///         "info".to_owned()
///     }
///     fn change(&self, _: &str) -> Result<(), String> {
///         Err("nothing else".to_owned())
///     }
/// }
/// assert_eq!(Fixed.current(), "info");
/// ```
pub trait LogFilter: Debug + Send + Sync {
    /// The filter in force, as it was written.
    fn current(&self) -> String;

    /// Lines that were lost because nobody read them in time. Default: none ever are.
    fn lost(&self) -> u64 {
        0
    }

    /// Puts another one in force, at once and for all threads.
    ///
    /// # Errors
    /// What was expected; the filter is then as it was.
    fn change(&self, filter: &str) -> Result<(), String>;
}

const NONE: (StatusCode, &str) = (StatusCode::NOT_FOUND, "this process has no log that can be changed\n");

pub(super) async fn get(State(state): State<Arc<Shared>>) -> Response {
    match &state.extras.log {
        Some(log) => (StatusCode::OK, log.current() + "\n").into_response(),
        None => NONE.into_response(),
    }
}

pub(super) async fn put(State(state): State<Arc<Shared>>, filter: String) -> Response {
    let Some(log) = &state.extras.log else { return NONE.into_response() };
    let (was, filter) = (log.current(), filter.trim());
    match log.change(filter) {
        Ok(()) => {
            info!(was, now = filter, "the log's filter was changed by the admin endpoint");
            (StatusCode::OK, format!("{filter}\n")).into_response()
        }
        Err(expected) => (StatusCode::BAD_REQUEST, format!("{filter:?}: expected {expected}\n")).into_response(),
    }
}

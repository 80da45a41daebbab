//! Jobs on at most N workers: a bounded queue, retries, timeouts, order by key, and an orderly end.
//!
//! ```text
//!   submit ──► queue ──┐                ┌─► done
//!                      ├─► worker ──────┼─► failed for good ──► on_error
//!   Source ── fetch ───┘     ▲          └─► parked until its next attempt
//!                            └──────────────────┘
//! ```
//!
//! - A worker is a task that works on one job after the other, so that no more than N run at once, whatever happens; a
//!   job costs no task, no allocation and no timer of its own.
//! - Up to 64 workers are started at once, further ones as they are needed: whoever takes a job and leaves nobody idle
//!   starts one more.
//! - A job that waits for its next attempt keeps no worker, up to a limit; in an ordered pool it does keep back the jobs
//!   of its key.
//! - Every job accepted ends in exactly one of: processed, failed, cancelled, abandoned.
//! - A handler's panic ends its job. A handler that never ends is stopped by the timeout ([`DEFAULT_TIMEOUT`] unless
//!   set otherwise) or by the shutdown's deadline, both counted; one that blocks its thread can't be, and is reported.
//!
//! ```
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use corelay::toolkit::worker_pool::{Attempt, Failure, Handler, Options, Retry, WorkerPool};
//!
//! struct Resizer;
//!
//! impl Handler for Resizer {
//!     type Job = String;
//!     type Error = std::io::Error;
//!
//!     async fn process(&self, image: &mut String, _: &Attempt<'_>) -> Result<(), std::io::Error> {
//!         println!("resizing {image}");
//!         Ok(())
//!     }
//!
//!     async fn on_error(&self, image: String, failure: Failure<std::io::Error>) {
//!         eprintln!("{image} stays as it is: {failure}");
//!     }
//! }
//!
//! let options = Options::new(10).queue(1000).retry(Retry::times(3)).timeout(Duration::from_secs(30));
//! let pool = WorkerPool::start(options, Resizer)?;
//! pool.submit("cat.jpg".into()).await?;
//! let report = pool.shutdown(Duration::from_secs(10)).await;
//! println!("{} done, {} left over", report.metrics.processed, report.abandoned.len());
//! # Ok(())
//! # }
//! ```

mod clock;
mod crew;
mod handler;
mod metrics;
mod options;
mod parked;
mod pool;
mod queue;
mod retry;
mod source;
#[cfg(all(test, feature = "toolkit"))]
mod tests;
mod ticket;
mod worker;

pub use handler::{Attempt, Cause, Failure, Handler, HandlerFn, handler_fn};
pub use metrics::{Histogram, MAX_WORKER_SERIES, Metrics, Snapshot, WorkerSnapshot};
pub use options::{ConfigError, DEFAULT_TIMEOUT, MAX_WORKERS, Options};
pub use pool::{Abandoned, Report, SourcePool, SubmitError, WorkerPool};
pub use retry::{Retry, RetryError};
pub use source::Source;
pub use ticket::{Outcome, Ticket};

#[cfg(feature = "toolkit")]
pub(in crate::toolkit) use metrics::{Column, Latencies, encode_columns, encode_counters};

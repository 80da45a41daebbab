//! Test doubles: handlers that do as a test tells them, and remember what they were asked.
//!
//! Each attempt is one [`Step`]: done, failed, a panic, or no end at all, after a time. With tokio's paused clock a
//! test of a minute's backoff takes no time:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # tokio::time::pause();
//! use std::time::Duration;
//! use corelay::toolkit::testing::{ScriptedHandler, Step};
//! use corelay::toolkit::worker_pool::{Options, Retry, WorkerPool};
//!
//! let handler = ScriptedHandler::new(|_: &&str, attempt| if attempt < 3 { Step::fail("busy") } else { Step::done() });
//! let retry = Retry::times(5).base(Duration::from_secs(20)).cap(Duration::from_secs(60)).jitter(0.0);
//! let pool = WorkerPool::start(Options::new(1).retry(retry), handler.clone()).unwrap();
//! pool.submit("a").await.unwrap();
//! pool.shutdown(Duration::from_secs(120)).await;
//! let began = handler.attempts().iter().map(|attempt| attempt.began.as_secs()).collect::<Vec<_>>();
//! assert_eq!(began, [0, 20, 60]);
//! # }
//! ```

mod events;
mod jobs;
mod step;

pub use events::{DeadLetters, EventCall, ScriptedEvents};
pub use jobs::{JobAttempt, ScriptedHandler};
pub use step::{Step, StepError};

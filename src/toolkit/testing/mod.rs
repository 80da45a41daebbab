//! Test doubles: handlers, servers and systems that do as a test tells them, and remember what they were asked.
//!
//! | for | double |
//! |---|---|
//! | [`worker_pool`](super::worker_pool) | [`ScriptedHandler`] |
//! | [`event_processor`](super::event_processor) | [`ScriptedEvents`], [`DeadLetters`] |
//! | [`connection_pool`](super::connection_pool) | [`FakeServer`] |
//! | [`message_broker`](super::message_broker) | [`FakeSystem`]; [`Memory`](super::message_broker::Memory), where nothing is to fail |
//!
//! Each attempt of a handler is one [`Step`]: done, failed, a panic, or no end at all, after a time. With tokio's paused clock a
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

mod connections;
mod events;
mod jobs;
mod step;
mod systems;

pub use connections::{FakeConnection, FakeServer, ServerDown};
pub use events::{DeadLetters, EventCall, ScriptedEvents};
pub use jobs::{JobAttempt, ScriptedHandler};
pub use step::{Step, StepError};
pub use systems::FakeSystem;

//! Events to the handlers of their type: several a type, typed or raw, each with its own retries and timeout.
//!
//! ```text
//!                  ┌─► handler of the type ──► attempts ──► taken
//!   event ── type ─┼─► another one              └─► failed for good ──► dead letter
//!                  ├─► handlers of all types
//!                  └─► nobody: an error, ignored, or a dead letter, as chosen
//! ```
//!
//! - Handlers of an event run at the same time; one that fails, hangs or panics disturbs no other.
//! - Handlers can be added and removed at any time, from any thread. An event comes to those there are when it does.
//! - Each event ends in exactly one of: processed (by all its handlers), failed (at least one gave up), unknown,
//!   rejected.
//! - Metrics have series for what is registered, not for what events claim to be.
//!
//! ```
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use corelay::toolkit::event_processor::{
//!     EventHandler, EventProcessor, GenericEvent, HandlerError, Options, RawEvent,
//! };
//!
//! struct UserEvents;
//!
//! impl EventHandler for UserEvents {
//!     fn event_type(&self) -> &str {
//!         "user.created"
//!     }
//!
//!     async fn handle(&self, event: &RawEvent) -> Result<(), HandlerError> {
//!         println!("{:?}", event.data());
//!         Ok(())
//!     }
//! }
//!
//! let processor = EventProcessor::new(Options::default())?;
//! processor.register(UserEvents)?;
//! let event = GenericEvent::new("user.created", serde_json::json!({ "user_id": "123" }));
//! processor.process(&event).await?;
//! # Ok(())
//! # }
//! ```

mod error;
mod event;
mod handler;
mod metrics;
mod options;
mod processor;
mod registry;
mod run;
#[cfg(test)]
mod tests;

pub use error::{Cause, ConfigError, HandlerError, HandlerFailure, ProcessError};
pub use event::{ANY, Event, GenericEvent, MAX_TYPE, RawEvent, TypeError};
pub use handler::{EventHandler, Raw, Typed, raw, typed};
pub use metrics::{HandlerSnapshot, MAX_SERIES, Metrics, Snapshot, TypeSnapshot};
pub use options::{DeadLetter, HandlerOptions, Options, Reason, Unknown};
pub use processor::{EventProcessor, Processed};
pub use registry::HandlerId;

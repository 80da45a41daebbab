//! Doubles for an event processor: a handler, and a hook that keeps dead letters.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Step;
use crate::toolkit::event_processor::{DeadLetter, EventHandler, HandlerError, RawEvent};

/// An [`EventHandler`]: a function of the event and the call's number (from 1) says what it does. Clones share what
/// they remember.
///
/// ```
/// # #[tokio::main] async fn main() {
/// use corelay::toolkit::event_processor::{EventProcessor, Options};
/// use corelay::toolkit::testing::{ScriptedEvents, Step};
/// let handler = ScriptedEvents::new("user.created", "welcome", |_, _| Step::done());
/// let processor = EventProcessor::new(Options::default()).unwrap();
/// processor.register(handler.clone()).unwrap();
/// processor.process_raw("{}", "user.created").await.unwrap();
/// assert_eq!(handler.calls().len(), 1);
/// # }
/// ```
#[derive(Clone)]
pub struct ScriptedEvents {
    event_type: String,
    name: String,
    script: Arc<Script>,
    calls: Arc<Mutex<Vec<EventCall>>>,
    start: Instant,
}

type Script = dyn Fn(&RawEvent, usize) -> Step + Send + Sync;

/// One call of a [`ScriptedEvents`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCall {
    /// The event.
    pub event: RawEvent,
    /// When it began, since the handler was made.
    pub began: Duration,
}

impl ScriptedEvents {
    /// A handler that does what `script` says.
    pub fn new(
        event_type: impl Into<String>,
        name: impl Into<String>,
        script: impl Fn(&RawEvent, usize) -> Step + Send + Sync + 'static,
    ) -> ScriptedEvents {
        let (event_type, name) = (event_type.into(), name.into());
        ScriptedEvents { event_type, name, script: Arc::new(script), calls: Arc::default(), start: Instant::now() }
    }

    /// All calls so far, in the order they began.
    #[must_use]
    pub fn calls(&self) -> Vec<EventCall> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<EventCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ScriptedEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedEvents").field("event_type", &self.event_type).finish_non_exhaustive()
    }
}

impl EventHandler for ScriptedEvents {
    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn handle(&self, event: &RawEvent) -> Result<(), HandlerError> {
        let number = {
            let mut calls = self.locked();
            calls.push(EventCall { event: event.clone(), began: self.start.elapsed() });
            calls.len()
        };
        let result = (self.script)(event, number).run().await;
        result.map_err(|error| if error.retryable { error.into() } else { HandlerError::permanent(error) })
    }
}

/// Keeps dead letters. Clones share them.
///
/// ```
/// use corelay::toolkit::event_processor::Options;
/// use corelay::toolkit::testing::DeadLetters;
/// let letters = DeadLetters::default();
/// let options = Options::default().dead_letter(letters.hook());
/// # let _ = options;
/// assert!(letters.all().is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct DeadLetters(Arc<Mutex<Vec<DeadLetter>>>);

impl DeadLetters {
    /// For [`Options::dead_letter`](crate::toolkit::event_processor::Options::dead_letter).
    pub fn hook(&self) -> impl Fn(DeadLetter) -> std::future::Ready<()> + Send + Sync + 'static {
        let letters = self.clone();
        move |letter| {
            letters.locked().push(letter);
            std::future::ready(())
        }
    }

    /// All so far.
    #[must_use]
    pub fn all(&self) -> Vec<DeadLetter> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<DeadLetter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

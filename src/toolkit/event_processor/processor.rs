//! The handle: [`EventProcessor`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::error::{ConfigError, HandlerError, HandlerFailure, ProcessError};
use super::event::{Event, RawEvent, check_handled};
use super::handler::{EventHandler, raw, typed};
use super::metrics::{Counts, Metrics};
use super::options::{DeadLetter, HandlerOptions, Options, Reason, Unknown};
use super::registry::{Entry, HandlerId, Registry};
use crate::toolkit::contain::contain;
use crate::toolkit::worker_pool::{self, Attempt};

/// An event that was processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Processed {
    /// Handlers that took it; 0 for one of unknown type that was ignored, or became a dead letter.
    pub handlers: usize,
}

/// Gives events to the handlers of their type. A cheap handle: clones share handlers and metrics. See the
/// [module](super).
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use corelay::toolkit::event_processor::{ANY, EventProcessor, GenericEvent, HandlerError, Options, RawEvent};
/// use serde_json::json;
///
/// #[derive(serde::Deserialize)]
/// struct User {
///     user_id: String,
/// }
///
/// let processor = EventProcessor::new(Options::default())?;
/// processor.on("user.created", "welcome", |user: User| async move {
///     println!("welcome, {}", user.user_id);
///     Ok::<_, HandlerError>(())
/// })?;
/// processor.on_raw(ANY, "audit", |event: RawEvent| async move {
///     println!("{}: {} bytes", event.event_type(), event.data().len());
///     Ok::<_, HandlerError>(())
/// })?;
///
/// let event = GenericEvent::new("user.created", json!({ "user_id": "123" }));
/// assert_eq!(processor.process(&event).await?.handlers, 2);
/// let raw = br#"{"user_id": "124", "email": "test@example.com"}"#;
/// assert_eq!(processor.process_raw(&raw[..], "user.created").await?.handlers, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct EventProcessor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    registry: Registry,
    counts: Arc<Counts>,
}

impl EventProcessor {
    /// A processor without handlers.
    ///
    /// # Errors
    /// [`ConfigError`] for options that contradict themselves.
    pub fn new(options: Options) -> Result<EventProcessor, ConfigError> {
        options.validate()?;
        let inner = Inner { options, registry: Registry::default(), counts: Arc::default() };
        Ok(EventProcessor { inner: Arc::new(inner) })
    }

    /// Adds a handler; several may be for the same type. Events that are being processed don't come to it any more.
    ///
    /// # Errors
    /// [`ConfigError::Type`] for a type no event can have, [`ConfigError::NoName`].
    pub fn register<H: EventHandler>(&self, handler: H) -> Result<HandlerId, ConfigError> {
        self.register_with(handler, self.inner.options.handler.clone())
    }

    /// Adds a handler with retries and a timeout of its own.
    ///
    /// # Errors
    /// As [`EventProcessor::register`], and for options that contradict themselves.
    pub fn register_with<H: EventHandler>(
        &self,
        handler: H,
        options: HandlerOptions,
    ) -> Result<HandlerId, ConfigError> {
        options.validate()?;
        let (event_type, name) = (Arc::<str>::from(handler.event_type()), Arc::<str>::from(handler.name()));
        check_handled(&event_type)?;
        if name.is_empty() {
            return Err(ConfigError::NoName);
        }
        let counts = self.inner.counts.of_handler(&event_type, &name);
        let of_type = self.inner.counts.of_type(&event_type);
        let entry = |id| Entry { id, name, handler: Box::new(handler), options, counts };
        Ok(self.inner.registry.add(&event_type, of_type, entry))
    }

    /// Adds a function of the data, read as JSON: [`typed`].
    ///
    /// # Errors
    /// As [`EventProcessor::register`].
    pub fn on<T, F, R, E>(&self, event_type: &str, name: &str, function: F) -> Result<HandlerId, ConfigError>
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        self.register(typed(event_type, name, function))
    }

    /// Adds a function of the event as it came: [`raw`].
    ///
    /// # Errors
    /// As [`EventProcessor::register`].
    pub fn on_raw<F, R, E>(&self, event_type: &str, name: &str, function: F) -> Result<HandlerId, ConfigError>
    where
        F: Fn(RawEvent) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        self.register(raw(event_type, name, function))
    }

    /// Takes a handler out again; whether it was there. Events that are being processed still come to it.
    pub fn remove(&self, id: HandlerId) -> bool {
        self.inner.registry.remove(id)
    }

    /// Handlers there are.
    #[must_use]
    pub fn handlers(&self) -> usize {
        self.inner.registry.len()
    }

    /// Bytes of data an event may have.
    #[must_use]
    pub fn max_event(&self) -> usize {
        self.inner.options.max_event
    }

    /// Processes an event: resolves when all its handlers have taken it or failed for good. They run at the same time,
    /// within the caller's task; none disturbs another. If the future is dropped, they are stopped where they stand.
    ///
    /// # Errors
    /// [`ProcessError::Handlers`] if any failed for good, [`ProcessError::Unknown`] if there is none and that is to be
    /// an error; else for an event that makes no sense.
    pub async fn process<E: Event + ?Sized>(&self, event: &E) -> Result<Processed, ProcessError> {
        let data = event.to_json().map_err(|error| self.reject(error))?;
        self.process_raw(data, event.event_type()).await
    }

    /// As [`EventProcessor::process`], for data of the program's own types.
    ///
    /// # Errors
    /// As [`EventProcessor::process`].
    pub async fn process_as<T: Serialize + ?Sized>(
        &self,
        event_type: &str,
        data: &T,
    ) -> Result<Processed, ProcessError> {
        let data = serde_json::to_vec(data).map_err(|error| self.reject(error))?;
        self.process_raw(data, event_type).await
    }

    /// As [`EventProcessor::process`], for bytes as they came. Nobody looks at them but the handlers.
    ///
    /// # Errors
    /// As [`EventProcessor::process`].
    pub async fn process_raw(
        &self,
        data: impl Into<Bytes>,
        event_type: impl Into<Arc<str>>,
    ) -> Result<Processed, ProcessError> {
        let event = RawEvent::new(event_type, data).map_err(|error| self.reject(error))?;
        self.dispatch(&event).await
    }

    /// As [`EventProcessor::process_raw`], for an event put together before.
    ///
    /// # Errors
    /// As [`EventProcessor::process`].
    pub async fn dispatch(&self, event: &RawEvent) -> Result<Processed, ProcessError> {
        let (len, max) = (event.data().len(), self.inner.options.max_event);
        if len > max {
            return Err(self.reject(ProcessError::TooLarge { len, max }));
        }
        let (own, any) = self.inner.registry.find(event.event_type());
        let Some(counts) = own.as_ref().or(any.as_ref()).map(|listed| &listed.counts) else {
            return self.unknown(event).await;
        };
        let entries = own.iter().chain(&any).flat_map(|listed| listed.entries.iter());
        let results = join_all(entries.map(|entry| self.run(entry, event))).await;
        let handlers = results.len();
        let failures = results.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        if failures.is_empty() {
            counts.processed.fetch_add(1, Relaxed);
            return Ok(Processed { handlers });
        }
        counts.failed.fetch_add(1, Relaxed);
        Err(ProcessError::Handlers(failures))
    }

    async fn run(&self, entry: &Entry, event: &RawEvent) -> Result<(), HandlerFailure> {
        let result = entry.run(event).await;
        if let Err(failure) = &result {
            let HandlerFailure { handler, cause, attempts } = failure.clone();
            self.give_up(event, Reason::Failed { handler, cause, attempts }).await;
        }
        result
    }

    async fn unknown(&self, event: &RawEvent) -> Result<Processed, ProcessError> {
        self.inner.counts.unknown.fetch_add(1, Relaxed);
        match self.inner.options.unknown {
            Unknown::Reject => return Err(ProcessError::Unknown(event.event_type().into())),
            Unknown::Ignore => {}
            Unknown::DeadLetter => self.give_up(event, Reason::Unknown).await,
        }
        Ok(Processed { handlers: 0 })
    }

    /// Hands an event to the dead-letter hook.
    async fn give_up(&self, event: &RawEvent, reason: Reason) {
        let (counts, options) = (&self.inner.counts, &self.inner.options);
        counts.dead_letters.fetch_add(1, Relaxed);
        let Some(hook) = &options.hook else {
            tracing::warn!(event_type = event.event_type(), %reason, "an event was not processed");
            return;
        };
        let letter = DeadLetter { event: event.clone(), reason };
        let told = contain(async { hook(letter).await });
        let told = match options.handler.timeout {
            None => told.await,
            Some(limit) => timeout(limit, told).await.unwrap_or_else(|_| Err(format!("not done within {limit:?}"))),
        };
        if let Err(text) = told {
            counts.dead_letter_failures.fetch_add(1, Relaxed);
            tracing::error!(event_type = event.event_type(), error = text, "the dead-letter hook failed");
        }
    }

    fn reject(&self, error: impl Into<ProcessError>) -> ProcessError {
        self.inner.counts.rejected.fetch_add(1, Relaxed);
        error.into()
    }

    /// What this processor counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics { counts: self.inner.counts.clone() }
    }
}

/// A [worker pool](worker_pool)'s handler: bounds how many events are processed at once, queues more, shuts down in
/// order. Retries are the event handlers' own; the pool makes none. Its timeout is for an event with all of them: with the
/// defaults of both, four attempts of 30 s are within the pool's 5 min.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use corelay::toolkit::event_processor::{EventProcessor, Options, RawEvent, Unknown};
/// use corelay::toolkit::worker_pool::{self, WorkerPool};
///
/// let processor = EventProcessor::new(Options::default().unknown(Unknown::Ignore))?;
/// let pool = WorkerPool::start(worker_pool::Options::new(8), processor.clone())?;
/// pool.submit(RawEvent::new("user.created", "{}")?).await?;
/// assert!(pool.shutdown(Duration::from_secs(5)).await.is_complete());
/// assert_eq!(processor.metrics().snapshot().unknown, 1);
/// # Ok(())
/// # }
/// ```
impl worker_pool::Handler for EventProcessor {
    type Job = RawEvent;
    type Error = ProcessError;

    async fn process(&self, event: &mut RawEvent, _: &Attempt<'_>) -> Result<(), ProcessError> {
        self.dispatch(event).await.map(|_| ())
    }

    fn is_retryable(&self, _: &ProcessError) -> bool {
        false
    }
}

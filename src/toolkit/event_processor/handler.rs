//! Who deals with events: [`EventHandler`], and functions as such.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use futures_util::future::{BoxFuture, FutureExt};
use serde::de::DeserializeOwned;

use super::error::HandlerError;
use super::event::RawEvent;

/// Deals with events of one type, or of all.
///
/// ```
/// use corelay::toolkit::event_processor::{EventHandler, HandlerError, RawEvent};
///
/// struct Welcome;
///
/// impl EventHandler for Welcome {
///     fn event_type(&self) -> &str {
///         "user.created"
///     }
///
///     async fn handle(&self, event: &RawEvent) -> Result<(), HandlerError> {
///         let user: serde_json::Value = event.decode().map_err(HandlerError::malformed)?;
///         println!("welcome, {}", user["name"]);
///         Ok(())
///     }
/// }
/// ```
pub trait EventHandler: Send + Sync + 'static {
    /// The type of events it deals with; [`ANY`](super::ANY) for all. Asked once, at registration.
    fn event_type(&self) -> &str;

    /// What metrics and errors call it; the name of its Rust type, unless implemented. Asked once.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// Deals with one event. The future is dropped where it stands when its timeout passes.
    fn handle(&self, event: &RawEvent) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// An [`EventHandler`] behind a pointer.
pub(super) trait Erased: Send + Sync {
    fn handle<'a>(&'a self, event: &'a RawEvent) -> BoxFuture<'a, Result<(), HandlerError>>;
}

impl<H: EventHandler> Erased for H {
    fn handle<'a>(&'a self, event: &'a RawEvent) -> BoxFuture<'a, Result<(), HandlerError>> {
        EventHandler::handle(self, event).boxed()
    }
}

/// A handler from a function of the data, read as JSON. Data that is not of type `T` is malformed: an error that is not
/// retried.
///
/// ```
/// use corelay::toolkit::event_processor::{EventProcessor, HandlerError, HandlerOptions, Options, typed};
/// use corelay::toolkit::worker_pool::Retry;
///
/// #[derive(serde::Deserialize)]
/// struct User {
///     name: String,
/// }
///
/// let processor = EventProcessor::new(Options::default()).unwrap();
/// let welcome = typed("user.created", "welcome", |user: User| async move {
///     println!("welcome, {}", user.name);
///     Ok::<_, HandlerError>(())
/// });
/// processor.register_with(welcome, HandlerOptions::default().retry(Retry::never())).unwrap();
/// ```
pub fn typed<T, F, R, E>(event_type: impl Into<String>, name: impl Into<String>, function: F) -> Typed<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send,
    E: Into<HandlerError>,
{
    Typed { event_type: event_type.into(), name: name.into(), function, data: PhantomData }
}

/// A handler from a function of the event as it came.
pub fn raw<F, R, E>(event_type: impl Into<String>, name: impl Into<String>, function: F) -> Raw<F>
where
    F: Fn(RawEvent) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send,
    E: Into<HandlerError>,
{
    Raw { event_type: event_type.into(), name: name.into(), function }
}

/// What [`typed`] gives.
pub struct Typed<T, F> {
    event_type: String,
    name: String,
    function: F,
    data: PhantomData<fn(T)>,
}

/// What [`raw`] gives.
pub struct Raw<F> {
    event_type: String,
    name: String,
    function: F,
}

impl<T, F> fmt::Debug for Typed<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("event_type", &self.event_type).field("name", &self.name).finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for Raw<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("event_type", &self.event_type).field("name", &self.name).finish_non_exhaustive()
    }
}

impl<T, F, R, E> EventHandler for Typed<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send,
    E: Into<HandlerError>,
{
    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn handle(&self, event: &RawEvent) -> Result<(), HandlerError> {
        let data = event.decode().map_err(HandlerError::malformed)?;
        (self.function)(data).await.map_err(Into::into)
    }
}

impl<F, R, E> EventHandler for Raw<F>
where
    F: Fn(RawEvent) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send,
    E: Into<HandlerError>,
{
    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn handle(&self, event: &RawEvent) -> Result<(), HandlerError> {
        (self.function)(event.clone()).await.map_err(Into::into)
    }
}

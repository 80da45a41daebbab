//! Requests as events: [`Provider::serve_events`].

use bytes::{Bytes, BytesMut};

use super::{Error, Provider, Request};
use crate::toolkit::event_processor::EventProcessor;

/// The header that says what type of event a request is.
const EVENT_TYPE: &str = "event-type";

impl Provider {
    /// Gives each request to `processor` as an event: its type from the header `event-type`, its data the body. At most
    /// `concurrency` (at least 1) at once; returns as [`Provider::serve`] does.
    ///
    /// When all handlers of its type have taken the event, the answer is empty. Else the request fails
    /// ([`ErrorKind::Application`](super::ErrorKind::Application)) with what the processor says: a handler failed for
    /// good, nobody handles the type, the body is longer than the processor takes (it is read no further then).
    /// Handlers are stopped where they stand when nobody waits for the answer any more: give a request the time that
    /// retries may take.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use corelay::client::Provider;
    /// use corelay::toolkit::event_processor::{EventProcessor, HandlerError, Options};
    ///
    /// let processor = EventProcessor::new(Options::default())?;
    /// processor.on("user.created", "welcome", |user: serde_json::Value| async move {
    ///     println!("welcome, {}", user["user_id"]);
    ///     Ok::<_, HandlerError>(())
    /// })?;
    /// let provider = Provider::connect("127.0.0.1:9090", "events", 16).await?;
    /// provider.serve_events(16, &processor).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve_events(&self, concurrency: usize, processor: &EventProcessor) {
        let processor = processor.clone();
        self.serve(concurrency, move |request| answer(processor.clone(), request)).await;
    }
}

async fn answer(processor: EventProcessor, mut request: Request) -> Result<(), Error> {
    let event_type = match request.header(EVENT_TYPE).map(std::str::from_utf8) {
        Some(Ok(event_type)) => event_type.to_owned(),
        Some(Err(_)) => return request.fail("the header event-type is not UTF-8").await,
        None => return request.fail("no header event-type: expected the event's type in it").await,
    };
    let Some(data) = read(&mut request, processor.max_event()).await? else {
        return request.fail(format!("the event has more than {} bytes", processor.max_event())).await;
    };
    let cancellation = request.cancellation();
    let processed = tokio::select! {
        processed = processor.process_raw(data, event_type) => processed,
        () = cancellation.cancelled() => return Ok(()),
    };
    match processed {
        Ok(_) => request.respond(Bytes::new()).await,
        Err(error) => request.fail(error).await,
    }
}

/// The body, unless it has more than `max` bytes.
async fn read(request: &mut Request, max: usize) -> Result<Option<Bytes>, Error> {
    let first = request.chunk().await?.unwrap_or_default();
    let mut all = BytesMut::new();
    let mut last = first;
    while last.len() <= max - all.len() {
        match request.chunk().await? {
            None if all.is_empty() => return Ok(Some(last)),
            None => {
                all.extend_from_slice(&last);
                return Ok(Some(all.freeze()));
            }
            Some(next) => {
                all.extend_from_slice(&last);
                last = next;
            }
        }
    }
    Ok(None)
}

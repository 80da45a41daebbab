//! Events to the handlers of their type: `cargo run --example user_created`.
//!
//! ```text
//! welcome, 123
//! audit: user.created {"user_id":"123"}
//! welcome, 124 <test@example.com>
//! audit: user.created {"user_id": "124", "email": "test@example.com"}
//! dead letter: user.created: welcome: malformed event: missing field `user_id` at line 1 column 11 (attempts: 1)
//! audit: user.created {"id": 125}
//! error: welcome: malformed event: missing field `user_id` at line 1 column 11
//! user.created: 2 processed, 1 failed
//! ```

use corelay::toolkit::event_processor::{
    ANY, EventHandler, EventProcessor, GenericEvent, HandlerError, Options, RawEvent,
};
use serde_json::json;

#[derive(serde::Deserialize)]
struct User {
    user_id: String,
    email: Option<String>,
}

struct UserEventHandler;

impl EventHandler for UserEventHandler {
    fn event_type(&self) -> &str {
        "user.created"
    }

    fn name(&self) -> &str {
        "welcome"
    }

    async fn handle(&self, event: &RawEvent) -> Result<(), HandlerError> {
        let user: User = event.decode().map_err(HandlerError::malformed)?;
        let email = user.email.map(|email| format!(" <{email}>")).unwrap_or_default();
        println!("welcome, {}{email}", user.user_id);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::default().dead_letter(|letter| async move {
        println!("dead letter: {}: {}", letter.event.event_type(), letter.reason);
    });
    let processor = EventProcessor::new(options)?;
    processor.register(UserEventHandler)?;
    processor.on_raw(ANY, "audit", |event: RawEvent| async move {
        println!("audit: {} {}", event.event_type(), std::str::from_utf8(event.data())?);
        Ok::<_, HandlerError>(())
    })?;

    let event = GenericEvent::new("user.created", json!({ "user_id": "123" }));
    processor.process(&event).await?;
    let raw = br#"{"user_id": "124", "email": "test@example.com"}"#;
    processor.process_raw(&raw[..], "user.created").await?;
    if let Err(error) = processor.process_raw(r#"{"id": 125}"#, "user.created").await {
        println!("error: {error}");
    }

    let now = processor.metrics().snapshot();
    for (event_type, counts) in &now.types {
        if &**event_type != ANY {
            println!("{event_type}: {} processed, {} failed", counts.processed, counts.failed);
        }
    }
    Ok(())
}

//! Messages processed in this program: a client whose target is a function.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::OnMessage;
use crate::forward::{BatchFuture, Client, Done, Message, SendError, SendErrorKind, SendFuture};

/// Calls a function with each message, on a thread where it may block.
pub(in crate::broker) struct Local(pub(in crate::broker) OnMessage);

impl Client for Local {
    fn protocol_name(&self) -> &str {
        "local"
    }

    fn address(&self) -> &str {
        "on_message"
    }

    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(async move { self.send_batch(std::slice::from_ref(message)).await.into_result() })
    }

    fn send_batch<'a>(&'a self, messages: &'a [Message]) -> BatchFuture<'a> {
        Box::pin(async move {
            let (process, messages) = (self.0.clone(), messages.to_vec());
            let all = tokio::task::spawn_blocking(move || {
                for (delivered, message) in messages.iter().enumerate() {
                    if catch_unwind(AssertUnwindSafe(|| process(message))).is_err() {
                        let error = SendError::new(SendErrorKind::Rejected, "the handler panicked");
                        return Done { delivered, error: Some(error) };
                    }
                }
                Done { delivered: messages.len(), error: None }
            });
            let ended = |_| Done { delivered: 0, error: Some(SendError::new(SendErrorKind::Closed, "shutting down")) };
            all.await.unwrap_or_else(ended)
        })
    }
}

//! What knows one target.

use std::future::Future;
use std::pin::Pin;

use super::{Message, SendError};

/// The outcome of one message.
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + 'a>>;
/// The outcome of several.
pub type BatchFuture<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

/// How far a batch came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// So many from the front were delivered, as far as the [`Promise`] goes.
    pub delivered: usize,
    /// What happened to the next one. What stands behind that has not been sent, or, if the error is in doubt and not
    /// [alone](SendError::alone) in that, may have been. `None`: all were delivered.
    pub error: Option<SendError>,
}

impl Done {
    /// What came of a batch of one: a client whose way is [`send_batch`](Client::send_batch) sends one by it.
    ///
    /// # Errors
    /// The one of the batch.
    pub fn into_result(self) -> Result<(), SendError> {
        self.error.map_or(Ok(()), Err)
    }
}

/// What a client's success means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The message was handed to the kernel, or to the network. It may be lost on its way without a word. It is
    /// never sent twice.
    AtMostOnce,
    /// The target has acknowledged it. One in doubt is sent again, so it may arrive twice, with the same
    /// [`Message::key`]. What has not been acknowledged when this process ends is lost.
    AtLeastOnce,
}

/// What a client's target can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    /// The largest body in bytes; `None`: any that memory holds.
    pub max_body: Option<usize>,
    /// Whether it can be told that a message comes in [parts](super::Part), and which one is the last.
    pub parts: bool,
}

/// Puts messages into one outside system. Implement it to bring a protocol of your own.
///
/// A producer calls it from one task, one call at a time. It is a client's duty to connect when it must, to keep the
/// connection, to give up after its timeouts, and never to go on in the middle of a message. Attempts and
/// the pauses between them are the producer's. At shutdown it may drop a call's future, and calls nothing but
/// [`close`](Client::close) after that.
///
/// ```
/// use corelay::forward::{Client, Message, SendFuture};
///
/// /// Prints what comes.
/// struct Console;
///
/// impl Client for Console {
///     fn protocol_name(&self) -> &str {
///         "console"
///     }
///     fn address(&self) -> &str {
///         "stdout"
///     }
///     fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
///         Box::pin(async move {
///             println!("{}", String::from_utf8_lossy(&message.body));
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait Client: Send + Sync {
    /// The protocol, as a URL's scheme: `tcp`, `nats`, ...
    fn protocol_name(&self) -> &str;

    /// The target, for people: never with a password.
    fn address(&self) -> &str;

    /// Delivers one message.
    ///
    /// # Errors
    /// In the future's output: why not.
    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a>;

    /// Delivers several in this order. By itself one after the other, to the first error; a client that can do better
    /// overrides it.
    fn send_batch<'a>(&'a self, messages: &'a [Message]) -> BatchFuture<'a> {
        Box::pin(async move {
            for (delivered, message) in messages.iter().enumerate() {
                if let Err(error) = self.send(message).await {
                    return Done { delivered, error: Some(error.alone()) };
                }
            }
            Done { delivered: messages.len(), error: None }
        })
    }

    /// What success means. By itself the weaker: a client that waits for an acknowledgement overrides it.
    fn promise(&self) -> Promise {
        Promise::AtMostOnce
    }

    /// What the target can take. By itself anything, but nothing in parts.
    fn takes(&self) -> Takes {
        Takes { max_body: None, parts: false }
    }

    /// Finds out whether the target is there, without sending a message: connects, where that is a way to know.
    ///
    /// # Errors
    /// In the future's output: what is wrong.
    fn probe(&self) -> SendFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// Nothing more will be sent: says goodbye where the protocol has a word for it, and lets go of connections.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

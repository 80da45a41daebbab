//! What the clients on byte streams have in common: TCP, TLS and Unix sockets.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::wire::{self, Connection, Socket};
use crate::forward::framing::{Encoded, Format};
use crate::forward::url::Url;
use crate::forward::{Done, Message, SendError, SendErrorKind, UrlError};

/// Where a stream goes to.
pub(super) trait Dial: Send + Sync {
    /// Connects, without a limit in time.
    fn dial(&self) -> impl Future<Output = io::Result<Socket>> + Send;
}

/// One connection at a time, made when it's needed. What breaks in the middle of a message ends the connection: the
/// next one begins with a whole message.
#[derive(Debug)]
pub(super) struct StreamClient<D> {
    pub(super) dial: D,
    pub(super) address: String,
    pub(super) format: Format,
    pub(super) connect_timeout: Duration,
    pub(super) send_timeout: Duration,
    connection: Mutex<Option<Connection>>,
}

impl<D: Dial> StreamClient<D> {
    pub(super) fn new(dial: D, address: String, format: Format, times: Times) -> StreamClient<D> {
        let Times { connect_timeout, send_timeout } = times;
        StreamClient { dial, address, format, connect_timeout, send_timeout, connection: Mutex::default() }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection there is, or a new one; it is put back by whoever has found it good.
    async fn connection(&self) -> Result<Connection, SendError> {
        let open = self.slot().take().filter(|connection| !connection.is_closed());
        match open {
            Some(connection) => Ok(connection),
            None => {
                let socket = wire::connect(self.connect_timeout, self.dial.dial()).await?;
                Connection::start(socket).map_err(|error| SendError::new(SendErrorKind::Connect, error.to_string()))
            }
        }
    }

    pub(super) async fn send(&self, messages: &[Message]) -> Done {
        let mut encoded = Encoded::new(self.format, messages);
        if encoded.ends.is_empty() {
            return Done { delivered: 0, error: encoded.error };
        }
        let connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => return Done { delivered: 0, error: Some(error) },
        };
        let written = connection.write(std::mem::take(&mut encoded.bytes), self.send_timeout).await;
        let delivered = encoded.whole_within(written.count);
        let error = match written.error {
            None => {
                *self.slot() = Some(connection);
                encoded.error
            }
            Some((kind, text)) if delivered < encoded.ends.len() => {
                let error = SendError::new(kind, text);
                // a message cut short has not arrived, where the target can tell; what is behind it has not left
                let is_cut = encoded.is_cut(written.count) && !self.format.shows_cuts();
                Some(match (written.in_doubt, is_cut) {
                    (true, _) => error.in_doubt(),
                    (false, true) => error.in_doubt().alone(),
                    (false, false) => error,
                })
            }
            // all of it had gone before the connection ended
            Some(_) => encoded.error,
        };
        Done { delivered, error }
    }

    pub(super) async fn probe(&self) -> Result<(), SendError> {
        let connection = self.connection().await?;
        *self.slot() = Some(connection);
        Ok(())
    }

    pub(super) async fn close(&self) {
        let connection = self.slot().take();
        if let Some(connection) = connection {
            connection.close().await;
        }
    }
}

/// How long a client waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) connect_timeout: Duration,
    pub(super) send_timeout: Duration,
}

impl Default for Times {
    /// 5 s each.
    fn default() -> Times {
        Times { connect_timeout: Duration::from_secs(5), send_timeout: Duration::from_secs(5) }
    }
}

impl Times {
    /// The options `connect_timeout` and `send_timeout`.
    pub(super) fn from_url(url: &mut Url) -> Result<Times, UrlError> {
        let usual = Times::default();
        Ok(Times {
            connect_timeout: url.duration("connect_timeout", usual.connect_timeout)?,
            send_timeout: url.duration("send_timeout", usual.send_timeout)?,
        })
    }
}

/// The [`Client`](crate::forward::Client) of something with a field `stream`.
macro_rules! stream_client {
    ($client:ty) => {
        impl crate::forward::Client for $client {
            fn protocol_name(&self) -> &str {
                Self::PROTOCOL
            }

            fn address(&self) -> &str {
                &self.stream.address
            }

            fn send<'a>(&'a self, message: &'a crate::forward::Message) -> crate::forward::SendFuture<'a> {
                Box::pin(async move { self.stream.send(std::slice::from_ref(message)).await.into_result() })
            }

            fn send_batch<'a>(&'a self, messages: &'a [crate::forward::Message]) -> crate::forward::BatchFuture<'a> {
                Box::pin(self.stream.send(messages))
            }

            fn takes(&self) -> crate::forward::Takes {
                crate::forward::Takes { max_body: None, parts: self.stream.format.takes_parts() }
            }

            fn probe(&self) -> crate::forward::SendFuture<'_> {
                Box::pin(self.stream.probe())
            }

            fn close(&self) -> $crate::forward::clients::Closing<'_> {
                Box::pin(self.stream.close())
            }
        }
    };
}

pub(super) use stream_client;

pub(super) type Closing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

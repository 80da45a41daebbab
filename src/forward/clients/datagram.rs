//! What the clients on datagrams have in common: UDP and Unix datagram sockets.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stream::{Dial, Times};
use super::wire::{self, Connection};
use crate::forward::framing::{Format, Framing};
use crate::forward::{Message, SendError, SendErrorKind};

/// A connected socket, made when it's needed, and anew after an error.
#[derive(Debug)]
pub(super) struct DatagramClient<D> {
    dial: D,
    pub(super) address: String,
    envelope: bool,
    /// The most bytes in one datagram.
    pub(super) mtu: usize,
    pub(super) times: Times,
    connection: Mutex<Option<Connection>>,
}

impl<D: Dial> DatagramClient<D> {
    pub(super) fn new(dial: D, address: String, envelope: bool, mtu: usize, times: Times) -> DatagramClient<D> {
        DatagramClient { dial, address, envelope, mtu, times, connection: Mutex::default() }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket; an error that came since the last datagram is told first.
    async fn connection(&self) -> Result<Connection, SendError> {
        let open = self.slot().take();
        if let Some(connection) = open {
            if !connection.is_closed() {
                return Ok(connection);
            }
            let text = connection.error().unwrap_or_else(|| "the socket was closed".to_owned());
            return Err(SendError::new(SendErrorKind::Connect, format!("an earlier datagram: {text}")));
        }
        let socket = wire::connect(self.times.connect_timeout, self.dial.dial()).await?;
        Connection::start(socket).map_err(|error| SendError::new(SendErrorKind::Connect, error.to_string()))
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let mut bytes = Vec::new();
        Format { framing: Framing::Raw, envelope: self.envelope }.encode(message, &mut bytes)?;
        if bytes.len() > self.mtu {
            let text = format!("{} bytes, more than one datagram takes ({})", bytes.len(), self.mtu);
            return Err(SendError::new(SendErrorKind::TooLarge, text));
        }
        let connection = self.connection().await?;
        let written = connection.write(bytes, self.times.send_timeout).await;
        match written.error {
            None => {
                *self.slot() = Some(connection);
                Ok(())
            }
            // it left, and was answered with a refusal; it, or one before it that was given out as delivered
            Some((kind, text)) if written.in_doubt => Err(SendError::new(kind, text).in_doubt()),
            // all or nothing, and this was nothing
            Some((kind, text)) => Err(SendError::new(kind, text)),
        }
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

/// The [`Client`](crate::forward::Client) of something with a field `datagrams`.
macro_rules! datagram_client {
    ($client:ty) => {
        impl crate::forward::Client for $client {
            fn protocol_name(&self) -> &str {
                Self::PROTOCOL
            }

            fn address(&self) -> &str {
                &self.datagrams.address
            }

            fn send<'a>(&'a self, message: &'a crate::forward::Message) -> crate::forward::SendFuture<'a> {
                Box::pin(self.datagrams.send(message))
            }

            fn takes(&self) -> crate::forward::Takes {
                crate::forward::Takes { max_body: Some(self.datagrams.mtu), parts: false }
            }

            fn probe(&self) -> crate::forward::SendFuture<'_> {
                Box::pin(self.datagrams.probe())
            }

            fn close(&self) -> $crate::forward::clients::Closing<'_> {
                Box::pin(self.datagrams.close())
            }
        }
    };
}

pub(super) use datagram_client;

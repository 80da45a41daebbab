//! A message handed to a member.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::adapter::Received;
use super::bounds::within;
use super::metrics::Counts;
use super::{Error, Message};

/// How an adapter settles one delivery.
#[async_trait]
pub trait Settle: fmt::Debug + Send {
    /// Acknowledges: it is not delivered again. Resolves when the system knows.
    ///
    /// # Errors
    /// [`ErrorKind::Expired`](super::ErrorKind::Expired) or
    /// [`ErrorKind::Connection`](super::ErrorKind::Connection): it is delivered again.
    /// [`ErrorKind::Timeout`](super::ErrorKind::Timeout): it may be.
    async fn ack(self: Box<Self>) -> Result<(), Error>;

    /// Refuses: it is delivered again, not before `delay` is over where the system can keep it back
    /// ([`Capabilities::delayed_nack`](super::Capabilities::delayed_nack)).
    ///
    /// # Errors
    /// As [`Settle::ack`].
    async fn nack(self: Box<Self>, delay: Duration) -> Result<(), Error>;

    /// Refuses without waiting for it: called when a [`Delivery`] is dropped unsettled.
    fn abandon(self: Box<Self>);
}

/// A message handed to this member, to be acknowledged or refused. Dropped, it is refused.
#[derive(Debug)]
pub struct Delivery {
    message: Message,
    attempt: u32,
    settle: Option<Box<dyn Settle>>,
    counts: Arc<Counts>,
    /// The system can't keep it back: this member has to.
    holds: bool,
    /// How long settling may take.
    limit: Duration,
}

impl Delivery {
    pub(super) fn new(received: Received, counts: Arc<Counts>, holds: bool, limit: Duration) -> Delivery {
        counts.delivered(received.attempt);
        let Received { message, attempt, settle } = received;
        Delivery { message, attempt, settle: Some(settle), counts, holds, limit }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// 1 the first time; more, as far as the system knows, when it is delivered again.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Acknowledges: it is not delivered again.
    ///
    /// # Errors
    /// [`ErrorKind::Expired`](super::ErrorKind::Expired) or
    /// [`ErrorKind::Connection`](super::ErrorKind::Connection): it is delivered again, to whichever member.
    /// [`ErrorKind::Timeout`](super::ErrorKind::Timeout): it may be.
    pub async fn ack(mut self) -> Result<(), Error> {
        let Some(settle) = self.settle.take() else { return Ok(()) };
        let done = within(self.limit, "acknowledging", settle.ack()).await;
        self.counts.settled(done.is_ok(), true);
        done
    }

    /// Refuses: it is delivered again at once, to whichever member.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn nack(self) -> Result<(), Error> {
        self.nack_after(Duration::ZERO).await
    }

    /// Refuses: it is delivered again when `delay` is over. Where the system can't keep it back, this waits that long,
    /// so `delay` is best kept below the [`ack_timeout`](super::Consume::ack_timeout).
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn nack_after(mut self, delay: Duration) -> Result<(), Error> {
        if self.holds && !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let Some(settle) = self.settle.take() else { return Ok(()) };
        let done = within(self.limit, "refusing", settle.nack(delay)).await;
        self.counts.settled(done.is_ok(), false);
        done
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.abandon();
            self.counts.settled(true, false);
        }
    }
}

//! Taking messages one by one.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep_until};

use super::adapter::{Event, Source};
use super::bounds::within;
use super::metrics::Counts;
use super::{Adapter, Consume, Delivery, Error};

/// Waits between attempts to join again: from this to [`REJOIN_MAX`], doubling, with jitter.
const REJOIN_MIN: Duration = Duration::from_millis(50);
const REJOIN_MAX: Duration = Duration::from_secs(2);

/// A member of a group that takes messages one by one, from [`Broker::consume`](super::Broker::consume). It joins again
/// by itself when its connection is lost. Dropped, it leaves: what it has not settled is delivered to others.
#[derive(Debug)]
pub struct Consumer {
    adapter: Arc<dyn Adapter>,
    consume: Consume,
    source: Option<Box<dyn Source>>,
    counts: Arc<Counts>,
    rejoin: Rejoin,
    /// How long joining, settling and leaving may take, each.
    limit: Duration,
}

/// When to join again.
#[derive(Debug, Default)]
struct Rejoin {
    backoff: Option<ExponentialBackoff>,
    at: Option<Instant>,
}

impl Rejoin {
    fn failed(&mut self) {
        let backoff = self.backoff.get_or_insert_with(|| waits(REJOIN_MIN, REJOIN_MAX));
        self.at = Some(Instant::now() + backoff.next().unwrap_or(REJOIN_MAX));
    }
}

/// Waits from `min` to `max`, doubling, with jitter, without end.
pub(super) fn waits(min: Duration, max: Duration) -> ExponentialBackoff {
    let builder = ExponentialBuilder::new().with_min_delay(min).with_max_delay(max);
    builder.with_jitter().without_max_times().build()
}

async fn join(adapter: &dyn Adapter, consume: &Consume, limit: Duration) -> Result<Box<dyn Source>, Error> {
    within(limit, "join", adapter.consume(consume)).await
}

impl Consumer {
    pub(super) async fn join(
        adapter: Arc<dyn Adapter>,
        consume: Consume,
        counts: Arc<Counts>,
        limit: Duration,
    ) -> Result<Consumer, Error> {
        let source = Some(join(&*adapter, &consume, limit).await?);
        Ok(Consumer { adapter, consume, source, counts, rejoin: Rejoin::default(), limit })
    }

    /// The next message; waits for it, and for the system to come back where it went away. May be dropped and called
    /// again without losing a message.
    ///
    /// # Errors
    /// What waiting can't mend: the topic was deleted, say.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            if self.source.is_none() {
                match self.rejoin().await {
                    Ok(source) => self.source = Some(source),
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(%error, topic = self.consume.topic, "could not join a group again yet");
                        self.rejoin.failed();
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some(source) = &mut self.source else { continue };
            match source.next().await {
                Ok(Event::Lost(count)) => self.counts.lost(count),
                Ok(Event::Message(received)) => {
                    self.rejoin = Rejoin::default();
                    let holds = !self.adapter.capabilities().delayed_nack;
                    return Ok(Delivery::new(received, self.counts.clone(), holds, self.limit));
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, topic = self.consume.topic, group = self.consume.group, "lost a subscription");
                    self.source = None;
                    self.rejoin.failed();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// `&mut`, so that a source need not be shared between threads.
    async fn rejoin(&mut self) -> Result<Box<dyn Source>, Error> {
        if let Some(at) = self.rejoin.at {
            sleep_until(at).await;
        }
        let source = join(&*self.adapter, &self.consume, self.limit).await?;
        self.counts.rejoined.inc();
        Ok(source)
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &Consume {
        &self.consume
    }

    /// Leaves the group in order. Deliveries not settled yet may still be.
    ///
    /// # Errors
    /// Where that can't be said to the system; it then finds out by itself.
    pub async fn leave(mut self) -> Result<(), Error> {
        match self.source.take() {
            Some(source) => within(self.limit, "leaving", source.leave()).await,
            None => Ok(()),
        }
    }
}

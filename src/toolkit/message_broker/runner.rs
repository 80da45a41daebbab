//! Running a group's handler over the messages of one topic.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::bounds::within;
use super::group::SharedHandler;
use super::metrics::Counts;
use super::{Adapter, Consumer, ConsumerGroup, Delivery, Error, ErrorKind, Message};
use crate::toolkit::contain::contain;

/// Resolves when told to stop, or when nobody is left to tell.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What all handlers of one member need.
pub(super) struct Runner {
    pub(super) adapter: Arc<dyn Adapter>,
    pub(super) group: ConsumerGroup,
    pub(super) handler: SharedHandler,
    pub(super) counts: Arc<Counts>,
    /// How long a call may take.
    pub(super) limit: Duration,
}

impl Runner {
    /// Takes messages until told to stop; then waits for the handlers and leaves.
    pub(super) async fn run(
        self: Arc<Self>,
        mut consumer: Consumer,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let slots = Arc::new(Semaphore::new(self.group.concurrency));
        let mut handlers = JoinSet::new();
        let ended = loop {
            let take = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, consumer.next().await)
            };
            let (slot, next) = tokio::select! {
                biased;
                () = told(&mut stop) => break Ok(()),
                taken = take => taken,
            };
            match next {
                Ok(delivery) => {
                    handlers.spawn(self.clone().handle(delivery, slot.ok()));
                }
                Err(error) => break Err(error),
            }
            while handlers.try_join_next().is_some() {}
        };
        if let Err(error) = &ended {
            tracing::error!(%error, group = self.group.name, "a subscription ended");
        }
        let finished = self.finish(&mut handlers).await;
        let left = consumer.leave().await;
        ended.and(finished).and(left)
    }

    /// Waits for the handlers: for their own time, and what settling may take after it. What is not over then blocks
    /// its thread, so that nothing can stop it.
    async fn finish(&self, handlers: &mut JoinSet<()>) -> Result<(), Error> {
        let settling = self.group.retry_max.saturating_add(self.limit.saturating_mul(2));
        let most = self.group.handler_limit().saturating_add(settling);
        let finish = async { while handlers.join_next().await.is_some() {} };
        if timeout(most, finish).await.is_ok() {
            return Ok(());
        }
        let blocked = handlers.len();
        self.counts.handler_timeouts.inc_by(blocked as u64);
        tracing::error!(blocked, group = self.group.name, "handlers block their threads and are not waited for");
        Err(Error::new(ErrorKind::Timeout, format!("{blocked} handlers block their threads: not waited for")))
    }

    async fn handle(self: Arc<Self>, delivery: Delivery, _slot: Option<OwnedSemaphorePermit>) {
        let begin = Instant::now();
        let failure = self.call(delivery.message().clone()).await;
        self.counts.handled(begin.elapsed());
        let (id, attempt) = (delivery.message().id(), delivery.attempt());
        let settled = match failure {
            None => delivery.ack().await,
            Some(failure) if self.group.max_attempts.is_some_and(|most| attempt >= most) => {
                self.give_up(delivery, &failure).await
            }
            Some(failure) => {
                tracing::debug!(%id, attempt, failure, group = self.group.name, "a message failed");
                delivery.nack_after(self.group.retry_delay(attempt, fastrand::f64())).await
            }
        };
        if let Err(error) = settled {
            tracing::warn!(%id, %error, group = self.group.name, "a message could not be settled");
        }
    }

    /// Calls the handler; what went wrong, a panic and a timeout included.
    async fn call(&self, message: Message) -> Option<String> {
        let limit = self.group.handler_limit();
        let handled = contain(async { self.handler.handle(message).await });
        match timeout(limit, handled).await {
            Ok(Ok(failure)) => {
                self.counts.handler_failures.inc_by(u64::from(failure.is_some()));
                failure
            }
            Ok(Err(panic)) => {
                self.counts.handler_panics.inc();
                tracing::error!(panic, group = self.group.name, "a handler panicked");
                Some(format!("the handler panicked: {panic}"))
            }
            Err(_) => {
                self.counts.handler_timeouts.inc();
                Some(format!("not handled within {limit:?}"))
            }
        }
    }

    /// The last attempt failed.
    async fn give_up(&self, delivery: Delivery, failure: &str) -> Result<(), Error> {
        let message = delivery.message();
        let (id, topic) = (message.id(), message.topic());
        let Some(dead) = &self.group.dead_letter else {
            tracing::error!(%id, topic, failure, group = self.group.name, "a message was given up and dropped");
            delivery.ack().await?;
            self.counts.dropped.inc();
            return Ok(());
        };
        tracing::warn!(%id, topic, failure, dead_letter = dead, "a message was given up");
        let letter = message.clone().dead(dead, &self.group.name, failure);
        if let Err(error) = within(self.limit, "publish", self.adapter.publish(letter)).await {
            // better again than lost
            tracing::warn!(%id, %error, "a message could not be moved to its dead letter topic");
            return delivery.nack_after(self.group.retry_max).await;
        }
        self.counts.dead_lettered.inc();
        delivery.ack().await
    }
}

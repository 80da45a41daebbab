//! Reading a group's queue for one member.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, QueueDeleteOptions};
use lapin::types::ShortString;
use lapin::{Acker, Channel, Consumer};

use super::super::adapter::Received;
use super::super::delivery::Settle;
use super::super::{Consume, Error, ErrorKind, feed};
use super::{codec, failed};

pub(super) struct Reader {
    pub(super) channel: Channel,
    pub(super) consumer: Consumer,
    pub(super) queue: ShortString,
    pub(super) consume: Consume,
}

const BACK: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

impl Reader {
    pub(super) async fn run(mut self, into: feed::Into, mut stop: feed::Stop) -> Result<(), Error> {
        loop {
            let delivery = tokio::select! {
                biased;
                _ = &mut stop => return self.leave().await,
                delivery = self.consumer.next() => delivery,
            };
            let received = match delivery {
                Some(Ok(delivery)) => Ok(self.receive(delivery)),
                Some(Err(error)) => Err(failed("consuming", error)),
                // by the server: the queue was deleted, or its node went down
                None => Err(Error::new(ErrorKind::Connection, "the consumer was cancelled")),
            };
            let ended = received.is_err();
            // a member that is leaving gives it back
            if let Err(left) = into.send(received).await
                && let Ok(received) = left.0
            {
                let _ = received.settle.nack(Duration::ZERO).await;
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn receive(&self, delivery: Delivery) -> Received {
        Received {
            message: codec::message(&self.consume.topic, &delivery),
            attempt: codec::attempt(&delivery),
            settle: Box::new(Held { acker: delivery.acker, _channel: self.channel.clone() }),
        }
    }

    async fn leave(mut self) -> Result<(), Error> {
        let cancelled = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await;
        cancelled.map_err(|error| failed("leaving", error))?;
        // what came before the cancellation
        while let Some(Ok(delivery)) = self.consumer.next().await {
            delivery.acker.nack(BACK).await.map_err(|error| failed("giving back", error))?;
        }
        if self.consume.temporary {
            let deleted = self.channel.queue_delete(self.queue.clone(), QueueDeleteOptions::default()).await;
            deleted.map_err(|error| failed("deleting a group's queue", error))?;
        }
        Ok(())
    }
}

/// One message this member holds. The channel it came by stays open for it.
struct Held {
    acker: Acker,
    _channel: Channel,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&self.acker).finish()
    }
}

fn settled(done: lapin::Result<bool>) -> Result<(), Error> {
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(ErrorKind::Expired, "the message is no longer this member's")),
        // it went back with its channel
        Err(error) => Err(failed("settling", error)),
    }
}

#[async_trait]
impl Settle for Held {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        settled(self.acker.ack(BasicAckOptions::default()).await)
    }

    async fn nack(self: Box<Self>, _: Duration) -> Result<(), Error> {
        settled(self.acker.nack(BACK).await)
    }

    fn abandon(self: Box<Self>) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { self.acker.nack(BACK).await });
        }
    }
}

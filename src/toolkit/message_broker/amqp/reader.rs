//! Reading a group's queue for one member.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, QueueDeleteOptions};
use lapin::types::ShortString;
use lapin::{Channel, Consumer};
use tokio::sync::mpsc;

use super::super::adapter::{Event, Received};
use super::super::delivery::Settle;
use super::super::{Consume, Error, ErrorKind, Order, feed};
use super::{codec, failed};

pub(super) struct Reader {
    pub(super) channel: Channel,
    pub(super) consumer: Consumer,
    pub(super) queue: ShortString,
    pub(super) consume: Consume,
}

const BACK: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

/// A delivery, and which attempt it is.
type Attempt = (Delivery, u32);

impl Reader {
    pub(super) async fn run(mut self, into: feed::Into, mut stop: feed::Stop) -> Result<(), Error> {
        // a quorum queue puts what is refused behind the others, so to keep the order this member, which is the only
        // active one, repeats it itself
        let (repeat, mut repeated) = mpsc::unbounded_channel::<Attempt>();
        let repeat = (self.consume.order == Order::PerKey).then_some(repeat);
        loop {
            let received = tokio::select! {
                biased;
                _ = &mut stop => return self.leave().await,
                Some((delivery, attempt)) = repeated.recv(), if repeat.is_some() => {
                    Ok(self.receive(delivery, attempt, &repeat))
                }
                delivery = self.consumer.next() => match delivery {
                    Some(Ok(delivery)) => {
                        let attempt = codec::attempt(&delivery);
                        Ok(self.receive(delivery, attempt, &repeat))
                    }
                    Some(Err(error)) => Err(failed("consuming", error)),
                    // by the server: the queue was deleted, or its node went down
                    None => Err(Error::new(ErrorKind::Connection, "the consumer was cancelled")),
                },
            };
            let ended = received.is_err();
            // a member that is leaving gives it back
            if let Err(left) = into.send(received.map(Event::from)).await
                && let Ok(Event::Message(received)) = left.0
            {
                let _ = received.settle.nack(Duration::ZERO).await;
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn receive(&self, delivery: Delivery, attempt: u32, repeat: &Option<mpsc::UnboundedSender<Attempt>>) -> Received {
        let message = codec::message(&self.consume.topic, &delivery);
        let held = Held { delivery, attempt, repeat: repeat.clone(), _channel: self.channel.clone() };
        Received { message, attempt, settle: Box::new(held) }
    }

    async fn leave(mut self) -> Result<(), Error> {
        let cancelled = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await;
        cancelled.map_err(|error| failed("leaving", error))?;
        // what came before the cancellation; to keep its place it goes back with the channel, when that is dropped
        while let Some(Ok(delivery)) = self.consumer.next().await {
            if self.consume.order == Order::Any {
                delivery.acker.nack(BACK).await.map_err(|error| failed("giving back", error))?;
            }
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
    delivery: Delivery,
    attempt: u32,
    repeat: Option<mpsc::UnboundedSender<Attempt>>,
    _channel: Channel,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&self.delivery.delivery_tag).finish()
    }
}

impl Held {
    async fn back(self) -> Result<(), Error> {
        let Held { delivery, attempt, repeat, _channel } = self;
        match repeat {
            // with no reader any more it goes back with its channel, which is dropped here
            Some(repeat) => {
                let _ = repeat.send((delivery, attempt.saturating_add(1)));
                Ok(())
            }
            None => settled(delivery.acker.nack(BACK).await),
        }
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
        settled(self.delivery.acker.ack(BasicAckOptions::default()).await)
    }

    async fn nack(self: Box<Self>, _: Duration) -> Result<(), Error> {
        self.back().await
    }

    fn abandon(self: Box<Self>) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.back());
        }
    }
}

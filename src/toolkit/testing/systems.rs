//! A double for a system that carries messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::toolkit::message_broker::adapter::{Event, Received, Source};
use crate::toolkit::message_broker::{
    Adapter, Capabilities, Consume, Error, ErrorKind, Memory, Message, Place, Published, Settle, TopicOptions,
};

/// An [`Adapter`] on [`Memory`] whose system goes down and comes back, falls silent and loses messages as a test tells
/// it, and which remembers what was published. Clones are the same system.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use corelay::toolkit::message_broker::{Broker, ErrorKind, Message, TopicOptions};
/// use corelay::toolkit::testing::FakeSystem;
///
/// let system = FakeSystem::default();
/// let broker = Broker::new(system.clone());
/// broker.create_topic("orders", TopicOptions::default()).await?;
/// system.set_down(true);
/// let message = Message::builder("orders").value("an apple").build()?;
/// assert_eq!(broker.publish(message.clone()).await.unwrap_err().kind(), ErrorKind::Connection);
/// system.set_down(false);
/// broker.publish(message).await?;
/// assert_eq!(system.published().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FakeSystem {
    memory: Memory,
    down: Arc<watch::Sender<bool>>,
    silent: Arc<watch::Sender<bool>>,
    lost: Arc<watch::Sender<u64>>,
    published: Arc<Mutex<Vec<Message>>>,
}

impl Default for FakeSystem {
    fn default() -> FakeSystem {
        FakeSystem {
            memory: Memory::default(),
            down: Arc::new(watch::Sender::new(false)),
            silent: Arc::new(watch::Sender::new(false)),
            lost: Arc::new(watch::Sender::new(0)),
            published: Arc::default(),
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Connection, "the system is down")
}

impl FakeSystem {
    /// While it is down, every call fails with [`ErrorKind::Connection`]; members lose their connection when it goes
    /// down. Topics, groups and messages stay.
    pub fn set_down(&self, is_down: bool) {
        self.down.send_replace(is_down);
    }

    /// While it is silent, no call has an answer: a server that hangs. What a member waits for just doesn't come.
    pub fn set_silent(&self, is_silent: bool) {
        self.silent.send_replace(is_silent);
    }

    /// Tells every member that so many messages were dropped to keep a bound. It has them all the same.
    pub fn lose(&self, messages: u64) {
        self.lost.send_modify(|lost| *lost += messages);
    }

    /// What it took charge of, in this order, whether somebody takes it or not.
    #[must_use]
    pub fn published(&self) -> Vec<Message> {
        self.remembered().clone()
    }

    fn remembered(&self) -> MutexGuard<'_, Vec<Message>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn memory(&self) -> Result<&Memory, Error> {
        answers(&self.silent).await;
        if *self.down.borrow() { Err(gone()) } else { Ok(&self.memory) }
    }
}

/// Resolves as soon as the system isn't silent.
async fn answers(silent: &watch::Sender<bool>) {
    // the sender is there
    let _ = silent.subscribe().wait_for(|is_silent| !is_silent).await;
}

/// A member's messages, until the system goes down.
#[derive(Debug)]
struct FakeSource {
    memory: Box<dyn Source>,
    down: watch::Receiver<bool>,
    silent: Arc<watch::Sender<bool>>,
    lost: watch::Receiver<u64>,
    /// Lost ones it was told of.
    told: u64,
}

/// A message that is settled when the system answers.
#[derive(Debug)]
struct FakeHeld {
    memory: Box<dyn Settle>,
    silent: Arc<watch::Sender<bool>>,
}

#[async_trait]
impl Settle for FakeHeld {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        answers(&self.silent).await;
        self.memory.ack().await
    }

    async fn nack(self: Box<Self>, delay: Duration) -> Result<(), Error> {
        answers(&self.silent).await;
        self.memory.nack(delay).await
    }

    fn abandon(self: Box<Self>) {
        self.memory.abandon();
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn next(&mut self) -> Result<Event, Error> {
        tokio::select! {
            biased;
            _ = self.down.wait_for(|is_down| *is_down) => Err(gone()),
            Ok(lost) = self.lost.wait_for(|lost| *lost > self.told) => {
                let new = *lost - self.told;
                self.told = *lost;
                Ok(Event::Lost(new))
            }
            event = self.memory.next() => Ok(match event? {
                Event::Message(received) => {
                    let settle = Box::new(FakeHeld { memory: received.settle, silent: self.silent.clone() });
                    Event::Message(Received { settle, ..received })
                }
                lost => lost,
            }),
        }
    }

    async fn leave(self: Box<Self>) -> Result<(), Error> {
        answers(&self.silent).await;
        self.memory.leave().await
    }
}

#[async_trait]
impl Adapter for FakeSystem {
    fn system(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        Memory::CAPABILITIES
    }

    async fn publish(&self, message: Message) -> Result<(), Error> {
        self.memory().await?.publish(message.clone()).await?;
        self.remembered().push(message);
        Ok(())
    }

    /// Every place is one of its own: what is put there is remembered, and that is all.
    async fn publish_to(&self, _: &Place, messages: &[Message]) -> Published {
        if let Err(error) = self.memory().await {
            return Published::up_to(0, 0, error);
        }
        self.remembered().extend_from_slice(messages);
        Published::all(messages.len())
    }

    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error> {
        let memory = self.memory().await?.consume(consume).await?;
        let (down, lost) = (self.down.subscribe(), self.lost.subscribe());
        let told = *lost.borrow();
        Ok(Box::new(FakeSource { memory, down, silent: self.silent.clone(), lost, told }))
    }

    async fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), Error> {
        self.memory().await?.create_topic(topic, options).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        self.memory().await?.delete_topic(topic).await
    }

    async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        self.memory().await?.topic_exists(topic).await
    }

    async fn topics(&self) -> Result<Vec<String>, Error> {
        self.memory().await?.topics().await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.memory().await?.ping().await
    }

    async fn close(&self) {
        answers(&self.silent).await;
        self.memory.close().await;
    }
}

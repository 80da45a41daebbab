//! A double for a system that carries messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::toolkit::message_broker::adapter::{Received, Source};
use crate::toolkit::message_broker::{
    Adapter, Capabilities, Consume, Error, ErrorKind, Memory, Message, Place, Published, TopicOptions,
};

/// An [`Adapter`] on [`Memory`] whose system goes down and comes back as a test tells it, and which remembers what was
/// published. Clones are the same system.
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
    published: Arc<Mutex<Vec<Message>>>,
}

impl Default for FakeSystem {
    fn default() -> FakeSystem {
        FakeSystem { memory: Memory::default(), down: Arc::new(watch::Sender::new(false)), published: Arc::default() }
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

    /// What it took charge of, in this order, whether somebody takes it or not.
    #[must_use]
    pub fn published(&self) -> Vec<Message> {
        self.remembered().clone()
    }

    fn remembered(&self) -> MutexGuard<'_, Vec<Message>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> Result<&Memory, Error> {
        if *self.down.borrow() { Err(gone()) } else { Ok(&self.memory) }
    }
}

/// A member's messages, until the system goes down.
#[derive(Debug)]
struct FakeSource {
    memory: Box<dyn Source>,
    down: watch::Receiver<bool>,
}

#[async_trait]
impl Source for FakeSource {
    async fn next(&mut self) -> Result<Received, Error> {
        tokio::select! {
            biased;
            _ = self.down.wait_for(|is_down| *is_down) => Err(gone()),
            received = self.memory.next() => received,
        }
    }

    async fn leave(self: Box<Self>) -> Result<(), Error> {
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
        self.memory()?.publish(message.clone()).await?;
        self.remembered().push(message);
        Ok(())
    }

    /// Every place is one of its own: what is put there is remembered, and that is all.
    async fn publish_to(&self, _: &Place, messages: &[Message]) -> Published {
        if let Err(error) = self.memory() {
            return Published::up_to(0, 0, error);
        }
        self.remembered().extend_from_slice(messages);
        Published::all(messages.len())
    }

    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error> {
        let memory = self.memory()?.consume(consume).await?;
        Ok(Box::new(FakeSource { memory, down: self.down.subscribe() }))
    }

    async fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), Error> {
        self.memory()?.create_topic(topic, options).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        self.memory()?.delete_topic(topic).await
    }

    async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        self.memory()?.topic_exists(topic).await
    }

    async fn topics(&self) -> Result<Vec<String>, Error> {
        self.memory()?.topics().await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.memory()?.ping().await
    }

    async fn close(&self) {
        self.memory.close().await;
    }
}

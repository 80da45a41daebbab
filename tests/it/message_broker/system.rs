//! A system under test, and what tests need of it.

use std::sync::Arc;
use std::time::Duration;

use corelay::toolkit::message_broker::{Broker, Consume, Delivery, Message, Order, Start, TopicOptions};

use crate::servers::unique;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a new handle with connections of its own, as another process would.
type Connect = Arc<dyn Fn() -> futures::BoxFuture<Broker> + Send + Sync>;

pub mod futures {
    pub type BoxFuture<T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send>>;
}

/// Makes a topic where the system under test can't be told to.
type MakeTopic = Arc<dyn Fn(&str) + Send + Sync>;

#[derive(Clone)]
pub struct System {
    connect: Connect,
    make_topic: Option<MakeTopic>,
    /// Kept alive as long as the system is used.
    _keep: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

impl System {
    pub fn new<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> System
    where
        F: Future<Output = Broker> + Send + 'static,
    {
        System { connect: Arc::new(move || Box::pin(connect())), make_topic: None, _keep: None }
    }

    /// With another way to make topics.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code))]
    pub fn making_topics(self, make: impl Fn(&str) + Send + Sync + 'static) -> System {
        System { make_topic: Some(Arc::new(make)), ..self }
    }

    /// With something that has to live as long.
    pub fn keeping(self, keep: impl std::any::Any + Send + Sync) -> System {
        System { _keep: Some(Arc::new(keep)), ..self }
    }

    pub async fn connect(&self) -> Broker {
        (self.connect)().await
    }

    /// A topic no other test uses.
    pub async fn topic(&self, broker: &Broker) -> String {
        let topic = unique("topic.");
        if let Some(make) = &self.make_topic {
            make(&topic);
        } else if broker.capabilities().topics {
            broker.create_topic(&topic, TopicOptions::default()).await.unwrap();
        }
        topic
    }
}

/// As every test consumes unless it says otherwise: from now on, with an `ack_timeout` no test waits for.
pub fn consume(topic: &str, group: &str) -> Consume {
    Consume { ack_timeout: PATIENCE * 2, order: Order::Any, start: Start::New, ..Consume::new(topic, group) }
}

pub fn numbered(topic: &str, n: u32) -> Message {
    Message::builder(topic).value(n.to_string()).build().unwrap()
}

pub fn number(delivery: &Delivery) -> u32 {
    number_of(delivery.message())
}

pub fn number_of(message: &Message) -> u32 {
    std::str::from_utf8(message.value()).unwrap().parse().unwrap()
}

/// Bounds what would otherwise hang.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}

/// Waits for something others bring about.
pub async fn until(what: &str, happened: impl Fn() -> bool) {
    let wait = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(what, wait).await;
}

//! One interface to publish and consume messages, over whatever system carries them: the same program runs on the
//! memory of one process, on corelay's channels, and on servers and clusters of NATS, Redis, RabbitMQ and Kafka.
//!
//! ```text
//!   publish ──► topic ──┬──► group "billing" ──┬──► member     a message goes to one member of each group,
//!                       │                      └──► member     and again to one until it is acknowledged
//!                       └──► group "audit" ───────► member
//! ```
//!
//! - A [`Broker`] is a handle on an adapter: [`publish`](Broker::publish), [`subscribe`](Broker::subscribe),
//!   [`join_group`](Broker::join_group), topics, [`health`](Broker::health), [`stats`](Broker::stats).
//! - A handler's `Ok` acknowledges; its error or panic has the message delivered again, after a growing wait, until
//!   [`max_attempts`](ConsumerGroup::max_attempts); then it goes to the
//!   [`dead_letter`](ConsumerGroup::dead_letter) topic if there is one. [`Broker::consume`] leaves the
//!   acknowledging to the caller.
//! - Delivery is at least once wherever the system stores: whoever handles messages has to bear one twice, by its
//!   [`id`](Message::id), say.
//! - [`Broker::publish_to`] puts messages where other programs keep things by the system's own names, a [`Place`].
//! - What a system can't do is an error of kind [`ErrorKind::Unsupported`], never a pretence. [`Capabilities`] says
//!   beforehand.
//!
//! | | `memory` | `nats` | `redis` | `amqp` | `kafka` | `corelay` |
//! |---|---|---|---|---|---|---|
//! | takes charge of what is published | yes | yes | yes | yes | yes | no: publishing ends with the acknowledgement |
//! | survives a restart of the system | no | yes | yes, as far as its `appendfsync` says | yes | yes | no |
//! | every group gets every message | yes | yes | yes | yes | yes | no: those the publisher names |
//! | redelivery of what was refused, or whose member was lost | yes | yes | yes | yes | yes; a refused one by its member | yes, while the publisher lives |
//! | redelivery after `ack_timeout` | yes | yes | yes | no | no | yes |
//! | the system holds back what was refused with a delay | yes | yes | yes | no: its member does | no: its member does | no: its member does |
//! | order of a key in a group | yes | yes, one at a time | no | yes, one at a time | yes, one at a time | no |
//! | topics: create, delete, check | yes | yes | yes | yes | yes | no |
//! | topics: list | yes | yes | yes | no | yes | no |
//! | a new group from the earliest message | yes, of what is retained | yes | yes | no | yes | no |
//! | topics bounded by count | yes | yes | yes | no | no | no |
//! | topics bounded by age | no | yes | no | no | yes | no |
//!
//! "One at a time": [`Order::PerKey`] is had by handing a group's next message out when the one before is
//! acknowledged, whatever its key. Kafka has one more reservation: what is acknowledged before something older of its
//! partition comes again if the member is lost in between.
//!
//! `kafka` is the cargo feature `kafka`, which is not part of `full`: it builds librdkafka, which is C.
//!
//! ```
//! use corelay::toolkit::message_broker::{Broker, ConsumerGroup, Memory, Message, TopicOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::new(Memory::default());
//! broker.create_topic("user-events", TopicOptions::default()).await?;
//! let (seen, mut sees) = tokio::sync::mpsc::unbounded_channel();
//! let group = ConsumerGroup::new("user-service", ["user-events"]);
//! broker
//!     .join_group(group, move |message: Message| {
//!         let seen = seen.clone();
//!         async move { seen.send(message.value().clone()) }
//!     })
//!     .await?;
//! let message = Message::builder("user-events")
//!     .key("user-123")
//!     .value(r#"{"user_id": "123"}"#)
//!     .header("event_type", "user.created")
//!     .build()?;
//! broker.publish(message).await?;
//! assert_eq!(sees.recv().await.unwrap(), r#"{"user_id": "123"}"#);
//! broker.close().await;
//! # Ok(())
//! # }
//! ```

pub mod adapter;
#[cfg(feature = "amqp")]
pub mod amqp;
mod bounds;
mod broker;
mod consumer;
#[cfg(feature = "client")]
pub mod corelay;
mod delivery;
mod error;
#[cfg(any(feature = "nats", feature = "redis", feature = "amqp", feature = "kafka", feature = "client"))]
mod feed;
mod group;
#[cfg(feature = "nats")]
mod hex;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
mod message;
mod metrics;
mod name;
#[cfg(feature = "nats")]
pub mod nats;
mod place;
#[cfg(feature = "redis")]
pub mod redis;
mod runner;
#[cfg(test)]
mod tests;

pub use crate::toolkit::outcome::Outcome;
pub use adapter::{Adapter, Capabilities, Consume, Order, Start, TopicOptions};
pub use broker::{Broker, Health, Options, Subscription, SubscriptionId};
pub use consumer::Consumer;
pub use delivery::{Delivery, Settle};
pub use error::{Error, ErrorKind};
pub use group::{ConsumerGroup, Handler};
pub use memory::Memory;
pub use message::{Headers, Message, MessageBuilder};
pub use metrics::Stats;
pub use place::{Place, Published};

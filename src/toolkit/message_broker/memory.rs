//! The embedded system: topics in the memory of this process.
//!
//! ```text
//!   publish ──► topic ──► each group: ready ──► member ──► acknowledged: gone
//!                           keys in turn ▲                 refused, late, member lost: ready again, in front
//!                                        └─ the next of its key waits here until the one before is acknowledged
//! ```
//!
//! Bounded: a group holds [`Options::capacity`] messages at most that are not acknowledged; the publisher then waits,
//! or is refused. What is published while there is no group is kept for [`Start::Earliest`], up to
//! [`TopicOptions::max_messages`].

mod books;
mod source;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use self::books::Topic;
use self::source::MemorySource;
use super::adapter::Source;
use super::{Adapter, Capabilities, Consume, Error, ErrorKind, Message, Start, TopicOptions};

/// What happens to a message one of whose groups is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The publisher waits for room: the slowest group sets the pace.
    #[default]
    Wait,
    /// It is refused with [`ErrorKind::Full`].
    Refuse,
}

/// Bounds of the embedded system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Messages a group holds at most that are not acknowledged. Default 10,000; at least 1.
    pub capacity: usize,
    /// What happens beyond that.
    pub overflow: Overflow,
    /// Messages a topic keeps for groups that begin with the earliest, unless its
    /// [`max_messages`](TopicOptions::max_messages) says otherwise. Default 1,000.
    pub retained: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { capacity: 10_000, overflow: Overflow::Wait, retained: 1_000 }
    }
}

/// Topics in the memory of this process: see the [module](self). Clones share them.
///
/// ```
/// use corelay::toolkit::message_broker::memory::{Memory, Options, Overflow};
/// let memory = Memory::new(Options { capacity: 100, overflow: Overflow::Refuse, ..Options::default() })?;
/// assert!(Memory::new(Options { capacity: 0, ..Options::default() }).is_err());
/// # Ok::<(), corelay::toolkit::message_broker::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Memory {
    options: Options,
    topics: Arc<Mutex<HashMap<String, Arc<Shelf>>>>,
}

/// A topic, and who waits for something to happen to it.
#[derive(Debug)]
pub(super) struct Shelf {
    topic: Mutex<Topic>,
    /// There is room in a group again.
    room: Notify,
}

impl Shelf {
    /// The topic. No caller can panic while it holds it, so poison means nothing.
    pub(super) fn topic(&self) -> MutexGuard<'_, Topic> {
        self.topic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        stores: true,
        fan_out: true,
        ack_timeout: true,
        delayed_nack: true,
        order_per_key: true,
        topics: true,
        list_topics: true,
        start_earliest: true,
        max_messages: true,
        ..Capabilities::NONE
    };

    /// With these bounds.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a capacity of 0.
    pub fn new(options: Options) -> Result<Memory, Error> {
        if options.capacity == 0 {
            return Err(Error::new(ErrorKind::Invalid, "capacity is 0: expected at least 1"));
        }
        Ok(Memory { options, topics: Arc::default() })
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<String, Arc<Shelf>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self, topic: &str) -> Result<Arc<Shelf>, Error> {
        self.topics().get(topic).cloned().ok_or_else(|| Error::unknown_topic(topic))
    }
}

#[async_trait]
impl Adapter for Memory {
    fn system(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Memory::CAPABILITIES
    }

    async fn publish(&self, message: Message) -> Result<(), Error> {
        let shelf = self.shelf(message.topic())?;
        loop {
            let room = shelf.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut topic = shelf.topic();
                if topic.is_deleted() {
                    return Err(Error::unknown_topic(message.topic()));
                }
                if topic.has_room(self.options.capacity) {
                    topic.publish(message);
                    return Ok(());
                }
            }
            if self.options.overflow == Overflow::Refuse {
                let text = format!("a group of {:?} holds {} messages", message.topic(), self.options.capacity);
                return Err(Error::new(ErrorKind::Full, text));
            }
            room.await;
        }
    }

    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error> {
        let shelf = self.shelf(&consume.topic)?;
        let member = shelf.topic().join(&consume.group, consume.start == Start::Earliest);
        Ok(Box::new(MemorySource::new(shelf, member, consume.clone())))
    }

    async fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), Error> {
        let retained = options.max_messages.map_or(self.options.retained, |most| most.try_into().unwrap_or(usize::MAX));
        let mut topics = self.topics();
        if topics.contains_key(topic) {
            return Err(Error::topic_exists(topic));
        }
        let shelf = Shelf { topic: Mutex::new(Topic::new(retained)), room: Notify::new() };
        topics.insert(topic.into(), Arc::new(shelf));
        Ok(())
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        let shelf = self.topics().remove(topic).ok_or_else(|| Error::unknown_topic(topic))?;
        shelf.topic().delete();
        shelf.room.notify_waiters();
        Ok(())
    }

    async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        Ok(self.topics().contains_key(topic))
    }

    async fn topics(&self) -> Result<Vec<String>, Error> {
        Ok(self.topics().keys().cloned().collect())
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn close(&self) {}
}

//! One target's queue, policy and health: the half that everybody holds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::drain::Drain;
use super::options::validate_id;
use super::queue::Queue;
use super::stats::{LastError, Report, Snapshot};
use super::{
    Client, DropReason, ForwardError, Message, NotTaken, OptionsError, ProducerOptions, Runner, SendError, State, wait,
};

/// A client with a bounded queue before it. Cheap to clone; used from any thread.
///
/// Messages are delivered in the order they were brought, by the producer's [`Runner`]. What is not delivered is
/// counted, each message once: see [`Counters`](super::Counters).
///
/// ```
/// use std::sync::Arc;
/// use corelay::forward::{Client, Message, Producer, ProducerOptions, SendFuture};
///
/// struct Console;
///
/// impl Client for Console {
///     fn protocol_name(&self) -> &str {
///         "console"
///     }
///     fn address(&self) -> &str {
///         "stdout"
///     }
///     fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
///         Box::pin(async move {
///             println!("{}", String::from_utf8_lossy(&message.body));
///             Ok(())
///         })
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (producer, runner) = Producer::new("console", Arc::new(Console), ProducerOptions::default())?;
/// corelay::forward::runtime::run(async {
///     tokio::task::spawn_local(runner.run());
///     producer.offer("no waiting, no outcome")?;
///     producer.forward("delivered, or why not").await?;
///     assert_eq!(producer.snapshot().counters.forwarded, 2);
///     Ok(())
/// })?
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// Common to all clones: with the last of them the producer closes.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // what was accepted has as long as it would have had
        self.shared.close(Instant::now() + self.shared.options.max_age);
    }
}

type Callback = Box<dyn Fn(bool) + Send + Sync>;

#[derive(Default)]
struct Level {
    told: bool,
    callbacks: Vec<Callback>,
}

#[derive(Default)]
struct Health {
    state: State,
    last: Option<LastError>,
}

/// What the handles and the runner share.
pub(super) struct Shared {
    pub(super) id: String,
    pub(super) client: Arc<dyn Client>,
    pub(super) options: ProducerOptions,
    queue: Mutex<Queue>,
    health: Mutex<Health>,
    level: Mutex<Level>,
    /// For the runner: the queue is no longer empty.
    pub(super) wake: Notify,
    /// For whoever waits for room.
    room: Notify,
    /// When to stop.
    pub(super) closing: watch::Sender<Option<Instant>>,
    pub(super) finished: watch::Sender<bool>,
    /// The runner has been polled.
    pub(super) started: AtomicBool,
    left: AtomicU64,
    /// Messages refused elsewhere in its name, as its queue was full.
    refused: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Does something to the queue, and tells those concerned if its level has changed.
    pub(super) fn queue<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        let (result, changed) = {
            let mut queue = lock(&self.queue);
            let result = act(&mut queue);
            (result, queue.level())
        };
        if changed {
            self.tell_level();
        }
        result
    }

    /// Two threads may come here in another order than their changes were made in, so each tells what holds now.
    #[cold]
    fn tell_level(&self) {
        let mut level = lock(&self.level);
        let is_over = lock(&self.queue).is_over();
        if std::mem::replace(&mut level.told, is_over) != is_over {
            level.callbacks.iter().for_each(|callback| callback(is_over));
        }
        if !is_over {
            self.room.notify_waiters();
        }
    }

    fn admit(&self, message: Message, done: Option<super::queue::Responder>) -> Result<(), NotTaken> {
        let (result, was_empty) = self.queue(|queue| {
            let was_empty = queue.is_empty();
            (queue.admit(message, done, Instant::now()), was_empty)
        });
        // a runner that has work looks again by itself
        if was_empty {
            self.wake.notify_one();
        }
        result
    }

    pub(super) fn close(&self, deadline: Instant) {
        self.queue(Queue::close);
        self.closing.send_if_modified(|closing| {
            let earlier = closing.is_none_or(|before| deadline < before);
            if earlier {
                *closing = Some(deadline);
            }
            earlier
        });
        self.room.notify_waiters();
    }

    pub(super) fn set_state(&self, state: State) {
        lock(&self.health).state = state;
    }

    /// The time is up: what is still there is left.
    pub(super) fn note_left(&self) {
        let left = self.queue(|queue| queue.counters.queue_messages);
        self.left.fetch_max(left, Ordering::Relaxed);
    }

    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Counts all that waits as dropped.
    pub(super) fn give_up_waiting(&self) {
        self.queue(|queue| {
            queue.close();
            queue.fail_all_open(DropReason::Shutdown);
            queue.take_all().into_iter().for_each(|entry| queue.give_up(entry, DropReason::Shutdown, None));
        });
    }

    pub(super) fn note_error(&self, error: &SendError) {
        lock(&self.health).last = Some(LastError { text: error.to_string(), when: SystemTime::now() });
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("id", &self.id())
            .field("protocol", &self.client().protocol_name())
            .field("address", &self.client().address())
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// A producer, and the runner that must be run for it to deliver.
    ///
    /// # Errors
    /// An id or options that can't be used.
    pub fn new(
        id: impl Into<String>,
        client: Arc<dyn Client>,
        options: ProducerOptions,
    ) -> Result<(Producer, Runner), OptionsError> {
        let id = id.into();
        validate_id(&id)?;
        options.validate()?;
        let queue = Queue::new(options.clone(), client.takes());
        let shared = Arc::new(Shared {
            id,
            client,
            options,
            queue: Mutex::new(queue),
            health: Mutex::default(),
            level: Mutex::default(),
            wake: Notify::new(),
            room: Notify::new(),
            closing: watch::Sender::new(None),
            finished: watch::Sender::new(false),
            started: AtomicBool::new(false),
            left: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let runner = Runner::new(Arc::clone(&shared));
        Ok((Producer { handle: Arc::new(Handle { shared }) }, runner))
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared().id
    }

    /// Its client.
    #[must_use]
    pub fn client(&self) -> &Arc<dyn Client> {
        &self.shared().client
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &ProducerOptions {
        &self.shared().options
    }

    /// Brings a message, or a part of one, without waiting for anything; what becomes of it is in the counters.
    ///
    /// Parts of one message share a [`key`](Message::key) and come in order, from 0 to one that is the last, or to
    /// [`Part::Aborted`](super::Part::Aborted); those of several messages may be mixed. If one can't be taken, the rest are
    /// thrown away as they come, and the target is told of the end where it needs to be.
    ///
    /// # Errors
    /// It is not taken, and has been counted.
    pub fn offer(&self, message: impl Into<Message>) -> Result<(), NotTaken> {
        self.shared().admit(message.into(), None)
    }

    /// Brings a message, and waits for what becomes of it; with [`WhenFull::Block`](super::WhenFull::Block) first for
    /// room. A message brought is sent even if this future is dropped.
    ///
    /// # Errors
    /// It was not delivered.
    pub async fn forward(&self, message: impl Into<Message>) -> Result<(), ForwardError> {
        let message = message.into();
        if self.shared().options.when_full == super::WhenFull::Block {
            self.wait_for_room().await;
        }
        let (done, outcome) = oneshot::channel();
        self.shared().admit(message, Some(done))?;
        let gone = ForwardError::Dropped { reason: DropReason::Shutdown, error: None };
        outcome.await.unwrap_or(Err(gone))
    }

    /// [`forward`](Producer::forward) for a thread that has no runtime. It blocks this thread: never call it on the
    /// one that runs the producer's runner.
    ///
    /// # Errors
    /// It was not delivered.
    pub fn forward_blocking(&self, message: impl Into<Message>) -> Result<(), ForwardError> {
        wait::block_on(self.forward(message))
    }

    async fn wait_for_room(&self) {
        loop {
            let room = self.shared().room.notified();
            if self.shared().queue(|queue| !queue.is_over() || queue.is_closing()) {
                return;
            }
            room.await;
        }
    }

    /// Whether there is no use in bringing it more. With [`WhenFull::Block`](super::WhenFull::Block): the queue is above
    /// its bound, until a quarter of that is free again. With [`WhenFull::DropNewest`](super::WhenFull::DropNewest): it
    /// has refused a message for want of room, until a sixteenth is free. With
    /// [`WhenFull::DropOldest`](super::WhenFull::DropOldest) never.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared().queue(|queue| queue.is_over())
    }

    /// Calls this each time [`is_over`](Producer::is_over) changes, on the thread that changed it: it must be short and
    /// leave this producer alone. The last call always tells what holds.
    pub fn on_level_change(&self, told: impl Fn(bool) + Send + Sync + 'static) {
        lock(&self.shared().level).callbacks.push(Box::new(told));
    }

    /// Whoever would bring it messages has refused so many since the start, in its name, as it [was
    /// full](Producer::is_over): they count as if they had come here.
    pub(crate) fn set_refused(&self, messages: u64) {
        self.shared().refused.store(messages, Ordering::Relaxed);
    }

    /// Whether it sends: what [`snapshot`](Producer::snapshot) says of it, for less.
    #[must_use]
    pub fn state(&self) -> State {
        lock(&self.shared().health).state
    }

    /// The last failure, if there was one.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        lock(&self.shared().health).last.clone()
    }

    /// All that is known of it now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shared = self.shared();
        let (mut counters, latency, is_over) =
            shared.queue(|queue| (queue.counters.clone(), queue.latency.clone(), queue.is_over()));
        let refused = shared.refused.load(Ordering::Relaxed);
        counters.accepted += refused;
        counters.dropped.add(super::DropReason::QueueFull, refused);
        let health = lock(&shared.health);
        Snapshot {
            id: shared.id.clone(),
            protocol: shared.client.protocol_name().to_owned(),
            address: shared.client.address().to_owned(),
            promise: shared.client.promise(),
            state: health.state,
            is_over,
            queue_limit: shared.options.queue_bytes as u64,
            counters,
            last_error: health.last.clone(),
            latency,
        }
    }

    /// Takes nothing new, delivers what is there, and ends the runner and the client's connections; what is left when
    /// the time is up is given up ([`DropReason::Shutdown`](super::DropReason::Shutdown)).
    /// [Parts](super::Part) of messages that had begun are still taken.
    ///
    /// It ends within `within` and some seconds, also where the [`Runner`] was never started, or stands still: then what
    /// waits is given up by this call, and what it held is [`Report::unsettled`]. That needs a clock: on an executor
    /// that is not tokio's it waits for the runner alone.
    ///
    /// A second call shortens the time, never lengthens it.
    pub async fn drain(&self, within: Duration) -> Report {
        self.begin_drain(within).finish().await
    }

    /// [`drain`](Producer::drain) for a thread that has no runtime.
    pub fn drain_blocking(&self, within: Duration) -> Report {
        self.begin_drain(within).finish_blocking()
    }

    pub(super) fn begin_drain(&self, within: Duration) -> Drain<'_> {
        Drain::begin(self.shared(), within)
    }
}

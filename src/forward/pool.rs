//! Many producers, and the thread they live on.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::url::UrlError;
use super::{
    Client, ClientFactory, ForwardError, Message, OptionsError, Producer, ProducerOptions, Report, Runner, Snapshot,
    runtime, wait,
};

/// A producer that can't be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Its id is taken.
    #[error("there is a producer {0:?} already")]
    Taken(String),
    /// Its id or options can't be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Its URL makes no client.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The pool's thread can't be started.
    #[error("the pool's thread can't be started: {0}")]
    Thread(#[source] io::Error),
    /// The pool is [local](ProducerPool::local), and this thread has no runtime.
    #[error("a local pool adds producers to the runtime of the current thread, and there is none")]
    NoRuntime,
}

/// What became of a message at each producer.
pub type Results = Vec<(String, Result<(), ForwardError>)>;

/// Producers by their ids. Whatever one of them does, the others hear nothing of it.
///
/// Every way to forward comes twice: for tasks, and `..._blocking` for threads that have no runtime. Those that bring a
/// message to several producers bring it to all of them at once, and wait for what becomes of it at each.
///
/// ```
/// use corelay::forward::ProducerPool;
///
/// # let target = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// # let url = format!("udp://{}", target.local_addr()?);
/// let pool = ProducerPool::new();
/// pool.add_url("metrics", &url)?; // udp://127.0.0.1:9000, say
/// pool.add_url("backup", "unix:///nowhere")?;
///
/// pool.forward_to_blocking("metrics", "Hello!")?;
/// for (id, result) in pool.forward_to_many_blocking(&["metrics", "nobody"], "Hello, you two!") {
///     match result {
///         Ok(()) => println!("{id} has it"),
///         Err(error) => println!("{id}: {error}"),
///     }
/// }
/// let report = pool.drain_blocking(std::time::Duration::from_secs(1));
/// # assert_eq!(report["backup"].left, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ProducerPool {
    producers: RwLock<BTreeMap<String, Producer>>,
    driver: Driver,
}

#[derive(Debug)]
enum Driver {
    /// A thread of its own, started with the first producer.
    Own { io: runtime::Io, thread: Mutex<Option<Thread>> },
    /// Whatever runtime the current thread has.
    Local,
}

impl Default for ProducerPool {
    fn default() -> ProducerPool {
        ProducerPool::new()
    }
}

impl ProducerPool {
    /// A pool with a thread of its own, which starts with the first producer: on tokio-uring, or on plain tokio where that
    /// can't be had. The thread ends with the pool; [`drain`](ProducerPool::drain) it first.
    #[must_use]
    pub fn new() -> ProducerPool {
        ProducerPool::on(runtime::Io::Auto)
    }

    /// The same on a runtime of choice.
    #[must_use]
    pub fn on(io: runtime::Io) -> ProducerPool {
        ProducerPool { producers: RwLock::default(), driver: Driver::Own { io, thread: Mutex::default() } }
    }

    /// A pool whose producers live on the runtime of the thread that adds them: that of [`runtime::run`], or any of
    /// tokio's. Its `..._blocking` functions are for other threads only.
    #[must_use]
    pub fn local() -> ProducerPool {
        ProducerPool { producers: RwLock::default(), driver: Driver::Local }
    }

    fn producers(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Producer>> {
        self.producers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a producer, and starts it.
    ///
    /// # Errors
    /// The id is taken, or something about it can't be used.
    pub fn add(
        &self,
        id: impl Into<String>,
        client: Arc<dyn Client>,
        options: ProducerOptions,
    ) -> Result<Producer, PoolError> {
        let (producer, runner) = Producer::new(id, client, options)?;
        let mut producers = self.producers.write().unwrap_or_else(PoisonError::into_inner);
        if producers.contains_key(producer.id()) {
            return Err(PoolError::Taken(producer.id().to_owned()));
        }
        self.driver.start(runner)?;
        producers.insert(producer.id().to_owned(), producer.clone());
        Ok(producer)
    }

    /// Adds a producer with the usual options.
    ///
    /// # Errors
    /// As [`add`](ProducerPool::add).
    pub fn add_producer(&self, id: impl Into<String>, client: Arc<dyn Client>) -> Result<Producer, PoolError> {
        self.add(id, client, ProducerOptions::default())
    }

    /// Adds a producer for a URL, with the usual options.
    ///
    /// # Errors
    /// As [`add`](ProducerPool::add), and what is wrong with the URL.
    pub fn add_url(&self, id: impl Into<String>, url: &str) -> Result<Producer, PoolError> {
        self.add_producer(id, ClientFactory::create(url)?)
    }

    /// Takes a producer out at once, and drains it: see [`Producer::drain`]. `None` if there is none with this id.
    pub async fn remove(&self, id: &str, within: Duration) -> Option<Report> {
        let producer = self.take(id)?;
        Some(producer.drain(within).await)
    }

    fn take(&self, id: &str) -> Option<Producer> {
        self.producers.write().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// [`remove`](ProducerPool::remove) for a thread that has no runtime.
    pub fn remove_blocking(&self, id: &str, within: Duration) -> Option<Report> {
        Some(self.take(id)?.drain_blocking(within))
    }

    /// The ids, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.producers().keys().cloned().collect()
    }

    /// The producer with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Producer> {
        self.producers().get(id).cloned()
    }

    /// How many producers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers().is_empty()
    }

    /// All that is known of each, sorted by id.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let producers: Vec<_> = self.producers().values().cloned().collect();
        producers.iter().map(Producer::snapshot).collect()
    }

    /// Brings a message to one producer, and waits for what becomes of it.
    ///
    /// # Errors
    /// It was not delivered, or there is no such producer.
    pub async fn forward_to(&self, id: &str, message: impl Into<Message>) -> Result<(), ForwardError> {
        let producer = self.get(id).ok_or_else(|| ForwardError::UnknownProducer(id.to_owned()))?;
        producer.forward(message).await
    }

    /// [`forward_to`](ProducerPool::forward_to) for a thread that has no runtime.
    ///
    /// # Errors
    /// As there.
    pub fn forward_to_blocking(&self, id: &str, message: impl Into<Message>) -> Result<(), ForwardError> {
        wait::block_on(self.forward_to(id, message))
    }

    /// Brings a message to several producers at once, and waits for what becomes of it at each: one result for each
    /// id, in their order.
    pub async fn forward_to_many(&self, ids: &[impl AsRef<str>], message: impl Into<Message>) -> Results {
        let message = message.into();
        let each = ids.iter().map(|id| {
            let (id, message) = (id.as_ref().to_owned(), message.clone());
            async move {
                let result = self.forward_to(&id, message).await;
                (id, result)
            }
        });
        join_all(each).await
    }

    /// [`forward_to_many`](ProducerPool::forward_to_many) for a thread that has no runtime.
    pub fn forward_to_many_blocking(&self, ids: &[impl AsRef<str>], message: impl Into<Message>) -> Results {
        wait::block_on(self.forward_to_many(ids, message))
    }

    /// Brings a message to every producer at once, and waits for what becomes of it at each.
    pub async fn forward_to_all(&self, message: impl Into<Message>) -> Results {
        self.forward_to_many(&self.list(), message).await
    }

    /// [`forward_to_all`](ProducerPool::forward_to_all) for a thread that has no runtime.
    pub fn forward_to_all_blocking(&self, message: impl Into<Message>) -> Results {
        wait::block_on(self.forward_to_all(message))
    }

    /// Drains every producer at once, and takes it out: see [`Producer::drain`].
    pub async fn drain(&self, within: Duration) -> BTreeMap<String, Report> {
        let each = self.take_all().into_iter().map(|(id, producer)| async move { (id, producer.drain(within).await) });
        join_all(each).await.into_iter().collect()
    }

    /// [`drain`](ProducerPool::drain) for a thread that has no runtime.
    pub fn drain_blocking(&self, within: Duration) -> BTreeMap<String, Report> {
        let producers = self.take_all();
        // all at once, so that together they take no longer than the slowest
        let drains: Vec<_> = producers.iter().map(|(id, producer)| (id, producer.begin_drain(within))).collect();
        drains.into_iter().map(|(id, drain)| (id.clone(), drain.finish_blocking())).collect()
    }

    fn take_all(&self) -> BTreeMap<String, Producer> {
        std::mem::take(&mut *self.producers.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Driver {
    fn start(&self, runner: Runner) -> Result<(), PoolError> {
        match self {
            Driver::Local => {
                let handle = tokio::runtime::Handle::try_current().map_err(|_| PoolError::NoRuntime)?;
                handle.spawn(runner.run());
                Ok(())
            }
            Driver::Own { io, thread } => {
                let mut thread = thread.lock().unwrap_or_else(PoisonError::into_inner);
                let started = match &mut *thread {
                    Some(thread) => thread,
                    None => thread.insert(Thread::start(*io).map_err(PoolError::Thread)?),
                };
                let gone = || PoolError::Thread(io::Error::other("it has ended"));
                started.runners.as_ref().ok_or_else(gone)?.send(runner).map_err(|_| gone())
            }
        }
    }
}

/// The pool's own thread: whatever is sent to it runs there.
#[derive(Debug)]
struct Thread {
    runners: Option<mpsc::UnboundedSender<Runner>>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    fn start(io: runtime::Io) -> io::Result<Thread> {
        let (runners, mut receiver) = mpsc::unbounded_channel::<Runner>();
        let (ready, started) = std::sync::mpsc::channel();
        let handle = std::thread::Builder::new().name("forward".to_owned()).spawn(move || {
            let ran = runtime::run_on(io, async {
                let _ = ready.send(Ok(()));
                while let Some(runner) = receiver.recv().await {
                    tokio::task::spawn_local(runner.run());
                }
            });
            if let Err(error) = ran {
                let _ = ready.send(Err(error));
            }
        })?;
        started.recv().map_err(|_| io::Error::other("it ended at once"))??;
        Ok(Thread { runners: Some(runners), handle: Some(handle) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.runners = None;
        if let Some(handle) = self.handle.take()
            && handle.thread().id() != std::thread::current().id()
        {
            let _ = handle.join();
        }
    }
}

/// The pool of this process, made when it's first asked for.
///
/// ```
/// use corelay::forward::{add_tcp_producer, forward_to_all_producers_blocking, get_producer_pool};
/// # let target = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = target.local_addr()?.to_string();
/// add_tcp_producer("consumer-1", &address)?; // "127.0.0.1:9000", say
/// get_producer_pool().forward_to_blocking("consumer-1", "Hello!")?;
/// for (id, result) in forward_to_all_producers_blocking("Hello, all!") {
///     println!("{id}: {result:?}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn get_producer_pool() -> &'static ProducerPool {
    static POOL: OnceLock<ProducerPool> = OnceLock::new();
    POOL.get_or_init(ProducerPool::new)
}

/// Adds a producer for TCP to the process's [pool](get_producer_pool).
///
/// # Errors
/// The id is taken, or the address is no `host:port`.
pub fn add_tcp_producer(id: impl Into<String>, address: &str) -> Result<Producer, PoolError> {
    get_producer_pool().add_producer(id, ClientFactory::create_tcp_client(address)?)
}

/// [`add_tcp_producer`] with so long for connecting, and so long without progress when sending.
///
/// # Errors
/// As there.
pub fn add_tcp_producer_with_timeout(
    id: impl Into<String>,
    address: &str,
    timeout: Duration,
) -> Result<Producer, PoolError> {
    get_producer_pool().add_producer(id, ClientFactory::create_tcp_client_with_timeout(address, timeout)?)
}

/// [`ProducerPool::forward_to`] of the process's [pool](get_producer_pool).
///
/// # Errors
/// As there.
pub fn forward_to_producer(id: &str, message: impl Into<Message>) -> impl Future<Output = Result<(), ForwardError>> {
    get_producer_pool().forward_to(id, message)
}

/// [`forward_to_producer`] for a thread that has no runtime.
///
/// # Errors
/// As there.
pub fn forward_to_producer_blocking(id: &str, message: impl Into<Message>) -> Result<(), ForwardError> {
    get_producer_pool().forward_to_blocking(id, message)
}

/// [`ProducerPool::forward_to_all`] of the process's [pool](get_producer_pool).
pub fn forward_to_all_producers(message: impl Into<Message>) -> impl Future<Output = Results> {
    get_producer_pool().forward_to_all(message)
}

/// [`forward_to_all_producers`] for a thread that has no runtime.
pub fn forward_to_all_producers_blocking(message: impl Into<Message>) -> Results {
    get_producer_pool().forward_to_all_blocking(message)
}

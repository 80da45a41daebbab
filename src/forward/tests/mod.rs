//! Producers with a client of the test's own, in paused time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;

mod policy;
mod shutdown;
mod trying;

/// What the client is to say next; when there is nothing left, yes.
#[derive(Clone, Debug)]
enum Say {
    /// All of the batch.
    Yes,
    /// So many of the batch, then this.
    No(usize, SendError),
    /// Nothing, for so long; then yes.
    After(Duration),
    /// So many of the batch, and no more, without a word.
    Silent(usize),
    /// Nothing ever.
    Never,
}

/// A target by the script.
struct Script {
    says: Mutex<VecDeque<Say>>,
    probes: Mutex<VecDeque<Result<(), SendError>>>,
    promise: Promise,
    takes: Takes,
    /// What was delivered, and the batches that were tried, with the time since the start.
    delivered: Mutex<Vec<Message>>,
    tried: Mutex<Vec<(Duration, usize)>>,
    probed: Mutex<Vec<Duration>>,
    closed: Mutex<bool>,
    start: Instant,
}

impl Script {
    fn new(promise: Promise, says: impl IntoIterator<Item = Say>) -> Arc<Script> {
        Arc::new(Script {
            says: Mutex::new(says.into_iter().collect()),
            probes: Mutex::default(),
            promise,
            takes: Takes { max_body: None, parts: true },
            delivered: Mutex::default(),
            tried: Mutex::default(),
            probed: Mutex::default(),
            closed: Mutex::default(),
            start: Instant::now(),
        })
    }

    fn bodies(&self) -> Vec<String> {
        let delivered = self.delivered.lock().unwrap();
        delivered.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
    }

    fn tried(&self) -> Vec<(Duration, usize)> {
        self.tried.lock().unwrap().clone()
    }
}

impl Client for Script {
    fn protocol_name(&self) -> &str {
        "script"
    }

    fn address(&self) -> &str {
        "here"
    }

    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(async move { self.send_batch(std::slice::from_ref(message)).await.into_result() })
    }

    fn send_batch<'a>(&'a self, messages: &'a [Message]) -> BatchFuture<'a> {
        Box::pin(async move {
            self.tried.lock().unwrap().push((self.start.elapsed(), messages.len()));
            let say = self.says.lock().unwrap().pop_front().unwrap_or(Say::Yes);
            let (delivered, error) = match say {
                Say::Yes => (messages.len(), None),
                Say::No(delivered, error) => (delivered, Some(error)),
                Say::Silent(delivered) => (delivered, None),
                Say::After(wait) => {
                    sleep(wait).await;
                    (messages.len(), None)
                }
                Say::Never => std::future::pending().await,
            };
            self.delivered.lock().unwrap().extend_from_slice(&messages[..delivered.min(messages.len())]);
            Done { delivered, error }
        })
    }

    fn promise(&self) -> Promise {
        self.promise
    }

    fn takes(&self) -> Takes {
        self.takes
    }

    fn probe(&self) -> SendFuture<'_> {
        Box::pin(async {
            self.probed.lock().unwrap().push(self.start.elapsed());
            self.probes.lock().unwrap().pop_front().unwrap_or(Ok(()))
        })
    }

    fn close(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async { *self.closed.lock().unwrap() = true })
    }
}

fn refused() -> SendError {
    SendError::new(SendErrorKind::Connect, "connection refused")
}

fn start(client: &Arc<Script>, options: ProducerOptions) -> Producer {
    let (producer, runner) = Producer::new("test", Arc::clone(client) as Arc<dyn Client>, options).unwrap();
    tokio::spawn(runner.run());
    producer
}

#[track_caller]
fn assert_balanced(producer: &Producer) {
    let counters = producer.snapshot().counters;
    let known = counters.forwarded + counters.dropped.total() + counters.dead_lettered;
    assert_eq!(counters.accepted, known + counters.queue_messages, "{counters:?}");
}

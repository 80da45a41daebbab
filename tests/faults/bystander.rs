//! The load on another channel: a consumer and a provider of the client library, on the broker's Unix socket.
//!
//! Its requests go one after the other at a given pace. Each answer must be the right one; how long they take is kept
//! in a histogram that the test looks at in phases.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelay::client::{Consumer, ErrorKind, Options, Provider, Request, Retry};
use hdrhistogram::Histogram;

use crate::run::eventually;

const CHANNEL: &str = "bystander";
/// Between two requests.
const PACE: Duration = Duration::from_millis(2);
/// Longer than any fault takes.
const TIMEOUT: Duration = Duration::from_secs(60);

struct Shared {
    times: Mutex<Histogram<u64>>,
    answered: AtomicU64,
    lost: AtomicU64,
    wrong: Mutex<Vec<String>>,
    pace_us: AtomicU64,
    stop: AtomicBool,
}

/// See the module's page.
pub struct Bystander {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The times of a phase's requests.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub p99: Duration,
}

impl Bystander {
    /// Connects to the broker there, and goes on until dropped.
    pub fn start(addr: &str) -> Bystander {
        let shared = Arc::new(Shared {
            times: Mutex::new(Histogram::new(3).expect("3 digits")),
            answered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            wrong: Mutex::default(),
            pace_us: AtomicU64::new(PACE.as_micros() as u64),
            stop: AtomicBool::new(false),
        });
        let (addr, inner) = (addr.to_owned(), Arc::clone(&shared));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let thread = thread::spawn(move || runtime.block_on(run(&addr, &inner)));
        let bystander = Bystander { shared, thread: Some(thread) };
        eventually("the bystander's first answers", || bystander.answered() >= 20);
        bystander
    }

    /// Requests answered rightly so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Requests lost with their connection: to the broker's end, in the one case that ends it.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Wrong or missing answers so far.
    pub fn wrong(&self) -> Vec<String> {
        self.shared.wrong.lock().expect("nobody panics with it").clone()
    }

    /// From now on a request each `pace`; `None`: as at the start.
    pub fn pace(&self, pace: Option<Duration>) {
        self.shared.pace_us.store(pace.unwrap_or(PACE).as_micros() as u64, Ordering::Relaxed);
    }

    /// What was measured since the last call.
    pub fn lap(&self) -> Times {
        let mut times = self.shared.times.lock().expect("nobody panics with it");
        let lap = Times { p99: Duration::from_nanos(times.value_at_quantile(0.99)) };
        times.reset();
        lap
    }

    /// A phase of its own: so long in the full form, some requests in the small one.
    pub fn measure(&self, full: Option<Duration>) -> Times {
        self.lap();
        match full {
            Some(time) => thread::sleep(time),
            None => {
                let until = self.answered() + 50;
                eventually("the bystander's answers", || self.answered() >= until);
            }
        }
        self.lap()
    }

    /// Ends it and its connections.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the bystander does not panic");
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

async fn run(addr: &str, shared: &Shared) {
    let retry = Retry::For(Duration::from_secs(20));
    let options = || Options::default().name(CHANNEL).backoff(Duration::from_millis(20), Duration::from_millis(200));
    let provider = Provider::connect_with_retry(addr, CHANNEL, 8, options(), retry).await.expect("the broker serves");
    let consumer = Consumer::connect_with_retry(addr, CHANNEL, options(), retry).await.expect("the broker serves");
    let echo = |mut request: Request| async move {
        let body = request.bytes().await?;
        request.respond(body).await
    };
    let serving = tokio::spawn({
        let provider = provider.clone();
        async move { provider.serve(8, echo).await }
    });
    let mut number = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        number += 1;
        let body = Bytes::from(number.to_le_bytes().repeat(8));
        let begin = Instant::now();
        let answer = async { consumer.request(body.clone()).wait(true).timeout(TIMEOUT).send().await?.bytes().await };
        match answer.await {
            Ok(answer) if answer == body => {
                shared.answered.fetch_add(1, Ordering::Relaxed);
                let nanos = begin.elapsed().as_nanos() as u64;
                shared.times.lock().expect("nobody panics with it").record(nanos).expect("it grows");
            }
            Ok(answer) => {
                wrong(shared, format!("request {number} was answered with {} bytes: {answer:?}", answer.len()))
            }
            Err(error) if matches!(error.kind, ErrorKind::Connection | ErrorKind::ProviderLost) => {
                shared.lost.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => wrong(shared, format!("request {number}: {error}")),
        }
        let pace = Duration::from_micros(shared.pace_us.load(Ordering::Relaxed));
        tokio::time::sleep(pace.saturating_sub(begin.elapsed())).await;
    }
    consumer.close().await;
    provider.close().await;
    serving.abort();
}

fn wrong(shared: &Shared, what: String) {
    shared.wrong.lock().expect("nobody panics with it").push(what);
}

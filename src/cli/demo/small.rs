//! Many small requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corelay::broker::Server;
use corelay::client::Consumer;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::memory::resident;
use super::provider::{CHANNEL, Providers};
use super::{WRONG, say};
use crate::cli::exit::Failure;
use crate::cli::text;

/// Requests under way at any time.
const IN_FLIGHT: u64 = 64;
/// The body: 64 bytes, as in the README's figures.
const BODY: &[u8; 64] = b"corelay demo: a small request of sixty-four bytes, there & back.";
/// Not reached unless something is wrong.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends them, checks each answer, and says what was measured.
pub(crate) async fn play(server: &Server, requests: u64, providers: &Providers) -> Result<(), Failure> {
    let consumer = Consumer::connect(server.addr(), CHANNEL).await;
    let consumer = consumer.map_err(|error| Failure::new(WRONG, error.to_string()))?;
    let answered_before = providers.answered();
    let left = Arc::new(AtomicU64::new(requests));
    let started = Instant::now();
    let mut workers: JoinSet<_> =
        (0..IN_FLIGHT.min(requests)).map(|_| worker(consumer.clone(), Arc::clone(&left))).collect();
    let mut all = histogram();
    while let Some(one) = workers.join_next().await {
        let one = one.map_err(|error| Failure::new(WRONG, error.to_string()))??;
        all.add(one).expect("histograms of one shape");
    }
    let elapsed = started.elapsed();
    let shares = providers.answered().into_iter().zip(answered_before).map(|(now, before)| text::grouped(now - before));
    say(&report(&all, elapsed, &shares.collect::<Vec<_>>()))
}

fn report(all: &Histogram<u64>, elapsed: Duration, shares: &[String]) -> String {
    let at = |quantile| text::time(Duration::from_nanos(all.value_at_quantile(quantile)));
    format!(
        "{n} requests of {size} bytes, {IN_FLIGHT} in flight on one connection, each answer checked\n  \
         time       {time}: {rate} requests/s\n  \
         latency    p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, most {most}\n  \
         balanced   {shares} by the two providers\n  \
         memory     {memory} now (all of this process)\n",
        n = text::grouped(all.len()),
        size = BODY.len(),
        time = text::time(elapsed),
        rate = text::grouped((all.len() as f64 / elapsed.as_secs_f64()) as u64),
        p50 = at(0.5),
        p90 = at(0.9),
        p99 = at(0.99),
        p999 = at(0.999),
        most = text::time(Duration::from_nanos(all.max())),
        shares = shares.join(" + "),
        memory = text::bytes(resident()),
    )
}

/// Up to twice the timeout, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 2 * TIMEOUT.as_nanos() as u64, 3).expect("bounds that are in order")
}

/// Sends one after the other until none is left.
async fn worker(consumer: Consumer, left: Arc<AtomicU64>) -> Result<Histogram<u64>, Failure> {
    let wrong = |error: corelay::client::Error| Failure::new(WRONG, format!("a request failed: {error}"));
    let mut latencies = histogram();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let sent = Instant::now();
        let response = consumer.send(&BODY[..], TIMEOUT).await.map_err(wrong)?;
        let answer = response.bytes().await.map_err(wrong)?;
        latencies.saturating_record(sent.elapsed().as_nanos() as u64);
        if answer != BODY[..] {
            return Err(Failure::new(WRONG, "an answer is not what was sent"));
        }
    }
    Ok(latencies)
}

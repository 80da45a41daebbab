//! The worker pool against what one writes without it: a task a job, and a semaphore that bounds how many run.
//!
//! An iteration is 10,000 jobs, submitted by one task, worked on by at most 16 at once, to the end of the last.

use std::sync::Arc;

use corelay::toolkit::worker_pool::{Attempt, Handler, Options, WorkerPool};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};

const JOBS: u64 = 10_000;
const AT_ONCE: usize = 16;
const QUEUE: usize = 1024;

/// What a job does.
#[derive(Clone, Copy)]
enum Kind {
    /// Some arithmetic.
    Short,
    /// The same, and gives way twice, as one that waits for I/O does.
    Yielding,
}

async fn work(kind: Kind, job: u64) -> u64 {
    if let Kind::Yielding = kind {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    (0..16).fold(job, |x, n| std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n)))
}

struct Worker {
    kind: Kind,
    done: mpsc::UnboundedSender<()>,
}

impl Handler for Worker {
    type Job = u64;
    type Error = std::convert::Infallible;

    async fn process(&self, job: &mut u64, _: &Attempt<'_>) -> Result<(), std::convert::Infallible> {
        work(self.kind, *job).await;
        finish(*job, &self.done);
        Ok(())
    }
}

/// Every 100th job reports, so that reporting is not what is measured.
fn finish(job: u64, done: &mpsc::UnboundedSender<()>) {
    if job.is_multiple_of(100) {
        done.send(()).expect("the iteration waits");
    }
}

async fn wait(done: &mut mpsc::UnboundedReceiver<()>) {
    for _ in 0..JOBS / 100 {
        done.recv().await;
    }
}

fn pooled(runtime: &Runtime, kind: Kind, ordered: bool, b: &mut criterion::Bencher<'_>) {
    let (sender, mut done) = mpsc::unbounded_channel();
    let options = Options::new(AT_ONCE).queue(QUEUE);
    let worker = Worker { kind, done: sender };
    let pool = runtime.block_on(async {
        if ordered {
            WorkerPool::start_ordered(options, worker, |job| *job % 64).unwrap()
        } else {
            WorkerPool::start(options, worker).unwrap()
        }
    });
    b.iter(|| {
        runtime.block_on(async {
            let pool = pool.clone();
            let submitting = tokio::spawn(async move {
                for job in 0..JOBS {
                    pool.submit(job).await.unwrap();
                }
            });
            wait(&mut done).await;
            submitting.await.unwrap();
        });
    });
}

fn spawned(runtime: &Runtime, kind: Kind, b: &mut criterion::Bencher<'_>) {
    let (sender, mut done) = mpsc::unbounded_channel();
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    b.iter(|| {
        runtime.block_on(async {
            let (slots, sender) = (slots.clone(), sender.clone());
            let submitting = tokio::spawn(async move {
                for job in 0..JOBS {
                    let slot = slots.clone().acquire_owned().await.unwrap();
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        work(kind, job).await;
                        finish(job, &sender);
                        drop(slot);
                    });
                }
            });
            wait(&mut done).await;
            submitting.await.unwrap();
        });
    });
}

fn worker_pool(c: &mut Criterion) {
    for (threads, name) in [(1, "one thread"), (2, "two threads")] {
        let runtime = match threads {
            1 => Builder::new_current_thread().enable_all().build().unwrap(),
            n => Builder::new_multi_thread().worker_threads(n).enable_all().build().unwrap(),
        };
        for (kind, what) in [(Kind::Short, "short jobs"), (Kind::Yielding, "jobs that give way")] {
            let mut group = c.benchmark_group(format!("{what}, {name}"));
            group.throughput(Throughput::Elements(JOBS)).sample_size(20);
            group.bench_function("worker_pool", |b| pooled(&runtime, kind, false, b));
            group.bench_function("worker_pool, ordered", |b| pooled(&runtime, kind, true, b));
            group.bench_function("spawn and semaphore", |b| spawned(&runtime, kind, b));
            group.finish();
        }
    }
}

criterion_group!(benches, worker_pool);
criterion_main!(benches);

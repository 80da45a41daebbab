//! Taking a connection and giving it back, against deadpool and bb8: alone, and with more tasks than connections. The
//! connection costs nothing, so that the pools are what is measured; each does what it does by default before it lends
//! (bb8 is told not to make a round trip, which neither of the others makes for a connection just used).

use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant};

use corelay::toolkit::connection_pool::{Factory, Options, Pool};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

const MAX_OPEN: usize = 4;
const TASKS: u64 = 16;

#[derive(Debug)]
struct Free;

impl Factory for Free {
    type Connection = u64;
    type Error = Infallible;
    async fn create(&self) -> Result<u64, Infallible> {
        Ok(0)
    }
    async fn validate(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }
}

impl deadpool::managed::Manager for Free {
    type Type = u64;
    type Error = Infallible;
    async fn create(&self) -> Result<u64, Infallible> {
        Ok(0)
    }
    async fn recycle(
        &self,
        _: &mut u64,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

impl bb8::ManageConnection for Free {
    type Connection = u64;
    type Error = Infallible;
    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(0)
    }
    async fn is_valid(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }
    fn has_broken(&self, _: &mut u64) -> bool {
        false
    }
}

/// One use: a turn at the scheduler while the connection is held, as a query would be.
trait Use: Clone + Send + 'static {
    fn once(&self, hold: bool) -> impl Future<Output = ()> + Send;
}

async fn work(number: &mut u64, hold: bool) {
    *number += 1;
    if hold {
        tokio::task::yield_now().await;
    }
}

impl Use for Pool<Free> {
    async fn once(&self, hold: bool) {
        work(&mut self.get().await.unwrap(), hold).await;
    }
}

impl Use for deadpool::managed::Pool<Free> {
    async fn once(&self, hold: bool) {
        work(&mut self.get().await.unwrap(), hold).await;
    }
}

impl Use for bb8::Pool<Free> {
    async fn once(&self, hold: bool) {
        work(&mut self.get().await.unwrap(), hold).await;
    }
}

/// `iterations` uses, shared out over `tasks`.
fn measure<P: Use>(runtime: &Runtime, pool: &P, tasks: u64, iterations: u64, hold: bool) -> Duration {
    runtime.block_on(async {
        let begin = Instant::now();
        let running: Vec<_> = (0..tasks)
            .map(|task| {
                let pool = pool.clone();
                let share = iterations / tasks + u64::from(task < iterations % tasks);
                tokio::spawn(async move {
                    for _ in 0..share {
                        pool.once(hold).await;
                    }
                })
            })
            .collect();
        for task in running {
            task.await.unwrap();
        }
        begin.elapsed()
    })
}

fn compare(c: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (ours, deadpool, bb8) = runtime.block_on(async {
        let options = Options { max_open: MAX_OPEN, ..Options::default() };
        let ours = Pool::new(Free, options).unwrap();
        let deadpool = deadpool::managed::Pool::builder(Free).max_size(MAX_OPEN).build().unwrap();
        let bb8 = bb8::Pool::builder().max_size(MAX_OPEN as u32).test_on_check_out(false).build(Free).await.unwrap();
        (ours, deadpool, bb8)
    });
    for (name, tasks, hold) in [("alone", 1, false), ("two tasks", 2, false), ("16 tasks on 4", TASKS, true)] {
        let mut group = c.benchmark_group(format!("acquire and return, {name}"));
        group.bench_function("corelay", |b| b.iter_custom(|n| measure(&runtime, &ours, tasks, n, hold)));
        group.bench_function("deadpool", |b| b.iter_custom(|n| measure(&runtime, &deadpool, tasks, n, hold)));
        group.bench_function("bb8", |b| b.iter_custom(|n| measure(&runtime, &bb8, tasks, n, hold)));
        group.finish();
    }
}

criterion_group!(benches, compare);
criterion_main!(benches);

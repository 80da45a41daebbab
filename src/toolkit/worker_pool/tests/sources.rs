//! Workers that fetch their jobs themselves.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::*;

struct Mailbox(Mutex<mpsc::UnboundedReceiver<u32>>);

impl Source for Mailbox {
    type Job = u32;

    async fn next(&self) -> Option<u32> {
        self.0.lock().await.recv().await
    }
}

fn mailbox() -> (mpsc::UnboundedSender<u32>, Mailbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Mailbox(Mutex::new(receiver)))
}

#[tokio::test(start_paused = true)]
async fn workers_fetch_until_there_is_no_more() {
    let (sender, source) = mailbox();
    let script = |job: &u32, attempt| if *job == 7 && attempt == 1 { Step::fail("once") } else { Step::done() };
    let handler = ScriptedHandler::new(script);
    let pool = SourcePool::start(Options::new(3).retry(regular(1)), source, handler.clone()).unwrap();
    for job in 0..20 {
        sender.send(job).unwrap();
    }
    drop(sender);
    pool.finished().await;
    let now = pool.metrics().snapshot();
    assert_eq!((now.processed, now.retried, now.active_workers), (20, 1, 0));
    assert!(handler.most_at_once() <= 3);
    assert_balanced(&now);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_fetched_than_is_worked_on() {
    let (sender, source) = mailbox();
    let handler = ScriptedHandler::new(|_: &u32, _| Step::hang());
    let pool = SourcePool::start(Options::new(3), source, handler.clone()).unwrap();
    for job in 0..10 {
        sender.send(job).unwrap();
    }
    tokio::time::sleep(ms(10)).await;
    assert_eq!(handler.attempts().len(), 3);
    let report = pool.shutdown(ms(10)).await;
    assert_eq!((report.abandoned.len(), report.metrics.submitted), (3, 3));
    assert_balanced(&report.metrics);
}

#[tokio::test(start_paused = true)]
async fn when_it_is_dropped_nothing_more_is_fetched_and_what_runs_goes_on() {
    let (sender, source) = mailbox();
    let handler = ScriptedHandler::new(|_: &u32, _| Step::done().after(ms(100)));
    let pool = SourcePool::start(Options::new(2), source, handler.clone()).unwrap();
    let metrics = pool.metrics();
    sender.send(1).unwrap();
    tokio::time::sleep(ms(10)).await;
    drop(pool);
    let _ = sender.send(2);
    tokio::time::sleep(ms(200)).await;
    let now = metrics.snapshot();
    assert_eq!((now.processed, now.submitted, now.active_workers), (1, 1, 0));
    assert_eq!(Arc::strong_count(&metrics.counts), 1);
}

/// Gives each job to who asked last.
#[derive(Clone, Default)]
struct Stack(Arc<std::sync::Mutex<Vec<oneshot::Sender<&'static str>>>>);

impl Stack {
    fn give(&self, mut job: &'static str) {
        while let Some(asked) = self.0.lock().unwrap().pop() {
            match asked.send(job) {
                Ok(()) => return,
                // gave up asking
                Err(back) => job = back,
            }
        }
        panic!("nobody asked for {job}");
    }
}

impl Source for Stack {
    type Job = &'static str;

    async fn next(&self) -> Option<&'static str> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap().push(sender);
        receiver.await.ok()
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_the_time_for_a_retry_passes_that_on() {
    let script = |job: &&str, attempt| match (*job, attempt) {
        ("fails", 1) => Step::fail("once"),
        ("long", _) => Step::done().after(ms(5000)),
        _ => Step::done(),
    };
    let (source, handler) = (Stack::default(), ScriptedHandler::new(script));
    let pool = SourcePool::start(Options::new(2).retry(regular(1)), source.clone(), handler.clone()).unwrap();
    for job in ["fails", "long"] {
        tokio::time::sleep(ms(10)).await;
        source.give(job);
    }
    tokio::time::sleep(ms(1000)).await;
    let retried = handler.attempts().into_iter().find(|attempt| attempt.number == 2).unwrap();
    assert_eq!((retried.job, retried.began), ("fails", ms(110)));
    pool.shutdown(MINUTE).await;
}

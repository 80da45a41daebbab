//! Draining, and ends that come without it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_delivers_what_is_there_and_says_goodbye() {
    let client = Script::new(Promise::AtMostOnce, [Say::No(0, refused()), Say::No(1, refused())]);
    let producer = start(&client, ProducerOptions::default());
    for n in 0..5 {
        producer.offer(n.to_string()).unwrap();
    }
    let report = producer.drain(Duration::from_secs(5)).await;
    assert_eq!(report, Report { forwarded: 5, ..Report::default() });
    assert!(*client.closed.lock().unwrap());
    let error = producer.forward("late").await.unwrap_err();
    assert_eq!(error.reason(), Some(DropReason::Shutdown));
    assert_balanced(&producer);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_end_is_counted_to_the_last_message() {
    for (promise, in_doubt, shut) in [(Promise::AtMostOnce, 2, 3), (Promise::AtLeastOnce, 0, 5)] {
        let client = Script::new(promise, [Say::Never]);
        let options = ProducerOptions { batch_messages: 2, ..ProducerOptions::default() };
        let (producer, runner) = Producer::new("test", Arc::clone(&client) as Arc<dyn Client>, options).unwrap();
        for n in 0..5 {
            producer.offer(n.to_string()).unwrap();
        }
        tokio::spawn(runner.run());
        let before = Instant::now();
        let report = producer.drain(Duration::from_secs(3)).await;
        let took = before.elapsed().as_secs_f64();
        assert!((3.0..3.01).contains(&took), "{took}");
        assert_eq!((report.left, report.forwarded, report.dead_lettered), (5, 0, 0));
        assert_eq!(report.dropped.get(DropReason::InDoubt), in_doubt);
        assert_eq!(report.dropped.get(DropReason::Shutdown), shut);
        assert_balanced(&producer);
    }
}

#[tokio::test(start_paused = true)]
async fn or_written_to_the_dead_letter_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("letters.jsonl");
    let client = Script::new(Promise::AtLeastOnce, vec![Say::No(0, refused()); 1000]);
    let options = ProducerOptions { dead_letter: Some(path.clone()), ..ProducerOptions::default() };
    let producer = start(&client, options);
    for n in 0..5 {
        producer.offer(n.to_string()).unwrap();
    }
    let report = producer.drain(Duration::from_secs(3)).await;
    assert_eq!((report.left, report.dead_lettered, report.dropped.total()), (5, 5, 0));
    let text = std::fs::read_to_string(&path).unwrap();
    let bodies: Vec<_> = text.lines().map(|line| envelope::decode(line.as_bytes()).unwrap().body).collect();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
    assert!(text.lines().all(|line| line.ends_with(r#""reason":"shutdown"}"#)));
}

#[tokio::test(start_paused = true)]
async fn a_message_in_parts_without_end_is_given_up_at_the_deadline() {
    let client = Script::new(Promise::AtMostOnce, []);
    let producer = start(&client, ProducerOptions::default());
    let mut message = Message::from("part");
    message.part = Part::Chunk { sequence: 0, last: false };
    producer.forward(message).await.unwrap();
    let report = producer.drain(Duration::from_secs(3)).await;
    assert_eq!((report.left, report.dropped.get(DropReason::Shutdown)), (1, 1));
    assert_balanced(&producer);
}

#[tokio::test(start_paused = true)]
async fn with_the_last_handle_the_producer_delivers_and_ends() {
    let client = Script::new(Promise::AtMostOnce, [Say::No(0, refused())]);
    let (producer, runner) =
        Producer::new("test", Arc::clone(&client) as Arc<dyn Client>, ProducerOptions::default()).unwrap();
    let other = producer.clone();
    producer.offer("one").unwrap();
    drop(producer);
    other.offer("two").unwrap();
    drop(other);
    runner.run().await;
    assert_eq!(client.bodies(), ["one", "two"]);
}

#[test]
fn a_runtime_that_ends_settles_everything() {
    let client = Script::new(Promise::AtMostOnce, [Say::Never]);
    let options = ProducerOptions { batch_messages: 2, ..ProducerOptions::default() };
    let (producer, runner) = Producer::new("test", Arc::clone(&client) as Arc<dyn Client>, options).unwrap();
    runtime::run(async {
        tokio::task::spawn_local(runner.run());
        for n in 0..5 {
            producer.offer(n.to_string()).unwrap();
        }
        while client.tried().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .unwrap();
    let counters = producer.snapshot().counters;
    assert_eq!((counters.dropped.get(DropReason::InDoubt), counters.dropped.get(DropReason::Shutdown)), (2, 3));
    assert_balanced(&producer);
    assert_eq!(producer.drain_blocking(Duration::from_secs(60)).left, 5, "and does not wait");
    assert!(producer.forward_blocking("late").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_where_nobody_runs_the_runner() {
    let client = Script::new(Promise::AtMostOnce, []);
    let (producer, runner) =
        Producer::new("test", Arc::clone(&client) as Arc<dyn Client>, ProducerOptions::default()).unwrap();
    for n in 0..3 {
        producer.offer(n.to_string()).unwrap();
    }
    let before = Instant::now();
    let report = producer.drain(Duration::from_secs(3)).await;
    assert!((3.0..3.01).contains(&before.elapsed().as_secs_f64()), "{:?}", before.elapsed());
    assert_eq!((report.left, report.unsettled, report.dropped.get(DropReason::Shutdown)), (3, 0, 3));
    assert_balanced(&producer);
    // too late
    runner.run().await;
    assert!(client.tried().is_empty() && *client.closed.lock().unwrap());
    assert_eq!(producer.snapshot().counters.dropped.total(), 3);
}

#[test]
fn nor_does_a_thread_wait_for_it() {
    let client = Script::new(Promise::AtMostOnce, []);
    let (producer, _runner) = Producer::new("test", client as Arc<dyn Client>, ProducerOptions::default()).unwrap();
    producer.offer("one").unwrap();
    let report = producer.drain_blocking(Duration::from_millis(1));
    assert_eq!((report.left, report.unsettled, report.dropped.get(DropReason::Shutdown)), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_runner_holds_that_stands_still_is_unsettled_until_it_ends() {
    let client = Script::new(Promise::AtLeastOnce, [Say::Never]);
    let options = ProducerOptions { batch_messages: 2, ..ProducerOptions::default() };
    let (producer, runner) = Producer::new("test", client as Arc<dyn Client>, options).unwrap();
    for n in 0..5 {
        producer.offer(n.to_string()).unwrap();
    }
    let mut running = Box::pin(runner.run());
    // polled once, and never again
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(running.as_mut().poll(cx))).await.is_pending());
    let report = producer.drain(Duration::from_secs(3)).await;
    assert_eq!((report.left, report.unsettled, report.dropped.get(DropReason::Shutdown)), (5, 2, 3));
    assert_balanced(&producer);
    drop(running);
    assert_eq!(producer.snapshot().counters.dropped.get(DropReason::Shutdown), 5);
    assert_balanced(&producer);
}

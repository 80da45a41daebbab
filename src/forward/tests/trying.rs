//! Attempts, the waits between them, and the breaker.

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn everything_arrives_in_order_through_failures_that_left_nothing_behind() {
    for promise in [Promise::AtMostOnce, Promise::AtLeastOnce] {
        let says = [Say::No(0, refused()), Say::No(3, refused()), Say::Yes, Say::No(1, refused())];
        let client = Script::new(promise, says);
        let options = ProducerOptions { batch_messages: 8, ..ProducerOptions::default() };
        let producer = start(&client, options);
        let expected: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        for body in &expected[1..] {
            producer.offer(body.as_str()).unwrap_or_else(|error| panic!("{error}"));
        }
        let late = producer.forward("late");
        late.await.unwrap();
        assert_eq!(client.bodies(), [&expected[1..], &["late".to_owned()]].concat());
        let counters = producer.snapshot().counters;
        assert_eq!((counters.forwarded, counters.attempts_failed, counters.retried), (40, 3, 3));
        assert_balanced(&producer);
    }
}

#[tokio::test(start_paused = true)]
async fn waits_between_attempts_grow_and_start_anew_after_a_success() {
    let mut says = vec![Say::No(0, refused()); 4];
    says.extend([Say::Yes, Say::No(0, refused())]);
    let client = Script::new(Promise::AtMostOnce, says);
    let producer = start(&client, ProducerOptions { breaker_failures: 100, ..ProducerOptions::default() });
    producer.forward("one").await.unwrap();
    producer.forward("two").await.unwrap();
    let times: Vec<_> = client.tried().into_iter().map(|(at, _)| at).collect();
    for (index, bound) in [ms(100), ms(200), ms(400), ms(800)].into_iter().enumerate() {
        let wait = times[index + 1] - times[index];
        assert!(wait >= bound / 2 && wait <= bound + ms(2), "{wait:?} of {bound:?}");
    }
    let again = times[6] - times[5];
    assert!(again <= ms(102), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_arrived_is_sent_again_only_where_that_is_promised() {
    let doubt = SendError::new(SendErrorKind::Closed, "reset").in_doubt();
    for (promise, error, forwarded, lost) in [
        (Promise::AtLeastOnce, doubt.clone(), 5, 0),
        // all behind it may have left, too
        (Promise::AtMostOnce, doubt.clone(), 2, 3),
        (Promise::AtMostOnce, doubt.alone(), 4, 1),
    ] {
        let client = Script::new(promise, [Say::No(2, error)]);
        let (producer, runner) =
            Producer::new("test", Arc::clone(&client) as Arc<dyn Client>, ProducerOptions::default()).unwrap();
        for n in 0..5 {
            producer.offer(n.to_string()).unwrap();
        }
        tokio::spawn(runner.run());
        let report = producer.drain(Duration::from_secs(60)).await;
        let counters = producer.snapshot().counters;
        assert_eq!((counters.forwarded, counters.dropped.get(DropReason::InDoubt)), (forwarded, lost));
        assert_eq!((report.forwarded, report.dropped.total(), report.left), (forwarded, lost, 0));
        assert_balanced(&producer);
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_end() {
    let client = Script::new(Promise::AtLeastOnce, vec![Say::No(0, refused()); 3]);
    let options = ProducerOptions { retries: 2, ..ProducerOptions::default() };
    let producer = start(&client, options);
    let error = producer.forward("one").await.unwrap_err();
    assert_eq!(error, ForwardError::Dropped { reason: DropReason::RetriesSpent, error: Some(refused()) });
    assert_eq!(client.tried().len(), 3, "one and two retries");
    producer.forward("two").await.unwrap();
    assert_balanced(&producer);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_tried_once_and_holds_up_nobody() {
    for (kind, reason) in
        [(SendErrorKind::Rejected, DropReason::Rejected), (SendErrorKind::TooLarge, DropReason::TooLarge)]
    {
        let client = Script::new(Promise::AtLeastOnce, vec![Say::No(0, SendError::new(kind, "no")); 20]);
        let producer = start(&client, ProducerOptions::default());
        let mut answers = Vec::new();
        for n in 0..20 {
            answers.push(producer.forward(n.to_string()).await.unwrap_err().reason());
        }
        assert_eq!(answers, [Some(reason); 20]);
        assert_eq!(client.start.elapsed(), Duration::ZERO, "no wait, and no breaker");
        assert_eq!(producer.snapshot().state, State::Closed);
        assert_balanced(&producer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_gets_too_old_while_its_target_is_away() {
    let client = Script::new(Promise::AtLeastOnce, vec![Say::No(0, refused()); 1000]);
    let options = ProducerOptions { max_age: Duration::from_secs(2), retries: 1000, ..ProducerOptions::default() };
    let producer = start(&client, options);
    let error = producer.forward("one").await.unwrap_err();
    assert_eq!(error, ForwardError::Dropped { reason: DropReason::TooOld, error: Some(refused()) });
    let took = client.start.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2010), "{took:?}");
    // also one that comes in the middle of a pause longer than it may live
    sleep(Duration::from_secs(20)).await;
    let (before, _) = (client.start.elapsed(), producer.forward("two").await.unwrap_err());
    let took = client.start.elapsed() - before;
    assert!(took <= Duration::from_secs(4), "{took:?}");
    assert_balanced(&producer);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_sends_nothing_spends_no_retries_and_tries_one() {
    let client = Script::new(Promise::AtLeastOnce, vec![Say::No(0, refused()); 3]);
    client.probes.lock().unwrap().extend(vec![Err(refused()); 4]);
    let options = ProducerOptions {
        breaker_failures: 3,
        retries: 3,
        max_age: Duration::from_secs(600),
        ..ProducerOptions::default()
    };
    let (producer, runner) = Producer::new("test", Arc::clone(&client) as Arc<dyn Client>, options).unwrap();
    for n in 0..9 {
        producer.offer(n.to_string()).unwrap();
    }
    tokio::spawn(runner.run());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(producer.snapshot().state, State::Open);
    let report = producer.drain(Duration::from_secs(600)).await;
    assert_eq!(report.forwarded, 9);
    let sizes: Vec<_> = client.tried().into_iter().map(|(_, size)| size).collect();
    assert_eq!(sizes, [9, 9, 9, 1, 8], "one by itself first");
    assert_eq!(client.probed.lock().unwrap().len(), 5);
    assert_eq!(producer.snapshot().counters.attempts_failed, 7);
}

#[tokio::test(start_paused = true)]
async fn an_idle_producer_finds_out_that_its_target_is_gone_and_back() {
    let client = Script::new(Promise::AtMostOnce, []);
    let options = ProducerOptions { breaker_failures: 2, ..ProducerOptions::default() };
    let producer = start(&client, options);
    client.probes.lock().unwrap().extend([Ok(()), Err(refused()), Err(refused())]);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(producer.snapshot().state, State::Closed);
    assert_eq!(client.probed.lock().unwrap().len(), 1);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(producer.snapshot().counters.attempts_failed, 2);
    assert!(producer.snapshot().last_error.unwrap().text.contains("connection refused"));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(producer.snapshot().state, State::Closed, "a good answer closes it, with nothing to send");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_without_a_reason_is_tried_again() {
    let client = Script::new(Promise::AtMostOnce, [Say::Silent(1), Say::Silent(99)]);
    let producer = start(&client, ProducerOptions::default());
    producer.offer("one").unwrap();
    producer.forward("two").await.unwrap();
    assert_eq!(client.bodies(), ["one", "two"]);
    assert_eq!(producer.snapshot().counters.attempts_failed, 1);
}

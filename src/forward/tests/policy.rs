//! Queues that fill, levels, parts and dead letters.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test(start_paused = true)]
async fn whoever_forwards_to_a_blocking_producer_waits_for_room() {
    let client = Script::new(Promise::AtMostOnce, [Say::After(Duration::from_secs(5))]);
    let options = ProducerOptions {
        when_full: WhenFull::Block,
        queue_bytes: 1128,
        max_message: 1000,
        batch_messages: 1,
        ..ProducerOptions::default()
    };
    let producer = start(&client, options);
    let levels = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&levels);
    producer.on_level_change(move |over| told.lock().unwrap().push(over));
    for _ in 0..2 {
        producer.offer(vec![b'.'; 1000]).unwrap();
    }
    assert!(producer.is_over());
    assert_eq!(*levels.lock().unwrap(), [true]);
    producer.offer("taken nevertheless").unwrap();
    let before = Instant::now();
    producer.forward("waits").await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(5));
    assert_eq!(*levels.lock().unwrap(), [true, false]);
    assert_eq!(producer.snapshot().counters.forwarded, 4);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_so_at_once() {
    let client = Script::new(Promise::AtMostOnce, [Say::Never]);
    let options = ProducerOptions { queue_bytes: 1128, max_message: 1000, ..ProducerOptions::default() };
    let producer = start(&client, options);
    producer.offer(vec![0; 1000]).unwrap();
    let error = producer.forward(vec![0; 1000]).await.unwrap_err();
    assert_eq!(error, NotTaken::Dropped(DropReason::QueueFull).into());
    assert!(producer.offer(vec![0; 1001]).is_err());
    let dropped = producer.snapshot().counters.dropped;
    assert_eq!((dropped.get(DropReason::QueueFull), dropped.get(DropReason::TooLarge)), (1, 1));
    assert_balanced(&producer);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_refused_takes_the_rest_along_and_leaves_a_note() {
    let no = SendError::new(SendErrorKind::Rejected, "no");
    let client = Script::new(Promise::AtLeastOnce, [Say::No(2, no)]);
    let (producer, runner) =
        Producer::new("test", Arc::clone(&client) as Arc<dyn Client>, ProducerOptions::default()).unwrap();
    let key = uuid::Uuid::new_v4();
    let chunk = |sequence: u32| {
        let mut message = Message::from(sequence.to_string());
        (message.key, message.part) = (key, Part::Chunk { sequence, last: sequence == 4 });
        message
    };
    for sequence in 0..5 {
        producer.offer(chunk(sequence)).unwrap();
    }
    producer.offer("other").unwrap();
    tokio::spawn(runner.run());
    producer.drain(Duration::from_secs(60)).await;
    let parts: Vec<_> = client.delivered.lock().unwrap().iter().map(|message| message.part).collect();
    let first = |sequence| Part::Chunk { sequence, last: false };
    assert_eq!(parts, [first(0), first(1), Part::Whole, Part::Aborted { sequence: 5 }]);
    let counters = producer.snapshot().counters;
    assert_eq!((counters.accepted, counters.forwarded, counters.dropped.get(DropReason::Rejected)), (2, 1, 1));
    assert_eq!(counters.queue_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_stands_in_the_dead_letter_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("letters.jsonl");
    std::fs::write(&path, "a line cut sho").unwrap();
    let no = SendError::new(SendErrorKind::Rejected, "no");
    let client = Script::new(Promise::AtLeastOnce, [Say::No(0, no.clone())]);
    let options = ProducerOptions { dead_letter: Some(path.clone()), max_message: 100, ..ProducerOptions::default() };
    let producer = start(&client, options);
    let message = Message::from("Hello!\n");
    let error = producer.forward(message.clone()).await.unwrap_err();
    assert_eq!(error, ForwardError::DeadLettered { reason: DropReason::Rejected, error: Some(no) });
    let binary = Message::from(vec![0xff; 101]);
    assert_eq!(producer.forward(binary.clone()).await.unwrap_err().reason(), Some(DropReason::TooLarge));
    producer.forward("fine").await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(envelope::decode(lines[1].as_bytes()).unwrap(), message);
    assert_eq!(envelope::decode(lines[2].as_bytes()).unwrap(), binary);
    assert!(lines[1].ends_with(r#""reason":"rejected"}"#), "{}", lines[1]);
    let counters = producer.snapshot().counters;
    assert_eq!((counters.dead_lettered, counters.dropped.total(), counters.forwarded), (2, 0, 1));
    assert_balanced(&producer);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_cannot_be_written_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let no = SendError::new(SendErrorKind::Rejected, "no");
    let client = Script::new(Promise::AtLeastOnce, [Say::No(0, no.clone())]);
    let options = ProducerOptions { dead_letter: Some(dir.path().to_owned()), ..ProducerOptions::default() };
    let producer = start(&client, options);
    let error = producer.forward("one").await.unwrap_err();
    assert_eq!(error, ForwardError::Dropped { reason: DropReason::Rejected, error: Some(no) });
    let counters = producer.snapshot().counters;
    assert_eq!((counters.dead_letters_failed, counters.dropped.total()), (1, 1));
    assert_balanced(&producer);
}

#[test]
fn many_threads_bring_messages_and_the_books_balance() {
    let client = Script::new(Promise::AtMostOnce, []);
    let options = ProducerOptions { queue_bytes: 20_000, max_message: 100, ..ProducerOptions::default() };
    let (producer, runner) = Producer::new("test", Arc::clone(&client) as Arc<dyn Client>, options).unwrap();
    let taken = AtomicUsize::new(0);
    let runtime = std::thread::spawn(|| runtime::run(runner.run()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..500 {
                    let is_taken = match n % 10 {
                        0 => producer.forward_blocking("waits").is_ok(),
                        _ => producer.offer("does not").is_ok(),
                    };
                    taken.fetch_add(usize::from(is_taken), Ordering::Relaxed);
                }
            });
        }
    });
    producer.drain_blocking(Duration::from_secs(60));
    runtime.join().unwrap().unwrap();
    let counters = producer.snapshot().counters;
    assert_eq!((counters.accepted, counters.forwarded as usize), (2000, taken.load(Ordering::Relaxed)));
    assert_eq!((counters.queue_messages, counters.queue_bytes), (0, 0));
    assert_balanced(&producer);
}

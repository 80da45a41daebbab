use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::toolkit::testing::{DeadLetters, ScriptedEvents, Step};
use crate::toolkit::worker_pool::{Retry, RetryError};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn regular(times: u32) -> HandlerOptions {
    HandlerOptions::default().retry(Retry::times(times).base(ms(100)).jitter(0.0)).timeout(ms(1000))
}

fn processor() -> EventProcessor {
    EventProcessor::new(Options::default().handler(regular(2))).unwrap()
}

/// A handler of `user.created`.
fn scripted(name: &str, step: Step) -> ScriptedEvents {
    ScriptedEvents::new("user.created", name, move |_, _| step.clone())
}

#[derive(Debug, Deserialize, PartialEq)]
struct User {
    user_id: String,
}

#[tokio::test(start_paused = true)]
async fn an_event_comes_to_all_handlers_of_its_type_at_once() {
    let processor = processor();
    let slow = scripted("slow", Step::done().after(ms(300)));
    let slower = scripted("slower", Step::done().after(ms(500)));
    let other = ScriptedEvents::new("user.deleted", "other", |_, _| Step::done());
    let all = ScriptedEvents::new(ANY, "all", |_, _| Step::done());
    for handler in [&slow, &slower, &other, &all] {
        processor.register(handler.clone()).unwrap();
    }
    let start = Instant::now();
    let event = GenericEvent::new("user.created", json!({ "user_id": "123" }));
    assert_eq!(processor.process(&event).await.unwrap().handlers, 3);
    assert_eq!(start.elapsed(), ms(500));
    let calls = [&slow, &slower, &other, &all].map(|handler| handler.calls().len());
    assert_eq!(calls, [1, 1, 0, 1]);
    assert_eq!(slow.calls()[0].event.decode::<User>().unwrap(), User { user_id: "123".into() });
    let now = processor.metrics().snapshot();
    assert_eq!((now.processed, now.failed), (1, 0));
    assert_eq!(now.types[&Arc::from("user.created")], TypeSnapshot { processed: 1, failed: 0 });
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_disturbs_no_other() {
    let letters = DeadLetters::default();
    let options = Options::default().handler(regular(2)).dead_letter(letters.hook());
    let processor = EventProcessor::new(options).unwrap();
    let good = scripted("good", Step::done());
    let steps = [("fails", Step::fail("no disk")), ("panics", Step::panic("slipped")), ("hangs", Step::hang())];
    let bad = steps.map(|(name, step)| scripted(name, step));
    for handler in bad.iter().chain([&good]) {
        processor.register(handler.clone()).unwrap();
    }
    let error = processor.process_raw("{}", "user.created").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "fails: no disk (after 3 attempts); panics: panicked: slipped; hangs: not done within 1s (after 3 attempts)"
    );
    assert_eq!(bad.each_ref().map(|handler| handler.calls().len()), [3, 1, 3]);
    assert_eq!(good.calls().len(), 1);
    let began = bad[0].calls().iter().map(|call| call.began).collect::<Vec<_>>();
    assert_eq!(began, [ms(0), ms(100), ms(300)]);

    let now = processor.metrics().snapshot();
    assert_eq!((now.processed, now.failed, now.dead_letters), (0, 1, 3));
    let of = |name| now.handler("user.created", name).unwrap();
    assert_eq!((of("good").processed, of("good").failed), (1, 0));
    assert_eq!((of("fails").failed, of("fails").retried), (1, 2));
    assert_eq!((of("panics").failed, of("panics").panics), (1, 1));
    assert_eq!((of("hangs").failed, of("hangs").timeouts, of("hangs").running), (1, 3, 0));
    assert_eq!(of("hangs").attempt_time.sum(), ms(3000));

    let mut reasons = letters.all().iter().map(|letter| letter.reason.to_string()).collect::<Vec<_>>();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "fails: no disk (attempts: 3)",
            "hangs: not done within 1s (attempts: 3)",
            "panics: panicked: slipped (attempts: 1)"
        ]
    );
    assert!(letters.all().iter().all(|letter| letter.event.event_type() == "user.created"));
}

#[tokio::test(start_paused = true)]
async fn a_retry_may_succeed() {
    let processor = processor();
    let handler = ScriptedEvents::new("a", "h", |_, n| if n < 3 { Step::fail("busy") } else { Step::done() });
    processor.register(handler.clone()).unwrap();
    assert_eq!(processor.process_raw("", "a").await.unwrap().handlers, 1);
    assert_eq!(handler.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn handlers_have_options_of_their_own() {
    let processor = processor();
    let (once, five) = (scripted("once", Step::fail("")), scripted("five", Step::fail("")));
    processor.register_with(once.clone(), regular(0)).unwrap();
    processor.register_with(five.clone(), regular(4)).unwrap();
    processor.process_raw("", "user.created").await.unwrap_err();
    assert_eq!((once.calls().len(), five.calls().len()), (1, 5));
    let permanent = scripted("permanent", Step::fail_for_good(""));
    processor.register_with(permanent.clone(), regular(4)).unwrap();
    processor.process_raw("", "user.created").await.unwrap_err();
    assert_eq!(permanent.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn typed_handlers_get_their_type_and_malformed_events_are_told() {
    let processor = processor();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let typed = move |user: User| {
        assert_eq!(user.user_id, "123");
        count.fetch_add(1, Relaxed);
        std::future::ready(Ok::<_, HandlerError>(()))
    };
    processor.on("user.created", "typed", typed).unwrap();
    processor.process_raw(r#"{"user_id": "123", "email": "test@example.com"}"#, "user.created").await.unwrap();
    processor.process_as("user.created", &json!({ "user_id": "123" })).await.unwrap();
    for bad in ["", "{", "{\"user_id\": 5}", "\u{0}\u{1}"] {
        let error = processor.process_raw(bad, "user.created").await.unwrap_err();
        assert!(error.to_string().starts_with("typed: malformed event: "), "{error}");
    }
    let now = processor.metrics().snapshot();
    let of = now.handler("user.created", "typed").unwrap();
    // not retried: it gets no better
    assert_eq!((of.malformed, of.retried, of.processed, seen.load(Relaxed)), (4, 0, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn unknown_types_are_dealt_with_as_chosen() {
    let process = async |options: Options| {
        let processor = EventProcessor::new(options).unwrap();
        let result = processor.process_raw("x", "who.knows").await;
        assert_eq!(processor.metrics().snapshot().unknown, 1);
        (result, processor.metrics().snapshot())
    };
    let (result, now) = process(Options::default()).await;
    assert_eq!(result.unwrap_err().to_string(), "no handler for events of type \"who.knows\"");
    assert_eq!(now.dead_letters, 0);
    let (result, now) = process(Options::default().unknown(Unknown::Ignore)).await;
    assert_eq!((result.unwrap().handlers, now.dead_letters), (0, 0));
    let letters = DeadLetters::default();
    let options = Options::default().unknown(Unknown::DeadLetter).dead_letter(letters.hook());
    let (result, now) = process(options).await;
    assert_eq!((result.unwrap().handlers, now.dead_letters), (0, 1));
    assert!(matches!(letters.all()[0].reason, Reason::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_is_contained_and_counted() {
    for step in [Step::panic("hook"), Step::hang()] {
        let hook = move |_| {
            let step = step.clone();
            async move { drop(step.run().await) }
        };
        let options = Options::default().unknown(Unknown::DeadLetter).handler(regular(0)).dead_letter(hook);
        let processor = EventProcessor::new(options).unwrap();
        processor.process_raw("", "a").await.unwrap();
        let now = processor.metrics().snapshot();
        assert_eq!((now.dead_letters, now.dead_letter_failures), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_make_no_sense_are_refused_and_counted() {
    let processor = EventProcessor::new(Options::default().max_event(10)).unwrap();
    processor.register(ScriptedEvents::new(ANY, "all", |_, _| Step::done())).unwrap();
    let long = "x".repeat(MAX_TYPE + 1);
    for (event_type, wrong) in [
        ("", TypeError::Empty),
        ("*", TypeError::Reserved),
        ("a\nb", TypeError::Control),
        (&long, TypeError::TooLong(257)),
    ] {
        match processor.process_raw("", event_type).await {
            Err(ProcessError::Type(error)) => assert_eq!(error, wrong),
            other => panic!("{other:?}"),
        }
    }
    processor.process_raw("x".repeat(10), &long[1..]).await.unwrap();
    let error = processor.process_raw("x".repeat(11), "a").await.unwrap_err();
    assert_eq!(error.to_string(), "the event has 11 bytes; expected at most 10");
    assert_eq!(processor.metrics().snapshot().rejected, 5);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let refused = |options| EventProcessor::new(options).unwrap_err();
    assert_eq!(refused(Options::default().max_event(0)), ConfigError::ZeroMaxEvent);
    assert_eq!(refused(Options::default().unknown(Unknown::DeadLetter)), ConfigError::NoDeadLetterHook);
    let timeout = HandlerOptions::default().timeout(Duration::ZERO);
    assert_eq!(refused(Options::default().handler(timeout.clone())), ConfigError::ZeroTimeout);
    let retry = HandlerOptions::default().retry(Retry::times(1).factor(0.0));
    assert_eq!(refused(Options::default().handler(retry)), ConfigError::Retry(RetryError::Factor(0.0)));

    let processor = processor();
    assert_eq!(processor.register_with(scripted("a", Step::done()), timeout), Err(ConfigError::ZeroTimeout));
    assert_eq!(processor.register(scripted("", Step::done())), Err(ConfigError::NoName));
    let nowhere = ScriptedEvents::new("", "a", |_, _| Step::done());
    assert_eq!(processor.register(nowhere), Err(ConfigError::Type(TypeError::Empty)));
    assert_eq!(processor.handlers(), 0);
}

#[tokio::test(start_paused = true)]
async fn handlers_come_and_go_while_events_are_processed() {
    let processor = processor();
    let slow = scripted("slow", Step::done().after(ms(200)));
    let id = processor.register(slow.clone()).unwrap();
    let running = tokio::spawn({
        let processor = processor.clone();
        async move { processor.process_raw("", "user.created").await }
    });
    tokio::time::sleep(ms(100)).await;
    let late = scripted("late", Step::done());
    let late_id = processor.register(late.clone()).unwrap();
    assert!(processor.remove(id));
    assert!(!processor.remove(id));
    // the event that was there before is still taken by the handler there was
    assert_eq!(running.await.unwrap().unwrap().handlers, 1);
    assert_eq!((slow.calls().len(), late.calls().len()), (1, 0));
    processor.process_raw("", "user.created").await.unwrap();
    assert_eq!((slow.calls().len(), late.calls().len()), (1, 1));
    assert!(processor.remove(late_id));
    assert!(matches!(processor.process_raw("", "user.created").await, Err(ProcessError::Unknown(_))));
    assert_eq!(processor.handlers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_number_of_threads_may_use_it() {
    let processor = EventProcessor::new(Options::default().unknown(Unknown::Ignore)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let changing = tokio::spawn({
        let (processor, stop) = (processor.clone(), stop.clone());
        async move {
            while !stop.load(Relaxed) {
                let id = processor.register(ScriptedEvents::new("a", "h", |_, _| Step::done())).unwrap();
                tokio::task::yield_now().await;
                assert!(processor.remove(id));
            }
        }
    });
    let workers = (0..4).map(|_| {
        let processor = processor.clone();
        tokio::spawn(async move {
            for _ in 0..500 {
                processor.process_raw("", "a").await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    stop.store(true, Relaxed);
    changing.await.unwrap();
    let now = processor.metrics().snapshot();
    assert_eq!(now.processed + now.unknown, 2000);
    assert_eq!(now.handlers.len(), 1);
}

fn page(processor: &EventProcessor) -> String {
    let mut registry = Registry::default();
    processor.metrics().register(&mut registry);
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    page
}

#[tokio::test(start_paused = true)]
async fn strangers_make_no_series() {
    let processor = EventProcessor::new(Options::default().unknown(Unknown::Ignore)).unwrap();
    for n in 0..100 {
        processor.process_raw("", format!("type-{n}")).await.unwrap();
    }
    processor.register(ScriptedEvents::new(ANY, "all", |_, _| Step::done())).unwrap();
    let before = page(&processor).lines().count();
    for n in 0..100 {
        processor.process_raw("", format!("type-{n}")).await.unwrap();
    }
    let page = page(&processor);
    assert_eq!(page.lines().count(), before);
    assert!(page.contains("event_processor_unknown_total 100\n"), "{page}");
    assert!(page.contains("event_processor_processed_total{event_type=\"*\"} 100\n"), "{page}");
}

#[test]
fn programs_make_no_more_series_than_allowed() {
    let processor = processor();
    for n in 0..MAX_SERIES + 100 {
        let id = processor.register(ScriptedEvents::new(format!("type-{n}"), "h", |_, _| Step::done())).unwrap();
        processor.remove(id);
    }
    let now = processor.metrics().snapshot();
    assert_eq!((now.types.len(), now.handlers.len()), (MAX_SERIES + 1, MAX_SERIES + 1));
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_on_the_page() {
    let processor = processor();
    processor
        .register(ScriptedEvents::new("a", "h", |_, n| if n == 1 { Step::fail("") } else { Step::done() }))
        .unwrap();
    processor.process_raw("", "a").await.unwrap();
    let page = page(&processor);
    for line in [
        "event_processor_unknown_total 0",
        "event_processor_rejected_total 0",
        "event_processor_dead_letters_total 0",
        "event_processor_dead_letter_failures_total 0",
        "event_processor_processed_total{event_type=\"a\"} 1",
        "event_processor_failed_total{event_type=\"a\"} 0",
        "event_processor_handler_processed_total{event_type=\"a\",handler=\"h\"} 1",
        "event_processor_handler_failed_total{event_type=\"a\",handler=\"h\"} 0",
        "event_processor_handler_retried_total{event_type=\"a\",handler=\"h\"} 1",
        "event_processor_handler_timeouts_total{event_type=\"a\",handler=\"h\"} 0",
        "event_processor_handler_panics_total{event_type=\"a\",handler=\"h\"} 0",
        "event_processor_handler_malformed_total{event_type=\"a\",handler=\"h\"} 0",
        "event_processor_handler_running{event_type=\"a\",handler=\"h\"} 0",
        "event_processor_handler_seconds_count{event_type=\"a\",handler=\"h\"} 2",
    ] {
        assert!(page.lines().any(|has| has == line), "no {line} in\n{page}");
    }
}

#[test]
fn a_generic_event_is_json_both_ways() {
    let event = GenericEvent::new("user.created", json!({ "user_id": "123" }));
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(text, r#"{"type":"user.created","data":{"user_id":"123"}}"#);
    assert_eq!(serde_json::from_str::<GenericEvent>(&text).unwrap(), event);
}

proptest! {
    /// Whatever comes, it ends in exactly one count, and nothing panics.
    #[test]
    fn any_bytes_of_any_type_are_dealt_with(
        events in proptest::collection::vec((".{0,8}|user.created", proptest::collection::vec(any::<u8>(), 0..40)), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let now = runtime.block_on(async {
            let processor = EventProcessor::new(Options::default().max_event(30)).unwrap();
            let take = |_: User| std::future::ready(Ok::<_, HandlerError>(()));
            processor.on("user.created", "typed", take).unwrap();
            for (event_type, data) in &events {
                drop(processor.process_raw(data.clone(), event_type.as_str()).await);
            }
            processor.metrics().snapshot()
        });
        prop_assert_eq!(now.processed + now.failed + now.unknown + now.rejected, events.len() as u64);
        prop_assert_eq!(now.handler("user.created", "typed").unwrap().panics, 0);
    }
}

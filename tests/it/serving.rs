//! Handlers of the client library behind a real broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corelay::Server;
use corelay::client::{Consumer, ErrorKind, Provider, Request};
use corelay::toolkit::event_processor::{ANY, EventProcessor, HandlerError, HandlerOptions, Options, RawEvent};
use corelay::toolkit::worker_pool::Retry;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_handlers_run_than_asked_for_and_every_request_is_answered() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let addr = server.addr().to_string();
    // the broker may hand over more than are worked on at once
    let provider = Provider::connect(addr.as_str(), "work", 64).await.unwrap();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (running, most) = (running.clone(), most.clone());
        move |mut request: Request| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let body = request.bytes().await?;
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                if body == "panic" { panic!("on purpose") } else { request.respond(body).await }
            }
        }
    };
    let serving = tokio::spawn({
        let provider = provider.clone();
        async move { provider.serve(5, handler).await }
    });
    let consumer = Consumer::connect(addr.as_str(), "work").await.unwrap();
    let requests = (0..500).map(|n| {
        let consumer = consumer.clone();
        tokio::spawn(async move {
            let body = if n % 100 == 0 { "panic".to_owned() } else { n.to_string() };
            let sent = consumer.send(body.clone(), SOON).await;
            match sent {
                Ok(response) => assert_eq!(response.bytes().await.unwrap(), body),
                Err(error) => {
                    assert_eq!((body.as_str(), error.kind), ("panic", ErrorKind::Application));
                    assert_eq!(error.text(), "the handler panicked: on purpose");
                }
            }
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    assert!((1..=5).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    assert_eq!(provider.metrics().handler_panics(), 5);
    provider.drain(SOON).await.unwrap();
    serving.await.unwrap();
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_processed_by_type() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let addr = server.addr().to_string();
    let once = HandlerOptions::default().retry(Retry::never());
    let processor = EventProcessor::new(Options::default().handler(once)).unwrap();
    processor.on("user.created", "typed", |_: u32| async { Ok::<_, HandlerError>(()) }).unwrap();
    let provider = Provider::connect(addr.as_str(), "events", 8).await.unwrap();
    tokio::spawn({
        let (provider, processor) = (provider.clone(), processor.clone());
        async move { provider.serve_events(8, &processor).await }
    });
    let consumer = Consumer::connect(addr.as_str(), "events").await.unwrap();
    let send = async |event_type: &str, body: &'static str| {
        let sent = consumer.request(body).header("event-type", event_type).timeout(SOON).send().await;
        sent.map(|_| ()).map_err(|error| error.text().to_owned())
    };
    assert_eq!(send("user.created", "7").await, Ok(()));
    let malformed = send("user.created", "seven").await.unwrap_err();
    assert!(malformed.starts_with("typed: malformed event: "), "{malformed}");
    assert_eq!(send("who.knows", "").await.unwrap_err(), "no handler for events of type \"who.knows\"");
    let any = processor.on_raw(ANY, "any", |_: RawEvent| async { Ok::<_, HandlerError>(()) }).unwrap();
    assert_eq!(send("who.knows", "").await, Ok(()));
    processor.remove(any);
    assert!(send("who.knows", "").await.is_err());
    let now = processor.metrics().snapshot();
    assert_eq!((now.processed, now.failed, now.unknown), (2, 1, 2));
    provider.drain(SOON).await.unwrap();
    server.stop().unwrap();
}

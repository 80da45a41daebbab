//! Requests as events.

use std::time::Duration;

use bytes::BytesMut;

use super::super::Provider;
use super::wire::{Net, Wire, welcome};
use crate::protocol::{Flags, FrameType, Header, encode_headers};
use crate::toolkit::event_processor::{ANY, EventProcessor, HandlerOptions, Options};
use crate::toolkit::testing::{ScriptedEvents, Step};
use crate::toolkit::worker_pool::Retry;

const SOON: Duration = Duration::from_secs(5);

async fn event(wire: &mut Wire, stream: u32, event_type: Option<&[u8]>, body: &[u8]) {
    let mut payload = uuid::Uuid::from_u128(stream.into()).as_bytes().to_vec();
    let mut flags = Flags::END;
    if let Some(event_type) = event_type {
        encode_headers([("event-type", event_type)], &mut payload).unwrap();
        flags = flags | Flags::HEADERS;
    }
    payload.extend_from_slice(body);
    let header = Header::new(FrameType::Request, stream).flags(flags).arg(SOON.as_millis() as u32);
    wire.send(header, &payload).await;
}

/// What the consumer gets: an empty answer, or an error's text.
async fn outcome(wire: &mut Wire) -> String {
    let frame = wire.next().await.expect("an answer");
    match frame.kind() {
        FrameType::Response => assert!(frame.ends() && frame.body().is_empty()),
        kind => assert_eq!(kind, FrameType::Error),
    }
    String::from_utf8(BytesMut::from(&frame.payload[..]).to_vec()).unwrap()
}

fn serve(provider: &Provider, processor: &EventProcessor) {
    let (provider, processor) = (provider.clone(), processor.clone());
    tokio::spawn(async move { provider.serve_events(4, &processor).await });
}

#[tokio::test(start_paused = true)]
async fn events_come_to_the_handlers_of_their_type() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let once = HandlerOptions::default().retry(Retry::never());
    let processor = EventProcessor::new(Options::default().handler(once).max_event(20)).unwrap();
    let created = ScriptedEvents::new("user.created", "created", |_, _| Step::done());
    let deleted = ScriptedEvents::new("user.deleted", "deleted", |_, _| Step::fail("no such user"));
    for handler in [&created, &deleted] {
        processor.register(handler.clone()).unwrap();
    }
    serve(&provider, &processor);
    for (event_type, body, answer) in [
        (Some(&b"user.created"[..]), &b"{}"[..], ""),
        (Some(b"user.created"), &[b'x'; 20], ""),
        (Some(b"user.created"), &[b'x'; 21], "the event has more than 20 bytes"),
        (Some(b"user.deleted"), b"{}", "deleted: no such user"),
        (Some(b"user.moved"), b"{}", "no handler for events of type \"user.moved\""),
        (Some(b"*"), b"{}", "the event type is \"*\", which stands for all types"),
        (Some(b"\xff"), b"{}", "the header event-type is not UTF-8"),
        (None, b"{}", "no header event-type: expected the event's type in it"),
    ] {
        event(&mut wire, 1, event_type, body).await;
        assert_eq!(outcome(&mut wire).await, answer);
    }
    assert_eq!((created.calls().len(), deleted.calls().len()), (2, 1));
    assert_eq!(&created.calls()[0].event.data()[..], b"{}");
}

#[tokio::test(start_paused = true)]
async fn handlers_stop_when_nobody_waits() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let processor = EventProcessor::new(Options::default()).unwrap();
    processor.register(ScriptedEvents::new(ANY, "hangs", |_, _| Step::hang())).unwrap();
    serve(&provider, &processor);
    event(&mut wire, 1, Some(b"a"), b"").await;
    while processor.metrics().snapshot().handler(ANY, "hangs").unwrap().running == 0 {
        tokio::task::yield_now().await;
    }
    wire.cancel(1, crate::protocol::Code::Cancelled).await;
    while processor.metrics().snapshot().handler(ANY, "hangs").unwrap().running + provider.in_flight() as u64 > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_handler_that_never_ends_fails_its_request() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let once = HandlerOptions::default().retry(Retry::never()).timeout(SOON / 5);
    let processor = EventProcessor::new(Options::default().handler(once)).unwrap();
    processor.register(ScriptedEvents::new(ANY, "hangs", |_, _| Step::hang())).unwrap();
    serve(&provider, &processor);
    event(&mut wire, 1, Some(b"a"), b"").await;
    assert_eq!(outcome(&mut wire).await, "hangs: not done within 1s");
    assert_eq!(processor.metrics().snapshot().handler(ANY, "hangs").unwrap().timeouts, 1);
}

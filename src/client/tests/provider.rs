//! A provider's answers, frame by frame.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::super::{Body, Error, ErrorKind, Request, ServeOptions};
use super::wire::{Frame, Net, Wire, welcome};
use crate::protocol::{Code, Flags, FrameType, Header};

const SOON: Duration = Duration::from_secs(5);

async fn expect_error(wire: &mut Wire, stream: u32, code: Code, text: &str) {
    let error = wire.expect(FrameType::Error).await;
    assert_eq!((error.stream(), error.header.code), (stream, code.to_wire()));
    assert_eq!(String::from_utf8_lossy(&error.payload), text);
}

async fn expect_response(wire: &mut Wire, stream: u32, body: &[u8]) {
    let Frame { header, payload } = wire.expect(FrameType::Response).await;
    assert_eq!((header.stream, &payload[..], header.flags), (stream, body, Flags::END));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_received_and_answered() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(3, SOON, b"body").await;
    let mut request = provider.receive().await.unwrap();
    assert_eq!(request.id().as_u128(), 3);
    assert_eq!(request.deadline(), Instant::now() + SOON);
    assert!(!request.is_oneway());
    assert_eq!(provider.in_flight(), 1);
    assert_eq!(request.bytes().await.unwrap(), "body");
    request.respond_with(vec![("k".into(), b"v".to_vec())], "answer").await.unwrap();
    let response = wire.expect(FrameType::Response).await;
    assert_eq!(response.header.flags, Flags::END | Flags::HEADERS);
    assert_eq!(&response.payload[..], b"\x05\0\x01k\x01\0vanswer");
    assert_eq!(provider.in_flight(), 0);
    wire.request(3, SOON, b"the id may be used again").await;
    assert!(provider.receive().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_fails_explicitly() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    drop(provider.receive().await.unwrap());
    expect_error(&mut wire, 1, Code::Application, "request dropped without an answer").await;
    assert_eq!(provider.metrics().errors(ErrorKind::Application), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_on_its_way_with_the_call_and_one_given_up_fails() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    drop(provider.receive().await.unwrap().respond("answer"));
    expect_response(&mut wire, 1, b"answer").await;
    assert_eq!((provider.in_flight(), provider.metrics().errors(ErrorKind::Application)), (0, 0));
    // one that has to wait for credit does not go on by itself
    wire.request(3, SOON, b"").await;
    let long = vec![b'x'; 1 << 20];
    drop(provider.receive().await.unwrap().respond(long));
    expect_error(&mut wire, 3, Code::Application, "request dropped without an answer").await;
    assert_eq!((provider.in_flight(), provider.metrics().errors(ErrorKind::Application)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_says_why() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    provider.receive().await.unwrap().fail("no such order").await.unwrap();
    expect_error(&mut wire, 1, Code::Application, "no such order").await;
    wire.request(1, SOON, b"").await;
    provider.receive().await.unwrap().fail("x".repeat(2000)).await.unwrap();
    expect_error(&mut wire, 1, Code::Application, &"x".repeat(1024)).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_seen_and_answered_once() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"x").await;
    let request = provider.receive().await.unwrap();
    let cancellation = request.cancellation();
    assert!(!cancellation.is_cancelled());
    let ((), ()) = tokio::join!(request.cancelled(), wire.cancel(1, Code::Deadline));
    cancellation.cancelled().await;
    wire.sync().await; // no terminal frame while the handler runs
    assert_eq!(request.respond("late").await.unwrap_err().kind, ErrorKind::Deadline);
    expect_error(&mut wire, 1, Code::Cancelled, "").await;
    wire.sync().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_an_answer_that_waits_for_credit() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"x").await;
    let answering = tokio::spawn(async move {
        let request = provider.receive().await.unwrap();
        (request.respond(vec![0; 5000]).await, provider)
    });
    assert_eq!(wire.expect(FrameType::Response).await.payload.len(), 1000);
    wire.cancel(1, Code::ConsumerLost).await;
    expect_error(&mut wire, 1, Code::Cancelled, "").await;
    let (result, _provider) = answering.await.unwrap();
    assert_eq!(result.unwrap_err().kind, ErrorKind::Cancelled);
    wire.sync().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_cancelled_before_it_is_received_is_skipped() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    wire.cancel(1, Code::Cancelled).await;
    wire.request(2, SOON, b"").await;
    wire.sync().await;
    assert_eq!(provider.receive().await.unwrap().id().as_u128(), 2);
    expect_error(&mut wire, 1, Code::Cancelled, "").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_streams_both_ways() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let id = [0; 16];
    wire.send(Header::new(FrameType::Request, 1).arg(5000), &id).await;
    let mut request = provider.receive().await.unwrap();
    let mut responder = request.start_response(Vec::new()).unwrap();
    assert!(request.start_response(Vec::new()).is_err());
    responder.write("one").await.unwrap();
    let begun = wire.expect(FrameType::Response).await;
    assert_eq!((&begun.payload[..], begun.ends()), (&b"one"[..], false));
    wire.send(Header::new(FrameType::Data, 1).flags(Flags::END), b"two").await;
    assert_eq!(request.chunk().await.unwrap().unwrap(), "two");
    assert_eq!(request.chunk().await.unwrap(), None);
    responder.finish().await.unwrap();
    assert!(wire.expect(FrameType::Data).await.ends());
}

#[tokio::test(start_paused = true)]
async fn a_responder_dropped_early_breaks_the_answer_off() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    let mut request = provider.receive().await.unwrap();
    let mut responder = request.start_response(Vec::new()).unwrap();
    responder.write("begin").await.unwrap();
    wire.expect(FrameType::Response).await;
    drop(responder);
    let error = loop {
        let frame = wire.next().await.unwrap();
        if frame.kind() != FrameType::Data {
            break frame;
        }
        assert!(!frame.ends());
    };
    assert_eq!(&error.payload[..], b"response dropped before its end");
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_leaves_the_rest_of_the_body_unread() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.send(Header::new(FrameType::Request, 1).arg(5000), &[0; 16]).await;
    let request = provider.receive().await.unwrap();
    request.respond("enough").await.unwrap();
    expect_response(&mut wire, 1, b"enough").await;
    wire.send(Header::new(FrameType::Data, 1), &[0; 1000]).await; // was on its way
    wire.sync().await; // and no CREDIT for it
    wire.cancel(1, Code::Cancelled).await;
    wire.request(1, SOON, b"next").await;
    assert_eq!(provider.receive().await.unwrap().bytes().await.unwrap(), "next");
}

#[tokio::test(start_paused = true)]
async fn a_request_on_an_id_in_use_ends_the_connection() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    wire.request(1, SOON, b"").await;
    let error = wire.expect(FrameType::Error).await;
    assert_eq!((error.stream(), error.header.code), (0, Code::Protocol.to_wire()));
    assert!(provider.metrics().requests() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_answers_and_its_failure_is_told() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    let request = provider.receive().await.unwrap();
    let (result, ()) = tokio::join!(request.respond(Body::reader(tokio::io::repeat(1).take(1500))), async {
        let mut got = wire.expect(FrameType::Response).await.payload.len();
        wire.credit(1, 10_000).await;
        loop {
            let data = wire.expect(FrameType::Data).await;
            got += data.payload.len();
            if data.ends() {
                break;
            }
        }
        assert_eq!(got, 1500);
    });
    result.unwrap();
    wire.request(1, SOON, b"").await;
    let broken = failing_reader();
    let error = provider.receive().await.unwrap().respond(Body::reader(broken)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Body);
    let mut frame = wire.next().await.unwrap();
    if frame.kind() == FrameType::Response {
        frame = wire.next().await.unwrap();
    }
    assert_eq!(&frame.payload[..], b"reading the response's body failed: broken pipe");
}

fn failing_reader() -> impl tokio::io::AsyncRead + Send + Unpin {
    struct Fails;
    impl tokio::io::AsyncRead for Fails {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()))
        }
    }
    Fails
}

#[tokio::test(start_paused = true)]
async fn served_requests_end_whatever_the_handler_does() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let serving = tokio::spawn({
        let provider = provider.clone();
        async move {
            let handler = |mut request: Request| async move {
                match &request.bytes().await?[..] {
                    b"echo" => request.respond("echo").await,
                    b"panic" => panic!("on purpose"),
                    b"error" => Err(Error::new(ErrorKind::InvalidInput, "bad input")),
                    _ => Ok(()),
                }
            };
            provider.serve(2, handler).await;
        }
    });
    for (body, text) in [
        (&b"panic"[..], "the handler panicked: on purpose"),
        (b"error", "invalid_input: bad input"),
        (b"drop", "request dropped without an answer"),
    ] {
        wire.request(1, SOON, body).await;
        expect_error(&mut wire, 1, Code::Application, text).await;
    }
    wire.request(1, SOON, b"echo").await;
    expect_response(&mut wire, 1, b"echo").await;
    assert_eq!(provider.metrics().handler_panics(), 1);
    assert_eq!(provider.metrics().requests(), 4);
    provider.close().await;
    serving.await.unwrap();
    assert_eq!(provider.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_hand_its_request_on() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let (out, mut handed) = tokio::sync::mpsc::unbounded_channel();
    let _serving = tokio::spawn({
        let provider = provider.clone();
        async move {
            provider
                .serve(1, move |request: Request| {
                    let _ = out.send(request);
                    async {}
                })
                .await;
        }
    });
    wire.request(1, SOON, b"").await;
    wire.request(2, SOON, b"").await;
    let first = handed.recv().await.unwrap();
    let second = handed.recv().await.unwrap(); // so the first handler is over
    wire.sync().await; // and has not failed it
    first.respond("later").await.unwrap();
    expect_response(&mut wire, 1, b"later").await;
    drop(second);
    expect_error(&mut wire, 2, Code::Application, "request dropped without an answer").await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_was_received_and_what_was_on_its_way() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    let first = provider.receive().await.unwrap();
    let draining = tokio::spawn({
        let provider = provider.clone();
        async move { provider.drain(SOON).await }
    });
    wire.expect(FrameType::GoAway).await;
    let ping = wire.expect(FrameType::Ping).await;
    wire.request(2, SOON, b"").await; // sent before GOAWAY was read
    wire.send(Header::new(FrameType::Pong, 0), &ping.payload).await;
    let second = provider.receive().await.unwrap();
    first.respond("1").await.unwrap();
    expect_response(&mut wire, 1, b"1").await;
    second.respond("2").await.unwrap();
    expect_response(&mut wire, 2, b"2").await;
    wire.expect_close().await;
    drop(wire);
    draining.await.unwrap().unwrap();
    assert!(provider.receive().await.is_none());
    assert!(provider.error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_up_at_its_deadline() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    let request = provider.receive().await.unwrap();
    let (drained, ()) = tokio::join!(provider.drain(Duration::from_secs(1)), request.cancelled());
    assert_eq!(drained.unwrap_err().kind, ErrorKind::Deadline);
    assert_eq!(request.respond("late").await.unwrap_err().kind, ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn many_receivers_share_what_comes() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let mut receivers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let provider = provider.clone();
        receivers.spawn(async move { provider.receive().await.map(|request| request.id().as_u128()) });
    }
    tokio::task::yield_now().await;
    for stream in 1..=4 {
        wire.request(stream, SOON, b"").await;
    }
    let mut ids: Vec<_> = receivers.join_all().await.into_iter().flatten().collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_refuses_what_was_not_received() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    wire.request(2, SOON, b"").await;
    wire.sync().await;
    let first = provider.receive().await.unwrap();
    drop(provider);
    expect_error(&mut wire, 2, Code::Application, "request dropped: the provider is closed").await;
    wire.expect(FrameType::GoAway).await;
    let ping = wire.expect(FrameType::Ping).await;
    wire.send(Header::new(FrameType::Pong, 0), &ping.payload).await;
    first.respond("still").await.unwrap();
    expect_response(&mut wire, 1, b"still").await;
    wire.expect_close().await;
}

#[tokio::test(start_paused = true)]
async fn handlers_run_side_by_side_up_to_the_limit() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let (out, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let serving = tokio::spawn({
        let provider = provider.clone();
        async move {
            let handler = move |request: Request| {
                let (go, gone) = tokio::sync::oneshot::channel::<()>();
                let _ = out.send(go);
                async move {
                    let _ = gone.await;
                    request.respond("done").await
                }
            };
            provider.serve(3, handler).await;
        }
    });
    for stream in 1..=4 {
        wire.request(stream, SOON, b"").await;
    }
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(begun.recv().await.unwrap());
    }
    wire.sync().await;
    tokio::time::sleep(Duration::from_secs(1)).await; // of the test clock: until nothing moves any more
    assert!(begun.try_recv().is_err(), "a fourth waits for one of the three");
    running.remove(0).send(()).unwrap();
    assert_eq!(wire.expect(FrameType::Response).await.payload, "done");
    running.push(begun.recv().await.unwrap());
    serving.abort();
    let _ = serving.await;
    running.into_iter().for_each(|go| go.send(()).unwrap());
    for _ in 0..3 {
        assert_eq!(wire.expect(FrameType::Response).await.payload, "done"); // they went on
    }
    wire.request(5, SOON, b"").await;
    wire.sync().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(begun.recv().await.is_none(), "the handlers' tasks have ended");
    assert_eq!(provider.receive().await.unwrap().id().as_u128(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_gives_its_place_back() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let handler = |mut request: Request| async move {
        match &request.bytes().await?[..] {
            b"hang" => std::future::pending().await,
            _ => request.respond("echo").await,
        }
    };
    let options = ServeOptions::new(1);
    assert_eq!(options, options.overtime(Duration::from_secs(30)));
    let (serving, options) = (provider.clone(), options.overtime(SOON / 5));
    tokio::spawn(async move { serving.serve_with(options, handler).await });
    let start = Instant::now();
    wire.request(1, SOON / 5, b"hang").await;
    wire.request(2, SOON, b"echo").await;
    expect_error(&mut wire, 1, Code::Application, "not done by its deadline").await;
    assert_eq!(start.elapsed(), SOON / 5 * 2);
    expect_response(&mut wire, 2, b"echo").await;
    assert_eq!((provider.metrics().handler_timeouts(), provider.metrics().handler_panics()), (1, 0));
    assert_eq!(provider.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_go_on_behind_its_answer() {
    const DAY: Duration = Duration::from_secs(86_400);
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let handler = move |request: Request| {
        let tell = tell.lock().unwrap().take();
        async move {
            request.respond("echo").await?;
            tokio::time::sleep(DAY).await;
            tell.unwrap().send(()).unwrap();
            Ok::<_, Error>(())
        }
    };
    let (serving, options) = (provider.clone(), ServeOptions::new(1).overtime(None));
    tokio::spawn(async move { serving.serve_with(options, handler).await });
    wire.request(1, SOON, b"").await;
    expect_response(&mut wire, 1, b"echo").await;
    told.await.unwrap();
    assert_eq!(provider.metrics().handler_timeouts(), 0);
}

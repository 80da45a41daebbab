//! A consumer's requests, frame by frame.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use super::super::{Body, ErrorKind};
use super::wire::{Frame, Net, frame, welcome};
use crate::protocol::{Code, Flags, FrameType, Header, encode_headers};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_request_is_answered() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let id = Uuid::from_u128(77);
    let request = consumer.request("body").timeout(SOON).header("a", "1").wait(true).retry(true).request_id(id);
    let (response, ()) = tokio::join!(request.send(), async {
        let request = wire.expect(FrameType::Request).await;
        assert_eq!(request.header.arg, 5000);
        assert_eq!(request.header.flags, Flags::END | Flags::HEADERS | Flags::WAIT | Flags::RETRY);
        assert_eq!(&request.payload[..16], id.as_bytes());
        assert_eq!(&request.payload[16..], b"\x05\0\x01a\x01\x001body");
        let mut payload = Vec::new();
        encode_headers([("content-type", "text/plain")], &mut payload).unwrap();
        payload.extend_from_slice(b"answer");
        let header = Header::new(FrameType::Response, request.stream()).flags(Flags::HEADERS | Flags::END);
        wire.send(header, &payload).await;
    });
    let response = response.unwrap();
    assert_eq!(response.request_id(), id);
    assert_eq!(response.header("content-type"), Some(&b"text/plain"[..]));
    assert_eq!(consumer.in_flight(), 0);
    assert_eq!(response.bytes().await.unwrap(), "answer");
    assert_eq!(consumer.metrics().requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_body_keeps_to_its_credit() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let body = Bytes::from((0..2500u32).map(|n| n as u8).collect::<Vec<u8>>());
    let sending = tokio::spawn({
        let (consumer, body) = (consumer.clone(), body.clone());
        async move { consumer.send(body, SOON).await }
    });
    let request = wire.expect(FrameType::Request).await;
    assert_eq!(request.body(), &body[..1000]);
    assert!(!request.ends());
    wire.sync().await;
    wire.credit(request.stream(), 600).await;
    assert_eq!(wire.expect(FrameType::Data).await.payload, body[1000..1600]);
    wire.sync().await;
    wire.credit(request.stream(), 5000).await;
    let last = wire.expect(FrameType::Data).await;
    assert_eq!(last.payload, body[1600..]);
    assert!(last.ends());
    wire.respond(request.stream(), b"").await;
    assert_eq!(sending.await.unwrap().unwrap().bytes().await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_read_as_credit_allows() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let reader = tokio::io::repeat(9).take(3_000_000);
    let sending =
        tokio::spawn(async move { consumer.send(Body::reader(reader), SOON).await.unwrap().bytes().await.unwrap() });
    let request = wire.expect(FrameType::Request).await;
    let (mut got, mut ended) = (request.body().len(), request.ends());
    while !ended {
        wire.credit(request.stream(), 10_000).await;
        let more = wire.expect(FrameType::Data).await;
        got += more.payload.len();
        ended = more.ends();
    }
    assert_eq!(got, 3_000_000);
    wire.respond(request.stream(), b"ok").await;
    assert_eq!(sending.await.unwrap(), "ok");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_fails_cancels_the_request() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let reader = (&b"begin"[..]).chain(failing_reader());
    let sending = tokio::spawn(async move { consumer.send(Body::reader(reader), SOON).await });
    let request = wire.expect(FrameType::Request).await;
    let mut next = wire.next().await.unwrap();
    while next.kind() == FrameType::Data {
        assert!(!next.ends());
        next = wire.next().await.unwrap();
    }
    assert_eq!((next.kind(), next.stream()), (FrameType::Cancel, request.stream()));
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Body);
    assert!(error.may_have_started());
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk on fire");
}

/// A reader that fails at once.
fn failing_reader() -> impl tokio::io::AsyncRead + Send + Unpin {
    struct Fails;
    impl tokio::io::AsyncRead for Fails {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("disk on fire")))
        }
    }
    Fails
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_cancels() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let sending = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.send("x", SOON).await }
    });
    let request = wire.expect(FrameType::Request).await;
    assert_eq!(consumer.in_flight(), 1);
    sending.abort();
    let began = tokio::time::Instant::now();
    let cancel = wire.expect(FrameType::Cancel).await;
    assert!(began.elapsed().is_zero(), "at once, not at the deadline");
    assert_eq!((cancel.stream(), cancel.header.code), (request.stream(), Code::Cancelled.to_wire()));
    assert_eq!(consumer.in_flight(), 0);
    wire.error(request.stream(), Code::Cancelled, Flags::NONE, "").await;
    wire.sync().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_response_cancels_and_the_id_is_reused_only_then() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (response, first) = tokio::join!(consumer.send("x", SOON), async {
        let request = wire.expect(FrameType::Request).await;
        wire.send(Header::new(FrameType::Response, request.stream()), b"begin").await;
        request.stream()
    });
    drop(response.unwrap());
    let began = tokio::time::Instant::now();
    assert_eq!(wire.expect(FrameType::Cancel).await.stream(), first);
    assert!(began.elapsed().is_zero(), "at once, not at the deadline");
    let ((), second) = tokio::join!(async { assert!(consumer.send("y", SOON).await.is_ok()) }, async {
        let request = wire.expect(FrameType::Request).await;
        wire.respond(request.stream(), b"").await;
        request.stream()
    });
    assert_ne!(first, second);
    wire.error(first, Code::Cancelled, Flags::NONE, "").await;
    wire.sync().await; // it has been seen
    let ((), third) = tokio::join!(async { assert!(consumer.send("z", SOON).await.is_ok()) }, async {
        let request = wire.expect(FrameType::Request).await;
        wire.respond(request.stream(), b"").await;
        request.stream()
    });
    assert_eq!(third, first);
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_stops_the_body() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let reader = tokio::io::repeat(1);
    let sending = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.send(Body::reader(reader), SOON).await.unwrap().bytes().await.unwrap() }
    });
    let mut got = 0;
    let request = wire.expect(FrameType::Request).await;
    got += request.body().len();
    while got < 1000 {
        got += wire.expect(FrameType::Data).await.payload.len();
    }
    wire.respond(request.stream(), b"enough").await;
    let cancel = wire.expect(FrameType::Cancel).await;
    assert_eq!((cancel.stream(), cancel.header.code), (request.stream(), Code::Cancelled.to_wire()));
    assert_eq!(sending.await.unwrap(), "enough");
    wire.sync().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_read_is_granted_again() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (response, stream) = tokio::join!(consumer.send("x", SOON), async {
        let request = wire.expect(FrameType::Request).await;
        wire.send(Header::new(FrameType::Response, request.stream()), &[1; 1000]).await;
        request.stream()
    });
    let mut response = response.unwrap();
    wire.sync().await; // nothing granted yet
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), 1000);
    let credit = wire.expect(FrameType::Credit).await;
    assert_eq!((credit.stream(), credit.header.arg), (stream, 1000));
    wire.send(Header::new(FrameType::Data, stream).flags(Flags::END), &[2; 1000]).await;
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), 1000);
    assert_eq!(response.chunk().await.unwrap(), None);
    wire.sync().await; // and none after the end
}

#[tokio::test(start_paused = true)]
async fn more_than_the_window_is_a_flow_control_error() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (response, ()) = tokio::join!(consumer.send("x", SOON), async {
        let request = wire.expect(FrameType::Request).await;
        wire.send(Header::new(FrameType::Response, request.stream()), &[1; 1001]).await;
        let error = wire.expect(FrameType::Error).await;
        assert_eq!((error.stream(), error.header.code), (0, Code::FlowControl.to_wire()));
        wire.expect_close().await;
    });
    let error = response.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Connection, true));
}

#[tokio::test(start_paused = true)]
async fn errors_tell_their_kind_and_whether_the_work_may_have_started() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    for (code, flags, kind, started) in [
        (Code::NoProvider, Flags::NONE, ErrorKind::NoProvider, false),
        (Code::Deadline, Flags::NONE, ErrorKind::Deadline, false),
        (Code::Deadline, Flags::STARTED, ErrorKind::Deadline, true),
        (Code::ProviderLost, Flags::NONE, ErrorKind::ProviderLost, true),
        (Code::Overloaded, Flags::STARTED, ErrorKind::Overloaded, true),
        (Code::Application, Flags::NONE, ErrorKind::Application, true),
        (Code::Internal, Flags::NONE, ErrorKind::Internal, false),
    ] {
        let (response, ()) = tokio::join!(consumer.send("x", SOON), async {
            let request = wire.expect(FrameType::Request).await;
            wire.error(request.stream(), code, flags, "why").await;
        });
        let error = response.unwrap_err();
        assert_eq!((error.kind, error.may_have_started(), error.text()), (kind, started, "why"));
        assert_eq!(consumer.metrics().errors(kind), 1 + u64::from(code == Code::Deadline && started));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_does_not_outlast_the_timeout() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let began = tokio::time::Instant::now();
    let error = consumer.send("x", Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Deadline, true));
    assert!(began.elapsed() >= Duration::from_millis(1250) && began.elapsed() < Duration::from_millis(1300));
    let request = wire.expect(FrameType::Request).await;
    assert_eq!(wire.expect(FrameType::Cancel).await.stream(), request.stream());
}

#[tokio::test(start_paused = true)]
async fn a_body_begun_late_still_ends_at_the_deadline() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (response, ()) = tokio::join!(consumer.send("x", Duration::from_secs(1)), async {
        let request = wire.expect(FrameType::Request).await;
        wire.send(Header::new(FrameType::Response, request.stream()), b"begin").await;
    });
    let mut response = response.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "begin");
    assert_eq!(response.chunk().await.unwrap_err().kind, ErrorKind::Deadline);
}

#[tokio::test(start_paused = true)]
async fn beyond_max_streams_sends_wait_in_turn() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(crate::protocol::Welcome { max_streams: 2, ..welcome() }).await;
    let mut sends = Vec::new();
    for n in 0..6u8 {
        let consumer = consumer.clone();
        sends.push(tokio::spawn(async move { consumer.send(vec![n], SOON).await.unwrap().bytes().await.unwrap() }));
        tokio::task::yield_now().await;
    }
    let mut open = vec![wire.expect(FrameType::Request).await, wire.expect(FrameType::Request).await];
    wire.sync().await; // no third
    for n in 0..6u8 {
        let request = open.remove(0);
        assert_eq!(request.body(), [n]);
        wire.respond(request.stream(), &[n + 100]).await;
        if n < 4 {
            open.push(wire.expect(FrameType::Request).await);
        }
    }
    for (n, send) in sends.into_iter().enumerate() {
        assert_eq!(send.await.unwrap()[0], n as u8 + 100);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_stream_ends_with_the_timeout() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(crate::protocol::Welcome { max_streams: 1, ..welcome() }).await;
    let holder = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.send("x", SOON).await.map(|_| ()) }
    });
    wire.expect(FrameType::Request).await;
    let error = consumer.send("y", Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Deadline, false));
    holder.abort();
    assert_eq!(wire.expect(FrameType::Cancel).await.kind(), FrameType::Cancel);
}

#[tokio::test(start_paused = true)]
async fn publish_waits_for_the_brokers_word() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (result, ()) = tokio::join!(consumer.publish("x", SOON), async {
        let request = wire.expect(FrameType::Request).await;
        assert!(request.header.flags.has(Flags::ONEWAY));
        wire.respond(request.stream(), b"").await;
    });
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bytes_in_any_split_mean_the_same() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (response, ()) = tokio::join!(consumer.send("x", SOON), async {
        let stream = wire.expect(FrameType::Request).await.stream();
        let mut payload = Vec::new();
        encode_headers([("k", "v")], &mut payload).unwrap();
        payload.extend_from_slice(b"ab");
        let mut bytes = frame(Header::new(FrameType::Response, stream).flags(Flags::HEADERS), &payload);
        bytes.extend(frame(Header { kind: 0x80, ..Header::new(FrameType::Data, 9) }, b"an extension"));
        bytes.extend(frame(Header::new(FrameType::Data, stream), b"cd"));
        bytes.extend(frame(Header::new(FrameType::Data, stream).flags(Flags::END), b""));
        for byte in bytes {
            wire.write(&[byte]).await;
            tokio::task::yield_now().await;
        }
    });
    let response = response.unwrap();
    assert_eq!(response.header("k"), Some(&b"v"[..]));
    let mut text = String::new();
    response.into_reader().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "abcd");
}

#[tokio::test(start_paused = true)]
async fn a_ping_measures_the_round_trip() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (trip, ()) = tokio::join!(consumer.ping(), async {
        let ping = wire.expect(FrameType::Ping).await;
        wire.send(Header::new(FrameType::Pong, 0), b"nobody's").await;
        tokio::time::advance(Duration::from_millis(30)).await;
        wire.send(Header::new(FrameType::Pong, 0), &ping.payload).await;
    });
    assert_eq!(trip.unwrap(), Duration::from_millis(30));
}

#[tokio::test(start_paused = true)]
async fn headers_that_cannot_be_sent_are_refused_here() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let error = consumer.request("x").header("Upper", "x").send().await.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::InvalidInput, false));
    wire.sync().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_though_the_broker_takes_nothing() {
    let mut net = Net::sized(64);
    let (consumer, wire) = net.consumer(welcome()).await;
    let stuck = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.send(vec![0; 900], Duration::from_secs(9)).await.unwrap_err() }
    });
    tokio::time::sleep(Duration::from_millis(1)).await; // lets the driver run until it can write no more
    let began = tokio::time::Instant::now();
    let error = consumer.send("x", Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Deadline, false));
    assert!(began.elapsed() < Duration::from_millis(1300), "{:?}", began.elapsed());
    assert!(stuck.await.unwrap().may_have_started());
    drop(wire);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_drains_without_a_goaway_is_not_asked_again() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (sent, ()) = tokio::join!(consumer.send("x", SOON), async {
        let request = wire.expect(FrameType::Request).await;
        wire.error(request.stream(), Code::Draining, Flags::NONE, "").await;
    });
    assert_eq!(sent.unwrap_err().kind, ErrorKind::Draining);
    wire.sync().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_could_not_be_opened_keeps_no_stream() {
    let mut net = Net::new();
    let welcome = crate::protocol::Welcome { max_streams: 1, max_frame: 1000, ..welcome() };
    let (consumer, mut wire) = net.consumer(welcome).await;
    let long = consumer.request("x").timeout(SOON).header("k", vec![b'v'; 1000]).send();
    assert_eq!(long.await.unwrap_err().kind, ErrorKind::InvalidInput);
    let ((), ()) = tokio::join!(async { assert!(consumer.send("y", SOON).await.is_ok()) }, async {
        let request = wire.expect(FrameType::Request).await;
        wire.respond(request.stream(), b"").await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_response_is_a_stream_of_its_pieces() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let answers = async {
        let whole = wire.expect(FrameType::Request).await.stream();
        wire.respond(whole, b"all at once").await;
        let cut = wire.expect(FrameType::Request).await.stream();
        wire.send(Header::new(FrameType::Response, cut), b"begin").await;
        wire.sync().await;
        wire.error(cut, Code::ProviderLost, Flags::STARTED, "").await;
    };
    let pieces = async {
        let whole: Vec<_> = consumer.send("x", SOON).await.unwrap().collect().await;
        assert_eq!(whole.into_iter().collect::<Result<Vec<_>, _>>().unwrap(), ["all at once"]);
        let cut: Vec<_> = consumer.send("y", SOON).await.unwrap().collect().await;
        assert_eq!(cut.len(), 2, "nothing behind the error: {cut:?}");
        assert_eq!(cut[0].as_ref().unwrap(), "begin");
        assert_eq!(cut[1].as_ref().unwrap_err().kind, ErrorKind::ProviderLost);
    };
    tokio::join!(answers, pieces);
    assert_eq!(consumer.metrics().errors(ErrorKind::ProviderLost), 1);
}

#[tokio::test(start_paused = true)]
async fn what_woken_tasks_send_leaves_in_one_write() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    for n in 0..8u8 {
        let consumer = consumer.clone();
        tokio::spawn(async move {
            consumer.send("first", SOON).await.unwrap();
            if n > 0 {
                // Later than the first of them, who wakes the connection's task.
                let mut late = true;
                std::future::poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::take(&mut late) { Poll::Pending } else { Poll::Ready(()) }
                })
                .await;
            }
            consumer.send("second", SOON).await.unwrap();
        });
    }
    let mut answers = Vec::new();
    for _ in 0..8 {
        let stream = wire.expect(FrameType::Request).await.stream();
        answers.extend(frame(Header::new(FrameType::Response, stream).flags(Flags::END), b""));
    }
    wire.write(&answers).await;
    let second = wire.burst().await;
    assert_eq!(second.iter().map(Frame::body).collect::<Vec<_>>(), [b"second"; 8]);
}

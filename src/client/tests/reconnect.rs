//! Connections that fail, are lost, refuse or are left.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{Addrs, Consumer, ConsumerPool, ErrorKind, Metrics, Options, Provider, Retry};
use super::wire::{Net, welcome};
use crate::protocol::{Code, Flags, FrameType, Header, Role, Welcome};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn the_hello_says_who_it_is() {
    let mut net = Net::new();
    let options = Options::default().name("shop").token("secret").window(12_345);
    let _connecting = net.dialling_provider("a:1", options, Retry::Attempts(1));
    let (_, mut wire) = net.accept().await;
    let hello = wire.hello().await;
    assert_eq!((hello.role, hello.window, hello.max_concurrent), (Role::Provider, 12_345, 4));
    assert_eq!((hello.token.expose(), hello.name.as_str()), (&b"secret"[..], "shop"));
}

#[tokio::test(start_paused = true)]
async fn the_next_address_is_tried() {
    let mut net = Net::new();
    let connecting = net.dialling_consumer("down:1,b:1", Options::default(), Retry::Attempts(1));
    let (addr, _wire) = net.welcome(welcome()).await;
    assert_eq!(addr.to_string(), "b:1");
    let consumer = connecting.await.unwrap().unwrap();
    let server = consumer.server().unwrap();
    assert_eq!((server.addr.to_string(), server.max_streams), ("b:1".into(), 100));
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_a_connection_error_with_its_source() {
    let net = Net::new();
    let connecting = net.dialling_consumer("down:1", Options::default(), Retry::Attempts(3));
    let began = Instant::now();
    let error = connecting.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Connection);
    assert!(std::error::Error::source(&error).is_some());
    assert!(began.elapsed() >= Duration::from_millis(75) && began.elapsed() <= Duration::from_millis(160));
}

#[tokio::test(start_paused = true)]
async fn a_retry_by_time_ends_in_time() {
    let net = Net::new();
    let connecting = net.dialling_consumer("down:1", Options::default(), Retry::For(Duration::from_secs(3)));
    let began = Instant::now();
    assert_eq!(connecting.await.unwrap().unwrap_err().kind, ErrorKind::Connection);
    assert!(began.elapsed() > Duration::from_secs(1) && began.elapsed() <= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_says_nothing_is_given_up() {
    let mut net = Net::new();
    let connecting = net.dialling_consumer("a:1", Options::default(), Retry::Attempts(1));
    let (_, mut wire) = net.accept().await;
    wire.hello().await;
    let error = connecting.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Connection);
    assert!(error.text().contains("took too long"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_is_not_tried_again() {
    let mut net = Net::new();
    let connecting = net.dialling_consumer("a:1,b:1", Options::default(), Retry::Attempts(9));
    let (_, mut wire) = net.accept().await;
    wire.hello().await;
    wire.error(0, Code::Unauthorized, Flags::NONE, "bad token").await;
    let error = connecting.await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.text()), (ErrorKind::Unauthorized, "a:1: bad token"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_what_was_sent_and_the_next_one_takes_what_waits() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (sent, ()) = tokio::join!(consumer.send("x", SOON), async {
        wire.expect(FrameType::Request).await;
        drop(wire);
    });
    let error = sent.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Connection, true));
    assert!(!consumer.is_connected());
    let (waited, ()) = tokio::join!(consumer.send("y", SOON), async {
        let (_, mut wire) = net.welcome(welcome()).await;
        let request = wire.expect(FrameType::Request).await;
        wire.respond(request.stream(), b"").await;
    });
    waited.unwrap();
    assert_eq!(consumer.metrics().reconnects(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_never_left_has_not_started() {
    let mut net = Net::sized(64);
    let (consumer, mut wire) = net.consumer(Welcome { max_streams: 10, ..welcome() }).await;
    // The pipe holds the beginning of the first request; the second waits behind it.
    let first = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.send(vec![1; 500], SOON).await.unwrap_err() }
    });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let second = tokio::spawn(async move { consumer.send("y", SOON).await.unwrap_err() });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    wire.read_some().await;
    drop(wire);
    assert!(first.await.unwrap().may_have_started());
    let error = second.await.unwrap();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Connection, false));
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_sends_wait_no_longer_than_their_timeout() {
    let mut net = Net::new();
    let (consumer, wire) = net.consumer(welcome()).await;
    drop(wire);
    while consumer.is_connected() {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    let error = consumer.send("x", Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Connection, false));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn waits_grow_while_connections_fail_and_shrink_when_one_has_lasted() {
    let mut net = Net::new();
    let (_consumer, mut wire) = net.consumer(welcome()).await;
    let mut waits = Vec::new();
    for round in 0..9 {
        if round == 8 {
            tokio::time::sleep(Duration::from_secs(3)).await; // of the test clock: the connection lasts
        }
        drop(wire);
        let lost = Instant::now();
        (_, wire) = net.welcome(welcome()).await;
        waits.push(lost.elapsed());
    }
    assert!(waits[0] <= Duration::from_millis(51), "{waits:?}");
    assert!(waits[7] >= Duration::from_secs(1) && waits[7] <= Duration::from_millis(2001), "{waits:?}");
    assert!(waits[8] <= Duration::from_millis(51), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn at_goaway_new_requests_move_and_old_ones_finish() {
    let mut net = Net::new();
    let connecting = net.dialling_consumer("a:1,b:1", Options::default(), Retry::Attempts(1));
    let (_, mut old) = net.welcome(welcome()).await;
    let consumer = connecting.await.unwrap().unwrap();
    let first = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.send("x", SOON).await.unwrap().bytes().await.unwrap() }
    });
    let request = old.expect(FrameType::Request).await;
    old.goaway().await;
    let (addr, mut new) = net.welcome(welcome()).await;
    assert_eq!(addr.to_string(), "b:1");
    let second = tokio::spawn(async move { consumer.send("y", SOON).await.unwrap().bytes().await.unwrap() });
    let moved = new.expect(FrameType::Request).await;
    new.respond(moved.stream(), b"new").await;
    assert_eq!(second.await.unwrap(), "new");
    old.respond(request.stream(), b"old").await;
    assert_eq!(first.await.unwrap(), "old");
    old.expect_close().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_crossed_a_goaway_goes_to_the_next_broker() {
    let mut net = Net::new();
    let (consumer, mut old) = net.consumer(welcome()).await;
    let sending = tokio::spawn(async move { consumer.send("x", SOON).await.unwrap().bytes().await.unwrap() });
    let request = old.expect(FrameType::Request).await;
    old.goaway().await;
    old.error(request.stream(), Code::Draining, Flags::NONE, "").await;
    let (_, mut new) = net.welcome(welcome()).await;
    let again = new.expect(FrameType::Request).await;
    assert_eq!(again.payload, request.payload);
    new.respond(again.stream(), b"done").await;
    assert_eq!(sending.await.unwrap(), "done");
}

#[tokio::test(start_paused = true)]
async fn a_request_ended_by_a_drain_after_it_started_is_not_repeated() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (sent, ()) = tokio::join!(consumer.send("x", SOON), async {
        let request = wire.expect(FrameType::Request).await;
        wire.error(request.stream(), Code::Draining, Flags::STARTED, "").await;
    });
    let error = sent.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Draining, true));
}

#[tokio::test(start_paused = true)]
async fn a_provider_comes_back_and_its_old_requests_are_cancelled() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    wire.request(1, SOON, b"").await;
    let request = provider.receive().await.unwrap();
    drop(wire);
    request.cancelled().await;
    assert_eq!(request.respond("late").await.unwrap_err().kind, ErrorKind::Connection);
    let (received, _wire) = tokio::join!(provider.receive(), async {
        let (_, mut wire) = net.welcome(welcome()).await;
        wire.request(1, SOON, b"").await;
        wire
    });
    assert!(received.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_provider_refused_for_good_says_so() {
    let mut net = Net::new();
    let (provider, wire) = net.provider(welcome()).await;
    drop(wire);
    let (received, ()) = tokio::join!(provider.receive(), async {
        let (_, mut wire) = net.accept().await;
        wire.hello().await;
        wire.error(0, Code::Version, Flags::NONE, "a later one only").await;
    });
    assert!(received.is_none());
    assert_eq!(provider.error().unwrap().kind, ErrorKind::Version);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_let_in_no_longer_says_so_and_receives_when_it_is_again() {
    let mut net = Net::new();
    let (provider, mut wire) = net.provider(welcome()).await;
    assert!(provider.error().is_none());
    wire.error(0, Code::Unauthorized, Flags::NONE, "revoked").await;
    drop(wire);
    let (received, _wire) = tokio::join!(provider.receive(), async {
        let (_, mut wire) = net.accept().await;
        let error = provider.error().unwrap();
        assert_eq!((error.kind, error.text()), (ErrorKind::Unauthorized, "revoked"));
        wire.hello().await;
        wire.welcome(welcome()).await;
        wire.request(1, SOON, b"again").await;
        wire
    });
    assert!(received.is_some() && provider.error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_asked_and_then_given_up() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let began = Instant::now();
    wire.expect(FrameType::Ping).await;
    assert_eq!(began.elapsed(), Duration::from_secs(15));
    let error = wire.expect(FrameType::Error).await;
    assert_eq!((error.header.code, began.elapsed()), (Code::Timeout.to_wire(), Duration::from_secs(45)));
    drop(consumer);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_is_kept() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    for _ in 0..10 {
        let ping = wire.expect(FrameType::Ping).await;
        tokio::time::advance(Duration::from_secs(29)).await;
        wire.send(Header::new(FrameType::Pong, 0), &ping.payload).await;
    }
    assert!(consumer.is_connected());
}

#[tokio::test(start_paused = true)]
async fn close_fails_what_is_in_flight_and_what_comes_after() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let sending = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.send("x", SOON).await.unwrap_err() }
    });
    wire.expect(FrameType::Request).await;
    let ((), ()) = tokio::join!(consumer.close(), async {
        while wire.next().await.is_some() {}
        drop(wire);
    });
    let error = sending.await.unwrap();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Closed, true));
    assert_eq!(consumer.send("y", SOON).await.unwrap_err().kind, ErrorKind::Closed);
    assert!(!consumer.is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_drains_behind_its_last_request() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let sending = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.send("x", SOON).await.unwrap().bytes().await.unwrap() }
    });
    let request = wire.expect(FrameType::Request).await;
    let draining = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.drain(SOON).await }
    });
    wire.expect(FrameType::GoAway).await;
    assert_eq!(consumer.send("y", SOON).await.unwrap_err().kind, ErrorKind::Closed);
    wire.respond(request.stream(), b"done").await;
    assert_eq!(sending.await.unwrap(), "done");
    wire.expect_close().await;
    drop(wire);
    draining.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_the_connection() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let (response, ()) = tokio::join!(consumer.send("x", SOON), async {
        let request = wire.expect(FrameType::Request).await;
        wire.send(Header::new(FrameType::Response, request.stream()), b"begin").await;
    });
    drop(consumer);
    wire.expect(FrameType::GoAway).await;
    let mut response = response.unwrap();
    wire.send(Header::new(FrameType::Data, 1).flags(Flags::END), b"end").await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "begin");
    assert_eq!(response.chunk().await.unwrap().unwrap(), "end");
    wire.expect_close().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_uses_the_least_busy_member_that_is_connected() {
    let mut net = Net::new();
    let dial = net.dialler();
    let connecting = tokio::spawn(async move {
        ConsumerPool::dial(Addrs::from("a:1"), "test".into(), 3, Options::default(), dial).await
    });
    let (_, mut first) = net.welcome(welcome()).await;
    let (_, second) = net.welcome(welcome()).await;
    let (_, mut third) = net.welcome(welcome()).await;
    let pool = connecting.await.unwrap().unwrap();
    drop(second);
    while pool.members()[1].is_connected() {
        tokio::task::yield_now().await;
    }
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let pool = pool.clone();
        sends.spawn(async move { pool.send("x", SOON).await.map(|_| ()) });
        tokio::task::yield_now().await;
    }
    for wire in [&mut first, &mut third] {
        for _ in 0..2 {
            let request = wire.expect(FrameType::Request).await;
            wire.send(Header::new(FrameType::Response, request.stream()), b"").await;
        }
    }
    assert_eq!(pool.metrics().requests(), 4);
    assert!(sends.join_all().await.into_iter().all(|sent| sent.is_ok()));
}

#[allow(dead_code, reason = "only the bounds are looked at")]
fn handles_can_be_shared() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<Consumer>();
    check::<Provider>();
    check::<ConsumerPool>();
    check::<Metrics>();
    fn sent<T: Send + 'static>() {}
    sent::<super::super::Response>();
    sent::<super::super::Request>();
}

#[tokio::test(start_paused = true)]
async fn one_that_was_let_in_and_is_refused_then_asks_again_after_the_longest_wait_and_says_so_meanwhile() {
    let mut net = Net::new();
    let (consumer, mut wire) = net.consumer(welcome()).await;
    let longest = Options::default().backoff_max;
    wire.error(0, Code::Unauthorized, Flags::NONE, "taken back").await;
    drop(wire);
    for _ in 0..3 {
        let refused = Instant::now();
        // whatever its timeout, it waits for nothing
        let error = consumer.send("x", Duration::from_secs(600)).await.unwrap_err();
        let said = matches!(error.kind, ErrorKind::Unauthorized | ErrorKind::Connection);
        assert!(said && error.text().contains("taken back"), "{error}");
        assert!(refused.elapsed() < longest / 2);
        let (_, mut wire) = net.accept().await;
        let waited = refused.elapsed();
        assert!(waited + Duration::from_millis(2) >= longest / 2 && waited <= longest, "{waited:?}");
        wire.hello().await;
        wire.error(0, Code::Unauthorized, Flags::NONE, "taken back").await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (_, mut wire) = net.welcome(welcome()).await;
    while !consumer.is_connected() {
        tokio::task::yield_now().await;
    }
    let (answered, ()) = tokio::join!(consumer.send("y", SOON), async {
        let request = wire.expect(FrameType::Request).await;
        wire.respond(request.stream(), b"").await;
    });
    answered.unwrap();
}

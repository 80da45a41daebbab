//! Who is let in, on real sockets: both reactors, one core and two.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelay::Server;
use corelay::auth::{Digest, Entry};
use corelay::base::limits::Limits;
use corelay::broker::core::Refused;
use corelay::broker::{Cores, Io, ServerError, ServerOptions};
use corelay::client::{Consumer, ErrorKind, Options, Provider};
use corelay::protocol::{Code, Flags, FrameType, Header, Hello, Role};

use crate::wire::{Wire, hello};

/// An entry whose token is `<name>'s token`.
fn entry(name: &str, allow: &[&str], deny: &[&str]) -> Entry {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let token = Some(Digest::of(token(name).as_bytes()));
    Entry { token, allow: rules(allow), deny: rules(deny), ..Entry::new(name) }
}

fn token(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}'s token") }
}

fn saying(name: &str, role: Role, channel: &str) -> Hello {
    let max_concurrent = if role == Role::Provider { 4 } else { 0 };
    Hello { token: token(name).into(), ..hello(role, channel, max_concurrent) }
}

fn refused(addr: SocketAddr, hello: &Hello) -> String {
    let mut wire = Wire::raw(addr);
    let mut frame = Vec::new();
    hello.encode(&mut frame).unwrap();
    wire.write(&frame);
    let why = wire.expect_error(0, Code::Unauthorized);
    wire.expect_closed();
    String::from_utf8(why.payload).unwrap()
}

/// Runs a test on every kind of broker, with these entries and limits.
fn everywhere(auth: &[Entry], limits: &Limits, test: impl Fn(&Server)) {
    on(&[1, 2], auth, limits, test);
}

fn on(cores: &[usize], auth: &[Entry], limits: &Limits, test: impl Fn(&Server)) {
    let start = |io, cores| {
        Server::start(ServerOptions {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            cores: Cores::Count(cores),
            io,
            limits: limits.clone(),
            auth: auth.to_vec(),
            buffers: 64,
            ..ServerOptions::default()
        })
    };
    crate::everywhere::on(cores, start, |server| {
        test(&server);
        server.stop().unwrap();
    });
}

fn shop_and_desk() -> Vec<Entry> {
    vec![
        entry("shop", &["consume:orders", "consume:secret", "publish:log"], &["consume:secret"]),
        entry("desk", &["provide:orders", "provide:log"], &[]),
    ]
}

#[test]
fn tokens_let_in_where_they_may_and_nowhere_else() {
    everywhere(&shop_and_desk(), &Limits::default(), |server| {
        let addr = server.addr();
        for (name, role, channel, why) in [
            ("", Role::Consumer, "orders", "no token was given, and this broker asks for one"),
            ("thief", Role::Consumer, "orders", "the token is not known here"),
            ("shop", Role::Consumer, "other", "shop may not consume or publish on this channel"),
            ("shop", Role::Consumer, "secret", "shop may not consume or publish on this channel"),
            ("shop", Role::Provider, "orders", "shop may not provide this channel"),
            ("desk", Role::Consumer, "orders", "desk may not consume or publish on this channel"),
        ] {
            assert_eq!(refused(addr, &saying(name, role, channel)), why);
        }
        let mut provider = Wire::open(addr, &saying("desk", Role::Provider, "orders"));
        let mut consumer = Wire::open(addr, &saying("shop", Role::Consumer, "orders"));
        consumer.request(1, 1, b"hello", Flags::NONE);
        let stream = provider.expect(FrameType::Request).stream;
        provider.respond(stream, b"world");
        assert_eq!(consumer.expect(FrameType::Response).payload, b"world");
    });
}

#[test]
fn publishing_is_telling_without_asking() {
    everywhere(&shop_and_desk(), &Limits::default(), |server| {
        let mut provider = Wire::open(server.addr(), &saying("desk", Role::Provider, "log"));
        let mut consumer = Wire::open(server.addr(), &saying("shop", Role::Consumer, "log"));
        consumer.request(1, 1, b"?", Flags::NONE);
        consumer.expect_error(1, Code::Unauthorized);
        consumer.request(1, 2, b"!", Flags::ONEWAY);
        let request = provider.expect(FrameType::Request);
        assert_eq!((&request.payload[16..], request.flags.has(Flags::ONEWAY)), (&b"!"[..], true));
        consumer.expect(FrameType::Response);
        provider.respond(request.stream, b"");
    });
}

#[test]
fn a_reload_closes_who_lost_his_right_within_a_second_and_leaves_all_others_alone() {
    everywhere(&shop_and_desk(), &Limits::default(), |server| {
        let addr = server.addr();
        let mut provider = Wire::open(addr, &saying("desk", Role::Provider, "orders"));
        let mut consumers: Vec<_> =
            (0..20).map(|_| Wire::open(addr, &saying("shop", Role::Consumer, "orders"))).collect();
        // on the other core, perhaps
        let mut log = Wire::open(addr, &saying("desk", Role::Provider, "log"));
        let mut publisher = Wire::open(addr, &saying("shop", Role::Consumer, "log"));
        consumers[0].request(1, 1, b"in flight", Flags::NONE);
        let stream = provider.expect(FrameType::Request).stream;
        let began = Instant::now();
        server.reload_auth(vec![entry("shop", &["publish:log"], &[]), entry("desk", &["provide:*"], &[])]).unwrap();
        for consumer in &mut consumers {
            consumer.expect_error(0, Code::Unauthorized);
            consumer.expect_closed();
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(provider.expect(FrameType::Cancel).stream, stream);
        provider.send(Header::new(FrameType::Error, stream).code(Code::Cancelled), b"");
        refused(addr, &saying("shop", Role::Consumer, "orders"));
        publisher.request(1, 2, b"still", Flags::ONEWAY);
        let request = log.expect(FrameType::Request);
        publisher.expect(FrameType::Response);
        log.respond(request.stream, b"");
        // a list that can't work changes nothing
        let bad = server.reload_auth(vec![Entry::new("all")]).unwrap_err();
        assert_eq!(bad.key, "auth.token.all.name");
        Wire::open(addr, &saying("desk", Role::Provider, "orders"));
    });
}

/// Who connects from where counts, and whether it has said who it is.
#[test]
fn limits_on_one_address_hold() {
    let limits =
        Limits { max_connections_per_ip: 4, max_unauthenticated_per_ip: 2, limit_loopback: true, ..Limits::default() };
    // one core, which accepts in the order in which they come
    on(&[1], &[], &limits, |server| {
        let addr = server.addr();
        let inside: Vec<_> = (0..2).map(|_| Wire::consumer(addr, "a")).collect();
        let refused = |what: &str| {
            let mut wire = Wire::raw(addr);
            let why = String::from_utf8(wire.expect_error(0, Code::Overloaded).payload).unwrap();
            assert!(why.contains(what), "{why}");
            wire.expect_closed();
        };
        let silent: Vec<_> = (0..2).map(|_| Wire::raw(addr)).collect();
        refused("(max_connections_per_ip)");
        drop(inside);
        // which of the two it is depends on whether the broker has seen the others go
        let mut fifth = Wire::raw(addr);
        let why = String::from_utf8(fifth.expect_error(0, Code::Overloaded).payload).unwrap();
        assert!(why.contains("_per_ip)"), "{why}");
        let (answer, answered) = std::sync::mpsc::channel();
        server.inspector().ask(0, move |core| answer.send(core.figures().core.counters.connections_refused).unwrap());
        let counted = answered.recv().unwrap();
        let of = |why: Refused| counted[why as usize];
        assert_eq!(of(Refused::MaxConnectionsPerIp) + of(Refused::MaxUnauthenticatedPerIp), 2, "{counted:?}");
        drop((silent, fifth));
        let again = (0..1000).find(|_| {
            let mut wire = Wire::raw(addr);
            let mut frame = Vec::new();
            hello(Role::Consumer, "a", 0).encode(&mut frame).unwrap();
            wire.try_write(&frame);
            wire.next().is_some_and(|frame| frame.kind == FrameType::Welcome)
        });
        assert!(again.is_some(), "who leaves makes room");
    });
}

#[test]
fn an_address_others_can_reach_is_refused_without_a_question_asked() {
    let options = |insecure, auth| ServerOptions {
        listen: vec!["0.0.0.0:0".parse().unwrap()],
        cores: Cores::Count(1),
        io: Io::Epoll,
        insecure,
        auth,
        ..ServerOptions::default()
    };
    let error = Server::start(options(false, Vec::new())).unwrap_err();
    assert!(matches!(&error, ServerError::Option(bad) if bad.key == "server.listen"), "{error}");
    assert!(error.to_string().contains("--insecure"), "{error}");
    Server::start(options(true, Vec::new())).unwrap().kill();
    let guarded = Server::start(options(false, shop_and_desk())).unwrap();
    assert_eq!(guarded.reload_auth(Vec::new()).unwrap_err().key, "server.listen");
    guarded.kill();
}

#[test]
fn the_client_library_says_so_and_does_not_hammer() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    server.reload_auth(shop_and_desk()).unwrap();
    let addr = server.addr().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let with = |name: &str| Options::default().token(token(name));
        let error = Consumer::connect_with(addr.as_str(), "orders", with("thief")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthorized);
        assert!(error.text().contains("not known"), "{error}");
        let quick = with("shop").backoff(Duration::from_millis(1), Duration::from_millis(50));
        let consumer = Consumer::connect_with(addr.as_str(), "orders", quick).await.unwrap();
        let provider = Provider::connect_with(addr.as_str(), "orders", 1, with("desk")).await.unwrap();
        let answer = async {
            let mut request = provider.receive().await.unwrap();
            let body = request.bytes().await.unwrap();
            request.respond(body).await.unwrap();
        };
        let asked = consumer.send("echo", Duration::from_secs(10));
        let (answered, ()) = tokio::join!(asked, answer);
        assert_eq!(answered.unwrap().bytes().await.unwrap(), "echo");
        server.reload_auth(vec![entry("desk", &["provide:orders"], &[])]).unwrap();
        // whatever the timeout, it fails as soon as the client knows
        let error = loop {
            match consumer.send("?", Duration::from_secs(60)).await {
                // its connection ended under it, or it was quicker than the reload
                Err(error) if error.kind == ErrorKind::Unauthorized => break error,
                Err(error) => assert_eq!(error.kind, ErrorKind::Connection, "{error}"),
                Ok(_) => panic!("answered, without a right and with nobody to answer"),
            }
        };
        assert!(error.text().contains("not known"), "{error}");
        // let in again, it comes back by itself
        server.reload_auth(shop_and_desk()).unwrap();
        let back = async {
            while !consumer.is_connected() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), back).await.expect("it comes back");
        let answer = async {
            let request = provider.receive().await.unwrap();
            request.respond("welcome back").await.unwrap();
        };
        let (answered, ()) = tokio::join!(consumer.send("again", Duration::from_secs(10)), answer);
        assert_eq!(answered.unwrap().bytes().await.unwrap(), "welcome back");
    });
    server.kill();
}

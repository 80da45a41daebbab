//! The admin endpoint against real brokers: what its pages say, and who may drain.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use corelay::Server;
use corelay::base::ChannelId;
use corelay::broker::{ChannelOptions, Cores, Io, ListenAddr, ServerOptions};
use corelay::protocol::{Code, Flags, FrameType, Header};
use corelay::telemetry::view::{Channel, Conn, Health, Historyz, Latencyz, Listing, Varz};
use corelay::telemetry::{Admin, AdminError, AdminOptions, Bound};
use serde::de::DeserializeOwned;

use crate::cli::run::eventually;
use crate::wire::Wire;

/// A page that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker with an admin endpoint.
struct Broker {
    server: Server,
    admin: Admin,
}

impl Broker {
    fn start(cores: usize) -> Broker {
        Broker::with(cores, ServerOptions::default())
    }

    fn with(cores: usize, options: ServerOptions) -> Broker {
        let spread = ChannelOptions { spread: 2, ..ChannelOptions::new(ChannelId::named("spread"), "spread") };
        let server = Server::start(ServerOptions {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            cores: Cores::Count(cores),
            io: Io::Auto,
            pin: false,
            channels: vec![spread],
            buffers: 64,
            ..options
        })
        .unwrap();
        let admin = Admin::start(&admin_options("127.0.0.1:0"), server.inspector()).unwrap().expect("an address");
        Broker { server, admin }
    }

    fn ask(&self, head: &str) -> (u16, String) {
        let ListenAddr::Tcp(addr) = self.admin.addr() else { panic!("on TCP") };
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (status, answer) = self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}", self.admin.addr()));
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error} in {body}"))
    }

    /// Some requests with their answers, one that fails and one that stays open, on this channel.
    fn work(&self, channel: &str) -> (Wire, Wire) {
        let mut provider = Wire::provider(self.server.addr(), channel, 8);
        let mut consumer = Wire::consumer(self.server.addr(), channel);
        // each for itself: which of two providers of a spread channel gets the next one is a matter of chance
        for stream in 1..=6 {
            consumer.request(stream, u128::from(stream), b"question", Flags::NONE);
            let request = provider.expect(FrameType::Request);
            match stream {
                5 => provider.send(Header::new(FrameType::Error, request.stream).code(Code::Application), b"no"),
                6 => continue,
                _ => provider.respond(request.stream, b"answer"),
            }
            let answer = consumer.next_past_credit();
            assert_eq!(answer.kind, if stream == 5 { FrameType::Error } else { FrameType::Response });
        }
        (consumer, provider)
    }
}

fn admin_options(addr: &str) -> AdminOptions {
    AdminOptions { listen: Some(addr.parse().unwrap()), ..AdminOptions::default() }
}

/// The samples of a metric with all these parts in their line, added up.
fn metric(page: &str, name: &str, parts: &[&str]) -> f64 {
    let lines = page.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && parts.iter().all(|part| line.contains(part))
    });
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[test]
fn totals_count_each_request_once() {
    for (cores, channel) in [(1, "orders"), (2, "orders"), (2, "spread")] {
        let broker = Broker::start(cores);
        let _open = broker.work(channel);
        let varz: Varz = broker.json("/varz");
        assert_eq!((varz.requests, varz.responses, varz.errors), (6, 4, 1), "{channel} on {cores} cores: {varz:#?}");
        assert_eq!(varz.errors_by_code["APPLICATION"], 1);
        assert_eq!((varz.in_flight, varz.connections), (1, 2), "{channel} on {cores} cores");
        assert_eq!((varz.pid, varz.cores), (std::process::id(), cores as u16));
        assert!(varz.cpu_seconds > 0.0 && varz.resident_bytes > 1 << 20 && varz.uptime_seconds > 0.0, "{varz:#?}");
        assert!(varz.received_bytes > 6 * 24 && varz.sent_bytes > 6 * 24, "{varz:#?}");
        assert_eq!(varz.per_core.len(), cores);
        assert!(varz.per_core.iter().all(|core| core.turns > 0), "{varz:#?}");
    }
}

#[test]
fn prometheus_reads_the_same() {
    let broker = Broker::start(2);
    let _open = broker.work("spread");
    let (status, page) = broker.get("/metrics");
    assert_eq!(status, 200);
    for (name, parts, value) in [
        ("corelay_requests_total", &["core="][..], 6.0),
        ("corelay_responses_total", &["kind=\"answer\""], 4.0),
        ("corelay_errors_total", &["code=\"APPLICATION\""], 1.0),
        ("corelay_errors_total", &[], 1.0),
        ("corelay_request_seconds_count", &[], 4.0),
        ("corelay_first_byte_seconds_count", &[], 4.0),
        ("corelay_queue_wait_seconds_count", &[], 6.0),
        ("corelay_in_flight", &[], 1.0),
        ("corelay_connections", &[], 2.0),
        ("corelay_core_up", &[], 2.0),
    ] {
        assert_eq!(metric(&page, name, parts), value, "{name} {parts:?} in\n{page}");
    }
    assert!(metric(&page, "corelay_turn_seconds_count", &[]) > 6.0);
    assert!(page.ends_with("# EOF\n"));
    let (_, page) = broker.get("/metrics/channels");
    let id = ChannelId::named("spread").to_string();
    assert_eq!(metric(&page, "corelay_channel_requests_total", &[&id, "name=\"spread\""]), 6.0, "{page}");
    assert_eq!(metric(&page, "corelay_channel_request_seconds_bucket", &[&id, "le=\"+Inf\""]), 4.0, "{page}");
}

#[test]
fn the_lists_say_who_is_there() {
    let broker = Broker::start(2);
    let _open = broker.work("orders");
    let _other = broker.work("spread");
    let orders = ChannelId::named("orders");
    let all: Listing<Conn> = broker.json("/connz");
    assert_eq!((all.total, all.items.len()), (4, 4));
    let list: Listing<Conn> = broker.json("/connz?channel=orders&role=provider");
    let [provider] = &list.items[..] else { panic!("{list:#?}") };
    assert_eq!((provider.in_flight, provider.max_concurrent, provider.state.as_str()), (1, 8, "open"));
    assert_eq!((provider.name.as_str(), provider.channel.clone()), ("wire", Some(orders.to_string())));
    assert!(provider.peer.starts_with("127.0.0.1:"), "{provider:?}");
    let part: Listing<Conn> = broker.json("/connz?offset=1&limit=2");
    let ids = |conns: &[Conn]| conns.iter().map(|conn| (conn.core, conn.id)).collect::<Vec<_>>();
    assert_eq!((part.total, ids(&part.items)), (4, ids(&all.items[1..3])));

    let list: Listing<Channel> = broker.json("/channelz?channel=orders");
    let [channel] = &list.items[..] else { panic!("{list:#?}") };
    assert_eq!((channel.providers, channel.capacity, channel.in_flight, channel.connections), (1, 8, 1, 2));
    assert_eq!((channel.requests, channel.responses, channel.errors, channel.latency.count), (6, 4, 1, 4));
    let list: Listing<Channel> = broker.json("/channelz");
    assert_eq!(list.total, 2);
    assert!(list.items.iter().any(|channel| channel.name.as_deref() == Some("spread")));

    let times: Latencyz = broker.json("/latencyz");
    let counts: Vec<_> = times.channels.iter().map(|times| (times.channel.clone(), times.total.count)).collect();
    assert_eq!(counts[0], ("all".to_owned(), 8));
    assert!(counts.contains(&(orders.to_string(), 4)), "{counts:?}");
    assert_eq!(times.channels[0].queue_wait.count, 12);
    assert!(times.channels[0].curve.is_sorted());
    let (status, plot) = broker.get("/latencyz?format=hgrm&channel=orders");
    assert!(status == 200 && plot.contains("Total count    =            4"), "{plot}");
}

#[test]
fn many_connections_come_in_pages() {
    let broker = Broker::start(1);
    let consumers: Vec<_> = (0..300).map(|_| Wire::consumer(broker.server.addr(), "orders")).collect();
    let mut ids = std::collections::HashSet::new();
    for offset in [0, 128, 256] {
        let list: Listing<Conn> = broker.json(&format!("/connz?offset={offset}&limit=128"));
        assert_eq!(list.total, consumers.len() as u64);
        ids.extend(list.items.iter().map(|conn| conn.id));
    }
    assert_eq!(ids.len(), consumers.len());
}

#[test]
fn what_is_asked_wrongly_is_told() {
    let broker = Broker::start(1);
    for (path, status) in [
        ("/connz?limit=many", 400),
        ("/connz?colour=red", 400),
        ("/latencyz?format=xml", 400),
        ("/latencyz?format=hgrm&channel=nobody", 404),
        ("/nowhere", 404),
    ] {
        assert_eq!(broker.get(path).0, status, "{path}");
    }
    assert_eq!(broker.ask(&format!("GET /drain HTTP/1.1\r\nHost: {}", broker.admin.addr())).0, 405);
}

#[test]
fn draining_shows_and_only_a_plain_post_begins_it() {
    let broker = Broker::start(2);
    let addr = broker.admin.addr();
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/healthz", 200)] {
        assert_eq!(broker.get(path).0, status, "{path}");
    }
    for headers in ["Host: evil.example", &format!("Host: {addr}\r\nOrigin: http://evil.example")] {
        let (status, _) = broker.ask(&format!("POST /drain HTTP/1.1\r\nContent-Length: 0\r\n{headers}"));
        assert_eq!(status, 403, "{headers}");
    }
    assert_eq!(broker.get("/readyz").0, 200);
    // a request in flight holds the drain up
    let (_consumer, _provider) = broker.work("orders");
    assert_eq!(broker.ask(&format!("POST /drain HTTP/1.1\r\nContent-Length: 0\r\nHost: {addr}")).0, 202);
    let (status, body) = broker.get("/healthz");
    let health: Health = serde_json::from_str(&body).unwrap();
    assert_eq!((status, health.status.as_str()), (503, "draining"), "{health:?}");
    assert_eq!(broker.get("/readyz").0, 503);
    assert_eq!(broker.get("/livez").0, 200);
    let Broker { server, admin } = broker;
    server.kill();
    server.join().unwrap();
    drop(admin);
}

#[test]
fn a_second_makes_a_point() {
    let broker = Broker::start(1);
    let _open = broker.work("orders");
    let first = || broker.json::<Historyz>("/historyz").points.into_iter().next();
    // work done while the endpoint began may be before the first point
    eventually("a point", || first().is_some());
    let point = first().unwrap();
    assert_eq!((point.connections, point.in_flight, point.load.len()), (2, 1, 1));
    assert!(point.seconds > 0.5, "{point:?}");
    let history: Historyz = broker.json(&format!("/historyz?after={}", point.number));
    assert!(history.points.iter().all(|later| later.number > point.number));
}

#[test]
fn channels_beyond_the_bound_are_counted_together() {
    let broker = Broker::with(1, ServerOptions { telemetry_channels: 1, ..ServerOptions::default() });
    let _open = [broker.work("a"), broker.work("b"), broker.work("c")];
    let times: Latencyz = broker.json("/latencyz");
    let counts: Vec<_> = times.channels.iter().map(|times| (times.channel.as_str(), times.total.count)).collect();
    assert_eq!(counts, [("all", 12), (ChannelId::named("a").to_string().as_str(), 4), ("other", 8)]);
    let (_, page) = broker.get("/metrics/channels");
    assert_eq!(page.matches("corelay_channel_requests_total{").count(), 2);
}

#[test]
fn an_endpoint_for_strangers_must_be_meant() {
    let open = admin_options("0.0.0.0:0");
    let error = Bound::new(&open).unwrap_err();
    assert!(matches!(error, AdminError::Option(_)) && error.to_string().contains("--admin-insecure"), "{error}");
    assert!(Bound::new(&AdminOptions { insecure: true, ..open }).unwrap().is_some());
    assert!(Bound::new(&AdminOptions::default()).unwrap().is_none());
}

#[test]
fn an_address_in_use_is_told() {
    let broker = Broker::start(1);
    let error = Bound::new(&admin_options(&broker.admin.addr().to_string())).unwrap_err().to_string();
    assert!(error.contains("--admin") && error.contains("another process has the port"), "{error}");
}

#[test]
fn a_core_that_ended_is_told() {
    let Broker { server, admin } = Broker::start(1);
    let inspector = server.inspector();
    server.kill();
    server.join().unwrap();
    // it was told to end, so it is not failing; but it is there no more
    let broker = Broker { server: Server::bind("127.0.0.1:0").unwrap(), admin };
    let varz: Varz = broker.json("/varz");
    assert!(varz.draining && varz.per_core.is_empty(), "{varz:#?}");
    assert_eq!(broker.get("/livez").0, 200);
    let (answer, answered) = std::sync::mpsc::channel();
    inspector.ask(0, move |_| answer.send(()).unwrap());
    assert!(answered.recv().is_err(), "nobody is there to answer");
}

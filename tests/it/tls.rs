//! TLS on real sockets: both reactors, one core and two; the client library and scripts of frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use corelay::Server;
use corelay::auth::Entry;
use corelay::base::limits::Limits;
use corelay::broker::core::ConnSnapshot;
use corelay::broker::{Cores, Io, ServerError, ServerOptions, TlsFigures};
use corelay::client::{Consumer, ErrorKind, Options, Provider, Request, Tls};
use corelay::protocol::{Flags, FrameType, Header, Role};
use corelay::tls::{ALPN, TlsOptions, certificates, key, roots};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::cli::run::{eventually, noise};
use crate::pki::Pki;
use crate::wire::{Wire, hello};

const SOON: Duration = Duration::from_secs(20);

/// A broker that listens with TLS and without.
struct Broker {
    server: Server,
    secure: SocketAddr,
    plain: SocketAddr,
    pki: Pki,
}

impl Broker {
    fn start(io: Io, cores: usize, limits: Limits, mutual: bool) -> Result<Broker, ServerError> {
        let pki = Pki::new();
        let (cert, key) = pki.server("server");
        let server = Server::start(ServerOptions {
            listen: vec!["tls://127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()],
            tls: TlsOptions {
                cert: Some(cert),
                key: Some(key),
                client_ca: mutual.then(|| pki.ca()),
                ..TlsOptions::default()
            },
            cores: Cores::Count(cores),
            pin: false,
            io,
            limits,
            buffers: 64,
            ..ServerOptions::default()
        })?;
        let addr = |at: usize| server.addrs()[at].socket_addr().unwrap();
        Ok(Broker { secure: addr(0), plain: addr(1), server, pki })
    }

    fn url(&self) -> String {
        format!("tls://{}", self.secure)
    }

    fn trusting(&self) -> Options {
        Options::default().tls(Tls::default().ca(self.pki.ca()))
    }

    fn showing(&self, identity: (PathBuf, PathBuf)) -> Options {
        Options::default().tls(Tls::default().ca(self.pki.ca()).identity(identity.0, identity.1))
    }

    /// The figures of all cores, added up.
    fn figures(&self) -> TlsFigures {
        let mut sum = TlsFigures::default();
        for one in self.ask(|view| view.figures().tls) {
            sum.opened += one.opened;
            sum.resumed += one.resumed;
            sum.failed += one.failed;
            sum.broken += one.broken;
            sum.truncated += one.truncated;
        }
        sum
    }

    /// When this returns, every core goes by the new list.
    fn reload_auth(&self, auth: Vec<Entry>) {
        self.server.reload_auth(auth).unwrap();
        self.ask(|_| ());
    }

    fn connections(&self) -> Vec<ConnSnapshot> {
        self.ask(|view| view.connections_from(0).items).into_iter().flatten().collect()
    }

    fn ask<T: Send + 'static>(&self, question: fn(&corelay::broker::View<'_>) -> T) -> Vec<T> {
        let inspector = self.server.inspector();
        let one = |core| {
            let (answer, answered) = mpsc::channel();
            inspector.ask(core, move |view| answer.send(question(view)).unwrap());
            answered.recv().unwrap()
        };
        (0..inspector.cores()).map(one).collect()
    }

    /// A script of frames over TLS.
    fn wire(&self, role: Role, channel: &str, max_concurrent: u32, window: u32) -> Wire {
        let hello = corelay::protocol::Hello { window, ..hello(role, channel, max_concurrent) };
        Wire::secure(self.secure, connection(&self.pki, None)).greet(&hello)
    }
}

fn connection(pki: &Pki, identity: Option<&(PathBuf, PathBuf)>) -> ClientConnection {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots(&pki.ca()).unwrap());
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, file)) => builder.with_client_auth_cert(certificates(cert).unwrap(), key(file).unwrap()).unwrap(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

fn everywhere(limits: &Limits, mutual: bool, test: impl Fn(&Broker)) {
    let start = |io, cores| Broker::start(io, cores, limits.clone(), mutual);
    crate::everywhere::everywhere(start, |broker| {
        test(&broker);
        broker.server.stop().unwrap();
    });
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future);
}

/// A provider that answers each request with its own body.
async fn echo(addr: &str, channel: &str, options: Options) -> Provider {
    let provider = Provider::connect_with(addr, channel, 64, options).await.unwrap();
    let serving = provider.clone();
    tokio::spawn(async move {
        let handler = |mut request: Request| async move {
            let body = request.bytes().await?;
            request.respond(body).await
        };
        serving.serve(64, handler).await
    });
    provider
}

#[test]
fn large_bodies_and_many_small_requests_come_back_whole() {
    everywhere(&Limits::default(), false, |broker| {
        run(async {
            // one side with TLS, or both
            let plain = broker.plain.to_string();
            let (url, trusting) = (broker.url(), broker.trusting());
            let body = noise(6 << 20);
            for (provider, consumer) in [(&url, &url), (&plain, &url), (&url, &plain)] {
                let provider = echo(provider, "echo", trusting.clone()).await;
                let consumer = Consumer::connect_with(consumer.as_str(), "echo", trusting.clone()).await.unwrap();
                let answer = consumer.send(body.clone(), SOON).await.unwrap().bytes().await.unwrap();
                assert!(answer == body, "the body came back changed");
                let small = (0..500u32).map(|n| {
                    let consumer = consumer.clone();
                    tokio::spawn(async move {
                        let text = format!("request {n}");
                        let answer = consumer.send(text.clone(), SOON).await.unwrap().bytes().await.unwrap();
                        assert_eq!(answer, text);
                    })
                });
                for request in small.collect::<Vec<_>>() {
                    request.await.unwrap();
                }
                consumer.close().await;
                provider.close().await;
            }
        });
        let figures = broker.figures();
        assert_eq!((figures.opened, figures.failed, figures.broken), (4, 0, 0), "{figures:?}");
    });
}

/// What a slow reader has not taken is held for it, within bounds, and arrives whole.
#[test]
fn a_full_socket_loses_nothing() {
    everywhere(&Limits::default(), false, |broker| {
        let data = noise(12 << 20);
        let mut provider = broker.wire(Role::Provider, "slow", 1, 64 * 1024);
        let mut consumer = broker.wire(Role::Consumer, "slow", 0, 1 << 30);
        consumer.request(1, 1, b"give", Flags::NONE);
        let stream = provider.expect(FrameType::Request).stream;
        let sent = data.clone();
        let sending = std::thread::spawn(move || {
            let (mut at, mut kind, mut credit) = (0, FrameType::Response, provider.window() as usize);
            while at < sent.len() {
                while credit == 0 {
                    credit += provider.expect(FrameType::Credit).arg as usize;
                }
                let n = credit.min(50_001).min(sent.len() - at);
                let end = Flags::END.only_if(at + n == sent.len());
                provider.send(Header::new(kind, stream).flags(end), &sent[at..at + n]);
                (at, kind, credit) = (at + n, FrameType::Data, credit - n);
            }
            provider
        });
        // the consumer's socket is full by now: more than kernel and broker hold between them is under way
        eventually("the broker to be held up", || {
            broker.connections().iter().any(|conn| conn.role == "consumer" && conn.pending > 0)
        });
        let first = consumer.next_past_credit();
        assert_eq!(first.kind, FrameType::Response);
        assert!(consumer.body(first) == data, "the answer arrived changed");
        drop(sending.join().unwrap());
        eventually("all memory to be given back", || {
            broker.ask(|view| view.figures().core.held).iter().sum::<usize>() == 0
        });
    });
}

#[test]
fn a_session_is_gone_on_with() {
    everywhere(&Limits::default(), true, |broker| {
        run(async {
            let shop = broker.showing(broker.pki.client("shop"));
            let _provider = echo(&broker.url(), "echo", shop.clone()).await;
            let pool = corelay::client::ConsumerPool::connect_with(broker.url(), "echo", 3, shop).await.unwrap();
            let answer = pool.get().send("again", SOON).await.unwrap().bytes().await.unwrap();
            assert_eq!(answer, "again");
            // a ticket says who it was given to
            let known = broker.connections();
            assert!(known.len() == 4 && known.iter().all(|conn| conn.info.identity.as_deref() == Some("shop")));
        });
        let figures = broker.figures();
        assert!(figures.opened == 4 && figures.resumed >= 1, "{figures:?}");
    });
}

#[test]
fn certificates_are_asked_for_and_looked_at() {
    everywhere(&Limits::default(), true, |broker| {
        let stranger = Pki::new();
        run(async {
            let url = broker.url();
            let refused = async |options: Options| {
                let error = Consumer::connect_with(url.as_str(), "echo", options).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Connection, "{error}");
            };
            refused(broker.trusting()).await;
            refused(broker.showing(stranger.client("stranger"))).await;
            refused(broker.showing(broker.pki.expired("late"))).await;
            let failed = broker.figures().failed;
            assert_eq!(failed, 3);

            let _provider = echo(&url, "echo", broker.showing(broker.pki.client("worker"))).await;
            let consumer = Consumer::connect_with(url.as_str(), "echo", broker.showing(broker.pki.client("shop")));
            let consumer = consumer.await.unwrap();
            assert_eq!(consumer.send("hello", SOON).await.unwrap().bytes().await.unwrap(), "hello");
            let mut known: Vec<_> =
                broker.connections().into_iter().map(|conn| (conn.role, conn.info.identity)).collect();
            known.sort();
            let expected = [("consumer", Some("shop".into())), ("provider", Some("worker".into()))];
            assert_eq!(known, expected);
        });
    });
}

/// An entry for the certificate with this name.
fn named(name: &str, allow: &str) -> Entry {
    Entry { identity: Some(name.into()), allow: vec![allow.parse().unwrap()], ..Entry::new(name) }
}

#[test]
fn rules_hold_for_the_name_in_a_certificate() {
    let (shop, worker) = (named("shop", "consume:echo"), named("worker", "provide:echo"));
    everywhere(&Limits::default(), true, |broker| {
        broker.reload_auth(vec![shop.clone(), worker.clone()]);
        run(async {
            let url = broker.url();
            let _provider = echo(&url, "echo", broker.showing(broker.pki.client("worker"))).await;
            let quick = broker.showing(broker.pki.client("shop"));
            let quick = quick.backoff(Duration::from_millis(1), Duration::from_millis(50));
            let consumer = Consumer::connect_with(url.as_str(), "echo", quick).await.unwrap();
            assert_eq!(consumer.send("hello", SOON).await.unwrap().bytes().await.unwrap(), "hello");
            // a name nobody knows, one with another right, and none, of the same CA or without TLS
            for name in ["desk", "worker"] {
                let options = broker.showing(broker.pki.client(name));
                let error = Consumer::connect_with(url.as_str(), "echo", options).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Unauthorized, "{name}: {error}");
            }
            let plain = Consumer::connect_with(broker.plain.to_string(), "echo", Options::default());
            assert_eq!(plain.await.unwrap_err().kind, ErrorKind::Unauthorized);
            // those that were refused may be on their way out
            let in_session = |conn: &ConnSnapshot| conn.role != "handshake";
            let known = broker.connections().into_iter().filter(in_session);
            let mut known: Vec<_> = known.map(|conn| (conn.role, conn.info.user)).collect();
            known.sort();
            assert_eq!(known, [("consumer", Some("shop".into())), ("provider", Some("worker".into()))]);
            // the session is held against the new list by the name it was opened with
            broker.reload_auth(vec![shop.clone(), worker.clone(), named("desk", "consume:echo")]);
            assert_eq!(broker.connections().iter().filter(|conn| in_session(conn)).count(), 2);
            broker.reload_auth(vec![worker.clone()]);
            let error = loop {
                match consumer.send("?", SOON).await {
                    // what was under way when its connection ended
                    Err(error) if error.kind != ErrorKind::Connection => break error,
                    Err(_) => {}
                    Ok(_) => panic!("answered, without a right"),
                }
            };
            assert_eq!(error.kind, ErrorKind::Unauthorized, "{error}");
            assert!(broker.connections().iter().any(|conn| conn.role == "provider"), "it lost no right");
        });
    });
}

#[test]
fn the_client_looks_at_the_brokers_certificate() {
    let broker = Broker::start(Io::Auto, 1, Limits::default(), false).unwrap();
    let other = Pki::new();
    run(async {
        let connect = async |tls: Tls| Consumer::connect_with(broker.url(), "c", Options::default().tls(tls)).await;
        let trusted = Tls::default().ca(broker.pki.ca());
        for (tls, said) in [
            (Tls::default().ca(other.ca()), "is not of a CA trusted here"),
            (trusted.clone().server_name("elsewhere.example"), "is for another name"),
        ] {
            let error = connect(tls).await.unwrap_err();
            assert!(error.kind == ErrorKind::Connection && error.text().contains(said), "{error}");
        }
        for (tls, said) in [
            (Tls::default().ca("/nowhere/ca.pem"), "/nowhere/ca.pem"),
            (trusted.clone().identity(broker.pki.ca(), "/nowhere/key.pem"), "/nowhere/key.pem"),
            (trusted.clone().server_name("not a name"), "is no server name"),
        ] {
            let error = connect(tls).await.unwrap_err();
            assert!(error.kind == ErrorKind::InvalidInput && error.text().contains(said), "{error}");
        }
        connect(trusted.server_name("localhost")).await.unwrap();
        connect(Tls::default().danger_accept_any_server(true)).await.unwrap();
    });
}

#[test]
fn tls_and_none_are_told_apart() {
    everywhere(&Limits::default(), false, |broker| {
        // plain bytes where TLS is spoken: a fatal alert, and the end
        let mut frame = Vec::new();
        hello(Role::Consumer, "c", 0).encode(&mut frame).unwrap();
        let mut plain = Wire::raw(broker.secure);
        plain.write(&frame);
        assert_eq!(plain.rest()[0], 21);
        eventually("it to be counted", || broker.figures().failed == 1);
        // and the other way round
        run(async {
            let url = format!("tls://{}", broker.plain);
            let error = Consumer::connect_with(url, "c", broker.trusting()).await.unwrap_err();
            assert!(error.kind == ErrorKind::Connection, "{error}");
            assert!(error.text().contains("seems not to speak TLS"), "{error}");
        });
    });
}

#[test]
fn a_stalled_handshake_is_ended() {
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    everywhere(&limits, false, |broker| {
        let mut first = Vec::new();
        connection(&broker.pki, None).write_tls(&mut first).unwrap();
        // not a word; half of the first message; all of it, and then nothing; all, and no HELLO
        let mut stalled: Vec<TcpStream> =
            [&[][..], &first[..first.len() / 2], &first].map(|bytes| open(broker.secure, bytes)).into();
        for socket in &mut stalled {
            let _ = socket.read_to_end(&mut Vec::new());
        }
        eventually("them to be counted", || broker.figures().failed == 3);
        let mut silent = Wire::secure(broker.secure, connection(&broker.pki, None));
        silent.write(&[]);
        let error = silent.expect(FrameType::Error);
        assert!(String::from_utf8_lossy(&error.payload).contains("handshake_timeout"));
        silent.expect_closed();
        let figures = broker.figures();
        assert_eq!((figures.opened, figures.failed), (1, 3));
    });
}

fn open(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.write_all(bytes).unwrap();
    socket
}

#[test]
fn certificates_are_renewed_under_open_sessions() {
    everywhere(&Limits::default(), false, |broker| {
        let next = Pki::new();
        run(async {
            let url = broker.url();
            let _provider = echo(&url, "echo", broker.trusting()).await;
            let old = Consumer::connect_with(url.as_str(), "echo", broker.trusting()).await.unwrap();
            let ask = async |consumer: &Consumer| {
                assert_eq!(consumer.send("still", SOON).await.unwrap().bytes().await.unwrap(), "still");
            };
            ask(&old).await;
            let (cert, key) = next.server("server");
            std::fs::copy(cert, broker.pki.path("server.pem")).unwrap();
            // the new certificate with the old key: refused, and all stays
            assert!(broker.server.reload_tls().unwrap_err().to_string().contains("one pair"));
            Consumer::connect_with(url.as_str(), "echo", broker.trusting()).await.unwrap();
            std::fs::copy(key, broker.pki.path("server.key")).unwrap();
            broker.server.reload_tls().unwrap();
            ask(&old).await;
            let refused = Consumer::connect_with(url.as_str(), "echo", broker.trusting()).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Connection);
            let trusting = Options::default().tls(Tls::default().ca(next.ca()));
            ask(&Consumer::connect_with(url.as_str(), "echo", trusting).await.unwrap()).await;
        });
    });
}

#[test]
fn a_connection_that_breaks_off_is_counted() {
    everywhere(&Limits::default(), false, |broker| {
        let mut provider = broker.wire(Role::Provider, "c", 1, 64 * 1024);
        let mut consumer = broker.wire(Role::Consumer, "c", 0, 64 * 1024);
        consumer.request(1, 1, b"x", Flags::NONE);
        provider.expect(FrameType::Request);
        // the process is gone: its kernel sends a FIN, and nobody says close_notify
        drop(provider);
        consumer.expect_error(1, corelay::protocol::Code::ProviderLost);
        eventually("it to be counted", || broker.figures().truncated == 1);
    });
}

/// HELLO in as many records as it has bytes, and with all of the handshake behind it: it moves whole.
#[test]
fn a_hello_in_many_records_finds_its_core() {
    everywhere(&Limits::default(), false, |broker| {
        let mut _open = Vec::new();
        for n in 0..8 {
            let channel = format!("channel {n}");
            let mut frame = Vec::new();
            hello(Role::Provider, &channel, 1).encode(&mut frame).unwrap();
            let mut wire = Wire::secure(broker.secure, connection(&broker.pki, None));
            for byte in &frame {
                wire.write(&[*byte]);
            }
            assert_eq!(wire.expect(FrameType::Welcome).payload[0], corelay::protocol::VERSION);
            let mut consumer = broker.wire(Role::Consumer, &channel, 0, 64 * 1024);
            consumer.request(1, 1, b"there", Flags::NONE);
            let request = wire.expect(FrameType::Request);
            wire.respond(request.stream, b"here");
            assert_eq!(consumer.expect(FrameType::Response).payload, b"here");
            _open.push((wire, consumer));
        }
        assert_eq!(broker.figures().failed, 0);
    });
}

//! Traces: from a request's `traceparent` to a collector, which a small server of the test's own stands for.

use std::sync::mpsc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use corelay::Server;
use corelay::broker::{Cores, ServerOptions, spans};
use corelay::protocol::{Flags, FrameType, Header, TraceParent, encode_headers};
use corelay::telemetry::otlp::Exporter;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

use crate::wire::Wire;

/// Nothing takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(30);
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Takes what is exported, and answers with this status.
fn collector(status: StatusCode) -> (String, mpsc::Receiver<(HeaderMap, Bytes)>) {
    let (sender, received) = mpsc::channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let take = post(async move |headers: HeaderMap, body: Bytes| {
                let _ = sender.send((headers, body));
                status
            });
            let router = axum::Router::new().route("/v1/traces", take);
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (url, received)
}

fn broker(sink: corelay::broker::SpanSink) -> Server {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let options = ServerOptions { listen, cores: Cores::Count(2), pin: false, buffers: 64, ..ServerOptions::default() };
    Server::builder().options(options).spans(Some(sink)).start().unwrap()
}

fn request(server: &Server, traceparent: &str) {
    let mut provider = Wire::provider(server.addr(), "orders", 1);
    let mut consumer = Wire::consumer(server.addr(), "orders");
    let mut payload = [9; 16].to_vec();
    encode_headers([("traceparent", traceparent)], &mut payload).unwrap();
    consumer.send(Header::new(FrameType::Request, 1).flags(Flags::END | Flags::HEADERS), &payload);
    let got = provider.expect(FrameType::Request);
    assert_eq!(got.payload, payload, "the header block goes through untouched");
    provider.respond(got.stream, b"");
    assert_eq!(consumer.next_past_credit().kind, FrameType::Response);
}

fn has(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_recorded_trace_arrives_with_the_requests_span() {
    let (url, received) = collector(StatusCode::OK);
    let (sink, queue) = spans(64);
    let exporter = Exporter::start(&url, "broker-7", queue).unwrap();
    let server = broker(sink);
    request(&server, UNSAMPLED);
    request(&server, SAMPLED);
    let (headers, body) = received.recv_timeout(PATIENCE).expect("an export");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let (sampled, unsampled) = [SAMPLED, UNSAMPLED].map(|text| TraceParent::parse(text.as_bytes()).unwrap()).into();
    assert!(has(&body, sampled.trace().as_bytes()), "the trace id");
    assert!(has(&body, &sampled.span()), "the parent's id");
    assert!(!has(&body, unsampled.trace().as_bytes()), "a trace that nobody records");
    for part in ["corelay.request", "09090909-0909-0909-0909-090909090909", "answered", "broker-7"] {
        assert!(has(&body, part.as_bytes()), "{part}");
    }
    server.kill();
    server.join().unwrap();
    let exported = exporter.exported();
    exporter.join();
    assert_eq!((exported.sent(), exported.failed()), (1, 0));
}

#[test]
fn what_the_collector_refuses_is_counted_and_hurts_nobody() {
    let (url, _received) = collector(StatusCode::BAD_REQUEST);
    let (sink, queue) = spans(64);
    let exporter = Exporter::start(&url, "corelay", queue).unwrap();
    let server = broker(sink);
    request(&server, SAMPLED);
    request(&server, SAMPLED);
    server.kill();
    server.join().unwrap();
    let exported = exporter.exported();
    exporter.join();
    assert_eq!((exported.sent(), exported.failed()), (0, 2));
}

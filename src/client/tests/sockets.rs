//! The same over real sockets.

use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::super::dial::Io;
use super::super::{Consumer, ErrorKind, Provider};
use super::wire::{Wire, welcome};
use crate::protocol::{FrameType, Header, Role};

const SOON: Duration = Duration::from_secs(10);

/// One consumer's and one provider's handshake, in either order, then a request.
async fn serve(first: impl Io, second: impl Io) {
    let (mut consumer, mut provider) = (Wire::over(first), Wire::over(second));
    if consumer.hello().await.role == Role::Provider {
        std::mem::swap(&mut consumer, &mut provider);
        consumer.hello().await;
    } else {
        provider.hello().await;
    }
    consumer.welcome(welcome()).await;
    provider.welcome(welcome()).await;
    let request = consumer.expect(FrameType::Request).await;
    provider.request(1, SOON, request.body()).await;
    let response = provider.expect(FrameType::Response).await;
    consumer.respond(request.stream(), &response.payload).await;
    while consumer.next().await.is_some() {}
    drop(consumer);
    while let Some(frame) = provider.next().await {
        if frame.kind() == FrameType::Ping {
            let pong = Header::new(FrameType::Pong, 0);
            provider.send(pong, &frame.payload).await;
        }
    }
}

async fn round_trip(addr: &str) {
    let (consumer, provider) = tokio::join!(Consumer::connect(addr, "x"), Provider::connect(addr, "x", 1));
    let (consumer, provider) = (consumer.unwrap(), provider.unwrap());
    let (response, ()) = tokio::join!(consumer.send("two apples", SOON), async {
        let mut request = provider.receive().await.unwrap();
        let body = request.bytes().await.unwrap();
        request.respond(body.to_ascii_uppercase()).await.unwrap();
    });
    assert_eq!(response.unwrap().bytes().await.unwrap(), "TWO APPLES");
    consumer.drain(SOON).await.unwrap();
    provider.drain(SOON).await.unwrap();
}

#[tokio::test]
async fn over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let broker = async {
        let (first, _) = listener.accept().await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        serve(first, second).await;
    };
    tokio::join!(broker, round_trip(&addr));
}

#[tokio::test]
async fn over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let broker = async {
        let (first, _) = listener.accept().await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        serve(first, second).await;
    };
    let addr = format!("unix:{}", path.display());
    tokio::join!(broker, round_trip(&addr));
}

#[tokio::test]
async fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = Consumer::connect(format!("127.0.0.1:{port}"), "x").await.unwrap_err();
    assert_eq!((error.kind, error.may_have_started()), (ErrorKind::Connection, false));
}

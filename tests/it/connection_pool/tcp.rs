//! Plain TCP: what can be known without a protocol.

use corelay::toolkit::connection_pool::{CloseReason, Error, Options, Pool, TcpFactory};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test]
async fn connections_are_reused_and_the_unfit_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = Pool::new(TcpFactory::new(listener.local_addr().unwrap().to_string()), Options::default()).unwrap();
    let mut conn = pool.get().await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    conn.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    peer.read_exact(&mut got).await.unwrap();
    drop(conn);
    let conn = pool.get().await.unwrap();
    assert_eq!((pool.stats().created, pool.stats().idle), (1, 0));
    // an answer nobody waits for: the next user must not take it for its own
    peer.write_all(b"late").await.unwrap();
    conn.readable().await.unwrap();
    drop(conn);
    assert_eq!((pool.stats().idle, pool.stats().closed.by(CloseReason::Broken)), (0, 1));
    // closed by the other side while in use
    let conn = pool.get().await.unwrap();
    drop(listener.accept().await.unwrap());
    conn.readable().await.unwrap();
    drop(conn);
    assert_eq!((pool.stats().open, pool.stats().closed.by(CloseReason::Broken)), (0, 2));
}

#[tokio::test]
async fn nobody_listening_is_an_error_that_says_so() {
    let port = crate::servers::free_port();
    let options = Options { create_retries: 1, backoff_min: std::time::Duration::from_millis(1), ..Options::default() };
    let pool = Pool::new(TcpFactory::new(format!("127.0.0.1:{port}")), options).unwrap();
    let error = pool.get().await.unwrap_err();
    let Error::Create { attempts: 2, source } = error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
}

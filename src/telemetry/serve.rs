//! HTTP on the admin thread: accepting, and bounds on those who come.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::Extras;
use super::guard::Encrypted;
use super::history;
use super::routes::router;
use super::state::State;
use crate::broker::{Inspector, ListenAddr, Listener};
use crate::tls::Acceptor;

/// Connections served at once; more wait in the kernel. A browser opens six.
const CONNECTIONS: usize = 64;
/// From a connection's first byte, or the answer before, to the next request's last header.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection lasts at most: nobody keeps a place for ever.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long those who are being answered when it stops have for the rest of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long accepting rests when descriptors ran out.
const REST: Duration = Duration::from_millis(100);

/// The listening socket.
pub(super) enum Sockets {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Sockets {
    pub(super) fn new(listener: Listener) -> io::Result<Sockets> {
        let fd = listener.duplicate()?;
        Ok(match listener.addr() {
            ListenAddr::Tcp(_) | ListenAddr::Tls(_) => Sockets::Tcp(fd.into()),
            ListenAddr::Unix(_) => Sockets::Unix(fd.into()),
        })
    }
}

/// Serves until told to stop.
pub(super) async fn run(
    sockets: Sockets,
    tls: Option<Acceptor>,
    inspector: Inspector,
    extras: Extras,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let state = Arc::new(State::new(inspector, extras));
    let router = router(Arc::clone(&state));
    let serve = async {
        match sockets {
            Sockets::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                serve(router, tls.as_ref(), stop, async || listener.accept().await.map(|(stream, _)| stream)).await;
            }
            Sockets::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                serve(router, None, stop, async || listener.accept().await.map(|(stream, _)| stream)).await;
            }
        }
        Ok(())
    };
    tokio::select! {
        result = serve => result,
        () = history::keep(state) => Ok(()),
    }
}

/// Serves whom `next` gives until told to stop; who is being answered then gets the rest of it.
async fn serve<S>(
    router: Router,
    tls: Option<&Acceptor>,
    mut stop: watch::Receiver<bool>,
    next: impl AsyncFn() -> io::Result<S>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let stopped = stop.clone();
    let accept = async {
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
            let stream = match next().await {
                Ok(stream) => stream,
                Err(error) => {
                    debug!(%error, "accepting rests");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let (router, stopped) = (router.clone(), stopped.clone());
            let tls = tls.map(|tls| TlsAcceptor::from(tls.config()));
            tokio::spawn(async move {
                match tls {
                    None => connection(stream, router, stopped).await,
                    Some(tls) => encrypted(stream, tls, router, stopped).await,
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    let _ = tokio::time::timeout(FAREWELL, places.acquire_many(CONNECTIONS as u32)).await;
}

async fn encrypted<S>(stream: S, tls: TlsAcceptor, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(HEADERS_WITHIN, tls.accept(stream)) => handshake,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    match handshake {
        Ok(Ok(stream)) => connection(stream, router.layer(Extension(Encrypted)), stop).await,
        Ok(Err(error)) => debug!(%error, "a TLS handshake of an admin connection failed"),
        Err(_) => debug!("a TLS handshake of an admin connection took too long"),
    }
}

async fn connection<S>(stream: S, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let until_end = async {
        tokio::select! {
            result = connection.as_mut() => return result,
            _ = stop.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    if let Ok(Err(error)) = tokio::time::timeout(LIFETIME, until_end).await {
        debug!(%error, "an admin connection failed");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::{Mutex, mpsc};
    use tokio::time::{Instant, sleep};

    use super::*;

    async fn ask(stream: &mut DuplexStream, path: &str) {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    }

    async fn rest(stream: &mut DuplexStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_being_answered_when_it_stops_gets_the_rest_of_it() {
        let (stop, stopped) = watch::channel(false);
        let stop = Arc::new(stop);
        let route = Router::new()
            .route(
                "/stop",
                get(async move || {
                    stop.send_replace(true);
                    sleep(FAREWELL / 2).await;
                    "stopping"
                }),
            )
            .route("/long", get(async || sleep(LIFETIME).await))
            .route("/", get(async || "here"));
        let (connects, connected) = mpsc::channel(3);
        let (connected, began) = (Mutex::new(connected), Instant::now());
        let next = async || connected.lock().await.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into());
        let connect = || {
            let (client, server) = duplex(4096);
            connects.try_send(server).unwrap();
            client
        };
        let (mut idle, mut long, mut stops) = (connect(), connect(), connect());
        let clients = async {
            ask(&mut idle, "/").await;
            let mut head = [0; 15];
            idle.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 OK");
            ask(&mut long, "/long").await;
            ask(&mut stops, "/stop").await;
            assert!(rest(&mut stops).await.ends_with("stopping"));
            // who asks for nothing is sent away at once
            assert!(rest(&mut idle).await.ends_with("here"));
            assert_eq!(began.elapsed(), FAREWELL / 2);
        };
        tokio::join!(serve(route, None, stopped, next), clients);
        // and nobody is waited for much longer
        assert_eq!(began.elapsed(), FAREWELL);
    }
}

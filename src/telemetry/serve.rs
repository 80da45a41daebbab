//! HTTP on the admin thread: accepting, and bounds on those who come.

use std::io;
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
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let state = Arc::new(State::new(inspector, extras));
    let serve = async {
        match sockets {
            Sockets::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                accept(&state, tls.as_ref(), async || listener.accept().await.map(|(stream, _)| stream)).await
            }
            Sockets::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                accept(&state, None, async || listener.accept().await.map(|(stream, _)| stream)).await
            }
        }
    };
    tokio::select! {
        result = serve => result,
        () = history::keep(Arc::clone(&state)) => Ok(()),
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    }
}

async fn accept<S>(state: &Arc<State>, tls: Option<&Acceptor>, next: impl AsyncFn() -> io::Result<S>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router(Arc::clone(state));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
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
        let router = router.clone();
        let tls = tls.map(|tls| TlsAcceptor::from(tls.config()));
        tokio::spawn(async move {
            match tls {
                None => connection(stream, router).await,
                Some(tls) => match tokio::time::timeout(HEADERS_WITHIN, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, router.layer(Extension(Encrypted))).await,
                    Ok(Err(error)) => debug!(%error, "a TLS handshake of an admin connection failed"),
                    Err(_) => debug!("a TLS handshake of an admin connection took too long"),
                },
            }
            drop(place);
        });
    }
}

async fn connection<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Ok(Err(error)) = tokio::time::timeout(LIFETIME, connection).await {
        debug!(%error, "an admin connection failed");
    }
}

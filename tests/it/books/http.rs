//! HTTP/1.1, by hyper's server.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::served::{Served, Service};
use super::{goes_wrong, number_of_whole};
use crate::servers::free_port;

/// Keeps what is posted, then says 204.
struct Hook {
    addr: SocketAddr,
    posted: Arc<Mutex<Vec<u32>>>,
    listening: Option<JoinHandle<()>>,
}

async fn keep(posted: Arc<Mutex<Vec<u32>>>, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = match request.into_body().collect().await {
        Ok(body) => {
            posted.lock().unwrap().push(number_of_whole(&body.to_bytes()));
            StatusCode::NO_CONTENT
        }
        // cut short
        Err(_) => StatusCode::BAD_REQUEST,
    };
    Ok(response)
}

impl Hook {
    async fn served() -> Option<Served<Hook>> {
        let addr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let mut hook = Hook { addr, posted: Arc::default(), listening: None };
        hook.restart().await;
        Some(Served::new(hook).await)
    }
}

impl Service for Hook {
    const TWICE: bool = true;

    fn port(&self) -> u16 {
        self.addr.port()
    }

    fn url(&self, port: u16, timeout: Duration) -> String {
        format!("http://127.0.0.1:{port}/hook?send_timeout={}s", timeout.as_secs())
    }

    async fn kill(&mut self) {
        // with it all its connections end
        let Some(listening) = self.listening.take() else { return };
        listening.abort();
        let _ = listening.await;
    }

    async fn restart(&mut self) {
        let listener = TcpListener::bind(self.addr).await.unwrap();
        let posted = self.posted.clone();
        self.listening = Some(tokio::spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((conn, _)) = listener.accept().await {
                let posted = posted.clone();
                let service = service_fn(move |request| keep(posted.clone(), request));
                all.spawn(async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(conn), service).await;
                });
            }
        }));
    }

    async fn arrived(&mut self) -> Vec<u32> {
        self.posted.lock().unwrap().clone()
    }
}

goes_wrong!(Hook::served(), Hook::served(), 3);

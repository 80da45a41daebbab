//! What stands between a program and a server all tests share, and goes down where the server may not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What it does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// Nobody listens, and what was connected is cut.
    Down,
    /// Takes connections and moves nothing.
    Frozen,
}

/// A relay of TCP connections to one server.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    server: SocketAddr,
    state: watch::Sender<State>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Up from the start.
    pub async fn start(server: SocketAddr) -> Arc<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, super::free_port())).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy { port, server, state: watch::Sender::new(State::Up), listener: Mutex::default() };
        proxy.listen(listener);
        Arc::new(proxy)
    }

    fn listen(&self, listener: TcpListener) {
        let (server, state) = (self.server, self.state.clone());
        let task = tokio::spawn(async move {
            while let Ok((conn, _)) = listener.accept().await {
                tokio::spawn(relay(conn, server, state.subscribe()));
            }
        });
        *self.listener.lock().unwrap() = Some(task);
    }

    pub async fn go_down(&self) {
        let listener = self.listener.lock().unwrap().take();
        if let Some(task) = listener {
            task.abort();
            let _ = task.await;
        }
        self.state.send_replace(State::Down);
    }

    pub async fn come_up(&self) {
        self.state.send_replace(State::Up);
        if self.listener.lock().unwrap().is_some() {
            return;
        }
        let listener = loop {
            // what was cut may hold the port for a moment
            match TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.listen(listener);
    }

    pub fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    pub fn thaw(&self) {
        self.state.send_replace(State::Up);
    }
}

async fn relay(conn: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>) {
    let Ok(to) = TcpStream::connect(server).await else { return };
    let ((reads, writes), (server_reads, server_writes)) = (conn.into_split(), to.into_split());
    tokio::select! {
        () = pump(reads, server_writes, state.clone()) => {}
        () = pump(server_reads, writes, state.clone()) => {}
        _ = state.wait_for(|state| *state == State::Down) => {}
    }
}

/// Nothing is lost by freezing.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if state.wait_for(|state| *state != State::Frozen).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

//! What stands between a program and a server, and does to their connections what a bad network does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What is moved at once at a slow pace, and how long that takes: 1 KB/s.
const SLICE: usize = 64;
const SLICE_TAKES: Duration = Duration::from_micros(62_500);

/// What it does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// Nobody listens, and what was connected is cut.
    Down,
    /// Takes connections and moves nothing.
    Frozen,
    /// Moves 1 KB/s to the server.
    Slow,
}

/// How bytes get to a server.
#[derive(Debug)]
pub struct Line {
    state: watch::Sender<State>,
    moved: AtomicU64,
    left: Mutex<Option<usize>>,
    cuts: AtomicU64,
}

impl Default for Line {
    fn default() -> Line {
        let state = watch::Sender::new(State::Up);
        Line { state, moved: AtomicU64::default(), left: Mutex::default(), cuts: AtomicU64::default() }
    }
}

impl Line {
    /// 1 KB/s, or as fast as it goes.
    pub fn slow(&self, is_slow: bool) {
        self.state.send_replace(if is_slow { State::Slow } else { State::Up });
    }

    /// Bytes moved so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(SeqCst)
    }

    /// The connection that brings the last of so many more bytes is cut behind it.
    pub fn cut_after(&self, bytes: usize) {
        *self.left.lock().unwrap() = Some(bytes);
    }

    /// How often that has happened.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(SeqCst)
    }

    /// How many of so many bytes may go on now; `None`: none ever.
    pub async fn admit(&self, bytes: usize) -> Option<usize> {
        let mut state = self.state.subscribe();
        let now = *state.wait_for(|state| *state != State::Frozen).await.ok()?;
        let left = self.left.lock().unwrap().unwrap_or(usize::MAX);
        Some(if now == State::Slow { bytes.min(SLICE) } else { bytes }.min(left))
    }

    /// So many have gone on, which takes its time. `false`: the connection is cut here.
    pub async fn went(&self, bytes: usize) -> bool {
        self.moved.fetch_add(bytes as u64, SeqCst);
        {
            let mut left = self.left.lock().unwrap();
            *left = left.map(|left| left.saturating_sub(bytes));
            if *left == Some(0) {
                *left = None;
                self.cuts.fetch_add(1, SeqCst);
                return false;
            }
        }
        let mut state = self.state.subscribe();
        if *state.borrow_and_update() == State::Slow {
            // or until it's slow no more
            let _ = timeout(SLICE_TAKES, state.wait_for(|state| *state != State::Slow)).await;
        }
        true
    }
}

/// A relay of TCP connections to one server.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    pub line: Arc<Line>,
    server: SocketAddr,
    /// Connections there are.
    relays: Arc<AtomicUsize>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Up from the start.
    pub async fn start(server: SocketAddr) -> Arc<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, super::free_port())).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (line, relays) = (Arc::default(), Arc::default());
        let proxy = Proxy { port, line, server, relays, listener: Mutex::default() };
        proxy.listen(listener);
        Arc::new(proxy)
    }

    fn listen(&self, listener: TcpListener) {
        let (server, line, relays) = (self.server, self.line.clone(), self.relays.clone());
        let task = tokio::spawn(async move {
            while let Ok((conn, _)) = listener.accept().await {
                relays.fetch_add(1, SeqCst);
                let (line, relays) = (line.clone(), relays.clone());
                tokio::spawn(async move {
                    relay(conn, server, &line).await;
                    relays.fetch_sub(1, SeqCst);
                });
            }
        });
        *self.listener.lock().unwrap() = Some(task);
    }

    /// When this returns every connection is cut.
    pub async fn go_down(&self) {
        let listener = self.listener.lock().unwrap().take();
        if let Some(task) = listener {
            task.abort();
            let _ = task.await;
        }
        self.line.state.send_replace(State::Down);
        while self.relays.load(SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    }

    pub async fn come_up(&self) {
        self.line.state.send_replace(State::Up);
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
        self.line.state.send_replace(State::Frozen);
    }

    pub fn thaw(&self) {
        self.line.state.send_replace(State::Up);
    }
}

async fn relay(conn: TcpStream, server: SocketAddr, line: &Line) {
    let Ok(to) = TcpStream::connect(server).await else { return };
    let _ = to.set_nodelay(true);
    let ((reads, writes), (server_reads, server_writes)) = (conn.into_split(), to.into_split());
    let mut state = line.state.subscribe();
    tokio::select! {
        () = bring(reads, server_writes, line) => {}
        () = fetch(server_reads, writes, line) => {}
        _ = state.wait_for(|state| *state == State::Down) => {}
    }
}

/// Nothing is lost by freezing.
async fn bring(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: &Line) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let Some(count) = line.admit(rest.len()).await else { return };
            if to.write_all(&rest[..count]).await.is_err() || !line.went(count).await {
                return;
            }
            rest = &rest[count..];
        }
    }
}

async fn fetch(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: &Line) {
    let mut state = line.state.subscribe();
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

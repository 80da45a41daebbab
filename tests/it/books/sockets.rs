//! TCP and Unix streams, which promise nothing when a connection breaks but that nothing is cut, doubled or mixed up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};

use super::{Victim, number_of_whole};
use crate::forward::target::len32;
use crate::message_broker::system::until;
use crate::servers::free_port;
use crate::servers::proxy::Line;

#[derive(Clone)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Reads all that comes, and keeps what each connection brought.
struct Sink {
    place: Place,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

#[derive(Default)]
struct Shared {
    streams: Mutex<Vec<Vec<u8>>>,
    ended: AtomicUsize,
    line: Line,
}

/// Counts the end of a connection, whatever brings it about.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, SeqCst);
    }
}

impl Shared {
    /// A connection has come.
    fn serve(self: &Arc<Shared>, all: &mut JoinSet<()>, from: impl AsyncRead + Unpin + Send + 'static) {
        let mut streams = self.streams.lock().unwrap();
        streams.push(Vec::new());
        all.spawn(self.clone().read(streams.len() - 1, from, Ending(self.clone())));
    }

    async fn read(self: Arc<Shared>, stream: usize, mut from: impl AsyncRead + Unpin, _ending: Ending) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let Some(count) = self.line.admit(rest.len()).await else { return };
                self.streams.lock().unwrap()[stream].extend_from_slice(&rest[..count]);
                if !self.line.went(count).await {
                    return;
                }
                rest = &rest[count..];
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.ended.load(SeqCst) == self.streams.lock().unwrap().len()
    }
}

impl Sink {
    async fn new(place: impl FnOnce(&Path) -> Place) -> Option<Sink> {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink { place: place(dir.path()), shared: Arc::default(), listening: None, _dir: dir };
        sink.restart().await;
        Some(sink)
    }

    fn tcp() -> impl Future<Output = Option<Sink>> {
        Sink::new(|_| Place::Tcp((Ipv4Addr::LOCALHOST, free_port()).into()))
    }

    fn unix() -> impl Future<Output = Option<Sink>> {
        Sink::new(|dir| Place::Unix(dir.join("socket")))
    }
}

impl Victim for Sink {
    const TWICE: bool = false;

    fn direct(&self) -> String {
        match &self.place {
            Place::Tcp(addr) => format!("tcp://{addr}"),
            Place::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    fn by_line(&self, _: Duration) -> String {
        self.direct()
    }

    async fn kill(&mut self) {
        // with it all its connections end
        let Some(listening) = self.listening.take() else { return };
        listening.abort();
        let _ = listening.await;
    }

    async fn restart(&mut self) {
        let (shared, mut all) = (self.shared.clone(), JoinSet::new());
        let listening: Pin<Box<dyn Future<Output = ()> + Send>> = match &self.place {
            Place::Tcp(addr) => {
                let listener = TcpListener::bind(addr).await.unwrap();
                Box::pin(async move {
                    while let Ok((from, _)) = listener.accept().await {
                        shared.serve(&mut all, from);
                    }
                })
            }
            Place::Unix(path) => {
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path).unwrap();
                Box::pin(async move {
                    while let Ok((from, _)) = listener.accept().await {
                        shared.serve(&mut all, from);
                    }
                })
            }
        };
        self.listening = Some(tokio::spawn(listening));
    }

    async fn cut_off(&mut self) {
        self.kill().await;
    }

    async fn reconnect(&mut self) {
        self.restart().await;
    }

    fn line(&self) -> &Line {
        &self.shared.line
    }

    async fn arrived(&mut self) -> Vec<u32> {
        until("the ends of all connections", || self.shared.is_quiet()).await;
        let streams = self.shared.streams.lock().unwrap();
        streams.iter().flat_map(|stream| len32(stream)).map(|body| number_of_whole(&body)).collect()
    }
}

mod tcp {
    use super::super::goes_wrong;
    use super::Sink;
    goes_wrong!(Sink::tcp(), Sink::tcp(), 3);
}

mod unix {
    use super::super::goes_wrong;
    use super::Sink;
    goes_wrong!(Sink::unix(), Sink::unix(), 3);
}

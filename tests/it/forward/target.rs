//! Targets on streams: what each connection was sent, and what it does meanwhile.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A connection of either kind.
pub trait Peer: Read + Write + Send + 'static {}
impl<T: Read + Write + Send + 'static> Peer for T {}

/// What was received on one connection.
pub type Log = Arc<Mutex<Vec<u8>>>;

type Behave = Arc<dyn Fn(usize, &mut dyn Peer, &Log) + Send + Sync>;

/// Listens until it is dropped.
pub struct Target {
    pub address: String,
    logs: Arc<Mutex<Vec<Log>>>,
    stop: Arc<AtomicBool>,
    /// Connections that have ended.
    ended: Arc<AtomicUsize>,
    wake: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
}

/// Reads so much, or to the end.
pub fn read(peer: &mut dyn Peer, log: &Log, most: usize) -> usize {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    while total < most {
        let room = buffer.len().min(most - total);
        match peer.read(&mut buffer[..room]) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
            Ok(count) => {
                log.lock().unwrap().extend_from_slice(&buffer[..count]);
                total += count;
            }
        }
    }
    total
}

impl Target {
    /// On a free port: each connection, by its number, does what it's told to, and is closed after that.
    pub fn tcp(behave: impl Fn(usize, &mut dyn Peer, &Log) + Send + Sync + 'static) -> Target {
        Target::tcp_at("127.0.0.1:0".parse().unwrap(), behave)
    }

    pub fn tcp_at(address: SocketAddr, behave: impl Fn(usize, &mut dyn Peer, &Log) + Send + Sync + 'static) -> Target {
        // as std does, with SO_REUSEADDR: a port can be had again at once
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let accept = move || listener.accept().map(|(stream, _)| stream);
        Target::start(address.to_string(), accept, move || drop(TcpStream::connect(address)), behave)
    }

    /// At a path.
    pub fn unix(path: &Path, behave: impl Fn(usize, &mut dyn Peer, &Log) + Send + Sync + 'static) -> Target {
        let listener = UnixListener::bind(path).unwrap();
        let own: PathBuf = path.to_owned();
        let accept = move || listener.accept().map(|(stream, _)| stream);
        Target::start(path.display().to_string(), accept, move || drop(UnixStream::connect(&own)), behave)
    }

    fn start<P: Peer>(
        address: String,
        accept: impl Fn() -> io::Result<P> + Send + 'static,
        wake: impl Fn() + Send + Sync + 'static,
        behave: impl Fn(usize, &mut dyn Peer, &Log) + Send + Sync + 'static,
    ) -> Target {
        let (logs, stop) = (Arc::<Mutex<Vec<Log>>>::default(), Arc::<AtomicBool>::default());
        let (all, stopping, behave): (_, _, Behave) = (Arc::clone(&logs), Arc::clone(&stop), Arc::new(behave));
        let ended = Arc::<AtomicUsize>::default();
        let ending = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            while let Ok(mut peer) = accept() {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let (log, behave) = (Log::default(), Arc::clone(&behave));
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(Arc::clone(&log));
                    all.len() - 1
                };
                let ending = Arc::clone(&ending);
                std::thread::spawn(move || {
                    behave(number, &mut peer, &log);
                    drop(peer);
                    ending.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Target { address, logs, stop, ended, wake: Box::new(wake), thread: Some(thread) }
    }

    pub fn connections(&self) -> usize {
        self.logs.lock().unwrap().len()
    }

    /// How many of them have ended.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether every connection has ended.
    pub fn is_quiet(&self) -> bool {
        self.ended() == self.connections()
    }

    /// Takes no more connections: whoever tries is refused.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            (self.wake)();
            let _ = thread.join();
        }
    }

    /// What each connection was sent.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.logs.lock().unwrap().iter().map(|log| log.lock().unwrap().clone()).collect()
    }

    /// The whole messages of each connection; only its end may be cut short.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        self.received().iter().flat_map(|stream| len32(stream)).collect()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn len32(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((len, rest)) = stream.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        assert!(len < 16 << 20, "{len} is no length: a message began in the middle");
        let Some((message, rest)) = rest.split_at_checked(len) else { break };
        messages.push(message.to_vec());
        stream = rest;
    }
    messages
}

/// A port that nobody listens on, for now.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Reads everything.
pub fn reader(_: usize, peer: &mut dyn Peer, log: &Log) {
    read(peer, log, usize::MAX);
}

/// Long enough for a test, short enough to fail.
pub const DRAIN: Duration = Duration::from_secs(30);

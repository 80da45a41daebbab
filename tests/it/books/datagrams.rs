//! UDP and Unix datagrams: each arrives whole or not at all, and only what nobody could know of is missing.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram};
use tokio::task::JoinHandle;

use super::{Victim, number_of_whole};
use crate::message_broker::system::until;
use crate::servers::free_port;
use crate::servers::proxy::Line;

enum Place {
    Udp(SocketAddr),
    Unix(PathBuf),
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Socket {
    async fn recv(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Socket::Udp(socket) => socket.recv(buffer).await,
            Socket::Unix(socket) => socket.recv(buffer).await,
        }
    }
}

/// Keeps the number of each datagram.
struct Mailbox {
    place: Place,
    got: Arc<Mutex<Vec<u32>>>,
    line: Arc<Line>,
    reading: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Mailbox {
    async fn at(place: impl FnOnce(PathBuf) -> Place) -> Option<Mailbox> {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path().join("socket"));
        let mut target = Mailbox { place, got: Arc::default(), line: Arc::default(), reading: None, _dir: dir };
        target.restart().await;
        Some(target)
    }

    fn udp() -> impl Future<Output = Option<Mailbox>> {
        Mailbox::at(|_| Place::Udp((Ipv4Addr::LOCALHOST, free_port()).into()))
    }

    fn unix() -> impl Future<Output = Option<Mailbox>> {
        Mailbox::at(Place::Unix)
    }
}

impl Victim for Mailbox {
    const TWICE: bool = false;

    fn direct(&self) -> String {
        match &self.place {
            Place::Udp(addr) => format!("udp://{addr}"),
            Place::Unix(path) => format!("unix://{}?type=datagram", path.display()),
        }
    }

    fn by_line(&self, _: Duration) -> String {
        self.direct()
    }

    async fn kill(&mut self) {
        let Some(reading) = self.reading.take() else { return };
        reading.abort();
        let _ = reading.await;
    }

    async fn restart(&mut self) {
        let socket = match &self.place {
            Place::Udp(addr) => Socket::Udp(UdpSocket::bind(addr).await.unwrap()),
            Place::Unix(path) => {
                let _ = std::fs::remove_file(path);
                Socket::Unix(UnixDatagram::bind(path).unwrap())
            }
        };
        let (got, line) = (self.got.clone(), self.line.clone());
        self.reading = Some(tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let mut passed = 0;
                while passed < length {
                    let count = line.admit(length - passed).await.unwrap();
                    line.went(count).await;
                    passed += count;
                }
                got.lock().unwrap().push(number_of_whole(&buffer[..length]));
            }
        }));
    }

    async fn cut_off(&mut self) {
        self.kill().await;
    }

    async fn reconnect(&mut self) {
        self.restart().await;
    }

    fn line(&self) -> &Line {
        &self.line
    }

    async fn arrived(&mut self) -> Vec<u32> {
        // nobody says when a datagram was the last: one from here that comes behind them all
        let count = || self.got.lock().unwrap().len();
        let last = count();
        let mark = super::message(0).body;
        match &self.place {
            Place::Udp(addr) => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                socket.send_to(&mark, addr).await.unwrap();
            }
            Place::Unix(path) => drop(UnixDatagram::unbound().unwrap().send_to(&mark, path).await.unwrap()),
        }
        until("the last one", || count() > last && self.got.lock().unwrap().last() == Some(&0)).await;
        let mut got = self.got.lock().unwrap().clone();
        got.pop();
        got
    }
}

mod udp {
    use super::Mailbox;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn killed_under_way() {
        crate::books::killed_under_way(Mailbox::udp().await.unwrap(), 3).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn flapping() {
        crate::books::flapping(Mailbox::udp().await.unwrap()).await;
    }
}

mod unix {
    use super::Mailbox;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn down_from_the_start() {
        crate::books::down_from_the_start(Mailbox::unix().await.unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn killed_under_way() {
        crate::books::killed_under_way(Mailbox::unix().await.unwrap(), 3).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slow() {
        crate::books::slow(Mailbox::unix().await.unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn flapping() {
        crate::books::flapping(Mailbox::unix().await.unwrap()).await;
    }
}

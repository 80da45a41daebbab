//! Connected sockets of any kind, on tokio-uring or on plain tokio.
//!
//! ```text
//!   client (Send, any task)            its local task, which owns the socket
//!   Connection ── Order: bytes ──────► serve(wire) ── write ──► target
//!              ◄─ Written: how many ──     └───────── read ◄── noticed: closed, refused
//! ```
//!
//! The task reads all the time and throws away what it reads: so the end of a connection is noticed when it happens,
//! not with the next send, and a target that says something back is never stuck on us not listening.

use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_uring::buf::BoundedBuf;

use crate::forward::{SendError, SendErrorKind, runtime};

/// How long a connection that we end is kept to see it through to the other side.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes read at once, to be thrown away.
const READ: usize = 4096;

/// A connected socket.
pub(super) trait Wire: 'static {
    /// Datagrams: each write is one, and an empty one is no end.
    const IS_DATAGRAM: bool;
    /// A write that fails has left nothing behind. Not so where bytes are kept for encryption.
    const IS_EXACT: bool = true;

    /// Writes some of the bytes behind `from`.
    fn write(&self, bytes: Vec<u8>, from: usize) -> impl Future<Output = (io::Result<usize>, Vec<u8>)>;

    /// Reads some bytes, at most what the buffer has room for.
    fn read(&self, buffer: Vec<u8>) -> impl Future<Output = (io::Result<usize>, Vec<u8>)>;

    /// An error that has come by itself, if it can be asked for: once.
    fn take_error(&self) -> Option<io::Error> {
        None
    }

    /// Ends one direction or both; reads and writes that are waiting come back.
    fn shutdown(&self, how: Shutdown);
}

enum Order {
    Write {
        bytes: Vec<u8>,
        /// How long the kernel may go without taking a byte.
        patience: Duration,
        done: oneshot::Sender<Written>,
    },
    /// To end; what is sent with it is dropped when that has happened.
    Close(oneshot::Sender<()>),
}

/// What came of an order.
#[derive(Debug)]
pub(super) struct Written {
    /// Bytes the kernel has taken.
    pub(super) count: usize,
    /// It may have taken more.
    pub(super) in_doubt: bool,
    pub(super) error: Option<(SendErrorKind, String)>,
}

/// The client's end of a connection. Without it the connection ends, once all is written.
#[derive(Debug)]
pub(super) struct Connection {
    orders: mpsc::Sender<Order>,
    ended: Arc<Mutex<Option<String>>>,
}

impl Connection {
    /// Starts the task of a socket on this thread's runtime.
    pub(super) fn start(socket: Socket) -> io::Result<Connection> {
        let (orders, receiver) = mpsc::channel(1);
        let connection = Connection { orders, ended: Arc::default() };
        let ended = Arc::clone(&connection.ended);
        macro_rules! on_uring {
            ($socket:expr, $uring:ident) => {{
                let socket = $socket.into_std()?;
                // a ring waits by itself, and does not on a socket that says not to
                socket.set_nonblocking(false)?;
                let wire = tokio_uring::net::$uring::from_std(socket);
                let _ = runtime::spawn_local(serve(wire, receiver, ended));
            }};
        }
        match socket {
            Socket::Tcp(socket) if runtime::is_uring() => on_uring!(socket, TcpStream),
            Socket::Unix(socket) if runtime::is_uring() => on_uring!(socket, UnixStream),
            Socket::Udp(socket) if runtime::is_uring() => on_uring!(socket, UdpSocket),
            Socket::Tcp(socket) => drop(tokio::spawn(serve(socket, receiver, ended))),
            Socket::Unix(socket) => drop(tokio::spawn(serve(socket, receiver, ended))),
            Socket::Udp(socket) => drop(tokio::spawn(serve(socket, receiver, ended))),
            // never on the ring: what had to wait there for room in the target's queue would leave as an empty datagram,
            // for the kernel tries again behind the bytes it has copied once (Linux 6.18)
            Socket::UnixDatagram(socket) => drop(tokio::spawn(serve(socket, receiver, ended))),
            #[cfg(feature = "https")]
            Socket::Tls(socket) => drop(tokio::spawn(serve(*socket, receiver, ended))),
        }
        Ok(connection)
    }

    /// Whether the other side has ended it.
    pub(super) fn is_closed(&self) -> bool {
        self.orders.is_closed()
    }

    /// Why it ended, if it did by an error.
    pub(super) fn error(&self) -> Option<String> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes all of it, or as much as can be.
    pub(super) async fn write(&self, bytes: Vec<u8>, patience: Duration) -> Written {
        let (done, written) = oneshot::channel();
        let gone = || {
            let error = Some((SendErrorKind::Closed, "connection closed".to_owned()));
            Written { count: 0, in_doubt: false, error }
        };
        if self.orders.send(Order::Write { bytes, patience, done }).await.is_err() {
            return gone();
        }
        written.await.unwrap_or_else(|_| gone())
    }

    /// Ends it, and waits until it has.
    pub(super) async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.orders.send(Order::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

/// A socket that has just been connected by tokio.
pub(super) enum Socket {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
    Udp(tokio::net::UdpSocket),
    UnixDatagram(tokio::net::UnixDatagram),
    #[cfg(feature = "https")]
    Tls(Box<super::tls::TlsWire>),
}

/// What ended a connection.
enum End {
    /// The client has let go of it, and may wait for that.
    Ours(Option<oneshot::Sender<()>>),
    /// The other side, or an error.
    Theirs(Option<String>),
}

async fn serve<W: Wire>(wire: W, mut orders: mpsc::Receiver<Order>, ended: Arc<Mutex<Option<String>>>) {
    let mut reading = pin!(wire.read(vec![0; READ]));
    let end = loop {
        tokio::select! {
            biased;
            (read, buffer) = &mut reading => match what_was_read::<W>(read) {
                None => reading.set(wire.read(buffer)),
                Some(end) => break end,
            },
            order = orders.recv() => {
                let (bytes, patience, done) = match order {
                    None => break End::Ours(None),
                    Some(Order::Close(closed)) => break End::Ours(Some(closed)),
                    Some(Order::Write { bytes, patience, done }) => (bytes, patience, done),
                };
                let mut seen = None;
                let mut writing = pin!(write_all(&wire, bytes, patience));
                let mut written = loop {
                    tokio::select! {
                        biased;
                        written = &mut writing => break written,
                        (read, buffer) = &mut reading, if seen.is_none() => match what_was_read::<W>(read) {
                            None => reading.set(wire.read(buffer)),
                            // it may still listen: what has begun is finished, if it can be
                            Some(end) => seen = Some(end),
                        },
                    }
                };
                if W::IS_DATAGRAM && seen.is_none() {
                    // a machine as near as this one answers within the call; whether this datagram or one before it
                    // is what nobody listened for, it doesn't say
                    let read = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
                    seen = match read {
                        Poll::Ready((read, buffer)) => what_was_read::<W>(read).or_else(|| {
                            reading.set(wire.read(buffer));
                            None
                        }),
                        Poll::Pending => wire.take_error().map(|error| End::Theirs(Some(error.to_string()))),
                    };
                    if let Some(End::Theirs(Some(text))) = &seen {
                        let error = written.error.or(Some((SendErrorKind::Connect, text.clone())));
                        written = Written { count: 0, in_doubt: true, error };
                    }
                }
                let failed = written.error.as_ref().map(|(_, text)| text.clone());
                let over = seen.or_else(|| failed.map(|text| End::Theirs(Some(text))));
                if over.is_some() {
                    // first, so that whoever is told of the end of this order finds the connection closed
                    orders.close();
                }
                let _ = done.send(written);
                if let Some(end) = over {
                    break end;
                }
            }
        }
    };
    match end {
        End::Theirs(error) => {
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = error;
            wire.shutdown(Shutdown::Both);
        }
        End::Ours(_) if W::IS_DATAGRAM => wire.shutdown(Shutdown::Both),
        End::Ours(_closed) => {
            // closing with something unread would reset the connection, and lose what is still on its way
            wire.shutdown(Shutdown::Write);
            let _ = timeout(LINGER, async {
                loop {
                    let (read, buffer) = reading.as_mut().await;
                    if !matches!(read, Ok(1..)) {
                        break;
                    }
                    reading.set(wire.read(buffer));
                }
            })
            .await;
            wire.shutdown(Shutdown::Both);
        }
    }
}

fn what_was_read<W: Wire>(read: io::Result<usize>) -> Option<End> {
    match read {
        Ok(0) if !W::IS_DATAGRAM => Some(End::Theirs(None)),
        Ok(_) => None,
        Err(error) => Some(End::Theirs(Some(error.to_string()))),
    }
}

/// Exact about what the kernel has taken, however it ends.
async fn write_all<W: Wire>(wire: &W, mut bytes: Vec<u8>, patience: Duration) -> Written {
    let mut count = 0;
    loop {
        let mut writing = pin!(wire.write(bytes, count));
        let (result, returned, late) = match timeout(patience, &mut writing).await {
            Ok((result, bytes)) => (result, bytes, false),
            Err(_) => {
                // the bytes are with the kernel until it says how many it took
                wire.shutdown(Shutdown::Both);
                let (result, bytes) = writing.await;
                (result, bytes, true)
            }
        };
        bytes = returned;
        count += *result.as_ref().unwrap_or(&0);
        let error = match result {
            _ if late => Some((SendErrorKind::Timeout, format!("nothing taken for {patience:?}"))),
            Ok(0) if count < bytes.len() => Some((SendErrorKind::Closed, "nothing more is taken".to_owned())),
            Ok(_) => None,
            Err(error) => Some((kind_of(&error), error.to_string())),
        };
        if error.is_some() || count >= bytes.len() {
            return Written { count, in_doubt: error.is_some() && !W::IS_EXACT, error };
        }
    }
}

fn kind_of(error: &io::Error) -> SendErrorKind {
    const EMSGSIZE: i32 = 90;
    match (error.kind(), error.raw_os_error()) {
        (_, Some(EMSGSIZE)) => SendErrorKind::TooLarge,
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, _) => SendErrorKind::Connect,
        _ => SendErrorKind::Closed,
    }
}

/// An attempt to connect, within a time.
pub(super) async fn connect<T>(
    within: Duration,
    connecting: impl Future<Output = io::Result<T>>,
) -> Result<T, SendError> {
    match timeout(within, connecting).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(error)) => Err(SendError::new(SendErrorKind::Connect, error.to_string())),
        Err(_) => Err(SendError::new(SendErrorKind::Connect, format!("no answer within {within:?}"))),
    }
}

/// Sockets of tokio: wait until the kernel says there is room or something to read, then try.
macro_rules! plain {
    ($socket:ty, $is_datagram:literal, $write:ident, $read:ident, $shutdown:expr) => {
        impl Wire for $socket {
            const IS_DATAGRAM: bool = $is_datagram;

            async fn write(&self, bytes: Vec<u8>, from: usize) -> (io::Result<usize>, Vec<u8>) {
                let result = loop {
                    if let Err(error) = self.writable().await {
                        break Err(error);
                    }
                    match self.$write(&bytes[from..]) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => break result,
                    }
                };
                (result, bytes)
            }

            async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
                let result = loop {
                    if let Err(error) = self.readable().await {
                        break Err(error);
                    }
                    match self.$read(&mut buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => break result,
                    }
                };
                (result, buffer)
            }

            fn take_error(&self) -> Option<io::Error> {
                self.take_error().ok().flatten()
            }

            fn shutdown(&self, how: Shutdown) {
                let _ = $shutdown(self, how);
            }
        }
    };
}

fn shut<'a, S: 'a>(socket: &'a S, how: Shutdown) -> io::Result<()>
where
    socket2::SockRef<'a>: From<&'a S>,
{
    socket2::SockRef::from(socket).shutdown(how)
}

plain!(tokio::net::TcpStream, false, try_write, try_read, shut);
plain!(tokio::net::UnixStream, false, try_write, try_read, shut);
plain!(tokio::net::UdpSocket, true, try_send, try_recv, shut);
plain!(tokio::net::UnixDatagram, true, try_send, try_recv, shut);

/// Sockets of tokio-uring: the buffer goes to the kernel and comes back.
macro_rules! uring_stream {
    ($socket:ty) => {
        impl Wire for $socket {
            const IS_DATAGRAM: bool = false;

            async fn write(&self, bytes: Vec<u8>, from: usize) -> (io::Result<usize>, Vec<u8>) {
                if from >= bytes.len() {
                    return (Ok(0), bytes);
                }
                let (result, slice) = self.write(bytes.slice(from..)).submit().await;
                (result, slice.into_inner())
            }

            async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
                self.read(buffer).await
            }

            fn shutdown(&self, how: Shutdown) {
                let _ = self.shutdown(how);
            }
        }
    };
}

uring_stream!(tokio_uring::net::TcpStream);
uring_stream!(tokio_uring::net::UnixStream);

/// Its errors come with the read that is always waiting.
impl Wire for tokio_uring::net::UdpSocket {
    const IS_DATAGRAM: bool = true;

    /// All or nothing, so always from the start. Not a `write`, which does nothing where there is nothing to write.
    async fn write(&self, bytes: Vec<u8>, _from: usize) -> (io::Result<usize>, Vec<u8>) {
        self.send(bytes).await
    }

    async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.read(buffer).await
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}

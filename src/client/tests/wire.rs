//! The broker's end of a connection, as a script of frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::dial::{Dial, Dialing, Io};
use super::super::{Addr, Addrs, Consumer, Error, Metrics, Options, Provider, Retry};
use crate::protocol::{Code, Flags, FrameType, HEADER_LEN, Header, Hello, VERSION, Welcome};

/// Pipes instead of sockets: what is dialled comes out of the other end, or is refused.
pub(super) struct Net {
    dialled: mpsc::UnboundedReceiver<(Addr, DuplexStream)>,
    dial: Arc<Pipes>,
}

struct Pipes {
    out: mpsc::UnboundedSender<(Addr, DuplexStream)>,
    /// Bytes a pipe holds.
    size: usize,
}

impl Dial for Pipes {
    fn dial<'a>(&'a self, addr: &'a Addr) -> Dialing<'a> {
        Box::pin(async move {
            if addr.to_string().starts_with("down") {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(self.size);
            self.out.send((addr.clone(), theirs)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

/// What the scripted broker says of itself, unless told otherwise.
pub(super) fn welcome() -> Welcome {
    Welcome {
        version: VERSION,
        core: 0,
        cores: 1,
        features: 0,
        server: Uuid::from_u128(5),
        window: 1000,
        max_frame: 64 * 1024,
        max_streams: 100,
        keepalive_ms: 15_000,
        default_timeout_ms: 30_000,
    }
}

impl Net {
    pub(super) fn new() -> Net {
        Net::sized(1 << 20)
    }

    pub(super) fn sized(size: usize) -> Net {
        let (out, dialled) = mpsc::unbounded_channel();
        Net { dialled, dial: Arc::new(Pipes { out, size }) }
    }

    /// The broker's end of the next connection, before HELLO.
    pub(super) async fn accept(&mut self) -> (Addr, Wire) {
        let (addr, io) = self.dialled.recv().await.expect("a connection");
        (addr, Wire::over(io))
    }

    /// The next connection, with the handshake done.
    pub(super) async fn welcome(&mut self, welcome: Welcome) -> (Addr, Wire) {
        let (addr, mut wire) = self.accept().await;
        wire.hello().await;
        wire.welcome(welcome).await;
        (addr, wire)
    }

    pub(super) fn dialler(&self) -> Arc<dyn Dial> {
        self.dial.clone()
    }

    /// A consumer that is connecting.
    pub(super) fn dialling_consumer(
        &self,
        addr: &str,
        options: Options,
        retry: Retry,
    ) -> JoinHandle<Result<Consumer, Error>> {
        let (addr, dial) = (Addrs::from(addr), self.dial.clone());
        tokio::spawn(Consumer::dial(addr, "test".into(), options, retry, Metrics::default(), dial))
    }

    /// A provider that is connecting, to take 4 requests at once.
    pub(super) fn dialling_provider(
        &self,
        addr: &str,
        options: Options,
        retry: Retry,
    ) -> JoinHandle<Result<Provider, Error>> {
        tokio::spawn(Provider::dial(Addrs::from(addr), "test".into(), 4, options, retry, self.dial.clone()))
    }

    /// A consumer, and the broker's end of its connection.
    pub(super) async fn consumer(&mut self, welcome: Welcome) -> (Consumer, Wire) {
        let connecting = self.dialling_consumer("a:1", Options::default().window(1000), Retry::Attempts(1));
        let (_, wire) = self.welcome(welcome).await;
        (connecting.await.unwrap().unwrap(), wire)
    }

    /// A provider, and the broker's end of its connection.
    pub(super) async fn provider(&mut self, welcome: Welcome) -> (Provider, Wire) {
        let connecting = self.dialling_provider("a:1", Options::default().window(1000), Retry::Attempts(1));
        let (_, wire) = self.welcome(welcome).await;
        (connecting.await.unwrap().unwrap(), wire)
    }
}

/// The broker's end of one connection.
pub(super) struct Wire {
    io: Box<dyn Io>,
    input: BytesMut,
}

/// A frame as it came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) payload: Bytes,
}

impl Frame {
    pub(super) fn kind(&self) -> FrameType {
        self.header.frame_type().expect("a known type")
    }

    pub(super) fn stream(&self) -> u32 {
        self.header.stream
    }

    pub(super) fn ends(&self) -> bool {
        self.header.flags.has(Flags::END)
    }

    /// What follows a REQUEST's id.
    pub(super) fn body(&self) -> &[u8] {
        if self.kind() == FrameType::Request { &self.payload[16..] } else { &self.payload }
    }
}

impl Wire {
    pub(super) fn over(io: impl Io) -> Wire {
        Wire { io: Box::new(io), input: BytesMut::new() }
    }

    pub(super) async fn hello(&mut self) -> Hello {
        let frame = self.expect(FrameType::Hello).await;
        Hello::decode(&frame.payload).expect("a good HELLO")
    }

    pub(super) async fn welcome(&mut self, welcome: Welcome) {
        let mut frame = Vec::new();
        welcome.encode(&mut frame);
        self.write(&frame).await;
    }

    /// The next frame; `None` when the client has closed.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.input).await.expect("a pipe") == 0 {
                assert!(self.input.is_empty(), "closed within a frame");
                return None;
            }
        }
    }

    /// A whole frame that has been read.
    fn take(&mut self) -> Option<Frame> {
        let header = Header::decode(self.input.first_chunk::<HEADER_LEN>()?);
        let whole = HEADER_LEN + header.length as usize;
        let there = self.input.len() >= whole;
        there.then(|| Frame { header, payload: self.input.split_to(whole).freeze().slice(HEADER_LEN..) })
    }

    /// The frames that come with one read.
    pub(super) async fn burst(&mut self) -> Vec<Frame> {
        self.input.reserve(1 << 16);
        self.read_some().await;
        std::iter::from_fn(|| self.take()).collect()
    }

    pub(super) async fn expect(&mut self, kind: FrameType) -> Frame {
        let frame = self.next().await.unwrap_or_else(|| panic!("closed instead of {kind:?}"));
        assert_eq!(frame.kind(), kind, "{frame:?}");
        frame
    }

    pub(super) async fn expect_close(&mut self) {
        if let Some(frame) = self.next().await {
            panic!("{frame:?} instead of the end");
        }
    }

    /// Reads what is there, of whatever frame.
    pub(super) async fn read_some(&mut self) {
        assert!(self.io.read_buf(&mut self.input).await.expect("a pipe") > 0);
    }

    pub(super) async fn send(&mut self, header: Header, payload: &[u8]) {
        self.write(&frame(header, payload)).await;
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("the client reads");
    }

    pub(super) async fn request(&mut self, stream: u32, timeout: Duration, body: &[u8]) {
        let header = Header::new(FrameType::Request, stream).flags(Flags::END).arg(timeout.as_millis() as u32);
        let mut payload = Uuid::from_u128(stream.into()).as_bytes().to_vec();
        payload.extend_from_slice(body);
        self.send(header, &payload).await;
    }

    pub(super) async fn respond(&mut self, stream: u32, body: &[u8]) {
        self.send(Header::new(FrameType::Response, stream).flags(Flags::END), body).await;
    }

    pub(super) async fn error(&mut self, stream: u32, code: Code, flags: Flags, text: &str) {
        self.send(Header::new(FrameType::Error, stream).code(code).flags(flags), text.as_bytes()).await;
    }

    pub(super) async fn goaway(&mut self) {
        self.send(Header::new(FrameType::GoAway, 0).code(Code::Draining), b"").await;
    }

    pub(super) async fn cancel(&mut self, stream: u32, code: Code) {
        self.send(Header::new(FrameType::Cancel, stream).code(code), b"").await;
    }

    pub(super) async fn credit(&mut self, stream: u32, n: u32) {
        self.send(Header::new(FrameType::Credit, stream).arg(n), b"").await;
    }

    /// A PING there and back: all that was sent before has been seen.
    pub(super) async fn sync(&mut self) {
        self.send(Header::new(FrameType::Ping, 0), &[7; 8]).await;
        let pong = self.expect(FrameType::Pong).await;
        assert_eq!(&pong.payload[..], &[7; 8]);
    }
}

/// A frame's bytes.
pub(super) fn frame(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header.length(payload.len() as u32).encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

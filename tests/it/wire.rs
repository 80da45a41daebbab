//! A client that is a script of frames, on a real socket: `send(REQUEST…)`, `expect(ERROR NO_PROVIDER)`.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use corelay::base::ChannelId;
use corelay::protocol::{Code, Flags, FrameType, HEADER_LEN, Header, Hello, Role, VERSION, Welcome};
use rustls::{ClientConnection, StreamOwned};
use uuid::Uuid;

/// Long enough for any machine: a test that runs into it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What frames go over.
enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Socket::Plain(tcp) => tcp.read(to),
            Socket::Tls(tls) => tls.read(to),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Socket::Plain(tcp) => tcp.write(bytes),
            Socket::Tls(tls) => tls.write(bytes),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Socket::Plain(tcp) => tcp.flush(),
            Socket::Tls(tls) => tls.flush(),
        }
    }
}

/// One connection.
pub struct Wire {
    socket: Socket,
    /// Frames passed over by [`Wire::take`].
    aside: VecDeque<Frame>,
    pub welcome: Option<Welcome>,
    window: u32,
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameType,
    pub stream: u32,
    pub flags: Flags,
    pub code: Option<Code>,
    pub arg: u32,
    pub payload: Vec<u8>,
}

pub fn hello(role: Role, channel: &str, max_concurrent: u32) -> Hello {
    Hello {
        version: VERSION,
        role,
        features: 0,
        channel: ChannelId::named(channel),
        client: Uuid::new_v4(),
        window: 64 * 1024,
        max_concurrent,
        token: Default::default(),
        name: "wire".to_owned(),
    }
}

impl Wire {
    /// A connection on which nothing has been said.
    pub fn raw(addr: SocketAddr) -> Wire {
        let socket = TcpStream::connect(addr).expect("the broker accepts");
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire { socket: Socket::Plain(socket), aside: VecDeque::new(), welcome: None, window: 0 }
    }

    /// As [`Wire::raw`], with TLS.
    pub fn secure(addr: SocketAddr, tls: ClientConnection) -> Wire {
        let mut wire = Wire::raw(addr);
        let Socket::Plain(tcp) = wire.socket else { unreachable!("a raw one is plain") };
        wire.socket = Socket::Tls(Box::new(StreamOwned::new(tls, tcp)));
        wire
    }

    pub fn open(addr: SocketAddr, hello: &Hello) -> Wire {
        Wire::raw(addr).greet(hello)
    }

    /// Says HELLO, and expects WELCOME.
    pub fn greet(self, hello: &Hello) -> Wire {
        let mut wire = self;
        let mut frame = Vec::new();
        hello.encode(&mut frame).unwrap();
        wire.write(&frame);
        wire.finish_hello();
        wire
    }

    /// Whether WELCOME comes next, and no ERROR.
    #[allow(dead_code)]
    pub fn is_welcomed(&mut self) -> bool {
        let mut front = [0; 5];
        let welcome = self.socket.tcp().peek(&mut front).is_ok_and(|n| n == 5 && front[4] == FrameType::Welcome as u8);
        if welcome {
            self.finish_hello();
        }
        welcome
    }

    /// Reads WELCOME.
    pub fn finish_hello(&mut self) {
        let (header, payload) = self.read_raw().expect("WELCOME");
        assert_eq!(header.frame_type(), Some(FrameType::Welcome), "{header:?} {}", String::from_utf8_lossy(&payload));
        let welcome = Welcome::decode(&payload).unwrap();
        self.window = welcome.window;
        self.welcome = Some(welcome);
    }

    pub fn consumer(addr: SocketAddr, channel: &str) -> Wire {
        Wire::open(addr, &hello(Role::Consumer, channel, 0))
    }

    pub fn provider(addr: SocketAddr, channel: &str, max_concurrent: u32) -> Wire {
        Wire::open(addr, &hello(Role::Provider, channel, max_concurrent))
    }

    /// Waits for frames as long as it takes.
    #[allow(dead_code)] // of one of the test binaries that share this
    pub fn patient(self) -> Wire {
        self.socket.tcp().set_read_timeout(None).unwrap();
        self
    }

    /// One more descriptor of the socket.
    #[allow(dead_code)]
    pub fn socket(&self) -> TcpStream {
        self.socket.tcp().try_clone().unwrap()
    }

    /// As [`Wire::send`], to a broker that may have closed.
    #[allow(dead_code)]
    pub fn try_send(&mut self, header: Header, payload: &[u8]) {
        let mut frame = header.length(payload.len() as u32).encode().to_vec();
        frame.extend_from_slice(payload);
        self.try_write(&frame);
    }

    /// Body bytes the broker takes on a new stream.
    pub fn window(&self) -> u32 {
        self.window
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the broker reads");
    }

    /// As [`Wire::write`], to a broker that may have closed.
    pub fn try_write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        socket2::SockRef::from(self.socket.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// All bytes until the broker closes, as they come.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.socket.read_to_end(&mut bytes);
        bytes
    }

    pub fn send(&mut self, header: Header, payload: &[u8]) {
        let mut frame = header.length(payload.len() as u32).encode().to_vec();
        frame.extend_from_slice(payload);
        self.write(&frame);
    }

    /// A whole request: id `n`, this body, END and these flags.
    pub fn request(&mut self, stream: u32, n: u128, body: &[u8], flags: Flags) {
        let mut payload = Uuid::from_u128(n).as_bytes().to_vec();
        payload.extend_from_slice(body);
        self.send(Header::new(FrameType::Request, stream).flags(Flags::END | flags), &payload);
    }

    pub fn respond(&mut self, stream: u32, body: &[u8]) {
        self.send(Header::new(FrameType::Response, stream).flags(Flags::END), body);
    }

    fn read_raw(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut header = [0; HEADER_LEN];
        match self.socket.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("no frame came: {error}"),
        }
        let header = Header::decode(&header);
        let mut payload = vec![0; header.length as usize];
        self.socket.read_exact(&mut payload).expect("a whole payload");
        Some((header, payload))
    }

    /// The next frame; `None` when the broker has closed. PINGs are answered and passed over.
    pub fn next(&mut self) -> Option<Frame> {
        match self.aside.pop_front() {
            Some(frame) => Some(frame),
            None => self.receive(),
        }
    }

    /// The next frame like this; others before it stay for later.
    pub fn take(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(at) = self.aside.iter().position(&wanted) {
            return self.aside.remove(at).unwrap();
        }
        loop {
            let frame = self.receive().expect("the broker closed");
            if wanted(&frame) {
                return frame;
            }
            self.aside.push_back(frame);
        }
    }

    fn receive(&mut self) -> Option<Frame> {
        loop {
            let (header, payload) = self.read_raw()?;
            let kind = header.frame_type().expect("a known frame");
            if kind == FrameType::Ping {
                self.send(Header::new(FrameType::Pong, 0), &payload);
                continue;
            }
            let code = Code::from_wire(header.code);
            return Some(Frame { kind, stream: header.stream, flags: header.flags, code, arg: header.arg, payload });
        }
    }

    /// The next frame that is no CREDIT: what was granted before the broker had read the last END.
    pub fn next_past_credit(&mut self) -> Frame {
        loop {
            let frame = self.next().expect("the broker closed");
            if frame.kind != FrameType::Credit {
                return frame;
            }
        }
    }

    /// The next frame, which must be of this type.
    pub fn expect(&mut self, kind: FrameType) -> Frame {
        let frame = self.next().unwrap_or_else(|| panic!("the broker closed, expected {kind:?}"));
        assert_eq!(frame.kind, kind, "{frame:?}");
        frame
    }

    /// The next frame, which must be an ERROR with this code on this stream.
    pub fn expect_error(&mut self, stream: u32, code: Code) -> Frame {
        let frame = self.expect(FrameType::Error);
        assert_eq!((frame.stream, frame.code), (stream, Some(code)), "{}", String::from_utf8_lossy(&frame.payload));
        frame
    }

    /// The broker must close without another frame.
    pub fn expect_closed(&mut self) {
        let next = self.next();
        assert!(next.is_none(), "expected the end, got {next:?}");
    }

    /// All body bytes of this stream until END, granting credit as they come. The opening frame is included.
    pub fn body(&mut self, first: Frame) -> Vec<u8> {
        let skip = if first.kind == FrameType::Request { 16 } else { 0 };
        let stream = first.stream;
        let mut body = first.payload[skip..].to_vec();
        let mut frame = first;
        while !frame.flags.has(Flags::END) {
            let n = frame.payload.len() as u32;
            if n > 0 {
                self.send(Header::new(FrameType::Credit, stream).arg(n), &[]);
            }
            frame = self.expect(FrameType::Data);
            assert_eq!(frame.stream, stream);
            body.extend_from_slice(&frame.payload);
        }
        body
    }
}

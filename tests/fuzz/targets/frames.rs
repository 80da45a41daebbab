//! A connection's bytes, cut anywhere: the broker makes the same of them however they arrive.

use corelay::base::ChannelId;
use corelay::protocol::{
    BadHandshake, Code, FrameType, HEADER_LEN, Header, Hello, MAX_HANDSHAKE_FRAME, Role, VERSION, Welcome,
};

use super::broker::options;
use crate::world::World;

/// Frames behind a HELLO. The first byte is the role, the second how the bytes are cut.
///
/// # Panics
/// If they mean something else in pieces than they do whole, or a header changes on its way through the codec.
pub fn frames(data: &[u8]) {
    let [role, cut, frames @ ..] = data else { return };
    for header in frames.chunks_exact(HEADER_LEN) {
        let header: &[u8; HEADER_LEN] = header.try_into().expect("so many bytes");
        assert_eq!(&Header::decode(header).encode(), header);
    }
    let role = if role % 2 == 0 { Role::Consumer } else { Role::Provider };
    let mut bytes = hello(role);
    let behind = bytes.len();
    bytes.extend_from_slice(frames);
    same(&bytes, behind, *cut);
}

/// The first bytes on a connection. The first byte says how they are cut.
///
/// # Panics
/// If they mean something else in pieces than they do whole, or what is decoded is not what was encoded.
pub fn handshake(data: &[u8]) {
    let [cut, bytes @ ..] = data else { return };
    same(bytes, 0, *cut);
    for payload in [bytes, bytes.get(HEADER_LEN..).unwrap_or_default()] {
        if let Ok(hello) = Hello::decode(payload) {
            let mut frame = Vec::new();
            match hello.encode(&mut frame) {
                Ok(()) => assert_eq!(Hello::decode(&frame[HEADER_LEN..]).as_ref(), Ok(&hello)),
                Err(BadHandshake::TooLarge(_)) => assert!(payload.len() > MAX_HANDSHAKE_FRAME as usize),
                Err(other) => panic!("{hello:?} was read and can't be written: {other}"),
            }
        }
        if let Ok(welcome) = Welcome::decode(payload) {
            let mut frame = Vec::new();
            welcome.encode(&mut frame);
            assert_eq!(Welcome::decode(&frame[HEADER_LEN..]), Ok(welcome));
        }
    }
}

fn hello(role: Role) -> Vec<u8> {
    let hello = Hello {
        version: VERSION,
        role,
        features: 0,
        channel: ChannelId::named("fuzz"),
        client: uuid::Uuid::nil(),
        window: 1000,
        max_concurrent: u32::from(role == Role::Provider),
        token: Default::default(),
        name: String::new(),
    };
    let mut frame = Vec::new();
    hello.encode(&mut frame).expect("nothing in it is too long");
    frame
}

/// What a broker makes of bytes.
#[derive(Debug, PartialEq)]
struct Made {
    /// Its frames, in an order of their own: some overtake others, by when they come.
    said: Vec<(Header, Vec<u8>)>,
    ended: bool,
    frames: u64,
    requests: u64,
    failed: Vec<u64>,
}

fn same(bytes: &[u8], first: usize, cut: u8) {
    let whole = made(bytes, first, usize::MAX);
    let pieces = made(bytes, first, 1 + usize::from(cut % 40));
    assert_eq!(whole, pieces);
}

/// Whether the broker has ended the connection, and not its peer.
fn has_ended_it(said: &[(Header, Vec<u8>)]) -> bool {
    said.iter().any(|(header, _)| header.stream == 0 && header.frame_type() == Some(FrameType::Error))
}

/// Gives a broker of its own these bytes: `first` of them, if any, then the rest in pieces.
fn made(bytes: &[u8], first: usize, piece: usize) -> Made {
    let mut world = World::new(&options(1));
    let sock = world.connect(0);
    world.socks[sock].up.extend(&bytes[..first]);
    world.settle(usize::MAX);
    world.socks[sock].up.extend(&bytes[first..]);
    world.settle(piece);
    world.check();
    let counters = world.shards[0].core.counters().clone();
    let mut down = world.socks[sock].down.iter().copied().collect::<Vec<u8>>();
    let ended = world.socks[sock].is_over();
    let mut said = Vec::new();
    while let Some(header) = down.first_chunk::<HEADER_LEN>() {
        let header = Header::decode(header);
        let end = HEADER_LEN + header.length as usize;
        if down.len() < end {
            assert!(ended && !has_ended_it(&said), "the broker stopped in the middle of a frame");
            break;
        }
        assert!(header.frame_type().is_some(), "{header:?}");
        if header.frame_type() == Some(FrameType::Error) {
            assert!(Code::from_wire(header.code).is_some(), "{header:?}");
            assert!(std::str::from_utf8(&down[HEADER_LEN..end]).is_ok(), "an ERROR's text is UTF-8");
        }
        said.push((header, down[HEADER_LEN..end].to_vec()));
        down.drain(..end);
    }
    if ended && !has_ended_it(&said) {
        // the peer has, by an ERROR: how much was said before that depends on when it came
        said.clear();
    }
    said.sort_by_key(|(header, payload)| (header.encode(), payload.clone()));
    Made {
        said,
        ended,
        frames: counters.frames_received,
        requests: counters.requests,
        failed: counters.failed.into_iter().chain(counters.connections_failed).collect(),
    }
}

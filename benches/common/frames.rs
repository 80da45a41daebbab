//! The frames all these clients speak in.

use corelay::base::ChannelId;
use corelay::protocol::{Flags, FrameType, HEADER_LEN, Header, Hello, REQUEST_ID_LEN, Role, VERSION};
use uuid::Uuid;

/// The channel everybody is on.
pub const CHANNEL: &str = "bench";
/// A request's header and id.
pub const REQUEST_HEAD: usize = HEADER_LEN + REQUEST_ID_LEN;

/// A HELLO on [`CHANNEL`].
pub fn hello(role: Role, window: u32, max_concurrent: u32) -> Vec<u8> {
    let hello = Hello {
        version: VERSION,
        role,
        features: 0,
        channel: ChannelId::named(CHANNEL),
        client: Uuid::nil(),
        window,
        max_concurrent,
        token: Default::default(),
        name: String::new(),
    };
    let mut frame = Vec::new();
    hello.encode(&mut frame).expect("an empty token and name fit");
    frame
}

/// Appends the head of a REQUEST: its header, which says that so many bytes of body follow, and its id.
pub fn request_head(stream: u32, body: usize, flags: Flags, out: &mut Vec<u8>) {
    let length = (REQUEST_ID_LEN + body) as u32;
    out.extend_from_slice(&Header::new(FrameType::Request, stream).flags(flags).length(length).encode());
    // spread channels go by a hash of the id: a different one for each stream
    out.extend_from_slice(Uuid::from_u128(u128::from(stream)).as_bytes());
}

/// Whole requests on the streams from 1 on, one behind the other.
pub fn requests(in_flight: u32, body: usize, flags: Flags) -> Vec<u8> {
    let mut out = Vec::new();
    for stream in 1..=in_flight {
        request_head(stream, body, Flags::END | flags, &mut out);
        out.resize(out.len() + body, 1);
    }
    out
}

/// Appends the header of a whole RESPONSE.
pub fn response_head(stream: u32, body: usize, out: &mut Vec<u8>) {
    let header = Header::new(FrameType::Response, stream).flags(Flags::END).length(body as u32);
    out.extend_from_slice(&header.encode());
}

/// Appends a whole RESPONSE.
pub fn response(stream: u32, body: usize, out: &mut Vec<u8>) {
    response_head(stream, body, out);
    out.resize(out.len() + body, 2);
}

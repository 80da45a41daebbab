//! The wire protocol, version 1: frames, the handshake, header blocks and error codes, encoded to and decoded from
//! byte slices. Pure: no I/O, no state. `docs/PROTOCOL.md` is the normative text; section numbers (§) refer to it.

mod code;
mod frame;
mod handshake;
mod headers;
mod trace;

pub use code::Code;
pub use frame::{BadFrame, Flags, FrameType, HEADER_LEN, Header};
pub use handshake::{BadHandshake, Hello, MAGIC, Role, VERSION, Welcome};
pub use headers::{BadHeaders, Headers, MAX_HEADER_BLOCK, check_header_block, encode_headers, iter_headers};
pub use trace::{TraceId, TraceParent};

/// The longest payload before WELCOME, in bytes (§1).
pub const MAX_HANDSHAKE_FRAME: u32 = 4 * 1024;
/// The longest text of an ERROR or GOAWAY, in bytes (§1).
pub const MAX_TEXT: usize = 1024;
/// Bytes of the request id that opens a REQUEST's payload (§1).
pub const REQUEST_ID_LEN: usize = 16;
/// The most credit that may be outstanding in one direction of a stream, in bytes (§4).
pub const MAX_CREDIT: u32 = i32::MAX as u32;

/// `text` cut to at most [`MAX_TEXT`] bytes, on a character boundary.
///
/// ```
/// use corelay::protocol::{clip_text, MAX_TEXT};
/// assert_eq!(clip_text("short"), "short");
/// assert!(clip_text(&"ä".repeat(1000)).len() <= MAX_TEXT);
/// ```
#[must_use]
pub fn clip_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

//! corelay's own protocol, spoken by both ends of the load: on `corelay::protocol`, without allocation once warm.
//!
//! The limit's relay gets the same frames without a handshake and without windows: it passes on any bytes.

mod consumer;
mod provider;
mod reader;

pub use consumer::FrameConsumer;
pub use provider::FrameProvider;

use corelay::protocol::{Code, Flags, FrameType, Header};

use crate::pump::Out;

/// Bytes of body a frame of a streamed body carries, unless told otherwise: as much as a receive buffer holds.
pub const DEFAULT_CHUNK: u32 = 64 << 10;

/// What the two ends of a connection agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Body bytes this side may send on a new stream; `u64::MAX` without windows.
    pub may_send: u64,
    /// Body bytes this side takes on a new stream before it grants more; `u64::MAX` without windows.
    pub takes: u64,
    /// Body bytes of a frame; a body that is longer goes in several.
    pub chunk: u32,
    /// What a REQUEST states as its timeout, in ms.
    pub timeout_ms: u32,
}

impl Terms {
    /// Whether a body can go with the frame that opens its direction.
    #[inline]
    fn goes_whole(&self, size: u64) -> bool {
        size <= self.may_send && size <= u64::from(self.chunk)
    }

    /// The largest piece of a body that goes into one frame.
    #[inline]
    fn piece(&self, left: u64, credit: u64) -> u32 {
        left.min(credit).min(u64::from(self.chunk)) as u32
    }
}

/// A direction's body on its way out.
#[derive(Clone, Copy, Debug, Default)]
struct Body {
    left: u64,
    credit: u64,
}

/// Credit for what was received, granted when half the window is used up.
#[derive(Clone, Copy, Debug, Default)]
struct Intake {
    got: u64,
    ungranted: u64,
}

impl Intake {
    #[inline]
    fn add(&mut self, bytes: u64, stream: u32, last: bool, takes: u64, out: &mut Out) {
        self.got += bytes;
        self.ungranted += bytes;
        if !last && self.ungranted >= takes / 2 && self.ungranted > 0 {
            let grant = std::mem::take(&mut self.ungranted) as u32;
            out.put_words(words(Header::new(FrameType::Credit, stream).arg(grant)));
        }
    }
}

/// A header as two words, as it is laid out on the wire.
#[inline]
fn words(header: Header) -> [u64; 2] {
    let [flags, code] = [u64::from(header.flags.0), u64::from(header.code)];
    let first = u64::from(header.length) | u64::from(header.kind) << 32 | flags << 40 | code << 48;
    [first, u64::from(header.stream) | u64::from(header.arg) << 32]
}

/// The next frame of a body, as large as its credit allows.
fn put_data(stream: u32, body: &mut Body, terms: &Terms, out: &mut Out) {
    let piece = terms.piece(body.left, body.credit);
    body.left -= u64::from(piece);
    body.credit -= u64::from(piece);
    let flags = Flags::END.only_if(body.left == 0);
    out.put_words(words(Header::new(FrameType::Data, stream).flags(flags).length(piece)));
    out.put_filler(piece as usize);
}

fn put_cancel(stream: u32, out: &mut Out) {
    out.put_words(words(Header::new(FrameType::Cancel, stream).code(Code::Cancelled)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_bytes_of_the_codec() {
        let flags = Flags::END | Flags::STARTED;
        let header = Header::new(FrameType::Error, 0x1234_5678).length(7).flags(flags).code(Code::Flood).arg(9);
        let mut out = Out::default();
        out.put_words(words(header));
        assert_eq!(out.staged().as_slice(), header.encode());
    }
}

//! The 16 bytes in front of every payload (§1).

use std::ops::BitOr;

use super::Code;

/// Length of a frame header, in bytes.
pub const HEADER_LEN: usize = 16;

/// What a frame is (§1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Opens the connection, client to broker.
    Hello = 0x01,
    /// Accepts it, broker to client.
    Welcome = 0x02,
    /// Opens a stream.
    Request = 0x03,
    /// Begins the answer.
    Response = 0x04,
    /// More of a body.
    Data = 0x05,
    /// Ends a stream, or with stream 0 the connection.
    Error = 0x06,
    /// The opener wants no more.
    Cancel = 0x07,
    /// Grants body bytes.
    Credit = 0x08,
    /// Asks for a PONG.
    Ping = 0x09,
    /// Answers a PING.
    Pong = 0x0A,
    /// No new requests.
    GoAway = 0x0B,
}

impl FrameType {
    /// All types, in the order of their numbers.
    pub const ALL: [FrameType; 11] = [
        FrameType::Hello,
        FrameType::Welcome,
        FrameType::Request,
        FrameType::Response,
        FrameType::Data,
        FrameType::Error,
        FrameType::Cancel,
        FrameType::Credit,
        FrameType::Ping,
        FrameType::Pong,
        FrameType::GoAway,
    ];

    /// The type with this number.
    #[must_use]
    #[inline]
    pub const fn from_wire(wire: u8) -> Option<FrameType> {
        if wire == 0 || wire as usize > FrameType::ALL.len() {
            return None;
        }
        Some(FrameType::ALL[wire as usize - 1])
    }
}

/// Flag bits of a frame (§1). Unknown ones are carried and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// The last frame of this direction of the stream.
    pub const END: Flags = Flags(0x01);
    /// A header block precedes the body.
    pub const HEADERS: Flags = Flags(0x02);
    /// The consumer wants no answer from the provider (§5).
    pub const ONEWAY: Flags = Flags(0x04);
    /// With no provider, queue until one comes.
    pub const WAIT: Flags = Flags(0x08);
    /// The work may safely run twice (§6).
    pub const RETRY: Flags = Flags(0x10);
    /// Some of the request had been handed to a provider.
    pub const STARTED: Flags = Flags(0x20);

    /// Whether all bits of `other` are set.
    #[must_use]
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// `flag` where `on`, else nothing.
    #[must_use]
    #[inline]
    pub const fn only_if(self, on: bool) -> Flags {
        if on { self } else { Flags::NONE }
    }
}

impl BitOr for Flags {
    type Output = Flags;
    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A frame header, decoded.
///
/// ```
/// use corelay::protocol::{FrameType, Flags, Header};
/// let header = Header::new(FrameType::Data, 7).length(5).flags(Flags::END);
/// let bytes = header.encode();
/// assert_eq!(Header::decode(&bytes), header);
/// assert_eq!(header.frame_type(), Some(FrameType::Data));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload behind the header.
    pub length: u32,
    /// The type's number: see [`Header::frame_type`].
    pub kind: u8,
    /// Flag bits.
    pub flags: Flags,
    /// The reason's number in ERROR, CANCEL, GOAWAY: see [`Code::from_wire`]. 0 elsewhere.
    pub code: u16,
    /// The stream, or 0 for the connection itself.
    pub stream: u32,
    /// REQUEST: timeout in ms (0: the broker's default). CREDIT: bytes granted. 0 elsewhere.
    pub arg: u32,
}

/// A frame type that is neither known nor an extension (§1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown frame type {0:#04x}")]
pub struct BadFrame(pub u8);

impl Header {
    /// A header of this type on this stream; everything else 0.
    #[must_use]
    #[inline]
    pub const fn new(kind: FrameType, stream: u32) -> Header {
        Header { length: 0, kind: kind as u8, flags: Flags::NONE, code: 0, stream, arg: 0 }
    }

    /// With this many bytes of payload.
    #[must_use]
    #[inline]
    pub const fn length(mut self, length: u32) -> Header {
        self.length = length;
        self
    }

    /// With these flags.
    #[must_use]
    #[inline]
    pub const fn flags(mut self, flags: Flags) -> Header {
        self.flags = flags;
        self
    }

    /// With this reason.
    #[must_use]
    #[inline]
    pub const fn code(mut self, code: Code) -> Header {
        self.code = code.to_wire();
        self
    }

    /// With this argument.
    #[must_use]
    #[inline]
    pub const fn arg(mut self, arg: u32) -> Header {
        self.arg = arg;
        self
    }

    /// The type, if this version knows it.
    #[must_use]
    #[inline]
    pub const fn frame_type(&self) -> Option<FrameType> {
        FrameType::from_wire(self.kind)
    }

    /// Whether the frame is an extension, to be skipped by who doesn't know it (§1).
    #[must_use]
    #[inline]
    pub const fn is_extension(&self) -> bool {
        self.kind >= 0x80
    }

    /// The 16 bytes on the wire.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        // as one number, so that it reaches its place from registers: bytes stored one by one and read back sixteen at
        // once would wait for each other
        let low = u64::from(self.length)
            | u64::from(self.kind) << 32
            | u64::from(self.flags.0) << 40
            | u64::from(self.code) << 48;
        let high = u64::from(self.stream) | u64::from(self.arg) << 32;
        (u128::from(low) | u128::from(high) << 64).to_le_bytes()
    }

    /// The header in these 16 bytes. Any 16 bytes decode; what they mean is the receiver's to judge.
    #[must_use]
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Header {
        let all = u128::from_le_bytes(*bytes);
        let (low, high) = (all as u64, (all >> 64) as u64);
        Header {
            length: low as u32,
            kind: (low >> 32) as u8,
            flags: Flags((low >> 40) as u8),
            code: (low >> 48) as u16,
            stream: high as u32,
            arg: (high >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_one_of_the_protocol_page() {
        let header = Header {
            length: 0x0403_0201,
            kind: 0x05,
            flags: Flags(0x21),
            code: 0x0b0a,
            stream: 0x1413_1211,
            arg: 0x1817_1615,
        };
        let bytes = [1, 2, 3, 4, 5, 0x21, 0x0a, 0x0b, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes), header);
    }

    #[test]
    fn types_are_known_or_not() {
        for kind in 0..=u8::MAX {
            let header = Header { kind, ..Header::new(FrameType::Hello, 0) };
            assert_eq!(header.frame_type().is_some(), (1..=0x0B).contains(&kind));
            assert_eq!(header.is_extension(), kind >= 0x80);
            if let Some(known) = header.frame_type() {
                assert_eq!(known as u8, kind);
            }
        }
    }
}

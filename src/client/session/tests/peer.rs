//! The broker's end: bytes on their way, and what may still be sent.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::super::Session;
use crate::base::Time;
use crate::protocol::{Code, Flags, FrameType, HEADER_LEN, Header, REQUEST_ID_LEN};

/// A frame as the model sees it.
pub(super) type Seen = (Header, FrameType, Vec<u8>);

/// Bytes between a session and the model, both ways, delivered in random splits.
#[derive(Default)]
pub(super) struct Pipe {
    to_session: Vec<u8>,
    input: BytesMut,
    from_session: Vec<u8>,
    unparsed: Vec<u8>,
}

impl Pipe {
    pub(super) fn send(&mut self, header: Header, payload: &[u8]) {
        self.to_session.extend(header.length(payload.len() as u32).encode());
        self.to_session.extend_from_slice(payload);
    }

    /// Delivers some of what is on its way to the session.
    pub(super) fn deliver(&mut self, session: &mut Session, rng: &mut fastrand::Rng, all: bool) {
        let n = if all { self.to_session.len() } else { rng.usize(0..=self.to_session.len()) };
        self.input.extend(self.to_session.drain(..n));
        session.receive(&mut self.input, Time::ZERO);
        assert!(session.end().is_none(), "{:?}", session.end());
    }

    /// Takes some of what the session writes, as whole frames.
    pub(super) fn take(&mut self, session: &mut Session, rng: &mut fastrand::Rng, all: bool) -> Vec<Seen> {
        let before = self.from_session.len();
        session.fill(&mut self.from_session);
        session.wrote(self.from_session.len() - before, false, Time::ZERO);
        let n = if all { self.from_session.len() } else { rng.usize(0..=self.from_session.len()) };
        self.unparsed.extend(self.from_session.drain(..n));
        let mut frames = Vec::new();
        while let Some(bytes) = self.unparsed.first_chunk::<HEADER_LEN>() {
            let header = Header::decode(bytes);
            let whole = HEADER_LEN + header.length as usize;
            if self.unparsed.len() < whole {
                break;
            }
            let payload = self.unparsed.drain(..whole).skip(HEADER_LEN).collect();
            frames.push((header, header.frame_type().expect("a known type"), payload));
        }
        frames
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.to_session.is_empty() && self.from_session.is_empty() && self.unparsed.is_empty()
    }
}

/// One direction of a stream, as its sender or its receiver keeps account of it.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) body: Vec<u8>,
    /// What may still be sent.
    pub(super) credit: usize,
    pub(super) begun: bool,
    pub(super) ended: bool,
}

impl Way {
    pub(super) fn new(credit: usize) -> Way {
        Way { credit, ..Way::default() }
    }

    /// A frame of this direction was seen: everything about it must be allowed.
    pub(super) fn see(&mut self, header: &Header, kind: FrameType, payload: &[u8]) {
        assert!(header.length <= super::welcome().max_frame, "{header:?} is too long");
        assert!(!self.ended, "{kind:?} after the end");
        assert_eq!(self.begun, kind == FrameType::Data, "{kind:?} out of order");
        self.begun = true;
        let skip = if kind == FrameType::Request { REQUEST_ID_LEN } else { 0 };
        let body = &payload[skip..];
        self.credit = self.credit.checked_sub(body.len()).expect("no more than was granted");
        self.body.extend_from_slice(body);
        self.ended = header.flags.has(Flags::END);
    }

    /// A frame of this direction to send: a random piece within the credit, perhaps the last.
    pub(super) fn make(
        &mut self,
        first: FrameType,
        stream: u32,
        end: bool,
        rng: &mut fastrand::Rng,
    ) -> (Header, Vec<u8>) {
        let skip = if first == FrameType::Request && !self.begun { REQUEST_ID_LEN } else { 0 };
        let most = self.credit.min(super::welcome().max_frame as usize - skip);
        let len = rng.usize(0..=most);
        let body: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
        let kind = if self.begun { FrameType::Data } else { first };
        let header = Header::new(kind, stream).flags(Flags::END.only_if(end));
        self.credit -= body.len();
        self.body.extend_from_slice(&body);
        self.begun = true;
        self.ended = end;
        (header, [vec![0; skip], body].concat())
    }
}

/// Streams the model knows, by id.
pub(super) type Streams<T> = BTreeMap<u32, T>;

/// An ERROR on a stream.
pub(super) fn error(stream: u32, code: Code) -> Header {
    Header::new(FrameType::Error, stream).code(code)
}

/// Any of these keys.
pub(super) fn any<T>(of: &Streams<T>, rng: &mut fastrand::Rng) -> Option<u32> {
    if of.is_empty() { None } else { of.keys().nth(rng.usize(..of.len())).copied() }
}

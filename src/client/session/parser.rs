//! Frames out of received bytes, however those were split.
//!
//! A body is handed on as it arrives, so a frame's size costs no memory; everything else is handed on whole.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use uuid::Uuid;

use super::End;
use crate::protocol::{
    Code, Flags, FrameType, HEADER_LEN, Header, MAX_HANDSHAKE_FRAME, MAX_HEADER_BLOCK, MAX_TEXT, REQUEST_ID_LEN, Role,
};

/// Body pieces shorter than this are copied out of the receive buffer; longer ones share it. Copying costs less than
/// a reference up to about here, and a small piece kept for long must not hold a whole buffer.
const COPY_BELOW: usize = 2048;

/// A frame, or a part of one, at the beginning of the input: where its parts are, in bytes. What it is made of stays
/// in the input, for [`take_head`], [`take_body`] and [`Buf::advance`] to take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Anything but REQUEST, RESPONSE and DATA, whole: a header, then its payload.
    Control { header: Header, kind: FrameType },
    /// A REQUEST or RESPONSE: a header, so many bytes before the body, and so many of the body.
    Head { header: Header, prefix: usize, body: usize, last: bool },
    /// A piece of a DATA behind its header (`fresh`), or more of a body that has begun.
    Body { stream: u32, fresh: bool, body: usize, last: bool },
    /// A part of an extension frame.
    Skipped { bytes: usize },
}

#[derive(Debug)]
enum State {
    Header,
    /// In a body.
    Body {
        stream: u32,
        left: usize,
        end: bool,
    },
    /// In an extension frame.
    Skip {
        left: usize,
    },
}

/// What splits a connection's bytes into frames.
#[derive(Debug)]
pub(super) struct Parser {
    role: Role,
    state: State,
    limit: u32,
    welcomed: bool,
}

impl Parser {
    pub(super) fn new(role: Role) -> Parser {
        Parser { role, state: State::Header, limit: MAX_HANDSHAKE_FRAME, welcomed: false }
    }

    pub(super) fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header)
    }

    /// The longest payload, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// WELCOME came: frames of up to this many bytes from now on.
    pub(super) fn set_limit(&mut self, max_frame: u32) {
        self.limit = max_frame;
        self.welcomed = true;
    }

    /// The next frame in `input`, which the caller then takes out of it; `None` when more bytes are needed.
    #[inline]
    pub(super) fn next(&mut self, input: &[u8]) -> Result<Option<Frame>, End> {
        match self.state {
            State::Header => self.header(input),
            _ if input.is_empty() => Ok(None),
            State::Skip { left } => {
                let bytes = left.min(input.len());
                self.state = if bytes == left { State::Header } else { State::Skip { left: left - bytes } };
                Ok(Some(Frame::Skipped { bytes }))
            }
            State::Body { stream, left, end } => {
                let (body, last) = self.body(input.len(), stream, left, end);
                Ok(Some(Frame::Body { stream, fresh: false, body, last }))
            }
        }
    }

    fn header(&mut self, input: &[u8]) -> Result<Option<Frame>, End> {
        let Some(bytes) = input.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(bytes);
        if !self.welcomed && !may_open(&header) {
            let text =
                format!("no corelay broker: it began with \"{}\", which is no corelay frame", bytes.escape_ascii());
            return Err(End::found(Code::Protocol, text));
        }
        if header.length > self.limit {
            let text = format!("frame of {} bytes, the limit is {}", header.length, self.limit);
            return Err(End::found(Code::FrameTooLarge, text));
        }
        let length = header.length as usize;
        let Some(kind) = header.frame_type() else {
            if !header.is_extension() {
                return Err(End::found(Code::Protocol, format!("unknown frame type {:#04x}", header.kind)));
            }
            self.state = State::Skip { left: length };
            return Ok(Some(Frame::Skipped { bytes: HEADER_LEN }));
        };
        check(self.role, kind, &header)?;
        match kind {
            FrameType::Request | FrameType::Response => self.head(input, header, kind),
            FrameType::Data => {
                let there = input.len() - HEADER_LEN;
                let (body, last) = self.body(there, header.stream, length, header.flags.has(Flags::END));
                Ok(Some(Frame::Body { stream: header.stream, fresh: true, body, last }))
            }
            _ if input.len() < HEADER_LEN + length => Ok(None),
            _ => Ok(Some(Frame::Control { header, kind })),
        }
    }

    fn head(&mut self, input: &[u8], header: Header, kind: FrameType) -> Result<Option<Frame>, End> {
        let length = header.length as usize;
        let id_len = if kind == FrameType::Request { REQUEST_ID_LEN } else { 0 };
        let has_block = header.flags.has(Flags::HEADERS);
        let mut prefix = id_len + if has_block { 2 } else { 0 };
        let short = || End::found(Code::Protocol, format!("{kind:?} of {length} bytes is too short for its head"));
        if length < prefix {
            return Err(short());
        }
        if input.len() < HEADER_LEN + prefix {
            return Ok(None);
        }
        if has_block {
            let at = HEADER_LEN + id_len;
            let size = usize::from(u16::from_le_bytes([input[at], input[at + 1]]));
            if size > MAX_HEADER_BLOCK {
                return Err(End::found(Code::Protocol, format!("header block of {size} bytes")));
            }
            prefix += size;
            if length < prefix {
                return Err(short());
            }
            if input.len() < HEADER_LEN + prefix {
                return Ok(None);
            }
        }
        let there = input.len() - HEADER_LEN - prefix;
        let (body, last) = self.body(there, header.stream, length - prefix, header.flags.has(Flags::END));
        Ok(Some(Frame::Head { header, prefix, body, last }))
    }

    /// How much of a body of which `left` bytes are to come is `there`, and whether the stream's direction ends with it.
    #[inline]
    fn body(&mut self, there: usize, stream: u32, left: usize, end: bool) -> (usize, bool) {
        let n = left.min(there);
        let whole = n == left;
        self.state = if whole { State::Header } else { State::Body { stream, left: left - n, end } };
        (n, whole && end)
    }
}

/// Takes a REQUEST's or RESPONSE's header and what follows it before the body: the request id, where it has one, and
/// the header block.
#[inline]
pub(super) fn take_head(input: &mut BytesMut, header: Header, prefix: usize) -> (Uuid, Option<Bytes>) {
    let head = &input[HEADER_LEN..HEADER_LEN + prefix];
    let is_request = header.frame_type() == Some(FrameType::Request);
    let (id, rest) = if is_request { head.split_at(REQUEST_ID_LEN) } else { (&[][..], head) };
    let id = Uuid::from_slice(id).unwrap_or_default();
    let block = header.flags.has(Flags::HEADERS).then(|| Bytes::copy_from_slice(&rest[2..]));
    input.advance(HEADER_LEN + prefix);
    (id, block)
}

/// Small bodies are copied one behind the other into blocks of this many bytes: an allocation for each of a burst would
/// cost more than all else that is done with it.
const BLOCK: usize = 2048;
/// So many blocks are kept at most, to be filled again.
const BLOCKS: usize = 8;
/// How small. A piece that is kept for long keeps its block, and no more: what waits on a stream is joined before it is
/// many pieces.
pub(super) const SMALL: usize = 256;

/// Takes bodies out of what came.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    /// The last is being filled; the others are full, the oldest first.
    blocks: VecDeque<BytesMut>,
}

impl Bodies {
    /// Takes `n` bytes. Below [`COPY_BELOW`] the buffer is only advanced, which costs nothing: splitting it would make
    /// it a shared one, counted up and down with each frame.
    #[inline]
    pub(super) fn take(&mut self, input: &mut BytesMut, n: usize) -> Bytes {
        if n >= COPY_BELOW {
            return input.split_to(n).freeze();
        }
        let copy = match n {
            0 => Bytes::new(),
            1..=SMALL => self.copy(&input[..n], n),
            _ => Bytes::copy_from_slice(&input[..n]),
        };
        input.advance(n);
        copy
    }

    /// A copy of as much of the beginning of `bytes` as the block has room for: of `least` bytes, at most a block, or
    /// of more.
    pub(super) fn copy(&mut self, bytes: &[u8], least: usize) -> Bytes {
        if self.blocks.back().is_none_or(|block| block.capacity() < least) {
            self.renew();
        }
        let Some(block) = self.blocks.back_mut() else { return Bytes::copy_from_slice(&bytes[..least]) };
        let n = bytes.len().min(block.capacity());
        block.extend_from_slice(&bytes[..n]);
        block.split().freeze()
    }

    /// Makes room at the end: the oldest block again, if nobody has kept anything of it. In a pipeline bodies are soon
    /// dropped.
    fn renew(&mut self) {
        if let Some(mut oldest) = self.blocks.pop_front() {
            if oldest.try_reclaim(BLOCK) {
                self.blocks.push_back(oldest);
                return;
            }
            if self.blocks.len() + 1 < BLOCKS {
                self.blocks.push_front(oldest);
            }
        }
        self.blocks.push_back(BytesMut::with_capacity(BLOCK));
    }
}

/// Whether a broker may send this before WELCOME. What else comes is mostly another kind of server, to which the
/// client has been pointed by mistake.
fn may_open(header: &Header) -> bool {
    match header.frame_type() {
        Some(_) => header.stream == 0,
        None => header.is_extension(),
    }
}

/// What a header alone shows to be wrong, when it comes from the broker (§1).
fn check(role: Role, kind: FrameType, header: &Header) -> Result<(), End> {
    let wrong = |what: &str| Err(End::found(Code::Protocol, format!("{kind:?} {what}")));
    let direction = match kind {
        FrameType::Hello => false,
        FrameType::Request | FrameType::Cancel => role == Role::Provider,
        FrameType::Response => role == Role::Consumer,
        FrameType::Error => role == Role::Consumer || header.stream == 0,
        _ => true,
    };
    if !direction {
        return wrong("where it does not belong");
    }
    let on_stream = match kind {
        FrameType::Request | FrameType::Response | FrameType::Data | FrameType::Cancel | FrameType::Credit => true,
        FrameType::Error => header.stream != 0,
        _ => false,
    };
    if on_stream != (header.stream != 0) {
        return wrong(if on_stream { "on stream 0" } else { "on a stream" });
    }
    let length = header.length as usize;
    match kind {
        FrameType::Cancel | FrameType::Credit if length > 0 => wrong("with a payload"),
        FrameType::Ping | FrameType::Pong if length != 8 => wrong("that is not 8 bytes"),
        FrameType::Error | FrameType::GoAway if length > MAX_TEXT => wrong("with a text beyond 1,024 bytes"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_any_size_are_taken_and_small_ones_share_a_block() {
        let mut bodies = Bodies::default();
        let mut input = BytesMut::new();
        let sizes = [0, 1, 64, SMALL, SMALL + 1, COPY_BELOW - 1, COPY_BELOW, 3 * COPY_BELOW];
        for size in sizes {
            input.extend((0..size).map(|at| at as u8));
        }
        let taken = sizes.map(|size| bodies.take(&mut input, size));
        assert!(input.is_empty());
        for (body, size) in taken.iter().zip(sizes) {
            assert_eq!(body.len(), size);
            assert!(body.iter().enumerate().all(|(at, &byte)| byte == at as u8));
        }
        let end_of = |body: &Bytes| body.as_ptr().wrapping_add(body.len());
        assert_eq!(end_of(&taken[1]), taken[2].as_ptr(), "one behind the other");
        let block = taken[1].as_ptr();
        drop(taken);
        // what nobody kept is filled again
        for _ in 0..2 * BLOCK {
            input.extend_from_slice(b"x");
            bodies.take(&mut input, 1);
        }
        assert!(bodies.blocks[0].as_ptr().addr().abs_diff(block.addr()) <= BLOCK);
    }

    #[test]
    fn blocks_are_filled_again_in_turn_and_what_is_kept_stays_as_it_was() {
        let mut bodies = Bodies::default();
        let mut burst = |n: usize| -> Vec<Bytes> { (0..n).map(|at| bodies.copy(&[at as u8; SMALL], SMALL)).collect() };
        // three blocks at a time, as in a pipeline: the first burst's are filled again by the third
        let in_burst = 3 * BLOCK / SMALL;
        let (first, second) = (burst(in_burst), burst(in_burst));
        let places = |bodies: &[Bytes]| bodies.iter().map(|body| body.as_ptr()).collect::<Vec<_>>();
        let were = places(&first);
        drop(first);
        assert_eq!(places(&burst(in_burst)), were);
        let kept = burst(2 * BLOCKS * BLOCK / SMALL);
        for body in [second, kept] {
            assert!(body.iter().enumerate().all(|(at, body)| body[..] == [at as u8; SMALL]));
        }
        assert_eq!(bodies.blocks.len(), BLOCKS);
    }
}

//! Frames out of a stream of bytes, whatever pieces it comes in. Bodies are counted, not kept.

use corelay::protocol::{Code, Flags, FrameType, HEADER_LEN, Header, REQUEST_ID_LEN};

use crate::pump::Out;
use crate::wire::Broken;

/// What is kept of the front of a payload: a request id and the size of a header block, a PING's bytes, or the
/// beginning of an ERROR's text.
const FRONT: usize = 64;

const REQUEST: u8 = FrameType::Request as u8;
const RESPONSE: u8 = FrameType::Response as u8;
const DATA: u8 = FrameType::Data as u8;

/// Where in the stream of bytes a connection is.
#[derive(Debug)]
pub(super) struct Reader {
    head: [u8; HEADER_LEN],
    have: usize,
    header: Header,
    /// Payload bytes of the current frame that have not come.
    left: usize,
    front: [u8; FRONT],
    front_len: usize,
}

/// A whole frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    /// Bytes of body: the payload without request id and header block.
    pub(super) body: u64,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader {
            head: [0; HEADER_LEN],
            have: 0,
            header: Header::new(FrameType::Ping, 0),
            left: 0,
            front: [0; FRONT],
            front_len: 0,
        }
    }

    /// The next frame, if it lies whole in `bytes` and is of the common kind: a body on a stream, without header block.
    /// Else `None`, and nothing is taken: [`Reader::next`] finds out.
    #[inline(always)]
    pub(super) fn whole(&self, bytes: &mut &[u8]) -> Option<Frame> {
        if self.left > 0 || self.have > 0 {
            return None;
        }
        let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let header = Header::decode(head);
        let before = match header.kind {
            REQUEST => REQUEST_ID_LEN,
            RESPONSE | DATA => 0,
            _ => return None,
        };
        let length = header.length as usize;
        if header.flags.has(Flags::HEADERS) || header.stream == 0 || length > rest.len() || length < before {
            return None;
        }
        *bytes = &rest[length..];
        Some(Frame { header, body: (length - before) as u64 })
    }

    /// The next frame that is complete; takes what it reads off `bytes`. `None` when they are used up.
    #[inline]
    pub(super) fn next(&mut self, bytes: &mut &[u8], out: &mut Out) -> Result<Option<Frame>, Broken> {
        loop {
            if self.left == 0 && !self.head(bytes) {
                return Ok(None);
            }
            let now = self.left.min(bytes.len());
            if self.wants_front() {
                self.keep_front(&bytes[..now]);
            }
            *bytes = &bytes[now..];
            self.left -= now;
            if self.left > 0 {
                return Ok(None);
            }
            let frame = self.frame();
            if frame.header.is_extension() {
                continue;
            }
            if frame.header.stream != 0 {
                return Ok(Some(frame));
            }
            self.connection_frame(frame, out)?;
        }
    }

    /// Completes a header; false if the bytes don't reach.
    #[inline]
    fn head(&mut self, bytes: &mut &[u8]) -> bool {
        if self.have == 0
            && let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>()
        {
            self.begin(Header::decode(head));
            *bytes = rest;
            return true;
        }
        let now = (HEADER_LEN - self.have).min(bytes.len());
        self.head[self.have..][..now].copy_from_slice(&bytes[..now]);
        self.have += now;
        *bytes = &bytes[now..];
        if self.have < HEADER_LEN {
            return false;
        }
        self.have = 0;
        self.begin(Header::decode(&self.head));
        true
    }

    #[inline]
    fn begin(&mut self, header: Header) {
        self.header = header;
        self.left = header.length as usize;
        self.front_len = 0;
    }

    #[inline]
    fn wants_front(&self) -> bool {
        self.header.stream == 0 || self.header.flags.has(Flags::HEADERS) || self.header.kind == FrameType::Error as u8
    }

    #[cold]
    fn keep_front(&mut self, bytes: &[u8]) {
        let now = (FRONT - self.front_len).min(bytes.len());
        self.front[self.front_len..][..now].copy_from_slice(&bytes[..now]);
        self.front_len += now;
    }

    #[inline]
    fn frame(&self) -> Frame {
        let header = self.header;
        let mut before = if header.kind == FrameType::Request as u8 { REQUEST_ID_LEN } else { 0 };
        if header.flags.has(Flags::HEADERS) && self.front_len >= before + 2 {
            before += 2 + usize::from(u16::from_le_bytes([self.front[before], self.front[before + 1]]));
        }
        Frame { header, body: (header.length as usize).saturating_sub(before) as u64 }
    }

    /// The text that came with an ERROR, as far as it was kept.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.front[..self.front_len]).into_owned()
    }

    #[cold]
    fn connection_frame(&mut self, frame: Frame, out: &mut Out) -> Result<(), Broken> {
        match frame.header.frame_type() {
            Some(FrameType::Ping) => {
                out.put(&Header::new(FrameType::Pong, 0).length(self.front_len as u32).encode());
                out.put(&self.front[..self.front_len]);
                Ok(())
            }
            Some(FrameType::Pong | FrameType::GoAway) => Ok(()),
            Some(FrameType::Error) => {
                let code = Code::from_wire(frame.header.code).map_or("an unknown code", Code::name);
                Err(Broken(format!("the broker ended the connection with {code}: {}", self.text())))
            }
            kind => Err(Broken(format!("unexpected frame {kind:?} on stream 0"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(out: &mut Vec<u8>, header: Header, payload: &[u8]) {
        out.extend_from_slice(&header.length(payload.len() as u32).encode());
        out.extend_from_slice(payload);
    }

    #[test]
    fn frames_come_whole_whatever_the_pieces() {
        let mut bytes = Vec::new();
        put(&mut bytes, Header::new(FrameType::Request, 1), &[7; 16 + 5]);
        put(&mut bytes, Header::new(FrameType::Ping, 0), b"12345678");
        put(&mut bytes, Header::new(FrameType::Response, 2).flags(Flags::HEADERS), &[3, 0, 1, 1, 1, 9, 9]);
        put(&mut bytes, Header::new(FrameType::Data, 3).flags(Flags::END), b"");
        put(&mut bytes, Header::new(FrameType::Error, 4).code(Code::Deadline), b"late");
        for piece in 1..bytes.len() {
            let (mut reader, mut out) = (Reader::new(), Out::default());
            let mut seen = Vec::new();
            for mut part in bytes.chunks(piece) {
                loop {
                    let frame = reader.whole(&mut part);
                    let Some(frame) = frame.or_else(|| reader.next(&mut part, &mut out).unwrap()) else { break };
                    seen.push((frame.header.stream, frame.body));
                }
            }
            assert_eq!(seen, [(1, 5), (2, 2), (3, 0), (4, 4)], "in pieces of {piece}");
            assert_eq!(reader.text(), "late");
            assert_eq!(&out.staged()[HEADER_LEN..], b"12345678");
        }
    }

    #[test]
    fn the_brokers_goodbye_is_told() {
        let mut bytes = Vec::new();
        put(&mut bytes, Header::new(FrameType::Error, 0).code(Code::Flood), b"too much");
        let told = Reader::new().next(&mut &bytes[..], &mut Out::default()).unwrap_err();
        assert_eq!(told.0, "the broker ended the connection with FLOOD: too much");
    }
}

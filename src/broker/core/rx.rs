//! Bytes in, frames out: a connection's input cut at any place.
//!
//! ```text
//!   Header ──► Head (request id, header block, or a whole control frame) ──► Body* ──► Header
//!      └─────► Skip (extensions)
//! ```
//!
//! Only heads are ever gathered, at most a header block's size; bodies are passed on as they come (cut-through).

use crate::protocol::{Code, FrameType, HEADER_LEN, Header, MAX_HEADER_BLOCK, MAX_TEXT, REQUEST_ID_LEN};

use super::conn::{Phase, Side};
use super::link;
use crate::base::Time;

/// How the peer broke the protocol; ends its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation(Box<Breach>);

/// What a [`Violation`] says; behind a pointer, for every step of the input returns whether there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub code: Code,
    pub text: String,
}

impl std::ops::Deref for Violation {
    type Target = Breach;

    fn deref(&self) -> &Breach {
        &self.0
    }
}

impl Violation {
    #[cold]
    pub(super) fn new(code: Code, text: impl Into<String>) -> Violation {
        Violation(Box::new(Breach { code, text: text.into() }))
    }

    pub(super) fn protocol(text: impl Into<String>) -> Violation {
        Violation::new(Code::Protocol, text)
    }
}

/// Where in a frame a connection's input stands.
#[derive(Debug, Default)]
pub(super) struct Rx {
    pub at: At,
    /// Bytes of a header or head that came in parts.
    pub gathered: Vec<u8>,
    /// When the header was read whose head is incomplete: a REQUEST's timeout runs from there (§6).
    pub head_since: Option<Time>,
    /// Since when a header or head is incomplete (`frame_timeout`).
    pub partial_since: Option<Time>,
}

/// See [`Rx`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum At {
    /// Before or in a header.
    #[default]
    Header,
    /// In a head.
    Head(Header),
    /// In a body, with so many bytes to come.
    Body(Header, u32),
    /// In a payload nobody wants.
    Skip(u32),
}

/// What the input holds next.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// All input is used up; a header or head is incomplete.
    More,
    /// A whole frame.
    Frame { header: Header, head: &'a [u8], body: &'a [u8] },
    /// A frame's head is whole: everything before its body.
    Head { header: Header, head: &'a [u8] },
    /// Body bytes of this frame; with `last`, its last ones.
    Body { header: Header, bytes: &'a [u8], last: bool },
    /// Nothing of interest; go on.
    Skipped,
    /// An extension's frame, with nothing in it.
    Empty,
}

impl Rx {
    /// Nothing of the next frame has come.
    #[inline]
    pub(super) fn is_between_frames(&self) -> bool {
        matches!(self.at, At::Header) && self.gathered.is_empty()
    }

    /// Finds the next thing in `input` and says how many bytes of it were used.
    ///
    /// A head gathered in parts is lent from `store`.
    pub(super) fn next<'a>(
        &mut self,
        input: &'a [u8],
        store: &'a mut Vec<u8>,
        check: impl Fn(&Header) -> Result<(), Violation>,
        side: Side,
    ) -> Result<(usize, Found<'a>), Violation> {
        match self.at {
            At::Header => self.header(input, check, side),
            At::Head(header) => self.head(header, input, store, side),
            At::Body(header, left) => {
                let n = input.len().min(left as usize);
                let left = left - n as u32;
                self.at = if left == 0 { At::Header } else { At::Body(header, left) };
                Ok((n, Found::Body { header, bytes: &input[..n], last: left == 0 }))
            }
            At::Skip(left) => {
                let n = input.len().min(left as usize);
                let left = left - n as u32;
                self.at = if left == 0 { At::Header } else { At::Skip(left) };
                Ok((n, Found::Skipped))
            }
        }
    }

    #[inline]
    fn header<'a>(
        &mut self,
        input: &'a [u8],
        check: impl Fn(&Header) -> Result<(), Violation>,
        side: Side,
    ) -> Result<(usize, Found<'a>), Violation> {
        let (used, header) = if self.gathered.is_empty() {
            match input.first_chunk::<HEADER_LEN>() {
                Some(bytes) => (HEADER_LEN, Header::decode(bytes)),
                None => {
                    self.gathered.extend_from_slice(input);
                    return Ok((input.len(), Found::More));
                }
            }
        } else {
            let n = input.len().min(HEADER_LEN - self.gathered.len());
            self.gathered.extend_from_slice(&input[..n]);
            let Some(bytes) = self.gathered.first_chunk::<HEADER_LEN>() else {
                return Ok((n, Found::More));
            };
            let header = Header::decode(bytes);
            self.gathered.clear();
            (n, header)
        };
        check(&header)?;
        self.head_since = None;
        if is_unknown_extension(&header, side) {
            self.partial_since = None;
            if header.length == 0 {
                self.at = At::Header;
                return Ok((used, Found::Empty));
            }
            self.at = At::Skip(header.length);
            return Ok((used, Found::Skipped));
        }
        // the whole head lies in this input, in nearly every case
        let rest = &input[used..];
        let need = head_len(&header, rest, side)?;
        let length = header.length as usize;
        if need.is_final && rest.len() >= length {
            self.partial_since = None;
            self.at = At::Header;
            let (head, body) = rest[..length].split_at(need.bytes);
            return Ok((used + length, Found::Frame { header, head, body }));
        }
        if need.is_final && rest.len() >= need.bytes {
            self.after_head(header, need.bytes);
            return Ok((used + need.bytes, Found::Head { header, head: &rest[..need.bytes] }));
        }
        self.at = At::Head(header);
        Ok((used, Found::Skipped))
    }

    fn head<'a>(
        &mut self,
        header: Header,
        input: &'a [u8],
        store: &'a mut Vec<u8>,
        side: Side,
    ) -> Result<(usize, Found<'a>), Violation> {
        let mut used = 0;
        loop {
            let need = head_len(&header, &self.gathered, side)?;
            if need.is_final && self.gathered.len() >= need.bytes {
                self.after_head(header, need.bytes);
                std::mem::swap(store, &mut self.gathered);
                self.gathered.clear();
                return Ok((used, Found::Head { header, head: store }));
            }
            if used == input.len() {
                return Ok((used, Found::More));
            }
            let n = (need.bytes - self.gathered.len()).min(input.len() - used);
            self.gathered.extend_from_slice(&input[used..used + n]);
            used += n;
        }
    }

    fn after_head(&mut self, header: Header, head: usize) {
        let body = header.length - head as u32;
        self.partial_since = None;
        self.at = if body == 0 { At::Header } else { At::Body(header, body) };
    }
}

/// How long a head is, as far as its bytes so far tell.
struct HeadLen {
    bytes: usize,
    is_final: bool,
}

fn is_unknown_extension(header: &Header, side: Side) -> bool {
    header.is_extension() && !(side.is_link() && link::is_known(header.kind))
}

#[inline]
fn head_len(header: &Header, so_far: &[u8], side: Side) -> Result<HeadLen, Violation> {
    let fixed = match header.frame_type() {
        Some(FrameType::Data) => return Ok(HeadLen { bytes: 0, is_final: true }),
        Some(FrameType::Request) => REQUEST_ID_LEN,
        Some(FrameType::Response) => 0,
        None if header.kind == link::REQUEST && side.is_link() => link::REQUEST_HEAD + REQUEST_ID_LEN,
        // control frames have no body: the payload is the head
        _ => return Ok(HeadLen { bytes: header.length as usize, is_final: true }),
    };
    if !header.flags.has(crate::protocol::Flags::HEADERS) {
        return fits(header, fixed, true);
    }
    // what is behind a payload too short for a size is the next frame's
    let sized = fits(header, fixed + 2, false)?;
    match so_far.get(fixed..fixed + 2) {
        None => Ok(sized),
        Some(size) => {
            let size = usize::from(u16::from_le_bytes([size[0], size[1]]));
            if size > MAX_HEADER_BLOCK {
                return Err(Violation::protocol(format!("header block of {size} bytes, at most {MAX_HEADER_BLOCK}")));
            }
            fits(header, fixed + 2 + size, true)
        }
    }
}

#[inline]
fn fits(header: &Header, bytes: usize, is_final: bool) -> Result<HeadLen, Violation> {
    if bytes > header.length as usize {
        let text = format!("payload of {} bytes is too short: its head takes {bytes}", header.length);
        return Err(Violation::protocol(text));
    }
    Ok(HeadLen { bytes, is_final })
}

/// Checks a header on its own and against who sent it: what needs no stream table (§1, §3).
#[inline]
pub(super) fn check_header(header: &Header, side: Side, phase: Phase, max_frame: u32) -> Result<(), Violation> {
    if header.length > max_frame {
        let text = format!("frame of {} bytes, at most {max_frame} are allowed", header.length);
        return Err(Violation::new(Code::FrameTooLarge, text));
    }
    let Some(kind) = header.frame_type() else {
        if header.is_extension() && phase != Phase::Hello {
            return Ok(());
        }
        if phase == Phase::Hello {
            return Err(Violation::protocol("the first frame must be HELLO"));
        }
        return Err(Violation::protocol(format!("unknown frame type {:#04x}", header.kind)));
    };
    if (kind == FrameType::Hello) != (phase == Phase::Hello) {
        let text = if phase == Phase::Hello { "the first frame must be HELLO" } else { "a second HELLO" };
        return Err(Violation::protocol(text));
    }
    let on_stream = header.stream != 0;
    let fits = match kind {
        FrameType::Hello | FrameType::Ping | FrameType::Pong | FrameType::GoAway => !on_stream,
        FrameType::Welcome => false,
        FrameType::Request => on_stream && side == Side::Consumer,
        FrameType::Cancel => on_stream && side.opens(),
        FrameType::Response => on_stream && side.answers(),
        FrameType::Error => !on_stream || side.answers(),
        FrameType::Data | FrameType::Credit => on_stream,
    };
    if !fits {
        let stream = header.stream;
        return Err(Violation::protocol(format!("{kind:?} on stream {stream} does not belong here ({side:?})")));
    }
    check_length(kind, header.length)
}

#[inline]
fn check_length(kind: FrameType, length: u32) -> Result<(), Violation> {
    let (fits, expected) = match kind {
        FrameType::Cancel | FrameType::Credit => (length == 0, "no payload"),
        FrameType::Ping | FrameType::Pong => (length == 8, "8 bytes"),
        FrameType::Error | FrameType::GoAway => (length as usize <= MAX_TEXT, "a text of at most 1024 bytes"),
        _ => return Ok(()),
    };
    if fits {
        return Ok(());
    }
    Err(Violation::protocol(format!("{kind:?} with {length} bytes of payload, expected {expected}")))
}

//! The short way: requests and answers that are one plain frame each, whole and without a header block. What a
//! pipeline of small requests is made of is taken and written here without the general parser, a turn in the queue of
//! what leaves, or a second look at its stream; all else, and all that is wrong, is the general way's.

use bytes::{Buf, Bytes, BytesMut};
use uuid::Uuid;

use super::outgoing::AT_ONCE;
use super::parser::{Bodies, SMALL};
use super::{Arrival, Chunks, NewRequest, Session, Stream};
use crate::base::{Key, Time};
use crate::protocol::{Flags, FrameType, HEADER_LEN, Header, REQUEST_ID_LEN, Role};

/// Copies of what came, from which the bodies of several frames are cut.
#[derive(Default)]
struct Run {
    copy: Bytes,
    /// Where in the input it begins.
    start: usize,
}

impl Run {
    /// The bytes from `at` on, of which there are at least `n`.
    #[inline]
    fn cut(&mut self, bodies: &mut Bodies, input: &[u8], at: usize, n: usize) -> Bytes {
        if n == 0 {
            return Bytes::new();
        }
        if at + n > self.start + self.copy.len() {
            (self.copy, self.start) = (bodies.copy(&input[at..], n), at);
        }
        self.copy.slice(at - self.start..at - self.start + n)
    }
}

impl Session {
    /// Takes the short frames at the beginning of `input`, up to the first that is anything else.
    pub(super) fn receive_short(&mut self, input: &mut BytesMut, now: Time) {
        if self.welcome.is_none() || !self.parser.is_between_frames() {
            return;
        }
        let (kind, prefix) = match self.role {
            Role::Consumer => (FrameType::Response as u8, 0),
            Role::Provider => (FrameType::Request as u8, REQUEST_ID_LEN),
        };
        let most = (prefix + SMALL).min(self.parser.limit());
        let (mut at, mut run) = (0, Run::default());
        while let Some(bytes) = input[at..].first_chunk::<HEADER_LEN>() {
            let header = Header::decode(bytes);
            let (length, body) = (header.length as usize, at + HEADER_LEN + prefix);
            let plain = header.kind == kind && header.flags.0 & (Flags::END | Flags::HEADERS).0 == Flags::END.0;
            let whole = (prefix..=most).contains(&length) && input.len() - at - HEADER_LEN >= length;
            if !plain || !whole || header.stream == 0 {
                break;
            }
            let size = length - prefix;
            let taken = match self.role {
                Role::Consumer => self.short_response(header.stream, size, |bodies| run.cut(bodies, input, body, size)),
                Role::Provider => {
                    let id = Uuid::from_slice(&input[at + HEADER_LEN..body]).unwrap_or_default();
                    self.short_request(header, id, size, now, |bodies| run.cut(bodies, input, body, size))
                }
            };
            if !taken {
                break;
            }
            at += HEADER_LEN + length;
        }
        input.advance(at);
    }

    /// A whole answer to a request that has been sent whole. `false` where anything is out of the ordinary.
    #[inline]
    fn short_response(&mut self, id: u32, size: usize, body: impl FnOnce(&mut Bodies) -> Bytes) -> bool {
        let Some(key) = self.ids.get(id) else { return false };
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let asked = stream.send.ended && !stream.is_staged(self.encoded) && stream.failure.is_none();
        let recv = &mut stream.recv;
        if !asked || recv.begun || recv.ended || recv.discard || !recv.credit.receive(size) {
            return false;
        }
        (recv.begun, recv.ended) = (true, true);
        recv.queue.push(body(&mut self.bodies));
        self.wakes.extend(stream.reader.take());
        stream.id = 0;
        self.ids.release(id);
        self.open -= 1;
        self.freed += 1;
        true
    }

    /// A whole request under an id that is free. `false` where anything is out of the ordinary.
    #[inline]
    fn short_request(
        &mut self,
        header: Header,
        id: Uuid,
        size: usize,
        now: Time,
        body: impl FnOnce(&mut Bodies) -> Bytes,
    ) -> bool {
        let Some(welcome) = &self.welcome else { return false };
        if size > self.window as usize || self.ids.get(header.stream).is_some() {
            return false;
        }
        let (key, stream) = self.streams.open(welcome.window, self.window, now);
        stream.id = header.stream;
        let recv = &mut stream.recv;
        (recv.begun, recv.ended, recv.discard) = (true, true, true);
        // the handle that answers: there is nothing to read
        stream.handles = 1;
        let claimed = self.ids.claim(header.stream, key);
        debug_assert!(claimed, "the id was free");
        self.open += 1;
        self.arrivals.push_back(Arrival {
            key,
            id,
            flags: header.flags,
            left_ms: header.arg,
            at: now,
            block: None,
            whole: Some(Chunks::from(body(&mut self.bodies))),
            lost: self.lost,
        });
        true
    }

    /// Whether [`Session::stage_request`] may be used.
    pub(super) fn is_short(&self, request: &NewRequest<'_>, send_window: u32) -> bool {
        let (size, credit) = (request.body.len(), send_window as usize);
        let plain = request.whole && request.block.is_empty();
        plain && fits(self.staged.len(), size, credit, REQUEST_ID_LEN, self.max_frame())
    }

    /// Opens a request that one frame holds, and stages that: it leaves with the next [`Session::fill`].
    pub(super) fn stage_request(&mut self, request: &NewRequest<'_>, send_window: u32, time: Time) -> Key {
        let (key, stream) = self.streams.open(send_window, self.window, time);
        stream.id = self.ids.pick(key);
        stream.opened_at = self.encoded + self.staged.len() as u64;
        let send = &mut stream.send;
        (send.begun, send.head_sent, send.finished, send.ended) = (true, true, true, true);
        stream.handles = 1;
        stream.reader = request.waiter.cloned();
        let length = REQUEST_ID_LEN + request.body.len();
        let header = Header::new(FrameType::Request, stream.id)
            .length(length as u32)
            .flags(request.flags | Flags::END)
            .arg(request.timeout_ms);
        self.staged.reserve(HEADER_LEN + length);
        self.staged.extend_from_slice(&header.encode());
        self.staged.extend_from_slice(request.id.as_bytes());
        self.staged.extend_from_slice(request.body);
        key
    }

    /// Takes a staged REQUEST back, as if it had never been written; does nothing where it is not staged any more.
    pub(super) fn unstage(&mut self, key: Key) {
        let encoded = self.encoded;
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.is_staged(encoded)) else { return };
        let (id, opened_at) = (std::mem::take(&mut stream.id), std::mem::replace(&mut stream.opened_at, u64::MAX));
        self.ids.release(id);
        self.unopened += 1;
        let at = (opened_at - encoded) as usize;
        let Some(header) = self.staged[at..].first_chunk() else { return };
        let length = HEADER_LEN + Header::decode(header).length as usize;
        self.staged.drain(at..at + length);
        let behind = |stream: &&mut Stream| stream.is_staged(encoded) && stream.opened_at > opened_at;
        self.streams.iter_mut().filter(behind).for_each(|stream| stream.opened_at -= length as u64);
    }

    /// Stages a whole answer behind the control frames, if one frame holds it and credit allows: its handler then
    /// needs neither wait for its turn nor be woken after it.
    pub(super) fn stage_answer(&mut self, key: Key, block: &[u8], body: &[u8]) -> bool {
        let max_frame = self.max_frame();
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let send = &mut stream.send;
        if !fits(self.control.len(), body.len(), send.credit.left(), block.len(), max_frame) {
            return false;
        }
        (send.head_sent, send.ended) = (true, true);
        let length = block.len() + body.len();
        let header = Header::new(FrameType::Response, stream.id)
            .length(length as u32)
            .flags(Flags::END | Flags::HEADERS.only_if(!block.is_empty()));
        self.control.reserve(HEADER_LEN + length);
        self.control.extend_from_slice(&header.encode());
        self.control.extend_from_slice(block);
        self.control.extend_from_slice(body);
        // the handle that answers is gone
        stream.handles -= 1;
        self.spans.push(stream.time);
        self.answered(key);
        true
    }
}

/// Whether a whole body of `size` bytes behind a `prefix` may leave ahead of bodies in turn, in one frame.
fn fits(staged: usize, size: usize, credit: usize, prefix: usize, max_frame: usize) -> bool {
    staged < AT_ONCE && size <= AT_ONCE.min(credit) && prefix + size <= max_frame
}

//! What leaves, and in which order: control frames, whole short requests, then one frame of each ready stream in turn.

use super::stream::Stream;
use super::{End, Leaving, Session};
use crate::base::{Key, Time};
use crate::protocol::{Flags, FrameType, HEADER_LEN, Header, REQUEST_ID_LEN, Role};

/// Body bytes a stream may write before it is the next one's turn. Large enough that headers and turns cost nothing,
/// small enough that a short request waits some tens of microseconds behind it.
const TURN: usize = 32 * 1024;
/// Bytes staged at once; a socket buffer's worth.
const STAGE: usize = 128 * 1024;
/// A whole request or answer of up to this many bytes is staged at once, while no more than this is staged that way: an
/// eighth of what leaves in a turn, so that bodies in turn are not held up by it.
pub(super) const AT_ONCE: usize = STAGE / 8;

impl Session {
    /// Whether [`Session::fill`] would give something.
    pub(crate) fn wants_write(&self) -> bool {
        !self.control.is_empty() || !self.staged.is_empty() || (self.welcome.is_some() && !self.ready.is_empty())
    }

    /// Moves what is to be written next to the end of `out`, up to about a socket buffer full.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        for first in [&mut self.control, &mut self.staged] {
            if out.is_empty() {
                std::mem::swap(out, first);
            } else {
                out.append(first);
            }
        }
        self.pongs = 0;
        if self.welcome.is_some() {
            while out.len() - start < STAGE {
                let Some(key) = self.ready.pop_front() else { break };
                self.write_turn(key, out, start);
            }
        }
        self.say_goaway();
        self.encoded += (out.len() - start) as u64;
    }

    /// What was filled is about to be offered to the transport: from now on it may have left.
    pub(crate) fn write_begins(&mut self) {
        self.may_have_left = self.encoded;
    }

    /// The transport took `n` bytes of what was filled, and takes no more for now if `blocked`.
    pub(crate) fn wrote(&mut self, n: usize, blocked: bool, now: Time) {
        self.written += n as u64;
        self.may_have_left = self.written;
        self.keepalive.wrote(n, blocked, now);
    }

    /// Ends a consumer's connection that opens no more once everything on it is over.
    pub(crate) fn end_if_done(&mut self) {
        let leaving = self.broker_leaves || self.leaving == Leaving::Said;
        if self.role == Role::Consumer && leaving && self.open == 0 && !self.wants_write() {
            let text = "the broker is leaving";
            self.shut(if self.broker_leaves { End::lost(text, None) } else { End::closed() });
        }
    }

    /// Puts the stream in the queue of those with a frame to write, where it has one.
    pub(super) fn make_ready(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !stream.send.queued && stream.sendable() {
            stream.send.queued = true;
            self.ready.push_back(key);
        }
    }

    /// The longest payload the broker takes, in bytes.
    pub(super) fn max_frame(&self) -> usize {
        self.welcome.as_ref().map_or(0, |welcome| welcome.max_frame as usize)
    }

    fn write_turn(&mut self, key: Key, out: &mut Vec<u8>, start: usize) {
        let max_frame = self.max_frame();
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.send.queued = false;
        if !stream.sendable() {
            return;
        }
        if stream.id == 0 {
            stream.id = self.ids.pick(key);
            stream.opened_at = self.encoded + (out.len() - start) as u64;
            self.unopened -= 1;
        }
        write_frame(self.role, stream, max_frame, out);
        self.wakes.extend(stream.take_writer());
        let ended = stream.send.ended;
        if ended && self.role == Role::Provider {
            self.answered(key);
        } else if ended {
            self.after_end(key);
        } else {
            self.make_ready(key);
        }
    }
}

/// Writes one frame of a stream that has one.
fn write_frame(role: Role, stream: &mut Stream, max_frame: usize, out: &mut Vec<u8>) {
    let id = stream.id;
    let (send, more) = (&mut stream.send, stream.more.get_or_insert_default());
    let first = !send.head_sent;
    let prefix = match (first, role) {
        (false, _) => 0,
        (true, Role::Consumer) => REQUEST_ID_LEN + more.head.block.len(),
        (true, Role::Provider) => more.head.block.len(),
    };
    let body = more.queue.len().min(send.credit.left()).min(TURN).min(max_frame.saturating_sub(prefix));
    let end = send.finished && body == more.queue.len();
    let kind = match (first, role) {
        (false, _) => FrameType::Data,
        (true, Role::Consumer) => FrameType::Request,
        (true, Role::Provider) => FrameType::Response,
    };
    let mut header = Header::new(kind, id).length((prefix + body) as u32).flags(Flags::END.only_if(end));
    if first {
        header.flags = header.flags | more.head.flags | Flags::HEADERS.only_if(!more.head.block.is_empty());
        header.arg = more.head.arg;
    }
    out.reserve(HEADER_LEN + prefix + body);
    out.extend_from_slice(&header.encode());
    if first {
        if role == Role::Consumer {
            out.extend_from_slice(more.head.request_id.as_bytes());
        }
        out.extend_from_slice(&more.head.block);
        more.head.block = Vec::new();
        send.head_sent = true;
    }
    more.queue.move_to(body, out);
    send.credit.spend(body);
    send.ended = end;
}

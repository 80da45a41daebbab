//! Frames without a body: ERROR, CANCEL, CREDIT, PING, PONG, GOAWAY.

use super::Core;
use super::budget::Spending;
use super::conn::Side;
use super::flow::Dir;
use super::rx::Violation;
use super::streams::Opened;
use crate::base::Key;
use crate::protocol::{Code, FrameType, Header, MAX_CREDIT};

impl Core {
    /// A control frame, whole.
    pub(super) fn control_frame(
        &mut self,
        key: Key,
        side: Side,
        kind: FrameType,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), Violation> {
        match kind {
            FrameType::Credit => self.credit(key, side, header),
            FrameType::Cancel => self.cancel(key, header.stream, header.code),
            FrameType::Error if header.stream == 0 => {
                text(payload)?;
                self.close(key, false);
                Ok(())
            }
            FrameType::Error => self.provider_error(key, header, text(payload)?),
            FrameType::Ping => self.ping(key, header, payload),
            // one nobody asked for is ignored, and one asked for has done its work by arriving
            FrameType::Pong => self.spend(key, Spending::EmptyFrames),
            FrameType::GoAway => {
                text(payload)?;
                self.peer_goes(key)
            }
            _ => unreachable!("{kind:?} has a body or was refused by its header"),
        }
    }

    fn ping(&mut self, key: Key, header: &Header, payload: &[u8]) -> Result<(), Violation> {
        self.spend(key, Spending::Pings)?;
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let pong = Header { length: header.length, ..Header::new(FrameType::Pong, 0) };
        conn.out.control(&mut self.spare, &pong.encode());
        conn.out.control(&mut self.spare, payload);
        self.set_dirty(key);
        Ok(())
    }

    /// CREDIT: the peer takes more of what is sent to it on this stream.
    fn credit(&mut self, key: Key, side: Side, header: &Header) -> Result<(), Violation> {
        if header.arg == 0 {
            return Err(Violation::new(Code::FlowControl, "CREDIT of 0 bytes"));
        }
        let conn = self.conns.get(key).expect("looked up by the caller");
        let (request, dir) = if side.opens() {
            let Some(Opened::Active(request)) = conn.opened.get(header.stream) else { return Ok(()) };
            (request, Dir::Down)
        } else {
            let slot = (header.stream as usize).wrapping_sub(1);
            let Some(request) = conn.assigned.get(slot).and_then(|assigned| assigned.request) else { return Ok(()) };
            (request, Dir::Up)
        };
        let flow = self.requests.get_mut(request).expect("an active stream's request").flow(dir);
        let credit = flow.credit.checked_add(header.arg).filter(|&credit| credit <= MAX_CREDIT);
        let Some(credit) = credit else {
            let text = format!("stream {}: more than {MAX_CREDIT} bytes of credit outstanding", header.stream);
            return Err(Violation::new(Code::FlowControl, text));
        };
        flow.credit = credit;
        if side.is_link() {
            // the other core's peer has taken them: only now is there room for more from the source (one window
            // in all, however many cores it crosses)
            flow.left(header.arg);
            self.credit_source(request, dir);
        }
        self.enlist(request, dir);
        Ok(())
    }

    /// GOAWAY from a client: it wants nothing new.
    fn peer_goes(&mut self, key: Key) -> Result<(), Violation> {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        if conn.peer_goes {
            return self.spend(key, Spending::EmptyFrames);
        }
        conn.peer_goes = true;
        conn.note_special(&self.options.limits);
        if conn.serving {
            self.provider_leaves(key);
            self.take_back_unopened(key);
        }
        self.close_if_finished(key);
        Ok(())
    }
}

fn text(payload: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(payload).map_err(|_| Violation::protocol("text is not UTF-8"))
}

//! What the broker's frames do.

use bytes::{Buf, Bytes, BytesMut};

use super::parser::{Frame, take_head};
use super::stream::Stream;
use super::{End, Failure, Origin, Session};
use crate::base::{Key, Time};
use crate::protocol::{Code, FrameType, HEADER_LEN, Header, Role, Welcome, check_header_block};

/// Frames shorter than this could not even carry a REQUEST's id and some body.
const MIN_FRAME: u32 = 64;

fn broken(text: String) -> End {
    End::found(Code::Protocol, text)
}

fn text_of(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

impl Session {
    /// Bytes came. Takes all it can use out of `input` and leaves the beginning of what is not whole yet.
    pub(crate) fn receive(&mut self, input: &mut BytesMut, now: Time) {
        if !input.is_empty() {
            self.keepalive.heard(now);
        }
        while self.end.is_none() {
            self.receive_short(input, now);
            let done = match self.parser.next(input) {
                Ok(Some(frame)) => self.on_frame(frame, input, now),
                Ok(None) => return,
                Err(end) => Err(end),
            };
            if let Err(end) = done {
                self.shut(end);
            }
        }
        input.clear();
    }

    #[inline]
    fn on_frame(&mut self, frame: Frame, input: &mut BytesMut, now: Time) -> Result<(), End> {
        match frame {
            Frame::Skipped { bytes } => {
                input.advance(bytes);
                Ok(())
            }
            Frame::Control { header, kind } => {
                let length = header.length as usize;
                let payload = &input[HEADER_LEN..HEADER_LEN + length];
                let done = self.on_control(header, kind, payload, now);
                input.advance(HEADER_LEN + length);
                done
            }
            _ if self.welcome.is_none() => Err(broken("the first frame was not WELCOME".into())),
            Frame::Head { header, prefix, body, last } => {
                let (request_id, block) = take_head(input, header, prefix);
                let body = self.bodies.take(input, body);
                if block.as_ref().is_some_and(|block| check_header_block(block).is_err()) {
                    return Err(broken(format!("header block on stream {} is cut short", header.stream)));
                }
                match self.role {
                    Role::Consumer => self.on_response(header, block, body, last),
                    Role::Provider => self.on_request(header, request_id, block, body, last, now),
                }
            }
            Frame::Body { stream, fresh, body, last } => {
                input.advance(if fresh { HEADER_LEN } else { 0 });
                let body = self.bodies.take(input, body);
                self.on_body(stream, fresh, body, last)
            }
        }
    }

    fn on_control(&mut self, header: Header, kind: FrameType, payload: &[u8], now: Time) -> Result<(), End> {
        match kind {
            FrameType::Error if header.stream == 0 => Err(End::new(Origin::Peer(header.code), text_of(payload))),
            FrameType::Welcome if self.welcome.is_none() => self.on_welcome(payload, now),
            FrameType::Welcome => Err(broken("WELCOME twice".into())),
            _ if self.welcome.is_none() => Err(broken(format!("{kind:?} before WELCOME"))),
            FrameType::Error => self.on_error(header, payload),
            FrameType::Cancel => {
                self.on_cancel(header);
                Ok(())
            }
            FrameType::Credit => self.on_credit(header),
            FrameType::Ping => self.on_ping(payload),
            FrameType::Pong => {
                self.on_pong(payload, now);
                Ok(())
            }
            FrameType::GoAway => {
                self.on_goaway();
                Ok(())
            }
            _ => Err(broken(format!("{kind:?} where it does not belong"))),
        }
    }

    fn on_welcome(&mut self, payload: &[u8], now: Time) -> Result<(), End> {
        let welcome = Welcome::decode(payload).map_err(|bad| End::found(bad.code(), bad.to_string()))?;
        if welcome.max_frame < MIN_FRAME {
            return Err(broken(format!("WELCOME with frames of at most {} bytes", welcome.max_frame)));
        }
        self.parser.set_limit(welcome.max_frame);
        self.keepalive.start(std::time::Duration::from_millis(welcome.keepalive_ms.into()), now);
        self.welcome = Some(welcome);
        Ok(())
    }

    fn on_response(&mut self, header: Header, block: Option<Bytes>, body: Bytes, last: bool) -> Result<(), End> {
        let (key, stream) = self.in_use(header.stream, FrameType::Response)?;
        if stream.recv.begun || stream.recv.ended {
            return Err(broken(format!("RESPONSE twice on stream {}", header.stream)));
        }
        stream.recv.begun = true;
        if block.is_some() {
            stream.more().block = block;
        }
        self.accept(key, body, last)
    }

    fn on_body(&mut self, id: u32, fresh: bool, body: Bytes, last: bool) -> Result<(), End> {
        let Some(key) = self.ids.get(id) else {
            // The rest of a frame that had begun while the id was in use, or a DATA that never belonged.
            return if fresh { Err(broken(format!("DATA on stream {id}, which is not in use"))) } else { Ok(()) };
        };
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        if !stream.recv.begun {
            return Err(broken(format!("DATA before RESPONSE on stream {id}")));
        }
        let after_cancel = self.role == Role::Provider && stream.failure.is_some();
        if stream.recv.ended && !after_cancel {
            return Err(broken(format!("DATA on stream {id} after its end")));
        }
        self.accept(key, body, last)
    }

    /// Body bytes for a stream that takes them, or drops them.
    pub(super) fn accept(&mut self, key: Key, body: Bytes, last: bool) -> Result<(), End> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if !stream.recv.credit.receive(body.len()) {
            return Err(End::found(Code::FlowControl, format!("more than was granted on stream {}", stream.id)));
        }
        if !stream.recv.discard && stream.failure.is_none() {
            stream.recv.queue.push(body);
        }
        if last {
            stream.recv.ended = true;
        }
        self.wakes.extend(stream.reader.take());
        if last {
            self.after_received_end(key);
        }
        Ok(())
    }

    /// The other side has sent its last frame on a stream.
    pub(super) fn after_received_end(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if self.role == Role::Consumer && !stream.send.ended {
            // An answer before the request's end: stop, and say so (§3).
            stream.stop_sending();
            self.wakes.extend(stream.take_writer());
            self.push_cancel(key);
        }
        self.after_end(key);
    }

    fn on_error(&mut self, header: Header, payload: &[u8]) -> Result<(), End> {
        let (key, stream) = self.in_use(header.stream, FrameType::Error)?;
        if stream.recv.ended {
            return Err(broken(format!("ERROR on stream {} after its end", header.stream)));
        }
        stream.recv.ended = true;
        stream.failure.get_or_insert_with(|| Failure::peer(header.code, header.flags, text_of(payload)).into());
        let reader = stream.reader.take();
        self.wakes.extend(reader);
        self.after_received_end(key);
        Ok(())
    }

    fn on_credit(&mut self, header: Header) -> Result<(), End> {
        if header.arg == 0 {
            return Err(End::found(Code::FlowControl, format!("CREDIT of 0 on stream {}", header.stream)));
        }
        let Some(key) = self.ids.get(header.stream) else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if !stream.send.credit.grant(header.arg) {
            return Err(End::found(Code::FlowControl, format!("too much CREDIT on stream {}", header.stream)));
        }
        self.make_ready(key);
        Ok(())
    }

    fn on_goaway(&mut self) {
        self.broker_leaves = true;
        if self.role == Role::Provider {
            return;
        }
        // What has not left yet can go to another broker.
        let encoded = self.encoded;
        let is_here = |stream: &Stream| (stream.id == 0 || stream.is_staged(encoded)) && !stream.recv.ended;
        let unsent: Vec<Key> = self.streams.iter().filter(|(_, s)| is_here(s)).map(|(key, _)| key).collect();
        for key in unsent {
            self.give_up(key, Failure::local(Code::Draining, "the broker is leaving"));
        }
    }

    /// The stream under an id on which the broker may send.
    fn in_use(&mut self, id: u32, kind: FrameType) -> Result<(Key, &mut Stream), End> {
        let (key, encoded) = (self.ids.get(id), self.encoded);
        match key.and_then(|key| self.streams.get_mut(key).map(|stream| (key, stream))) {
            Some((key, stream)) if !stream.is_staged(encoded) => Ok((key, stream)),
            _ => Err(broken(format!("{kind:?} on stream {id}, which is not in use"))),
        }
    }
}

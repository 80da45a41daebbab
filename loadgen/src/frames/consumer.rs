//! A consumer: the slot of a request is its stream id less one.

use std::collections::VecDeque;

use corelay::protocol::{Flags, FrameType, Header, REQUEST_ID_LEN};

use super::reader::{Frame, Reader};
use super::{Body, Intake, Terms, put_cancel, put_data, words};
use crate::pump::Out;
use crate::wire::{Broken, Consumer, Done, HIGH_WATER, Outcome};

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    open: bool,
    body: Body,
    intake: Intake,
    /// In `active`.
    queued: bool,
}

/// One consumer connection, after its handshake.
#[derive(Debug)]
pub struct FrameConsumer {
    terms: Terms,
    reader: Reader,
    streams: Vec<Stream>,
    /// Streams whose body has more to send and credit for it.
    active: VecDeque<u32>,
    /// The two halves of the last request id: one counts, the other is the consumer's own.
    requests: u64,
    number: u64,
}

impl FrameConsumer {
    /// A consumer with room for `slots` requests at a time; `number` is part of its request ids.
    #[must_use]
    pub fn new(terms: Terms, slots: u32, number: u64) -> FrameConsumer {
        FrameConsumer {
            terms,
            reader: Reader::new(),
            streams: vec![Stream::default(); slots as usize],
            active: VecDeque::with_capacity(slots as usize),
            requests: 0,
            number,
        }
    }

    // a frame that is passed in memory costs a stall: written field by field, read whole
    #[inline(always)]
    fn frame(&mut self, frame: Frame, out: &mut Out, done: &mut Done) -> Result<(), Broken> {
        let header = frame.header;
        let slot = header.stream.wrapping_sub(1);
        let Some(stream) = self.streams.get_mut(slot as usize).filter(|stream| stream.open) else {
            return late(header);
        };
        match header.frame_type() {
            Some(FrameType::Response | FrameType::Data) => {
                let last = header.flags.has(Flags::END);
                stream.intake.add(frame.body, header.stream, last, self.terms.takes, out);
                if last {
                    let got = stream.intake.got;
                    self.finish(slot, out);
                    done.push((slot, Outcome::Answered(got)));
                }
            }
            Some(FrameType::Error) => {
                self.finish(slot, out);
                done.push((slot, Outcome::Failed(header.code)));
            }
            Some(FrameType::Credit) => {
                stream.body.credit = stream.body.credit.saturating_add(u64::from(header.arg));
                self.queue(slot);
            }
            kind => return Err(Broken(format!("unexpected frame {kind:?} on stream {}", header.stream))),
        }
        Ok(())
    }

    /// The answer is complete. If the request is not, the broker is told that no more of it comes.
    #[inline]
    fn finish(&mut self, slot: u32, out: &mut Out) {
        let stream = &mut self.streams[slot as usize];
        stream.open = false;
        if stream.body.left > 0 {
            stream.body.left = 0;
            put_cancel(slot + 1, out);
        }
    }

    fn queue(&mut self, slot: u32) {
        let stream = &mut self.streams[slot as usize];
        if !stream.queued && stream.body.left > 0 && stream.body.credit > 0 {
            stream.queued = true;
            self.active.push_back(slot);
        }
    }
}

/// A frame for a stream that is not open: granted too late, or wrong.
#[cold]
fn late(header: Header) -> Result<(), Broken> {
    match header.frame_type() {
        Some(FrameType::Credit) => Ok(()),
        kind => Err(Broken(format!("{kind:?} on stream {}, which is not open", header.stream))),
    }
}

impl Consumer for FrameConsumer {
    #[inline]
    fn request(&mut self, slot: u32, size: u64, out: &mut Out) {
        let whole = self.terms.goes_whole(size);
        let first = if whole { size as u32 } else { self.terms.piece(size, self.terms.may_send) };
        let queued = self.streams[slot as usize].queued;
        let body = Body { left: size - u64::from(first), credit: self.terms.may_send - u64::from(first) };
        self.streams[slot as usize] = Stream { open: true, body, intake: Intake::default(), queued };
        self.requests += 1;
        let header = Header::new(FrameType::Request, slot + 1)
            .length(REQUEST_ID_LEN as u32 + first)
            .flags(Flags::END.only_if(body.left == 0))
            .arg(self.terms.timeout_ms);
        let [head, tail] = words(header);
        out.put_words([head, tail, self.requests, self.number]);
        out.put_filler(first as usize);
        if body.left > 0 {
            self.queue(slot);
            self.resume(out);
        }
    }

    #[inline]
    fn receive(&mut self, mut bytes: &[u8], out: &mut Out, done: &mut Done) -> Result<(), Broken> {
        loop {
            while let Some(frame) = self.reader.whole(&mut bytes) {
                self.frame(frame, out, done)?;
            }
            let Some(frame) = self.reader.next(&mut bytes, out)? else { break };
            self.frame(frame, out, done)?;
        }
        self.resume(out);
        Ok(())
    }

    #[inline]
    fn resume(&mut self, out: &mut Out) {
        while out.len() < HIGH_WATER {
            let Some(slot) = self.active.pop_front() else { return };
            let stream = &mut self.streams[slot as usize];
            stream.queued = false;
            if stream.body.left > 0 && stream.body.credit > 0 {
                put_data(slot + 1, &mut stream.body, &self.terms, out);
                self.queue(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelay::protocol::{Code, HEADER_LEN};

    fn terms() -> Terms {
        Terms { may_send: 100, takes: 100, chunk: 60, timeout_ms: 9 }
    }

    fn headers(out: &mut Out) -> Vec<(Option<FrameType>, u32, u8, u32)> {
        let (bytes, mut found) = (out.staged(), Vec::new());
        let mut at = 0;
        while at < bytes.len() {
            let header = Header::decode(bytes[at..].first_chunk().unwrap());
            found.push((header.frame_type(), header.length, header.flags.0, header.arg));
            at += HEADER_LEN + header.length as usize;
        }
        found
    }

    #[test]
    fn a_large_body_goes_as_far_as_its_credit() {
        let (mut consumer, mut out, mut done) = (FrameConsumer::new(terms(), 2, 0), Out::default(), Done::new());
        consumer.request(0, 150, &mut out);
        let request = (Some(FrameType::Request), 16 + 60, 0, 9);
        assert_eq!(headers(&mut out), [request, (Some(FrameType::Data), 40, 0, 0)]);
        out.clear();
        let credit = Header::new(FrameType::Credit, 1).arg(60).encode();
        consumer.receive(&credit, &mut out, &mut done).unwrap();
        assert_eq!(headers(&mut out), [(Some(FrameType::Data), 50, Flags::END.0, 0)]);
        assert!(done.is_empty());
    }

    #[test]
    fn an_early_answer_cancels_what_was_not_sent() {
        let (mut consumer, mut out, mut done) = (FrameConsumer::new(terms(), 2, 0), Out::default(), Done::new());
        consumer.request(1, 1000, &mut out);
        out.clear();
        let error = Header::new(FrameType::Error, 2).code(Code::Overloaded).encode();
        consumer.receive(&error, &mut out, &mut done).unwrap();
        assert_eq!(done, [(1, Outcome::Failed(5))]);
        assert_eq!(headers(&mut out), [(Some(FrameType::Cancel), 0, 0, 0)]);
        let credit = Header::new(FrameType::Credit, 2).arg(60).encode();
        consumer.receive(&credit, &mut out, &mut done).unwrap();
        assert_eq!(done.len(), 1);
    }

    #[test]
    fn credit_is_granted_for_half_a_window_but_not_at_the_end() {
        let (mut consumer, mut out, mut done) = (FrameConsumer::new(terms(), 1, 0), Out::default(), Done::new());
        consumer.request(0, 0, &mut out);
        out.clear();
        let mut answer = Header::new(FrameType::Response, 1).length(50).encode().to_vec();
        answer.extend([0; 50]);
        consumer.receive(&answer, &mut out, &mut done).unwrap();
        assert_eq!(headers(&mut out), [(Some(FrameType::Credit), 0, 0, 50)]);
        out.clear();
        let mut last = Header::new(FrameType::Data, 1).length(99).flags(Flags::END).encode().to_vec();
        last.extend([0; 99]);
        consumer.receive(&last, &mut out, &mut done).unwrap();
        assert!(out.is_empty());
        assert_eq!(done, [(0, Outcome::Answered(149))]);
    }
}

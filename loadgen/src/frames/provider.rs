//! A provider: answers each request when it is complete.

use std::collections::VecDeque;

use corelay::protocol::{Code, Flags, FrameType, Header};

use super::reader::{Frame, Reader};
use super::{Body, Intake, Terms, put_data, words};
use crate::pump::Out;
use crate::size::Size;
use crate::wire::{Broken, HIGH_WATER, Provider};

/// Stream ids above this are not small and dense (§3): the broker is wrong.
const MAX_STREAM: u32 = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Receiving,
    Answering,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    state: State,
    intake: Intake,
    body: Body,
    queued: bool,
}

/// One provider connection, after its handshake.
#[derive(Debug)]
pub struct FrameProvider {
    terms: Terms,
    reader: Reader,
    streams: Vec<Stream>,
    active: VecDeque<u32>,
    size: Size,
    random: fastrand::Rng,
}

impl FrameProvider {
    /// A provider whose answers are so large.
    #[must_use]
    pub fn new(terms: Terms, size: Size, seed: u64) -> FrameProvider {
        FrameProvider {
            terms,
            reader: Reader::new(),
            streams: vec![Stream::default(); 1024],
            active: VecDeque::with_capacity(1024),
            size,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    // a frame that is passed in memory costs a stall: written field by field, read whole
    #[inline(always)]
    fn frame(&mut self, frame: Frame, out: &mut Out) -> Result<u64, Broken> {
        let header = frame.header;
        match header.frame_type() {
            Some(FrameType::Request) => self.open(header.stream)?,
            Some(FrameType::Data) => {}
            _ => return self.control(header, out),
        }
        // DATA may come on any stream, wherever the table ends
        let stream = self.streams.get_mut(header.stream as usize).filter(|stream| stream.state == State::Receiving);
        let Some(stream) = stream else {
            return Err(Broken(format!("DATA on stream {}, which takes none", header.stream)));
        };
        let last = header.flags.has(Flags::END);
        stream.intake.add(frame.body, header.stream, last, self.terms.takes, out);
        if last {
            self.answer(header.stream, out);
        }
        Ok(u64::from(last))
    }

    #[inline]
    fn open(&mut self, id: u32) -> Result<(), Broken> {
        if id as usize >= self.streams.len() {
            if id > MAX_STREAM {
                return Err(Broken(format!("REQUEST on stream {id}: ids are to be small and dense")));
            }
            self.streams.resize(id as usize * 2, Stream::default());
        }
        let stream = &mut self.streams[id as usize];
        if stream.state != State::Free {
            return Err(Broken(format!("REQUEST on stream {id}, which is in use")));
        }
        stream.state = State::Receiving;
        stream.intake = Intake::default();
        stream.body = Body { left: 0, credit: self.terms.may_send };
        Ok(())
    }

    #[inline]
    fn answer(&mut self, id: u32, out: &mut Out) {
        let size = self.size.draw(&mut self.random);
        let stream = &mut self.streams[id as usize];
        let first = self.terms.piece(size, stream.body.credit);
        stream.body.credit -= u64::from(first);
        stream.body.left = size - u64::from(first);
        let flags = Flags::END.only_if(stream.body.left == 0);
        out.put_words(words(Header::new(FrameType::Response, id).length(first).flags(flags)));
        out.put_filler(first as usize);
        stream.state = if stream.body.left == 0 { State::Free } else { State::Answering };
        if stream.state == State::Answering {
            self.queue(id);
        }
    }

    fn queue(&mut self, id: u32) {
        let stream = &mut self.streams[id as usize];
        let ready = stream.state == State::Answering && stream.body.left > 0 && stream.body.credit > 0;
        if ready && !stream.queued {
            stream.queued = true;
            self.active.push_back(id);
        }
    }

    fn control(&mut self, header: Header, out: &mut Out) -> Result<u64, Broken> {
        let id = header.stream;
        let stream = self.streams.get_mut(id as usize).filter(|stream| stream.state != State::Free);
        match (header.frame_type(), stream) {
            // that crossed the answer (§3)
            (Some(FrameType::Credit | FrameType::Cancel), None) => {}
            (Some(FrameType::Credit), Some(stream)) => {
                stream.body.credit = stream.body.credit.saturating_add(u64::from(header.arg));
                self.queue(id);
            }
            (Some(FrameType::Cancel), Some(stream)) => {
                stream.state = State::Free;
                stream.body.left = 0;
                out.put(&Header::new(FrameType::Error, id).code(Code::Cancelled).encode());
            }
            (kind, _) => return Err(Broken(format!("unexpected frame {kind:?} on stream {id}"))),
        }
        Ok(0)
    }
}

impl Provider for FrameProvider {
    #[inline]
    fn receive(&mut self, mut bytes: &[u8], out: &mut Out) -> Result<u64, Broken> {
        let mut answered = 0;
        loop {
            while let Some(frame) = self.reader.whole(&mut bytes) {
                answered += self.frame(frame, out)?;
            }
            let Some(frame) = self.reader.next(&mut bytes, out)? else { break };
            answered += self.frame(frame, out)?;
        }
        self.resume(out);
        Ok(answered)
    }

    #[inline]
    fn resume(&mut self, out: &mut Out) {
        while out.len() < HIGH_WATER {
            let Some(id) = self.active.pop_front() else { return };
            let stream = &mut self.streams[id as usize];
            stream.queued = false;
            if stream.state == State::Answering && stream.body.credit > 0 {
                put_data(id, &mut stream.body, &self.terms, out);
                if stream.body.left == 0 {
                    stream.state = State::Free;
                } else {
                    self.queue(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelay::protocol::HEADER_LEN;

    fn provider(size: u64) -> FrameProvider {
        FrameProvider::new(Terms { may_send: 100, takes: 100, chunk: 1000, timeout_ms: 0 }, Size::Fixed(size), 1)
    }

    fn request(id: u32, body: usize, end: bool) -> Vec<u8> {
        let header = Header::new(FrameType::Request, id).length(16 + body as u32).flags(Flags::END.only_if(end));
        let mut frame = header.encode().to_vec();
        frame.resize(HEADER_LEN + 16 + body, 0);
        frame
    }

    fn first(out: &mut Out) -> Header {
        Header::decode(out.staged().first_chunk().unwrap())
    }

    #[test]
    fn a_request_is_answered_when_it_is_complete() {
        let (mut provider, mut out) = (provider(10), Out::default());
        assert_eq!(provider.receive(&request(3, 5, false), &mut out), Ok(0));
        assert!(out.is_empty());
        let data = Header::new(FrameType::Data, 3).flags(Flags::END).encode();
        assert_eq!(provider.receive(&data, &mut out), Ok(1));
        assert_eq!(out.len(), HEADER_LEN + 10);
        assert_eq!(first(&mut out), Header::new(FrameType::Response, 3).length(10).flags(Flags::END));
        assert!(provider.receive(&data, &mut out).is_err());
    }

    #[test]
    fn an_answer_waits_for_credit() {
        let (mut provider, mut out) = (provider(150), Out::default());
        provider.receive(&request(1, 0, true), &mut out).unwrap();
        assert_eq!(first(&mut out), Header::new(FrameType::Response, 1).length(100));
        out.clear();
        provider.receive(&Header::new(FrameType::Credit, 1).arg(80).encode(), &mut out).unwrap();
        assert_eq!(first(&mut out), Header::new(FrameType::Data, 1).length(50).flags(Flags::END));
        assert!(provider.receive(&request(1, 0, true), &mut out).is_ok());
    }

    #[test]
    fn a_cancelled_request_ends_with_an_error() {
        let (mut provider, mut out) = (provider(1), Out::default());
        provider.receive(&request(1, 0, false), &mut out).unwrap();
        let cancel = Header::new(FrameType::Cancel, 1).code(Code::Deadline).encode();
        assert_eq!(provider.receive(&cancel, &mut out), Ok(0));
        assert_eq!(first(&mut out), Header::new(FrameType::Error, 1).code(Code::Cancelled));
        out.clear();
        provider.receive(&cancel, &mut out).unwrap();
        assert!(out.is_empty());
    }
}

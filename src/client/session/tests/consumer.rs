//! A consumer's session against a model broker.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use uuid::Uuid;

use super::super::{Limit, NewRequest, Session};
use super::peer::{Pipe, Seen, Streams, Way, any, error};
use super::{MAX_STREAMS, WINDOW, for_seeds, session, welcome};
use crate::base::{Key, Time};
use crate::protocol::{Code, Flags, FrameType, Header, Role};

/// A request as its user sees it.
struct Mine {
    id: Uuid,
    key: Key,
    sent: Vec<u8>,
    finished: bool,
    got: Vec<u8>,
    /// How it ended: whether well.
    outcome: Option<bool>,
}

/// A stream as the broker sees it.
struct Theirs {
    id: Uuid,
    request: Way,
    response: Way,
    cancelled: bool,
    /// The terminal frame was no ERROR.
    well: bool,
}

impl Theirs {
    fn over(&self) -> bool {
        (self.request.ended || self.cancelled) && self.response.ended
    }
}

#[derive(Default)]
struct World {
    pipe: Pipe,
    mine: Vec<Mine>,
    open: usize,
    theirs: Streams<Theirs>,
    /// Requests over on the wire, as the broker saw them.
    over: Vec<Theirs>,
    next: u128,
}

impl World {
    fn user(&mut self, session: &mut Session, rng: &mut fastrand::Rng) {
        let cx = Context::from_waker(Waker::noop());
        self.open -= session.take_freed();
        if self.open < MAX_STREAMS && rng.u8(..4) == 0 {
            self.open_one(session, rng);
        }
        if self.mine.is_empty() {
            return;
        }
        let at = rng.usize(..self.mine.len());
        let mine = &mut self.mine[at];
        match rng.u8(..10) {
            0 => {
                session.release(mine.key);
                self.mine.swap_remove(at);
            }
            1..=3 if !mine.finished => {
                let piece = vec![rng.u8(..); rng.usize(..500)];
                mine.sent.extend_from_slice(&piece);
                session.push_body(mine.key, piece.into());
            }
            4..=5 => {
                mine.finished = true;
                session.finish_body(mine.key);
            }
            _ => match session.poll_chunk(mine.key, &cx) {
                Poll::Ready(Ok(Some(bytes))) => mine.got.extend_from_slice(&bytes),
                Poll::Ready(Ok(None)) => mine.outcome = Some(true),
                Poll::Ready(Err(_)) => mine.outcome = Some(false),
                Poll::Pending => {}
            },
        }
    }

    fn open_one(&mut self, session: &mut Session, rng: &mut fastrand::Rng) {
        self.next += 1;
        let (id, sent) = (Uuid::from_u128(self.next), vec![rng.u8(..); rng.usize(..400)]);
        let finished = rng.bool();
        let request = NewRequest {
            id,
            flags: Flags::NONE,
            timeout_ms: 0,
            limit: Limit::At(Time::MAX),
            block: &[],
            body: &Bytes::from(sent.clone()),
            whole: finished,
            waiter: None,
        };
        let key = session.open_request(&request).expect("an open session");
        self.open += 1;
        self.mine.push(Mine { id, key, sent, finished, got: Vec::new(), outcome: None });
    }

    /// The broker sends something on some stream.
    fn broker(&mut self, rng: &mut fastrand::Rng, finish: bool) {
        let Some(id) = any(&self.theirs, rng) else { return };
        let theirs = self.theirs.get_mut(&id).expect("a stream");
        if theirs.response.ended {
            return;
        }
        match rng.u8(..8) {
            0..=1 if !theirs.request.ended && !theirs.cancelled => {
                let n = rng.u32(1..300);
                theirs.request.credit += n as usize;
                self.pipe.send(Header::new(FrameType::Credit, id).arg(n), b"");
                return;
            }
            2 => {
                theirs.response.ended = true;
                theirs.well = false;
                self.pipe.send(error(id, Code::Application), b"no");
            }
            kind => {
                let end = kind == 7 || finish;
                let (header, payload) = theirs.response.make(FrameType::Response, id, end, rng);
                self.pipe.send(header, &payload);
            }
        }
        self.sweep(id);
    }

    fn sweep(&mut self, id: u32) {
        if self.theirs.get(&id).is_some_and(Theirs::over) {
            self.over.extend(self.theirs.remove(&id));
        }
    }

    /// The broker reads a frame: the rules of §3 and §4 are checked here.
    fn see(&mut self, (header, kind, payload): Seen) {
        let id = header.stream;
        match kind {
            FrameType::Request => {
                assert!(!self.theirs.contains_key(&id), "REQUEST on stream {id}, which is in use");
                assert!(self.theirs.len() < MAX_STREAMS);
                let mut request = Way::new(welcome().window as usize);
                request.see(&header, kind, &payload);
                let response = Way::new(WINDOW as usize);
                let request_id = Uuid::from_slice(&payload[..16]).unwrap();
                let theirs = Theirs { id: request_id, request, response, cancelled: false, well: true };
                self.theirs.insert(id, theirs);
            }
            FrameType::Data => {
                let theirs = self.theirs.get_mut(&id).expect("DATA on an id in use");
                assert!(!theirs.cancelled, "DATA after CANCEL");
                theirs.request.see(&header, kind, &payload);
            }
            FrameType::Cancel => {
                let Some(theirs) = self.theirs.get_mut(&id) else { return };
                assert!(!std::mem::replace(&mut theirs.cancelled, true), "CANCEL twice");
            }
            FrameType::Credit => {
                assert!(header.arg > 0);
                let Some(theirs) = self.theirs.get_mut(&id) else { return };
                assert!(!theirs.cancelled, "CREDIT after CANCEL");
                theirs.response.credit += header.arg as usize;
                assert!(theirs.response.credit <= WINDOW as usize, "credit beyond the window");
            }
            other => panic!("{other:?} from a consumer"),
        }
        self.sweep(id);
    }

    fn step(&mut self, session: &mut Session, rng: &mut fastrand::Rng) {
        match rng.u8(..4) {
            0 => self.user(session, rng),
            1 => self.broker(rng, false),
            2 => self.pipe.deliver(session, rng, false),
            _ => self.pipe.take(session, rng, false).into_iter().for_each(|frame| self.see(frame)),
        }
    }

    /// Everything is brought to its end.
    fn finish(&mut self, session: &mut Session, rng: &mut fastrand::Rng) {
        let cx = Context::from_waker(Waker::noop());
        for round in 0.. {
            assert!(round < 10_000, "does not come to rest: {:?}", session);
            for mine in &mut self.mine {
                session.finish_body(mine.key);
                while let Poll::Ready(result) = session.poll_chunk(mine.key, &cx) {
                    match result {
                        Ok(Some(bytes)) => mine.got.extend_from_slice(&bytes),
                        ended => {
                            mine.outcome = Some(ended.is_ok());
                            break;
                        }
                    }
                }
            }
            (0..4).for_each(|_| self.broker(rng, round > 50));
            self.pipe.deliver(session, rng, true);
            self.pipe.take(session, rng, true).into_iter().for_each(|frame| self.see(frame));
            let told = self.mine.iter().all(|mine| mine.outcome.is_some());
            if told && self.theirs.is_empty() && session.open() == 0 && self.pipe.is_quiet() && !session.wants_write() {
                return;
            }
        }
    }

    fn check(&mut self, session: &mut Session) {
        for mine in self.mine.drain(..) {
            let theirs = self.over.iter().find(|theirs| theirs.id == mine.id).expect("every request was seen");
            assert_eq!(mine.outcome, Some(theirs.well));
            assert!(mine.sent.starts_with(&theirs.request.body), "bytes arrive in order");
            assert!(theirs.cancelled || theirs.request.body == mine.sent || !mine.finished);
            assert_eq!(mine.got, theirs.response.body);
            session.release(mine.key);
        }
        assert!(session.streams.is_empty(), "nothing is left behind");
        assert!(session.ready.is_empty() || !session.wants_write());
        self.open -= session.take_freed();
        assert_eq!((self.open, session.unopened), (0, 0));
    }
}

#[test]
fn any_work_keeps_to_the_protocol_and_ends() {
    for_seeds(|rng| {
        let (mut world, mut session) = (World::default(), session(Role::Consumer));
        for _ in 0..rng.usize(..600) {
            world.step(&mut session, rng);
        }
        world.finish(&mut session, rng);
        world.check(&mut session);
    });
}

#[test]
fn a_connection_that_ends_anywhere_leaves_nothing_and_fails_all() {
    for_seeds(|rng| {
        let (mut world, mut session) = (World::default(), session(Role::Consumer));
        for _ in 0..rng.usize(..300) {
            world.step(&mut session, rng);
        }
        session.shut(super::super::End::closed());
        let cx = Context::from_waker(Waker::noop());
        for mine in world.mine.drain(..) {
            while let Poll::Ready(Ok(Some(_))) = session.poll_chunk(mine.key, &cx) {}
            assert!(session.poll_chunk(mine.key, &cx).is_ready(), "nobody waits for ever");
            session.release(mine.key);
        }
        assert!(session.streams.is_empty());
    });
}

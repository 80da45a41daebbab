//! A provider's session against a model broker.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::super::{Answer, Chunks, Flow, Session};
use super::peer::{Pipe, Seen, Streams, Way, any};
use super::{MAX_STREAMS, WINDOW, for_seeds, session, welcome};
use crate::base::Key;
use crate::protocol::{Code, FrameType, Header, Role};

/// A request as its handler sees it.
struct Mine {
    key: Key,
    number: u32,
    got: Vec<u8>,
    reading: bool,
    /// The answer was begun, and what of it was given.
    begun: bool,
    sent: Vec<u8>,
    finished: bool,
    failed: bool,
    /// The session needs no word of the handle that answers any more.
    released: bool,
}

/// A stream as the broker sees it.
struct Theirs {
    number: u32,
    request: Way,
    response: Way,
    cancelled: bool,
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
    theirs: Streams<Theirs>,
    over: Vec<Theirs>,
    number: u32,
}

impl World {
    fn handlers(&mut self, session: &mut Session, rng: &mut fastrand::Rng) {
        let mut arrivals = VecDeque::new();
        session.take_arrivals(&mut arrivals);
        for mut arrival in arrivals {
            let reading = arrival.whole.is_none();
            let mut got = Vec::new();
            while let Some(piece) = arrival.whole.as_mut().and_then(Chunks::pop) {
                got.extend_from_slice(&piece);
            }
            self.mine.push(Mine {
                key: arrival.key,
                number: arrival.left_ms,
                got,
                reading,
                begun: false,
                sent: Vec::new(),
                finished: false,
                failed: false,
                released: false,
            });
        }
        if self.mine.is_empty() {
            return;
        }
        let at = rng.usize(..self.mine.len());
        let mine = &mut self.mine[at];
        match rng.u8(..12) {
            0..=1 if !mine.begun => {
                let body = vec![rng.u8(..); rng.usize(..400)];
                mine.begun = true;
                mine.finished = rng.bool();
                mine.sent.extend_from_slice(&body);
                let answer = session.respond(mine.key, Vec::new(), body.into(), mine.finished);
                mine.released = answer == Answer::Taken;
            }
            2..=3 if mine.begun && !mine.finished => {
                let body = vec![rng.u8(..); rng.usize(..400)];
                if session.push_body(mine.key, Bytes::from(body.clone())) == Flow::Open {
                    mine.sent.extend(body);
                }
            }
            4 if mine.begun => {
                mine.finished = true;
                session.finish_body(mine.key);
            }
            5 if rng.u8(..4) == 0 && !mine.failed => {
                mine.failed = session.fail_request(mine.key, Code::Application, "no");
            }
            6 if rng.u8(..4) == 0 && mine.reading => {
                mine.reading = false;
                session.release_reader(mine.key);
            }
            _ if mine.reading => drop(read(session, mine)),
            _ => {}
        }
    }

    /// The broker sends something.
    fn broker(&mut self, rng: &mut fastrand::Rng, finish: bool) {
        if !finish && self.theirs.len() < MAX_STREAMS && rng.u8(..3) == 0 {
            self.number += 1;
            let id = (1..).find(|id| !self.theirs.contains_key(id)).expect("an id");
            let mut request = Way::new(WINDOW as usize);
            let (header, payload) = request.make(FrameType::Request, id, rng.bool(), rng);
            self.pipe.send(header.arg(self.number), &payload);
            let response = Way::new(welcome().window as usize);
            self.theirs.insert(id, Theirs { number: self.number, request, response, cancelled: false });
            return;
        }
        let Some(id) = any(&self.theirs, rng) else { return };
        let theirs = self.theirs.get_mut(&id).expect("a stream");
        match rng.u8(..8) {
            0..=2 if !theirs.response.ended => {
                let n = rng.u32(1..300);
                theirs.response.credit += n as usize;
                self.pipe.send(Header::new(FrameType::Credit, id).arg(n), b"");
            }
            3 if !theirs.cancelled => {
                theirs.cancelled = true;
                self.pipe.send(Header::new(FrameType::Cancel, id).code(Code::Cancelled), b"");
            }
            kind if !theirs.request.ended && !theirs.cancelled => {
                let end = finish || kind == 7;
                let (header, payload) = theirs.request.make(FrameType::Request, id, end, rng);
                self.pipe.send(header, &payload);
            }
            _ => {}
        }
        self.sweep(id);
    }

    fn sweep(&mut self, id: u32) {
        if self.theirs.get(&id).is_some_and(Theirs::over) {
            self.over.extend(self.theirs.remove(&id));
        }
    }

    /// The broker reads a frame: one terminal a request, and nothing behind it (§3).
    fn see(&mut self, (header, kind, payload): Seen) {
        let id = header.stream;
        let theirs = self.theirs.get_mut(&id).unwrap_or_else(|| panic!("{kind:?} on stream {id}, not in use"));
        match kind {
            FrameType::Response | FrameType::Data => theirs.response.see(&header, kind, &payload),
            FrameType::Error => {
                assert!(!theirs.response.ended, "a second terminal frame");
                theirs.response.ended = true;
            }
            FrameType::Credit => {
                assert!(!theirs.response.ended, "CREDIT after the terminal frame");
                theirs.request.credit += header.arg as usize;
                assert!(theirs.request.credit <= WINDOW as usize, "credit beyond the window");
            }
            other => panic!("{other:?} from a provider"),
        }
        self.sweep(id);
    }

    fn step(&mut self, session: &mut Session, rng: &mut fastrand::Rng) {
        match rng.u8(..4) {
            0 => self.handlers(session, rng),
            1 => self.broker(rng, false),
            2 => self.pipe.deliver(session, rng, false),
            _ => self.pipe.take(session, rng, false).into_iter().for_each(|frame| self.see(frame)),
        }
    }

    fn finish(&mut self, session: &mut Session, rng: &mut fastrand::Rng) {
        for round in 0.. {
            assert!(round < 10_000, "does not come to rest: {session:?}");
            self.handlers(session, rng);
            for mine in self.mine.iter_mut().filter(|_| round > 20) {
                while mine.reading && read(session, mine) {}
                if mine.begun {
                    mine.finished = true;
                    session.finish_body(mine.key);
                } else {
                    session.fail_request(mine.key, Code::Application, "no");
                }
                if session.failure(mine.key).is_some() {
                    session.fail_request(mine.key, Code::Application, "no");
                }
            }
            (0..4).for_each(|_| self.broker(rng, true));
            self.pipe.deliver(session, rng, true);
            self.pipe.take(session, rng, true).into_iter().for_each(|frame| self.see(frame));
            if self.theirs.is_empty() && session.open() == 0 && self.pipe.is_quiet() && !session.wants_write() {
                return;
            }
        }
    }

    fn check(&mut self, session: &mut Session) {
        assert_eq!(self.over.len(), self.number as usize);
        for mine in self.mine.drain(..) {
            let theirs = self.over.iter().find(|theirs| theirs.number == mine.number).expect("every request ended");
            assert!(theirs.request.body.starts_with(&mine.got), "bytes arrive in order");
            assert!(mine.sent.starts_with(&theirs.response.body), "and answers too");
            if mine.finished && !mine.failed && !theirs.cancelled {
                assert_eq!(theirs.response.body, mine.sent);
            }
            if mine.reading {
                session.release_reader(mine.key);
            }
            if !mine.released {
                session.release_writer(mine.key);
            }
        }
        assert!(session.streams.is_empty(), "nothing is left behind");
    }
}

/// Reads a piece; whether there may be more.
fn read(session: &mut Session, mine: &mut Mine) -> bool {
    let cx = Context::from_waker(Waker::noop());
    match session.poll_chunk(mine.key, &cx) {
        Poll::Ready(Ok(Some(bytes))) => {
            mine.got.extend_from_slice(&bytes);
            true
        }
        _ => false,
    }
}

#[test]
fn any_work_keeps_to_the_protocol_and_ends() {
    for_seeds(|rng| {
        let (mut world, mut session) = (World::default(), session(Role::Provider));
        for _ in 0..rng.usize(..600) {
            world.step(&mut session, rng);
        }
        world.finish(&mut session, rng);
        world.check(&mut session);
    });
}

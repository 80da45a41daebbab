//! What happens because time passes: keepalive, deadlines kept on this side, PINGs.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{End, Failure, Session, park};
use crate::base::{Key, Time};
use crate::protocol::{Code, FrameType, Header};

/// A peer that takes not one byte for this long while something waits for it is given up (§7).
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Unwritten PONGs beyond this many mean that the other side floods.
const MAX_PONGS: usize = 64;
/// The id of PINGs that only keep the connection alive.
const KEEPALIVE: u64 = 0;

/// Spells of silence.
#[derive(Debug)]
pub(super) struct Keepalive {
    spell: Duration,
    /// Spells of silence so far.
    silent: u8,
    due: Time,
    /// When the transport began to take nothing.
    blocked: Option<Time>,
}

impl Keepalive {
    pub(super) fn new() -> Keepalive {
        Keepalive { spell: Duration::ZERO, silent: 0, due: Time::MAX, blocked: None }
    }

    pub(super) fn start(&mut self, spell: Duration, now: Time) {
        self.spell = spell;
        self.heard(now);
    }

    pub(super) fn heard(&mut self, now: Time) {
        self.silent = 0;
        self.due = if self.spell.is_zero() { Time::MAX } else { now + self.spell };
    }

    pub(super) fn wrote(&mut self, n: usize, blocked: bool, now: Time) {
        let since = self.blocked.filter(|_| n == 0).unwrap_or(now);
        self.blocked = blocked.then_some(since);
    }

    fn write_due(&self) -> Time {
        self.blocked.map_or(Time::MAX, |since| since + WRITE_TIMEOUT)
    }
}

/// A PING somebody waits for.
#[derive(Debug)]
pub(super) struct Ping {
    id: u64,
    sent: Time,
    answered: Option<Time>,
    pub(super) waker: Option<Waker>,
}

impl Session {
    /// When [`Session::on_time`] has something to do, if nothing else happens before.
    pub(crate) fn next_time(&self) -> Time {
        if self.end.is_some() {
            return Time::MAX;
        }
        self.keepalive.due.min(self.keepalive.write_due()).min(self.next_deadline)
    }

    /// Time has passed. To be called after what was waiting in the socket has been received.
    pub(crate) fn on_time(&mut self, now: Time) {
        if self.end.is_some() {
            return;
        }
        self.date(now);
        if now >= self.next_deadline {
            self.expire(now);
        }
        if now >= self.keepalive.write_due() {
            return self.shut(End::found(Code::Timeout, "the broker took nothing for 30 s"));
        }
        if now >= self.keepalive.due {
            self.keepalive.silent += 1;
            self.keepalive.due = now + self.keepalive.spell;
            match self.keepalive.silent {
                1 => self.push_ping(KEEPALIVE),
                2 => {}
                _ => self.shut(End::found(Code::Timeout, "the broker was silent for three keepalive spells")),
            }
        }
    }

    /// Says what time it is to requests whose limit counts from the next turn.
    pub(crate) fn date(&mut self, now: Time) {
        let mut undated = std::mem::take(&mut self.undated);
        for key in undated.drain(..) {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.time = now + (stream.time - Time::ZERO);
                self.next_deadline = self.next_deadline.min(stream.time);
            }
        }
        self.undated = undated;
    }

    /// When this side gives up on a request that has been dated.
    pub(crate) fn limit_of(&self, key: Key) -> Option<Time> {
        Some(self.streams.get(key)?.time)
    }

    /// A deadline to keep: the bound moves if it is the earliest.
    pub(super) fn watch_deadline(&mut self, deadline: Time) {
        if deadline < self.next_deadline {
            self.next_deadline = deadline;
            self.earlier = true;
        }
    }

    /// Whether [`Session::next_time`] has come nearer since the last call by a new deadline.
    pub(crate) fn take_earlier(&mut self) -> bool {
        std::mem::take(&mut self.earlier)
    }

    /// Ends requests whose deadline the broker did not keep. All are looked at, which is rare: the bound is set anew
    /// each time, to the earliest of those still open.
    fn expire(&mut self, now: Time) {
        let open = |stream: &super::Stream| !stream.recv.ended && stream.failure.is_none();
        let late: Vec<Key> =
            self.streams.iter().filter(|(_, s)| open(s) && s.time <= now).map(|(key, _)| key).collect();
        for key in late {
            let failure = Failure::local(Code::Deadline, "the timeout passed and the broker said nothing");
            self.give_up(key, failure);
        }
        self.next_deadline =
            self.streams.iter().filter(|(_, s)| open(s)).map(|(_, s)| s.time).min().unwrap_or(Time::MAX);
    }

    /// Sends a PING somebody waits for; its id is for [`Session::poll_pong`] and [`Session::forget_ping`].
    pub(crate) fn ping(&mut self, now: Time) -> u64 {
        self.last_ping += 1;
        let id = self.last_ping;
        self.pings.push(Ping { id, sent: now, answered: None, waker: None });
        // nothing follows a connection's ERROR
        if self.end.is_none() {
            self.push_ping(id);
        }
        id
    }

    /// The round trip; `None` if the connection ended first.
    pub(crate) fn poll_pong(&mut self, id: u64, cx: &Context<'_>) -> Poll<Option<Duration>> {
        let ended = self.end.is_some();
        match self.pings.iter_mut().find(|ping| ping.id == id) {
            Some(Ping { answered: Some(at), sent, .. }) => Poll::Ready(Some(*at - *sent)),
            Some(ping) if !ended => {
                park(&mut ping.waker, cx);
                Poll::Pending
            }
            _ => Poll::Ready(None),
        }
    }

    /// Nobody waits for this PING any more.
    pub(crate) fn forget_ping(&mut self, id: u64) {
        self.pings.retain(|ping| ping.id != id);
    }

    fn push_ping(&mut self, id: u64) {
        self.control.extend_from_slice(&Header::new(FrameType::Ping, 0).length(8).encode());
        self.control.extend_from_slice(&id.to_le_bytes());
    }

    pub(super) fn on_ping(&mut self, payload: &[u8]) -> Result<(), End> {
        self.pongs += 1;
        if self.pongs > MAX_PONGS {
            return Err(End::found(Code::Flood, "more PINGs than could be answered"));
        }
        self.control.extend_from_slice(&Header::new(FrameType::Pong, 0).length(8).encode());
        self.control.extend_from_slice(payload);
        Ok(())
    }

    pub(super) fn on_pong(&mut self, payload: &[u8], now: Time) {
        let asked = payload.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
        if let Some(ping) = self.pings.iter_mut().find(|ping| Some(ping.id) == asked && ping.answered.is_none()) {
            ping.answered = Some(now);
            self.wakes.extend(ping.waker.take());
        }
    }
}

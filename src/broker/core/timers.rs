//! Deadlines: of requests, of silence on connections, of cancelled requests nobody ended.
//!
//! Each connection has one timer for all its reasons; it is armed for the earliest and looked at again when it goes
//! off, so that receiving costs no timer operation.

use std::time::Duration;

use super::Core;
use super::conn::{Conn, Phase, Side};
use super::consumer::DEADLINE;
use super::drain::CROSSING;
use super::rx::{At, Violation};
use crate::base::limits::Limits;
use crate::base::{Key, Time};
use crate::protocol::{Code, FrameType, Header};

/// How long a closed connection may take to send its FIN before it is dropped.
const LINGER: Duration = Duration::from_secs(2);
/// Set in the tokens of requests' timers; keys leave this bit free.
const REQUEST: u64 = 1 << 63;

/// A cancelled request that its provider has not ended yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grace {
    pub until: Time,
    pub provider: Key,
    pub slot: usize,
    pub tenancy: u32,
}

pub(super) fn request_token(key: Key) -> u64 {
    key.pack() | REQUEST
}

impl Core {
    /// When [`Core::advance`] is to be called next, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let grace = self.grace.front().map(|grace| grace.until);
        [self.wheel.next(), grace, self.draining].into_iter().flatten().min()
    }

    /// Does what is due. Call it after a turn that read what was waiting, so that nobody is condemned for the
    /// broker's own pause.
    pub fn advance(&mut self, now: Time) {
        self.now = now;
        self.wheel.advance(now);
        while let Some(token) = self.wheel.pop_due() {
            if token & REQUEST == 0 {
                self.connection_due(Key::unpack(token));
            } else {
                self.request_due(Key::unpack(token & !REQUEST));
            }
        }
        while let Some(&grace) = self.grace.front()
            && grace.until <= now
        {
            self.grace.pop_front();
            self.grace_over(grace);
        }
        if self.draining.is_some_and(|until| until <= now) {
            self.drain_over();
        }
    }

    fn request_due(&mut self, key: Key) {
        let Some(request) = self.requests.get_mut(key) else { return };
        request.timer = None;
        if !self.end_over_there(key, Code::Deadline) {
            self.end_request(key, Code::Deadline, DEADLINE);
        }
    }

    /// Forgets the oldest cancelled requests that have been ended meanwhile, two for each one that is added: a consumer
    /// that cancels all the time would else fill the list for as long as `cancel_grace`.
    pub(super) fn prune_grace(&mut self) {
        for _ in 0..2 {
            let Some(grace) = self.grace.front() else { return };
            let assigned = self.conns.get(grace.provider).and_then(|conn| conn.assigned.get(grace.slot));
            if assigned.is_some_and(|assigned| assigned.tenancy == grace.tenancy && assigned.counted) {
                return;
            }
            self.grace.pop_front();
        }
    }

    /// The slot of a cancelled request is free again; its id is not (§3).
    fn grace_over(&mut self, grace: Grace) {
        let Some(conn) = self.conns.get_mut(grace.provider) else { return };
        let Some(assigned) = conn.assigned.get_mut(grace.slot) else { return };
        if assigned.tenancy != grace.tenancy || !assigned.counted {
            return;
        }
        assigned.counted = false;
        conn.in_use -= 1;
        conn.overdue += 1;
        let channel = conn.channel;
        self.channels[channel as usize].in_use -= 1;
        self.no_longer_abandoned(grace.provider, grace.slot);
        self.note_news(channel);
        self.update_available(grace.provider);
        self.serve_queue(channel);
    }

    fn connection_due(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.timer = None;
        conn.timer_at = Time::MAX;
        let now = self.now;
        let timeout = |text: &str| Violation::new(Code::Timeout, text);
        match due(conn, &self.options.limits).filter(|&(at, _)| at <= now).map(|(_, why)| why) {
            None => self.arm(key),
            Some(Due::Ping) => {
                conn.pinged = Some(now);
                let ping = Header::new(FrameType::Ping, 0).length(8).encode();
                conn.out.control(&mut self.spare, &ping);
                conn.out.control(&mut self.spare, &now.as_nanos().to_le_bytes());
                self.set_dirty(key);
                self.arm(key);
            }
            Some(Due::Handshake) => self.violation(key, &timeout("no whole HELLO within handshake_timeout")),
            Some(Due::Frame) => self.violation(key, &timeout("a frame's head took longer than frame_timeout")),
            Some(Due::Silence) => self.violation(key, &timeout("nothing received for three times keepalive")),
            Some(Due::Write) => {
                // it reads nothing, so it would not read why either
                self.counters.connections_failed[usize::from(Code::Timeout.to_wire())] += 1;
                self.note_expelled(key, Code::Timeout, "it took no byte for write_timeout");
                self.close(key, true);
            }
            Some(Due::Leave) => {
                conn.goes_since = None;
                self.close_if_finished(key);
                self.arm(key);
            }
            Some(Due::Linger) => {
                // what the kernel still holds of a last frame may yet arrive; of output never taken, nothing will
                let abort = conn.phase == Phase::Closing;
                self.close(key, abort);
            }
        }
    }

    /// Sets the connection's timer for the earliest thing it waits for.
    pub(super) fn arm(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some((at, _)) = due(conn, &self.options.limits) else { return };
        if conn.timer_at <= at {
            return;
        }
        if let Some(timer) = conn.timer.take() {
            self.wheel.cancel(timer);
        }
        conn.timer = Some(self.wheel.insert(at, key.pack()));
        conn.timer_at = at;
    }

    /// As [`Core::arm`], after a change that may have moved the earliest later.
    pub(super) fn rearm(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.timer_at = Time::MAX;
        }
        self.arm(key);
    }

    /// Notes whether a frame's head is incomplete after all input was read.
    pub(super) fn note_partial(&mut self, key: Key) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let partial = match conn.rx.at {
            At::Header => !conn.rx.gathered.is_empty(),
            At::Head(_) => true,
            At::Body(..) | At::Skip(_) => false,
        };
        conn.rx.head_since = match conn.rx.at {
            At::Head(_) => conn.rx.head_since.or(Some(now)),
            _ => None,
        };
        if partial && conn.rx.partial_since.is_none() {
            conn.rx.partial_since = Some(now);
            self.arm(key);
        }
    }
}

/// Why a connection's timer goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Handshake,
    Frame,
    Write,
    Silence,
    Linger,
    Leave,
    Ping,
}

/// The earliest thing the connection waits for.
fn due(conn: &Conn, limits: &Limits) -> Option<(Time, Due)> {
    if conn.side.is_link() {
        return None;
    }
    match conn.phase {
        Phase::Hello => Some((conn.since + limits.handshake_timeout, Due::Handshake)),
        Phase::Closing => Some((conn.since + limits.write_timeout.min(5 * LINGER), Due::Linger)),
        Phase::Lingering => Some((conn.since + LINGER, Due::Linger)),
        Phase::Open => {
            debug_assert_ne!(conn.side, Side::Stranger);
            let frame = conn.rx.partial_since.map(|since| (since + limits.frame_timeout, Due::Frame));
            let write = conn.out.blocked_since().map(|since| (since + limits.write_timeout, Due::Write));
            // two more spells after the PING went out, however late that was
            let silence = match conn.pinged {
                None => (conn.last_received + limits.keepalive, Due::Ping),
                Some(at) => (at + 2 * limits.keepalive, Due::Silence),
            };
            let leave = conn.goes_since.map(|since| (since + CROSSING, Due::Leave));
            [frame, write, Some(silence), leave].into_iter().flatten().min()
        }
    }
}

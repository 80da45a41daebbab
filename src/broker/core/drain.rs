//! The end of connections, and of the broker: GOAWAY, what is in flight finishes, then all is closed (§7).

use super::conn::{Phase, Side};
use super::{Action, Core};
use crate::base::{Key, Time};
use crate::protocol::{Code, Flags, FrameType, Header};

impl Core {
    /// Begins to shut down: nothing new is taken, what waits ends with DRAINING, what is in flight may finish
    /// within `drain_timeout`.
    pub fn drain(&mut self, now: Time) {
        self.now = now;
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(now + self.options.limits.drain_timeout);
        self.end_queued();
        for key in self.sockets() {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            match conn.phase {
                Phase::Hello => self.goodbye(key, Code::Draining, "the broker is shutting down"),
                Phase::Open => self.send_goaway(key),
                Phase::Closing | Phase::Lingering => {}
            }
        }
    }

    fn end_queued(&mut self) {
        let channels: Vec<u32> = self.channels.iter().map(|(index, _)| index as u32).collect();
        for channel in channels {
            // ending the last request of an otherwise unused channel drops the channel
            while let Some(state) = self.channels.get_mut(channel as usize)
                && let Some(request) = state.next_in_turn()
            {
                self.end_request(request, Code::Draining, "the broker is shutting down");
            }
        }
    }

    fn send_goaway(&mut self, key: Key) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let text = b"the broker is shutting down";
        let frame = Header::new(FrameType::GoAway, 0).code(Code::Draining).length(text.len() as u32).encode();
        conn.goes = true;
        conn.out.control(&mut self.spare, &frame);
        conn.out.control(&mut self.spare, text);
        let serving = conn.serving;
        self.set_dirty(key);
        if serving {
            self.provider_leaves(key);
        }
        self.close_if_finished(key);
    }

    /// `drain_timeout` has passed: what is still in flight ends now; a moment later, what is still connected does.
    pub(super) fn drain_over(&mut self) {
        let requests: Vec<Key> = self.requests.iter().map(|(key, _)| key).collect();
        for request in requests {
            if self.requests.get(request).is_some() {
                self.end_request(request, Code::Draining, "the broker has shut down");
            }
        }
        for key in self.sockets() {
            match self.conns.get(key).map(|conn| conn.phase) {
                // it has had no GOAWAY
                Some(Phase::Hello) => self.goodbye(key, Code::Draining, "the broker has shut down"),
                _ => self.start_closing(key),
            }
        }
        // each closing connection has a timer of its own from here on
        self.draining = Some(Time::MAX);
    }

    /// Whether [`Core::drain`] was called and every connection has ended.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining.is_some() && self.conns.iter().all(|(_, conn)| conn.side.is_link())
    }

    /// Ends everything at once.
    pub fn abort(&mut self, now: Time) {
        self.drain(now);
        for key in self.sockets() {
            self.close(key, true);
        }
    }

    fn sockets(&self) -> Vec<Key> {
        self.conns.iter().filter(|(_, conn)| !conn.side.is_link()).map(|(key, _)| key).collect()
    }

    /// Tells the peer why with an ERROR on stream 0, then closes.
    pub(super) fn goodbye(&mut self, key: Key, code: Code, text: &str) {
        let Some(conn) = self.conns.get(key) else { return };
        if matches!(conn.phase, Phase::Closing | Phase::Lingering) {
            return;
        }
        // before WELCOME at most 1 KiB is answered in all (§2)
        let text = &text[..text.floor_char_boundary(900)];
        self.stage_error(key, 0, code, Flags::NONE, text);
        self.start_closing(key);
    }

    /// Closes once what is staged has been sent.
    fn start_closing(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        if matches!(conn.phase, Phase::Closing | Phase::Lingering) {
            return;
        }
        if conn.phase == Phase::Hello {
            // received on by single receives so far, and perhaps none is out: its FIN would go unnoticed
            self.keep_receiving(key);
        }
        self.detach(key);
        let conn = self.conns.get_mut(key).expect("looked up above");
        conn.phase = Phase::Closing;
        conn.since = self.now;
        conn.out.ring.clear();
        // what is still sent belongs to requests that have ended, or have gone to another provider
        conn.out.forget_marks();
        self.rearm(key);
        self.set_dirty(key);
    }

    /// All of a closing connection's output was sent: the peer is to read it before the connection goes. Closing a
    /// socket with unread input resets it, and the reset would overtake the last frames.
    pub(super) fn finish_closing(&mut self, key: Key) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.phase != Phase::Closing || !conn.out.is_empty() {
            return;
        }
        conn.phase = Phase::Lingering;
        conn.since = now;
        let handle = conn.handle;
        self.actions.push_back(Action::ShutdownWrite(handle));
        self.rearm(key);
    }

    /// A connection that has said, or was told, that nothing new comes is closed when nothing is in progress.
    pub(super) fn close_if_finished(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        if (conn.goes || conn.peer_goes) && conn.phase == Phase::Open && conn.is_idle() {
            self.start_closing(key);
        }
    }

    /// Closes the connection and forgets it; its requests end.
    pub(super) fn close(&mut self, key: Key, abort: bool) {
        let conn = self.conns.get(key).expect("looked up by the caller");
        if matches!(conn.phase, Phase::Hello | Phase::Open) {
            self.detach(key);
        }
        let mut conn = self.conns.remove(key).expect("looked up by the caller");
        if let Some(timer) = conn.timer {
            self.wheel.cancel(timer);
        }
        self.held -= conn.out.counted;
        for batch in conn.out.dismantle() {
            self.spare.recycle(batch, &mut self.released);
        }
        self.actions.push_back(Action::Close { handle: conn.handle, abort });
    }

    /// Ends or hands on everything in progress on a connection, and takes it off its channel.
    fn detach(&mut self, key: Key) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let (side, channel) = (conn.side, conn.channel);
        match side {
            Side::Stranger => {
                self.strangers -= 1;
                return;
            }
            Side::Consumer => {
                for request in std::mem::take(&mut conn.opened).requests() {
                    self.consumer_lost(request);
                }
            }
            Side::Provider => self.detach_provider(key),
            Side::LinkIn(_) | Side::LinkOut(_) => unreachable!("links stay open"),
        }
        // the channel's index may be let again while the connection lingers
        self.conns.get_mut(key).expect("looked up above").channel = u32::MAX;
        self.channels[channel as usize].connections -= 1;
        self.drop_unused(channel);
    }
}

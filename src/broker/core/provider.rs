//! Frames from whoever answers streams: providers, and links out to other cores.

use super::Core;
use super::budget::Spending;
use super::conn::{Conn, Side};
use super::consumer::{beyond_credit, check_block};
use super::ending::Ending;
use super::flow::{Body, Dir, Trailer};
use super::rx::Violation;
use super::streams::Assigned;
use crate::base::{Key, Leases};
use crate::protocol::{Code, Flags, FrameType, Header};

impl Core {
    /// RESPONSE: the answer begins. Its body follows.
    pub(super) fn response(&mut self, key: Key, header: &Header, head: &[u8]) -> Result<(), Violation> {
        check_block(head)?;
        let stream = header.stream;
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let is_link = conn.side.is_link();
        let Some(assigned) = assigned(conn, stream).filter(|assigned| !assigned.begun) else {
            return Err(not_open("RESPONSE", stream));
        };
        assigned.begun = true;
        if let Some(request) = assigned.request {
            let state = self.requests.get_mut(request).expect("an assigned request is in the table");
            if !state.up.opened {
                return Err(not_open("RESPONSE", stream));
            }
            state.answering = true;
            // a provider's answer to a one-way request goes no further
            state.down.begun = is_link || !state.is_oneway();
            if !head.is_empty() {
                state.down.head = Some(Box::from(head));
                state.fixed += head.len() as u32;
                self.held += head.len();
            }
            self.note_first_byte(request);
            self.drop_replay(request);
            self.tap_begin(request, Dir::Down, head);
        }
        Ok(())
    }

    /// DATA's header, from the answering side.
    pub(super) fn response_data(&mut self, key: Key, header: &Header) -> Result<(), Violation> {
        if header.length == 0 && !header.flags.has(Flags::END) {
            self.spend(key, Spending::EmptyFrames)?;
        }
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        match assigned(conn, header.stream) {
            Some(assigned) if assigned.begun => Ok(()),
            _ => Err(not_open("DATA", header.stream)),
        }
    }

    /// Body bytes of RESPONSE or DATA, from the answering side.
    #[inline]
    pub(super) fn response_body<L: Leases>(
        &mut self,
        key: Key,
        stream: u32,
        body: Body<'_>,
        end: bool,
        leases: &L,
    ) -> Result<(), Violation> {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let is_link = conn.side.is_link();
        let assigned = assigned(conn, stream).expect("an id stays in use until its terminal frame is read");
        let Some(request) = assigned.request else {
            let Some(granted) = assigned.granted.checked_sub(body.len() as u32) else {
                return Err(beyond_credit(stream));
            };
            assigned.granted = granted;
            self.counters.bytes_discarded += body.len() as u64;
            if end {
                self.provider_ended(key, stream);
            }
            return Ok(());
        };
        let state = self.requests.get_mut(request).expect("an assigned request is in the table");
        if !state.down.take_granted(body.len()) {
            return Err(beyond_credit(stream));
        }
        if state.is_oneway() && (!is_link || state.consumer.is_none()) {
            // a one-way answer goes no further, but its sender must not stall on it; another core's is the broker's
            // own, and goes to the consumer, unless a first provider was lost after the consumer had been answered
            state.down.left(body.len() as u32);
            self.counters.bytes_discarded += body.len() as u64;
            if end {
                self.provider_ended(key, stream);
                self.end_oneway(request);
            } else {
                self.credit_source(request, Dir::Down);
            }
            return Ok(());
        }
        if state.hops == 0 {
            self.meters.of(&mut self.channels[state.channel as usize]).response_bytes += body.len() as u64;
        }
        let ending = state.ending_there;
        self.tap_body(request, Dir::Down, body, end && ending.is_none());
        if end {
            self.provider_ended(key, stream);
        }
        match ending {
            // the other core had sent it all when it was told: there is no timer any more to end a slow delivery
            Some(code) if end => self.end(request, Ending { code, text: "", started: Some(true), to_provider: None }),
            _ => self.forward(request, Dir::Down, body, end, leases),
        }
        Ok(())
    }

    /// ERROR on a stream, from the answering side: its terminal frame.
    pub(super) fn provider_error(&mut self, key: Key, header: &Header, text: &str) -> Result<(), Violation> {
        let stream = header.stream;
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let side = conn.side;
        let Some(request) = assigned(conn, stream).map(|assigned| assigned.request) else {
            return Err(not_open("ERROR", stream));
        };
        let state = request.and_then(|request| self.requests.get_mut(request));
        if state.as_ref().is_some_and(|state| !state.up.opened) {
            return Err(not_open("ERROR", stream));
        }
        // a provider's own code is for people (§6); another core's is the broker's
        let code = match side {
            Side::LinkOut(_) => Code::from_wire(header.code).unwrap_or(Code::Internal),
            _ => Code::Application,
        };
        // lost behind the link: the body kept for a second attempt is kept here
        let replay = if code == Code::ProviderLost { state.and_then(|state| state.replay.take()) } else { None };
        self.provider_ended(key, stream);
        let Some(request) = request else { return Ok(()) };
        if replay.is_some() {
            self.requests.get_mut(request).expect("an assigned request is in the table").replay = replay;
            if self.try_again(request) {
                return Ok(());
            }
        }
        let state = self.requests.get_mut(request).expect("an assigned request is in the table");
        if state.is_oneway() && side == Side::Provider {
            self.end_oneway(request);
            return Ok(());
        }
        let started = side == Side::Provider || state.handed || header.flags.has(Flags::STARTED);
        if code == Code::Application && !state.down.queue.is_empty() && state.ending_there.is_none() {
            // what the provider sent before its error is delivered before it
            state.down.received_end = true;
            state.down.trailer = Some(Box::new(Trailer { code, started, text: text.to_owned() }));
            return Ok(());
        }
        self.end(request, Ending { code, text, started: Some(started), to_provider: None });
        Ok(())
    }

    /// The terminal frame of this id was read: the id and the provider's slot are free. Where the request has not
    /// been sent whole, CANCEL says that no more will come (§3).
    pub(super) fn provider_ended(&mut self, key: Key, stream: u32) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let assigned = conn.assigned.remove(stream as usize - 1);
        if assigned.request.is_none() {
            self.no_longer_abandoned(key, stream as usize - 1);
        }
        let conn = self.conns.get_mut(key).expect("as above");
        if let Some(request) = assigned.request {
            conn.working -= 1;
            let state = self.requests.get_mut(request).expect("an assigned request is in the table");
            state.provider = None;
            state.provider_done = true;
            state.down.received_end = true;
            let cut_short = state.up.opened && !state.up.ended;
            state.up.ended = true;
            self.held -= state.up.queue.heap();
            state.up.queue.clear(&mut self.released);
            self.drop_replay(request);
            if cut_short {
                let frame = Header::new(FrameType::Cancel, stream).code(Code::Cancelled).encode();
                self.stage_frame(key, &frame);
            }
        }
        self.slot_freed(key, assigned.counted);
    }

    /// A provider holds one request less.
    pub(super) fn slot_freed(&mut self, key: Key, counted: bool) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        if conn.side != Side::Provider {
            return;
        }
        let channel = conn.channel;
        if counted {
            conn.in_use -= 1;
            self.channels[channel as usize].in_use -= 1;
            self.note_news(channel);
        } else {
            conn.overdue -= 1;
        }
        self.update_available(key);
        if self.channels[channel as usize].queued > 0 {
            self.serve_queue(channel);
        }
        self.close_if_finished(key);
    }

    /// A provider said HELLO.
    pub(super) fn provider_joined(&mut self, key: Key) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        conn.serving = true;
        let (channel, capacity) = (conn.channel, conn.max_concurrent);
        let state = &mut self.channels[channel as usize];
        state.providers += 1;
        state.capacity = state.capacity.saturating_add(capacity);
        self.note_news(channel);
        self.update_available(key);
        self.serve_queue(channel);
    }

    /// A provider takes nothing new any more: it said GOAWAY, or is gone, or is told to go.
    pub(super) fn provider_leaves(&mut self, key: Key) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        conn.serving = false;
        let (channel, capacity) = (conn.channel, conn.max_concurrent);
        let state = &mut self.channels[channel as usize];
        state.providers -= 1;
        state.capacity = state.capacity.saturating_sub(capacity);
        self.note_news(channel);
        self.update_available(key);
        if self.channels[channel as usize].providers == 0 {
            self.no_provider_left(channel);
        }
    }

    /// What a provider that said GOAWAY was assigned but has not been sent goes to others.
    pub(super) fn take_back_unopened(&mut self, key: Key) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let requests = &self.requests;
        let unopened = |assigned: &Assigned| {
            assigned.request.filter(|&request| requests.get(request).is_some_and(|state| !state.up.opened))
        };
        let slots: Vec<(usize, Key)> =
            conn.assigned.iter().filter_map(|(slot, assigned)| Some((slot, unopened(assigned)?))).collect();
        for (slot, request) in slots {
            let conn = self.conns.get_mut(key).expect("as above");
            let assigned = conn.assigned.remove(slot);
            conn.working -= 1;
            conn.in_use -= u32::from(assigned.counted);
            let channel = conn.channel;
            self.channels[channel as usize].in_use -= u32::from(assigned.counted);
            self.hand_on(request);
        }
    }

    /// Puts the provider on its channel's list of available ones, or takes it off.
    pub(super) fn update_available(&mut self, key: Key) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let available = &mut self.channels[conn.channel as usize].available;
        match (conn.available_at, conn.takes_more()) {
            (None, true) => {
                conn.available_at = Some(available.len() as u32);
                available.push(key);
            }
            (Some(at), false) => {
                conn.available_at = None;
                available.swap_remove(at as usize);
                if let Some(&moved) = available.get(at as usize) {
                    self.conns.get_mut(moved).expect("listed providers are connected").available_at = Some(at);
                }
            }
            _ => {}
        }
    }

    /// A provider's connection is gone, or about to be: its requests go elsewhere or end.
    pub(super) fn detach_provider(&mut self, key: Key) {
        let conn = self.conns.get(key).expect("looked up by the caller");
        let channel = conn.channel;
        if conn.serving {
            self.provider_leaves(key);
        }
        let conn = self.conns.get_mut(key).expect("as above");
        let all = std::mem::take(&mut conn.assigned);
        (conn.in_use, conn.overdue, conn.working) = (0, 0, 0);
        for (slot, Assigned { request, counted, .. }) in all {
            self.channels[channel as usize].in_use -= u32::from(counted);
            let Some(request) = request else {
                self.no_longer_abandoned(key, slot);
                continue;
            };
            let state = self.requests.get_mut(request).expect("an assigned request is in the table");
            state.provider = None;
            if !state.up.opened {
                self.hand_on(request);
                continue;
            }
            if self.try_again(request) {
                continue;
            }
            if self.requests.get(request).is_some_and(|state| state.consumer.is_none()) {
                self.counters.oneway_lost += 1;
                self.forget(request);
            } else {
                self.end_request(request, Code::ProviderLost, "the provider's connection ended");
            }
        }
        self.note_news(channel);
    }
}

/// The state of an id this side picked.
fn assigned(conn: &mut Conn, stream: u32) -> Option<&mut Assigned> {
    conn.assigned.get_mut((stream as usize).checked_sub(1)?)
}

fn not_open(what: &str, stream: u32) -> Violation {
    Violation::protocol(format!("{what} on stream {stream}, which is not open for it"))
}

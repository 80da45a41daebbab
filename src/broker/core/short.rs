//! The short way of a small request: the same decisions as the long way, in one pass.
//!
//! Most traffic is requests and answers that fit one frame each, with nothing special about them, to a provider that
//! has room, for a consumer that has room. For these each table is looked at once. What is special in any way is left
//! here with nothing changed (but a number drawn), and goes the long way.

use super::Core;
use super::channel::Channel;
use super::conn::{Phase, Side};
use super::flow::{Dir, Flow};
use super::report::Outcome;
use super::request::Request;
use super::streams::Assigned;
use super::tap::Head;
use super::timers::request_token;
use crate::base::Key;
use crate::base::limits::REQUEST_STATE;
use crate::protocol::{Flags, FrameType, HEADER_LEN, Header, REQUEST_ID_LEN};

/// The flags that make a frame special, or for END, its absence. Those of a REQUEST mean nothing in a RESPONSE.
const MATTERS: u8 = Flags::END.0 | Flags::HEADERS.0 | Flags::ONEWAY.0 | Flags::WAIT.0 | Flags::RETRY.0;

impl Core {
    /// Takes the plain frames in front of `input`, if that begins with one; says how many bytes they are.
    #[inline]
    pub(super) fn short_frames(&mut self, key: Key, side: Side, input: &[u8]) -> usize {
        let (kind, head) = match side {
            Side::Consumer => (FrameType::Request, REQUEST_ID_LEN),
            Side::Provider => (FrameType::Response, 0),
            _ => return 0,
        };
        if !self.conns.get(key).is_some_and(|conn| conn.phase == Phase::Open && conn.rx.is_between_frames()) {
            return 0;
        }
        // a longer body is worth a reference
        let small = head..head + self.options.copy_below;
        let max_frame = self.options.limits.max_frame;
        let mut at = 0;
        while let Some((header, rest)) = input[at..].split_first_chunk::<HEADER_LEN>() {
            let header = Header::decode(header);
            let length = header.length as usize;
            let plain = header.kind == kind as u8 && header.flags.0 & MATTERS == Flags::END.0 && header.stream != 0;
            if !plain || !small.contains(&length) || header.length > max_frame || length > rest.len() {
                break;
            }
            let (payload, behind) = rest.split_at(length);
            let (head, body) = payload.split_at(head);
            let done = if side == Side::Consumer {
                self.short_request(key, &header, head, body)
            } else {
                self.look_ahead(key, behind);
                self.short_response(key, &header, body)
            };
            if !done {
                break;
            }
            at += HEADER_LEN + length;
            self.counters.frames_received += 1;
        }
        at
    }

    /// Looks at the request that the next RESPONSE is about, so that it's on its way into the cache meanwhile: with a
    /// thousand in flight they don't fit the first level.
    #[inline]
    fn look_ahead(&self, key: Key, behind: &[u8]) {
        let Some(next) = behind.first_chunk::<HEADER_LEN>().map(Header::decode) else { return };
        let assigned = self.conns.get(key).and_then(|conn| conn.assigned.get((next.stream as usize).wrapping_sub(1)));
        let Some(&Assigned { request: Some(request), .. }) = assigned else { return };
        if let Some(state) = self.requests.get(request) {
            std::hint::black_box((state.channel, state.up.granted, state.down.granted, state.timeout));
        }
    }

    /// A whole, plain REQUEST from a consumer: staged for a provider, if nothing speaks against it.
    #[inline]
    fn short_request(&mut self, key: Key, header: &Header, id: &[u8], body: &[u8]) -> bool {
        let limits = &self.options.limits;
        let Some(id) = id.first_chunk::<REQUEST_ID_LEN>() else { return false };
        if self.early || self.draining.is_some() || self.held > limits.core_buffer / 4 * 3 {
            return false;
        }
        let (room, max_streams) = (limits.connection_buffer, limits.max_streams);
        let timeout = self.timeouts.of(header.arg);
        let Some(consumer) = self.conns.get(key) else { return false };
        let (channel, window, stream) = (consumer.channel, consumer.window, header.stream);
        let free = consumer.opened.get(stream).is_none() && consumer.opened.open() < max_streams;
        let state = &self.channels[channel as usize];
        let (granted, len) = (state.window, body.len() as u32);
        let taps = state.taps;
        if consumer.special || !free || granted < len || state.spread && !self.stays_here(channel) {
            return false;
        }
        let Some(provider) = self.pick(channel) else { return false };
        let target = self.conns.get_mut(provider).expect("listed providers are connected");
        if !target.out.ring.is_empty() || !target.out.has_room(room) || target.window < len {
            return false;
        }
        let slot = target.assigned.vacant_key();
        let deadline = self.now.after_millis(timeout);
        let left = deadline.millis_since(self.now).max(1) as u32;
        let out = Header::new(FrameType::Request, slot as u32 + 1).length(header.length).flags(Flags::END).arg(left);
        target.out.stage_small(&mut self.spare, out.encode(), id, body);
        let sent = Flow { granted: granted - len, credit: target.window - len, ..Flow::WHOLE };
        let request = self.requests.insert(Request {
            id: *id,
            channel,
            flags: header.flags,
            consumer: Some((key, stream)),
            provider: Some((provider, slot as u32 + 1)),
            provider_done: false,
            handed: false,
            ending_there: None,
            answering: false,
            only_forwarded: false,
            deadline,
            timeout,
            timer: None,
            up: sent,
            down: Flow { granted, credit: window, ..Flow::default() },
            replay: None,
            place: None,
            origin: key.index(),
            hops: 0,
            fixed: REQUEST_STATE as u32,
        });
        target.tenancies = target.tenancies.wrapping_add(1);
        let tenancy = target.tenancies;
        target.assigned.insert(Assigned { request: Some(request), granted: 0, begun: false, counted: true, tenancy });
        target.working += 1;
        target.in_use += 1;
        if !std::mem::replace(&mut target.out.dirty, true) {
            self.dirty.push(provider);
        }
        if !target.takes_more() {
            self.update_available(provider);
        }
        let timer = self.wheel.insert(deadline, request_token(request));
        self.requests.get_mut(request).expect("just inserted").timer = Some(timer);
        if taps.requests != 0 {
            let head = Head { id, channel: self.channels[channel as usize].id, headers: &[] };
            self.tap.begin(request, Dir::Up, taps, head, body, true);
        }
        let consumer = self.conns.get_mut(key).expect("looked up above");
        consumer.opened.set_active(stream, request);
        let state = &mut self.channels[channel as usize];
        state.requests += 1;
        state.in_use += 1;
        let spread = state.spread;
        self.meters.of(state).short_request(body.len());
        self.held += REQUEST_STATE;
        self.counters.requests += 1;
        if spread {
            self.note_news(channel);
        }
        true
    }

    /// A whole, plain RESPONSE from a provider to a request it has whole: staged for the consumer, and the request is over.
    #[inline]
    fn short_response(&mut self, key: Key, header: &Header, body: &[u8]) -> bool {
        let Some(provider) = self.conns.get_mut(key) else { return false };
        let slot = (header.stream as usize).wrapping_sub(1);
        let Some(&Assigned { request: Some(request), begun: false, counted: true, .. }) = provider.assigned.get(slot)
        else {
            return false;
        };
        let state = self.requests.get(request).expect("an assigned request is in the table");
        let channel = state.channel;
        let Some((consumer, stream)) = state.consumer else { return false };
        // sent whole, and by way of no other core
        let plain = state.up.ended && state.up.received_end && state.replay.is_none() && !state.is_oneway();
        let len = body.len() as u32;
        let fits = state.down.granted >= len && state.down.credit >= len;
        if !plain || !fits || provider.peer_goes || provider.goes {
            return false;
        }
        let target = self.conns.get_mut(consumer).expect("a request's consumer is connected");
        let ready = target.out.ring.is_empty() && target.out.has_room(self.options.limits.connection_buffer);
        if !ready || target.side != Side::Consumer || target.peer_goes || target.goes {
            return false;
        }
        let out = Header::new(FrameType::Response, stream).length(len).flags(Flags::END);
        target.out.stage_small(&mut self.spare, out.encode(), &[], body);
        target.opened.remove(stream);
        if !std::mem::replace(&mut target.out.dirty, true) {
            self.dirty.push(consumer);
        }
        self.note_end(request, Outcome::Answered);
        let state = self.requests.remove(request).expect("looked up above");
        let Channel { taps, id: channel_id, .. } = self.channels[channel as usize];
        if taps.responses != 0 {
            let head = Head { id: &state.id, channel: channel_id, headers: &[] };
            self.tap.begin(request, Dir::Down, taps, head, body, true);
        }
        if let Some(timer) = state.timer {
            self.wheel.cancel(timer);
        }
        self.held -= state.fixed as usize;
        let age = state.age(self.now);
        self.counters.answered += 1;
        let provider = self.conns.get_mut(key).expect("looked up above");
        provider.assigned.remove(slot);
        provider.working -= 1;
        provider.in_use -= 1;
        if provider.available_at.is_none() {
            self.update_available(key);
        }
        let state = &mut self.channels[channel as usize];
        state.requests -= 1;
        state.in_use -= 1;
        let (spread, queued) = (state.spread, state.queued);
        self.meters.of(state).short_response(age, body.len());
        if spread {
            self.note_news(channel);
        }
        if queued > 0 {
            self.serve_queue(channel);
        }
        true
    }
}

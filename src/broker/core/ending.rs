//! Every way a request can end, each with one terminal frame to its consumer.

use super::Core;
use super::flow::Dir;
use super::report::Outcome;
use super::streams::Opened;
use super::timers::Grace;
use crate::base::Key;
use crate::protocol::{Code, Flags, FrameType, Header};

/// How a request ends in ERROR.
pub(super) struct Ending<'a> {
    pub code: Code,
    pub text: &'a str,
    /// Whether the work may have begun, where another core said so.
    pub started: Option<bool>,
    /// The reason told to the provider, if it still works on it.
    pub to_provider: Option<Code>,
}

impl Core {
    /// Ends a request by the broker's own decision: ERROR to the consumer, CANCEL to the provider.
    pub(super) fn end_request(&mut self, request: Key, code: Code, text: &str) {
        self.end(request, Ending { code, text, started: None, to_provider: Some(code) });
    }

    /// Ends a request with ERROR.
    pub(super) fn end(&mut self, request: Key, ending: Ending<'_>) {
        let state = self.requests.get(request).expect("looked up by the caller");
        let started = Flags::STARTED.only_if(ending.started.unwrap_or(state.is_started()));
        let (consumer, channel, hops) = (state.consumer, state.channel, state.hops);
        if consumer.is_some() {
            self.note_failed(channel, hops, ending.code);
            self.note_end(request, Outcome::Failed(ending.code));
        }
        self.close_stream(request);
        self.release(request, ending.to_provider);
        match consumer {
            Some((consumer, stream)) => {
                self.stage_error(consumer, stream, ending.code, started, ending.text);
                self.close_if_finished(consumer);
            }
            None => self.counters.oneway_lost += 1,
        }
    }

    /// The consumer's connection is gone: nobody waits for the answer.
    pub(super) fn consumer_lost(&mut self, request: Key) {
        self.counters.consumer_lost += 1;
        self.note_end(request, Outcome::ConsumerLost);
        self.release(request, Some(Code::ConsumerLost));
    }

    /// The answer is staged whole.
    pub(super) fn answered(&mut self, request: Key) {
        let consumer = self.requests.get(request).expect("looked up by the caller").consumer;
        self.note_answered(request);
        self.note_end(request, Outcome::Answered);
        self.close_stream(request);
        self.release(request, None);
        if let Some((consumer, _)) = consumer {
            self.close_if_finished(consumer);
        }
    }

    /// A one-way request has been handed over whole, or its provider has ended it: the broker answers (§5).
    pub(super) fn answer_oneway(&mut self, request: Key) {
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        let Some((consumer, stream)) = state.consumer else { return };
        self.note_answered(request);
        self.note_end(request, Outcome::Oneway);
        self.close_stream(request);
        self.requests.get_mut(request).expect("as above").consumer = None;
        let frame = Header::new(FrameType::Response, stream).flags(Flags::END).encode();
        self.stage_frame(consumer, &frame);
        self.close_if_finished(consumer);
    }

    /// The provider has sent the terminal frame of a one-way request.
    pub(super) fn end_oneway(&mut self, request: Key) {
        self.answer_oneway(request);
        self.release(request, None);
    }

    /// Ends a request that nobody waits for.
    pub(super) fn forget(&mut self, request: Key) {
        self.release(request, None);
    }

    /// The terminal frame towards the consumer is about to be staged: its stream id is free, or waits for END or
    /// CANCEL with what may still come discarded (§3).
    fn close_stream(&mut self, request: Key) {
        let state = self.requests.get(request).expect("looked up by the caller");
        let Some((consumer, stream)) = state.consumer else { return };
        let (granted, ended) = (state.up.granted, state.up.received_end);
        let conn = self.conns.get_mut(consumer).expect("a request's consumer is connected");
        if ended {
            conn.opened.remove(stream);
        } else {
            conn.opened.set(stream, Opened::Discard { granted, refused: false });
        }
    }

    /// Takes a request out of the table, off the queue, and off its provider.
    fn release(&mut self, request: Key, cancel: Option<Code>) {
        self.unqueue(request);
        self.forget_trace(request);
        let mut state = self.requests.remove(request).expect("looked up by the caller");
        if let Some(timer) = state.timer {
            self.wheel.cancel(timer);
        }
        self.tap_released(request, [state.up.copied, state.down.copied]);
        self.held -= state.heap();
        state.up.queue.clear(&mut self.released);
        state.down.queue.clear(&mut self.released);
        if let Some((provider, stream)) = state.provider {
            self.release_provider(provider, stream, state.up.opened, state.down.granted, cancel);
            if let Some((consumer, _)) = state.consumer {
                self.note_abandoned(consumer, provider, stream as usize - 1);
            }
        }
        self.channels[state.channel as usize].requests -= 1;
        self.drop_unused(state.channel);
    }

    fn release_provider(&mut self, provider: Key, stream: u32, opened: bool, granted: u32, cancel: Option<Code>) {
        self.prune_grace();
        let slot = stream as usize - 1;
        let conn = self.conns.get_mut(provider).expect("a request's provider is connected");
        conn.working -= 1;
        if !opened {
            // it has heard nothing of the request
            let assigned = conn.assigned.remove(slot);
            return self.slot_freed(provider, assigned.counted);
        }
        let assigned = &mut conn.assigned[slot];
        assigned.request = None;
        assigned.granted = granted;
        if assigned.counted {
            let until = self.now + self.options.limits.cancel_grace;
            self.grace.push_back(Grace { until, provider, slot, tenancy: assigned.tenancy });
        }
        let code = cancel.unwrap_or(Code::Cancelled);
        self.stage_frame(provider, &Header::new(FrameType::Cancel, stream).code(code).encode());
    }

    /// Makes the stream's turn come, if it has something to send and isn't listed yet.
    pub(super) fn enlist(&mut self, request: Key, dir: Dir) {
        let Some(state) = self.requests.get_mut(request) else { return };
        let Some((target, _)) = state.target(dir) else { return };
        let flow = state.flow(dir);
        if flow.in_ring || !flow.is_ready() {
            return;
        }
        flow.in_ring = true;
        self.conns.get_mut(target).expect("a request's target is connected").out.ring.push_back((request, dir));
        self.set_dirty(target);
    }
}

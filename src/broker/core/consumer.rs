//! Frames from whoever opens streams: consumers, and links in from other cores.

use super::Core;
use super::budget::Spending;
use super::conn::{Conn, Side};
use super::flow::{Body, Dir, Flow};
use super::request::{Replay, Request};
use super::rx::Violation;
use super::streams::Opened;
use crate::auth::Rights;
use crate::base::limits::REQUEST_STATE;
use crate::base::{Key, Leases};
use crate::protocol::{Code, Flags, Header, REQUEST_ID_LEN, check_header_block};

/// A REQUEST's head, taken apart.
pub(super) struct Opening<'a> {
    pub id: [u8; 16],
    /// The header block with its size in front; empty for none.
    pub block: &'a [u8],
    pub channel: u32,
    pub origin: u32,
    pub hops: u8,
}

/// Why a request is not taken.
struct Refusal {
    code: Code,
    why: &'static str,
    /// Its sender could have known.
    avoidable: bool,
}

impl Core {
    /// REQUEST from a consumer: a new stream, refused or given to a provider. Its body follows.
    pub(super) fn request(&mut self, key: Key, header: &Header, head: &[u8]) -> Result<(), Violation> {
        let conn = self.conns.get(key).expect("looked up by the caller");
        if self.early {
            return Err(Violation::protocol("REQUEST before WELCOME"));
        }
        if conn.peer_goes {
            return Err(Violation::protocol("REQUEST behind GOAWAY"));
        }
        let (id, block) = head.split_first_chunk::<REQUEST_ID_LEN>().expect("the head was gathered whole");
        check_block(block)?;
        let opening = Opening { id: *id, block, channel: conn.channel, origin: key.index(), hops: 0 };
        self.open_request(key, header, &opening)
    }

    /// Opens the stream, from a consumer or a link.
    pub(super) fn open_request(&mut self, key: Key, header: &Header, opening: &Opening<'_>) -> Result<(), Violation> {
        let stream = header.stream;
        let conn = self.conns.get(key).expect("looked up by the caller");
        if conn.opened.get(stream).is_some() {
            return Err(Violation::protocol(format!("REQUEST on stream {stream}, which is in use")));
        }
        self.note_request(opening.channel, opening.hops);
        let conn = self.conns.get(key).expect("as above");
        if let Some(refusal) = self.refusal(conn, header.flags) {
            return self.refuse_request(key, header, opening, &refusal);
        }
        let request = self.new_request(key, header, opening);
        let deadline = request.deadline;
        self.held += request.fixed as usize;
        self.channels[opening.channel as usize].requests += 1;
        let request = self.requests.insert(request);
        self.note_trace(request, opening.block, opening.hops);
        let timer = self.wheel.insert(deadline, super::timers::request_token(request));
        self.requests.get_mut(request).expect("just inserted").timer = Some(timer);
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        conn.opened.set(stream, Opened::Active(request));
        if deadline <= self.now {
            // its head took longer than it had
            self.end_request(request, Code::Deadline, DEADLINE);
            return Ok(());
        }
        self.dispatch(request);
        // one that was refused at once is not forwarded either
        self.tap_begin(request, Dir::Up, opening.block);
        Ok(())
    }

    /// Why no new request is taken now.
    fn refusal(&self, conn: &Conn, flags: Flags) -> Option<Refusal> {
        let limits = &self.options.limits;
        let refusal = |code, why, avoidable| Some(Refusal { code, why, avoidable });
        let needed = if flags.has(Flags::ONEWAY) { Rights::PUBLISH } else { Rights::REQUEST };
        if self.draining.is_some() {
            refusal(Code::Draining, "the broker is shutting down", false)
        } else if conn.side == Side::Consumer && !conn.rights.has(needed) {
            let publish = "this token may not send requests here but ONEWAY ones (publish)";
            let why = if needed == Rights::REQUEST { publish } else { "this token may not publish here (ONEWAY)" };
            refusal(Code::Unauthorized, why, true)
        } else if conn.side == Side::Consumer && conn.opened.open() >= limits.max_streams {
            refusal(Code::Overloaded, "max_streams requests are open on this connection", true)
        } else if conn.side == Side::Consumer && conn.abandoned >= limits.max_abandoned() {
            let why = "too many requests that this connection gave up are still at their providers (max_streams)";
            refusal(Code::Overloaded, why, false)
        } else if self.held > limits.core_buffer / 4 * 3 {
            refusal(Code::Overloaded, "the broker's buffers are nearly full (core_buffer)", false)
        } else {
            None
        }
    }

    fn refuse_request(
        &mut self,
        key: Key,
        header: &Header,
        opening: &Opening<'_>,
        &Refusal { code, why, avoidable }: &Refusal,
    ) -> Result<(), Violation> {
        self.note_failed(opening.channel, opening.hops, code);
        if avoidable {
            self.spend(key, Spending::Errors)?;
        }
        self.note_refused(opening.id, opening.block, opening.channel, opening.hops, code);
        let window = self.channels[opening.channel as usize].window;
        let max_streams = self.options.limits.max_streams;
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        // even a REQUEST that ends with this frame holds its id until its body has been read; it is no flood, though
        let refused = !header.flags.has(Flags::END);
        conn.opened.set(header.stream, Opened::Discard { granted: window, refused });
        // its CANCEL may cross the refusal
        conn.budgets.earn(Spending::Cancels, 1, max_streams);
        if conn.opened.refused() > max_streams && conn.side == Side::Consumer {
            return Err(Violation::new(Code::Flood, format!("{max_streams} refused requests were not ended")));
        }
        self.stage_error(key, header.stream, code, Flags::NONE, why);
        Ok(())
    }

    fn new_request(&self, key: Key, header: &Header, opening: &Opening<'_>) -> Request {
        let timeout = self.timeouts.of(header.arg);
        let conn = self.conns.get(key).expect("looked up by the caller");
        let head = (!opening.block.is_empty()).then(|| Box::from(opening.block));
        // a link's sender keeps the body for a second attempt itself
        let keeps = header.flags.has(Flags::RETRY) && conn.side == Side::Consumer;
        let replay = keeps.then(|| Box::new(Replay { head: head.clone(), body: Vec::new() }));
        let granted = self.channels[opening.channel as usize].window;
        let arrived = conn.rx.head_since.unwrap_or(self.now);
        Request {
            id: opening.id,
            channel: opening.channel,
            flags: header.flags,
            consumer: Some((key, header.stream)),
            provider: None,
            provider_done: false,
            handed: false,
            ending_there: None,
            answering: false,
            only_forwarded: false,
            deadline: arrived.after_millis(timeout),
            timeout,
            timer: None,
            up: Flow { granted, begun: true, head, ..Flow::default() },
            down: Flow { credit: conn.window, ..Flow::default() },
            replay,
            place: None,
            origin: opening.origin,
            hops: opening.hops,
            // a header block is at most 16 KiB
            fixed: (REQUEST_STATE + opening.block.len()) as u32,
        }
    }

    /// DATA's header, from the opener.
    pub(super) fn request_data(&mut self, key: Key, header: &Header) -> Result<(), Violation> {
        if header.length == 0 && !header.flags.has(Flags::END) {
            self.spend(key, Spending::EmptyFrames)?;
        }
        let conn = self.conns.get(key).expect("looked up by the caller");
        let stream = header.stream;
        let ended = match conn.opened.get(stream) {
            Some(Opened::Active(request)) => self.requests.get(request).is_none_or(|request| request.up.received_end),
            Some(Opened::Discard { .. }) => false,
            None => true,
        };
        if ended {
            return Err(Violation::protocol(format!("DATA on stream {stream}, which is not open in this direction")));
        }
        Ok(())
    }

    /// Body bytes of REQUEST or DATA, from the opener.
    #[inline]
    pub(super) fn request_body<L: Leases>(
        &mut self,
        key: Key,
        stream: u32,
        body: Body<'_>,
        end: bool,
        leases: &L,
    ) -> Result<(), Violation> {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        match conn.opened.get(stream) {
            Some(Opened::Active(request)) => self.active_body(request, stream, body, end, leases),
            Some(Opened::Discard { granted, refused }) => {
                let n = body.len() as u32;
                let Some(granted) = granted.checked_sub(n) else { return Err(beyond_credit(stream)) };
                self.counters.bytes_discarded += u64::from(n);
                if end {
                    conn.opened.remove(stream);
                    self.close_if_finished(key);
                } else {
                    conn.opened.set(stream, Opened::Discard { granted, refused });
                }
                Ok(())
            }
            None => unreachable!("stream {stream} left the table in the middle of its frame"),
        }
    }

    fn active_body<L: Leases>(
        &mut self,
        key: Key,
        stream: u32,
        body: Body<'_>,
        end: bool,
        leases: &L,
    ) -> Result<(), Violation> {
        let request = self.requests.get_mut(key).expect("an active stream's request is in the table");
        if !request.up.take_granted(body.len()) {
            return Err(beyond_credit(stream));
        }
        if request.hops == 0 {
            self.meters.of(&mut self.channels[request.channel as usize]).request_bytes += body.len() as u64;
        }
        if request.replay.is_some() {
            self.keep_for_retry(key, body);
        }
        self.tap_body(key, Dir::Up, body, end);
        let request = self.requests.get_mut(key).expect("as above");
        if request.only_forwarded {
            request.up.received_end |= end;
            request.up.left(body.len() as u32);
            self.forwarded_only(key);
            return Ok(());
        }
        if request.provider_done || request.ending_there.is_some() {
            // the answer is on its way out; nobody wants these bytes any more
            self.counters.bytes_discarded += body.len() as u64;
            request.up.received_end |= end;
            return Ok(());
        }
        self.forward(key, Dir::Up, body, end, leases);
        Ok(())
    }

    /// Keeps a copy of a RETRY request's body, while it is within one window.
    fn keep_for_retry(&mut self, key: Key, body: Body<'_>) {
        let request = self.requests.get_mut(key).expect("looked up by the caller");
        let window = self.channels[request.channel as usize].window as usize;
        let Some(replay) = &mut request.replay else { return };
        if replay.body.len() + body.len() > window {
            self.held -= replay.body.capacity();
            request.replay = None;
            return;
        }
        let before = replay.body.capacity();
        replay.body.extend_from_slice(body.bytes);
        self.held += replay.body.capacity() - before;
    }

    /// CANCEL from the opener.
    pub(super) fn cancel(&mut self, key: Key, stream: u32, code: u16) -> Result<(), Violation> {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        match conn.opened.get(stream) {
            None => return self.cancelled_nothing(key),
            Some(Opened::Discard { .. }) => {
                conn.opened.remove(stream);
                self.close_if_finished(key);
            }
            Some(Opened::Active(request)) => {
                // the opener has now ended its direction, so its id is free with the terminal frame
                self.requests.get_mut(request).expect("an active stream's request").up.received_end = true;
                // a consumer may only cancel; another core passes its reason on
                let code = if conn.side == Side::Consumer { None } else { Code::from_wire(code) };
                let code = code.unwrap_or(Code::Cancelled);
                if !self.end_over_there(request, code) {
                    let text = if code == Code::Deadline { DEADLINE } else { "cancelled by the consumer" };
                    self.end_request(request, code, text);
                }
            }
        }
        Ok(())
    }
}

/// What is said of a request whose deadline passed.
pub(super) const DEADLINE: &str = "the request's timeout passed";

/// Checks a header block with its size in front; empty for none.
pub(super) fn check_block(block: &[u8]) -> Result<(), Violation> {
    if block.is_empty() {
        return Ok(());
    }
    check_header_block(&block[2..]).map_err(|bad| Violation::protocol(bad.to_string()))
}

pub(super) fn beyond_credit(stream: u32) -> Violation {
    Violation::new(Code::FlowControl, format!("stream {stream}: more body bytes than were granted"))
}

//! What a client makes of the frames it reads.

use super::*;

impl Client {
    pub(super) fn frame(&mut self, world: &mut World, shared: &mut Shared, header: &Header, payload: &[u8]) {
        let kind = header.frame_type().unwrap_or_else(|| panic!("{self}: unknown frame {header:?}"));
        assert!(!self.error_seen, "{self}: a frame behind the ERROR that ends the connection");
        if kind == FrameType::Error && header.stream == 0 {
            return self.connection_error(shared, header, payload);
        }
        if self.welcome.is_none() {
            assert_eq!(kind, FrameType::Welcome, "{self}: the first frame");
            let welcome = Welcome::decode(payload).unwrap();
            self.welcome = Some(welcome);
            return;
        }
        match kind {
            FrameType::Ping => {
                assert_eq!((header.stream, payload.len()), (0, 8), "{self}: PING");
                self.send(world, Header::new(FrameType::Pong, 0), &[payload]);
            }
            FrameType::Pong => assert_eq!(payload, b"12345678", "{self}: PONG"),
            FrameType::GoAway => self.goaway_seen = true,
            _ if self.is_consumer() => self.consumer_frame(world, shared, kind, header, payload),
            _ => self.provider_frame(shared, kind, header, payload),
        }
    }

    pub(super) fn connection_error(&mut self, shared: &Shared, header: &Header, payload: &[u8]) {
        let code = Code::from_wire(header.code).unwrap_or_else(|| panic!("{self}: ERROR without a code"));
        let text = std::str::from_utf8(payload).unwrap();
        let fair = match code {
            Code::Timeout => true,
            Code::Draining => shared.drained,
            Code::Unauthorized => shared.guard.was_denied(self.index),
            _ => false,
        };
        assert!(fair, "{self}: a client that kept to the protocol was told {code}: {text}");
        self.error_seen = true;
    }

    pub(super) fn consumer_frame(
        &mut self,
        world: &mut World,
        shared: &mut Shared,
        kind: FrameType,
        header: &Header,
        payload: &[u8],
    ) {
        let name = self.to_string();
        let window = self.welcome.map_or(0, |welcome| welcome.window).max(shared.max_window);
        let stream = self.streams.get_mut(&header.stream);
        let stream = stream.unwrap_or_else(|| panic!("{name}: {kind:?} on stream {}, not in use", header.stream));
        let number = stream.number;
        assert!(!stream.terminal, "{name}: {kind:?} behind the terminal frame of request {number}");
        let spec = &mut shared.specs[number as usize];
        let strict = !shared.tainted[spec.channel];
        let end = header.flags.has(Flags::END);
        match kind {
            FrameType::Response | FrameType::Data => {
                assert_eq!(stream.recv.begun, kind == FrameType::Data, "{name}: {kind:?} of request {number}");
                stream.recv.begun = true;
                let mut bytes = payload;
                if kind == FrameType::Response && header.flags.has(Flags::HEADERS) {
                    let len = 2 + usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
                    if strict {
                        assert_eq!(bytes[..len], header_block(number, false), "{name}: header block of {number}");
                    }
                    bytes = &bytes[len..];
                } else if kind == FrameType::Response && strict && !spec.flags.has(Flags::ONEWAY) {
                    assert!(!spec.headers, "{name}: the answer's header block of {number} is lost");
                }
                take(&name, number, &mut stream.recv, bytes, false, strict);
                if end {
                    stream.terminal = true;
                    assert_eq!(spec.outcome, None, "{name}: a second outcome of {number}");
                    spec.outcome = Some(Outcome::Answered);
                    shared.answered += 1;
                    if spec.flags.has(Flags::ONEWAY) {
                        assert_eq!((kind, stream.recv.at), (FrameType::Response, 0), "{name}: a one-way answer");
                        let whole = stream.send.ended || spec.answered || spec.error.is_some();
                        assert!(whole || !strict, "{name}: one-way {number} answered before it was handed over");
                    } else if strict {
                        assert!(spec.answered, "{name}: request {number} is answered, but no provider has ended it");
                        assert_eq!(stream.recv.at, spec.down_len, "{name}: length of the answer to {number}");
                    }
                }
            }
            FrameType::Error => {
                stream.terminal = true;
                assert_eq!(spec.outcome, None, "{name}: a second outcome of {number}");
                let code = Code::from_wire(header.code).expect("a known code");
                spec.outcome = Some(Outcome::Failed(code));
                let started = header.flags.has(Flags::STARTED);
                let text = std::str::from_utf8(payload).unwrap();
                if code == Code::Unauthorized {
                    assert!(shared.guard.must_not_send(spec.consumer, spec.flags), "{name}: {number}: {text}");
                } else if strict {
                    justify(&name, world, number, spec, stream, (code, started, text));
                    shared.told_lost |= code == Code::ProviderLost;
                    assert!(code != Code::Draining || shared.drained, "{name}: nobody drains");
                    assert!(code != Code::Overloaded || shared.may_overload, "{name}: {number}: OVERLOADED: {text}");
                }
            }
            FrameType::Credit => {
                assert!(header.arg > 0, "{name}: CREDIT 0");
                stream.send.credit += u64::from(header.arg);
                let credit = stream.send.credit;
                assert!(credit <= u64::from(window), "{name}: {number}: {credit} bytes granted, beyond the window");
            }
            _ => panic!("{name}: {kind:?} towards a consumer"),
        }
        self.drop_if_free(header.stream);
    }

    pub(super) fn drop_if_free(&mut self, id: u32) {
        let stream = &self.streams[&id];
        let opener_done = if self.is_consumer() { stream.send.ended } else { stream.recv.ended } || stream.cancelled;
        if stream.terminal && opener_done {
            self.streams.remove(&id);
        }
    }

    pub(super) fn provider_frame(&mut self, shared: &mut Shared, kind: FrameType, header: &Header, payload: &[u8]) {
        let name = self.to_string();
        let id = header.stream;
        let end = header.flags.has(Flags::END);
        if kind == FrameType::Request {
            return self.provider_request(shared, header, payload);
        }
        let window = self.welcome.map_or(0, |welcome| welcome.window).max(shared.max_window);
        let Some(stream) = self.streams.get_mut(&id) else {
            let race = matches!(kind, FrameType::Cancel | FrameType::Credit);
            return assert!(race, "{name}: {kind:?} on stream {id}, not in use");
        };
        match kind {
            FrameType::Data => {
                assert!(!stream.recv.ended && !stream.cancelled, "{name}: DATA behind END or CANCEL");
                let strict = stream.number != FOREIGN && !shared.specs[stream.number as usize].hostile;
                take(&name, stream.number, &mut stream.recv, payload, true, strict);
                stream.recv.ended = end;
                self.check_request_end(shared, id);
            }
            FrameType::Cancel => {
                assert!(!stream.cancelled, "{name}: CANCEL twice");
                let code = Code::from_wire(header.code);
                let known = [
                    Code::Cancelled,
                    Code::Deadline,
                    Code::ConsumerLost,
                    Code::Overloaded,
                    Code::Draining,
                    Code::ProviderLost,
                ];
                assert!(code.is_some_and(|code| known.contains(&code)), "{name}: CANCEL with code {}", header.code);
                stream.cancelled = true;
            }
            FrameType::Credit => {
                assert!(header.arg > 0, "{name}: CREDIT 0");
                stream.send.credit += u64::from(header.arg);
                let credit = stream.send.credit;
                assert!(credit <= u64::from(window), "{name}: {credit} bytes granted, beyond the window");
            }
            _ => panic!("{name}: {kind:?} towards a provider"),
        }
        self.drop_if_free(id);
    }

    pub(super) fn check_request_end(&self, shared: &Shared, id: u32) {
        let stream = &self.streams[&id];
        if stream.recv.ended && stream.number != FOREIGN && !shared.specs[stream.number as usize].hostile {
            let len = shared.specs[stream.number as usize].up_len;
            assert_eq!(stream.recv.at, len, "{self}: length of request {}", stream.number);
        }
    }

    pub(super) fn provider_request(&mut self, shared: &mut Shared, header: &Header, payload: &[u8]) {
        let (id, name) = (header.stream, self.to_string());
        assert!(!self.streams.contains_key(&id), "{self}: REQUEST on stream {id}, which is in use");
        let number = number_of(&payload[..16]);
        let mut bytes = &payload[16..];
        let mut head = &[][..];
        if header.flags.has(Flags::HEADERS) {
            (head, bytes) = bytes.split_at(2 + usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
        }
        let mut hangs = self.habits.hangs;
        if number != FOREIGN {
            let spec = &mut shared.specs[number as usize];
            assert_eq!(spec.channel, self.channel, "{self}: a request of another channel");
            if let Err(why) = shared.guard.may_reach_a_provider(spec.consumer, number, spec.flags) {
                panic!("{self}: request {number}: {why}");
            }
            let block = header_block(number, true);
            assert!(!spec.headers || head == block, "{self}: the header block of {number} is lost");
            assert!(spec.headers || head.is_empty(), "{self}: a header block that {number} did not have");
            let again = !spec.seen_by.is_empty();
            assert!(!again || spec.flags.has(Flags::RETRY), "{self}: request {number} is delivered twice");
            spec.seen_by.push(self.index);
            let before = self.last_of.insert(spec.consumer, number);
            if let Some(before) = before.filter(|&before| before > number) {
                shared.disorder = Some(format!("{self} read request {before} before {number} of the same consumer"));
            }
            let timeout = if spec.timeout_ms == 0 { shared.default_timeout_ms } else { spec.timeout_ms };
            assert!((1..=timeout).contains(&header.arg), "{self}: {} ms left of {timeout}", header.arg);
            hangs |= number.is_multiple_of(13) && !shared.finishing;
        }
        let window = u64::from(self.window);
        let welcome = self.welcome.expect("welcomed");
        let mut stream = Stream {
            number,
            send: Sending { credit: u64::from(welcome.window), ..Sending::default() },
            recv: Receiving { granted: window, begun: true, ..Receiving::default() },
            cancelled: false,
            terminal: false,
            hangs,
        };
        let strict = number != FOREIGN && !shared.specs[number as usize].hostile;
        take(&name, number, &mut stream.recv, bytes, true, strict);
        stream.recv.ended = header.flags.has(Flags::END);
        self.streams.insert(id, stream);
        self.check_request_end(shared, id);
        let live = self.streams.values().filter(|stream| !stream.terminal && !stream.cancelled).count();
        let all = self.streams.values().filter(|stream| !stream.terminal).count();
        let max = self.max_concurrent as usize;
        assert!(live <= max, "{self}: {live} requests, more than max_concurrent {max}");
        assert!(all < 2 * max, "{self}: {all} requests with cancelled ones, max_concurrent is {max}");
    }
}

/// Body bytes arrive: within what was granted, and the right ones.
fn take(name: &str, number: u64, recv: &mut Receiving, bytes: &[u8], up: bool, strict: bool) {
    let n = bytes.len() as u64;
    assert!(recv.granted >= n, "{name}: request {number}: {n} bytes, {} were granted", recv.granted);
    recv.granted -= n;
    recv.owed += n;
    if strict {
        for (i, &byte) in bytes.iter().enumerate() {
            let at = recv.at + i;
            assert_eq!(byte, content(number, up, at), "{name}: request {number}: wrong byte at {at}");
        }
    }
    recv.at += bytes.len();
}

/// Whether a request had a right to fail like this.
fn justify(
    name: &str,
    world: &World,
    number: u64,
    spec: &Spec,
    stream: &Stream,
    (code, started, text): (Code, bool, &str),
) {
    let seen = !spec.seen_by.is_empty();
    assert!(started || !seen, "{name}: request {number} ended with {code} without STARTED, but a provider had it");
    match code {
        Code::NoProvider => {
            assert!(!spec.flags.has(Flags::WAIT), "{name}: request {number} said WAIT");
            assert!(!seen || spec.flags.has(Flags::RETRY), "{name}: request {number} had a provider");
        }
        Code::Deadline => {
            let timeout = if spec.timeout_ms == 0 { 0 } else { spec.timeout_ms };
            let passed = world.now - spec.sent_at;
            let early = passed.as_millis() < u128::from(timeout);
            assert!(!early, "{name}: request {number}: DEADLINE after {passed:?} of {timeout} ms");
        }
        Code::Cancelled => assert!(stream.cancelled, "{name}: request {number} was not cancelled"),
        Code::Application => {
            assert_eq!(spec.error.as_deref(), Some(text), "{name}: the provider's error on {number}");
            assert!(started, "{name}: the provider answered {number}, so it was started");
        }
        Code::ProviderLost | Code::Overloaded | Code::Draining => {}
        _ => panic!("{name}: request {number} ended with {code}: {text}"),
    }
}

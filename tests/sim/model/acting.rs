//! What a client does, at random.

use super::*;
use crate::rng::Rng;

/// A stream that nobody opens.
const NOBODYS: u32 = 1 << 30;

impl Client {
    /// Does one thing of its choice.
    pub(crate) fn act(&mut self, world: &mut World, shared: &mut Shared, rng: &mut Rng) {
        if self.dead {
            return;
        }
        if rng.one_in(self.habits.laziness) {
            let n = rng.range(1, self.habits.read);
            self.read(world, shared, n);
        }
        if self.dead {
            return;
        }
        if !self.hello_sent {
            return self.hello(world, shared);
        }
        if self.hostile || self.habits.hostile && rng.one_in(60) {
            return self.misbehave(world, shared, rng);
        }
        if self.habits.leaves && rng.one_in(400) {
            return self.leave(world, shared, rng.one_in(2));
        }
        if self.welcome.is_none() || self.error_seen {
            return;
        }
        if rng.one_in(40) {
            return self.chatter(world, rng);
        }
        if rng.one_in(600) && self.habits.leaves && !self.goaway_sent {
            self.goaway_sent = true;
            shared.providers_leaving += u32::from(self.role == Role::Provider);
            return self.send(world, Header::new(FrameType::GoAway, 0), &[b"bye"]);
        }
        if self.is_consumer() && rng.one_in(10) && !self.goaway_sent {
            return self.open(world, shared, rng);
        }
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = rng.pick(&ids);
        if rng.one_in(self.habits.stinginess) {
            let all = rng.one_in(2);
            self.grant(world, id, rng, all);
        } else if self.is_consumer() {
            self.consumer_act(world, id, shared, rng);
        } else {
            self.provider_act(world, id, shared, rng);
        }
    }

    pub(super) fn hello(&mut self, world: &mut World, shared: &Shared) {
        self.hello_sent = true;
        let hello = Hello {
            version: VERSION,
            role: self.role,
            features: 0,
            channel: self.channel_id,
            client: uuid::Uuid::from_u128(self.index as u128 + 1),
            window: self.window,
            max_concurrent: self.max_concurrent,
            token: shared.guard.token(self.index),
            name: format!("client {}", self.index),
        };
        let mut frame = Vec::new();
        hello.encode(&mut frame).unwrap();
        trace!(world, "{self} says HELLO, window {}, max_concurrent {}", self.window, self.max_concurrent);
        world.socks[self.sock].up.extend(frame);
    }

    /// Frames that change nothing.
    pub(super) fn chatter(&mut self, world: &mut World, rng: &mut Rng) {
        match rng.below(5) {
            0 if world.now - self.last_ping > std::time::Duration::from_millis(150) => {
                self.last_ping = world.now;
                self.send(world, Header::new(FrameType::Ping, 0), &[b"12345678"]);
            }
            1 => self.send(world, Header::new(FrameType::Pong, 0), &[b"nobodyas"]),
            2 => {
                let extension = Header { kind: 0x80 + rng.below(128) as u8, ..Header::new(FrameType::Ping, 7) };
                let payload = vec![1; rng.below(50)];
                self.send(world, extension, &[&payload]);
            }
            3 if self.is_consumer() => {
                let id = 5000 + rng.below(100) as u32;
                self.send(world, Header::new(FrameType::Cancel, id).code(Code::Cancelled), &[]);
            }
            4 => {
                let id = 5000 + rng.below(100) as u32;
                self.send(world, Header::new(FrameType::Credit, id).arg(5), &[]);
            }
            _ => {}
        }
    }

    pub(super) fn open(&mut self, world: &mut World, shared: &mut Shared, rng: &mut Rng) {
        let welcome = self.welcome.expect("welcomed");
        // now and then one more than is allowed
        let most = welcome.max_streams as usize + usize::from(rng.one_in(20));
        if self.streams.len() >= most || self.streams.len() > 40 {
            return;
        }
        let mut id = if self.habits.sparse { rng.range(1, 3000) as u32 } else { 1 };
        while self.streams.contains_key(&id) {
            id += 1;
        }
        let number = shared.specs.len() as u64;
        let mut flags = Flags::NONE;
        for (flag, odds) in [(Flags::WAIT, 3), (Flags::RETRY, 2), (Flags::ONEWAY, 4)] {
            flags = flags | flag.only_if(rng.one_in(odds));
        }
        let headers = rng.one_in(4);
        let timeout_ms = rng.pick(&[0, 0, 5, 50, 1000, 60_000]);
        // refused, it must not hold its id: more than max_streams of those are a flood
        let surplus = self.streams.len() >= welcome.max_streams as usize;
        let spec = Spec {
            channel: self.channel,
            consumer: self.index,
            up_len: if surplus { 0 } else { rng.length(shared.max_body) },
            down_len: rng.length(shared.max_body),
            flags,
            timeout_ms,
            sent_at: world.now,
            headers,
            seen_by: Vec::new(),
            answered: false,
            error: None,
            outcome: None,
            hostile: false,
        };
        let mut stream = Stream {
            number,
            send: Sending { credit: u64::from(welcome.window), begun: true, ..Sending::default() },
            recv: Receiving { granted: u64::from(self.window), ..Receiving::default() },
            cancelled: false,
            terminal: false,
            hangs: false,
        };
        let n = rng.length(self.habits.chunk.min(welcome.window as usize).min(spec.up_len));
        let bytes: Vec<u8> = body(number, true, 0, n).collect();
        stream.send.at = n;
        stream.send.credit -= n as u64;
        stream.send.ended = n == spec.up_len && (surplus || !rng.one_in(4));
        let block = if headers { header_block(number, true) } else { Vec::new() };
        let flags = flags | Flags::HEADERS.only_if(headers) | Flags::END.only_if(stream.send.ended);
        let header = Header::new(FrameType::Request, id).flags(flags).arg(timeout_ms);
        trace!(world, "{self} opens {number}: {} up, {} down", spec.up_len, spec.down_len);
        self.send(world, header, &[&request_id(number), &block, &bytes]);
        shared.specs.push(spec);
        self.streams.insert(id, stream);
    }

    /// Sends more of its direction of this stream; `false` where there is nothing to send, or no credit for it.
    pub(super) fn more(&mut self, world: &mut World, id: u32, len: usize, chunk: usize, lone_end: bool) -> bool {
        let up = self.is_consumer();
        let stream = self.streams.get_mut(&id).expect("in use");
        let (number, send) = (stream.number, &mut stream.send);
        let n = (len - send.at).min(chunk).min(usize::try_from(send.credit).unwrap());
        let end = send.at + n == len && !(lone_end && n > 0);
        if n == 0 && !end && send.begun {
            return false;
        }
        let bytes: Vec<u8> = body(number, up, send.at, n).collect();
        let kind = if send.begun { FrameType::Data } else { FrameType::Response };
        send.begun = true;
        send.at += n;
        send.credit -= n as u64;
        send.ended = end;
        let header = Header::new(kind, id).flags(Flags::END.only_if(end));
        self.send(world, header, &[&bytes]);
        true
    }

    pub(super) fn consumer_act(&mut self, world: &mut World, id: u32, shared: &mut Shared, rng: &mut Rng) {
        let stream = self.streams.get_mut(&id).expect("in use");
        let spec = &shared.specs[stream.number as usize];
        let cancel = if stream.terminal { rng.one_in(3) } else { self.habits.cancels && rng.one_in(40) };
        if cancel && !stream.cancelled {
            stream.cancelled = true;
            self.send(world, Header::new(FrameType::Cancel, id).code(Code::Cancelled), &[]);
            return self.drop_if_free(id);
        }
        if stream.send.ended || stream.cancelled {
            return;
        }
        let n = rng.range(1, self.habits.chunk);
        let (len, lone_end) = (spec.up_len, rng.one_in(5));
        if stream.terminal && rng.one_in(4) {
            // answered early: END in place of the rest
            stream.send.ended = true;
            self.send(world, Header::new(FrameType::Data, id).flags(Flags::END), &[]);
        } else {
            self.more(world, id, len, n, lone_end);
        }
        self.drop_if_free(id);
    }

    pub(super) fn provider_act(&mut self, world: &mut World, id: u32, shared: &mut Shared, rng: &mut Rng) {
        let stream = &self.streams[&id];
        if stream.terminal {
            return;
        }
        if stream.hangs && !shared.finishing {
            return;
        }
        if stream.cancelled && rng.one_in(3) || stream.number == FOREIGN {
            return self.fail(world, id, shared, "cancelled");
        }
        if !stream.recv.ended && !rng.one_in(20) && !stream.send.begun {
            return;
        }
        if rng.one_in(30) {
            let text = format!("failure {}", rng.below(1000));
            return self.fail(world, id, shared, &text);
        }
        let n = rng.range(1, self.habits.chunk);
        let lone_end = rng.one_in(5);
        self.answer(world, id, shared, n, lone_end);
    }

    pub(super) fn fail(&mut self, world: &mut World, id: u32, shared: &mut Shared, text: &str) {
        let stream = self.streams.get_mut(&id).expect("in use");
        stream.terminal = true;
        if stream.number != FOREIGN {
            shared.specs[stream.number as usize].error = Some(text.to_owned());
        }
        let header = Header { code: (id % 40) as u16, ..Header::new(FrameType::Error, id) };
        self.send(world, header, &[text.as_bytes()]);
        self.drop_if_free(id);
    }

    pub(super) fn answer(
        &mut self,
        world: &mut World,
        id: u32,
        shared: &mut Shared,
        chunk: usize,
        lone_end: bool,
    ) -> bool {
        let stream = self.streams.get_mut(&id).expect("in use");
        let number = stream.number;
        let spec = &mut shared.specs[number as usize];
        let len = spec.down_len;
        if !stream.send.begun && spec.headers {
            stream.send.begun = true;
            stream.send.ended = len == 0 && !lone_end;
            let header =
                Header::new(FrameType::Response, id).flags(Flags::HEADERS | Flags::END.only_if(stream.send.ended));
            let (terminal, block) = (stream.send.ended, header_block(number, false));
            stream.terminal = terminal;
            spec.answered |= terminal;
            self.send(world, header, &[&block]);
            self.drop_if_free(id);
            return true;
        }
        let moved = self.more(world, id, len, chunk, lone_end);
        let stream = self.streams.get_mut(&id).expect("in use");
        stream.terminal = stream.send.ended;
        spec.answered |= stream.send.ended;
        self.drop_if_free(id);
        moved
    }

    /// Grants some or all of what it has read; now and then more.
    pub(super) fn grant(&mut self, world: &mut World, id: u32, rng: &mut Rng, all: bool) -> bool {
        let consumer = self.is_consumer();
        let stream = self.streams.get_mut(&id).expect("in use");
        let wanted = if consumer { !stream.terminal } else { !stream.recv.ended && !stream.terminal };
        let extra = if rng.one_in(10) { rng.length(5000) as u64 } else { u64::from(self.window == 0) * 3 };
        let recv = &mut stream.recv;
        let n = if all { recv.owed + extra } else { rng.length(recv.owed as usize) as u64 };
        if n == 0 || !wanted || stream.cancelled || recv.granted + n > u64::from(MAX_CREDIT) {
            return false;
        }
        recv.granted += n;
        recv.owed = recv.owed.saturating_sub(n);
        self.send(world, Header::new(FrameType::Credit, id).arg(n as u32), &[]);
        true
    }

    /// Breaks the protocol.
    pub(super) fn misbehave(&mut self, world: &mut World, shared: &mut Shared, rng: &mut Rng) {
        let is_first = !std::mem::replace(&mut self.hostile, true);
        shared.dead[self.index] = true;
        if self.role == Role::Provider {
            shared.tainted[self.channel] = true;
            shared.providers_lost += 1;
        } else {
            for stream in self.streams.values().filter(|stream| !stream.terminal) {
                let spec = &mut shared.specs[stream.number as usize];
                spec.outcome = Some(Outcome::Lost);
                spec.hostile = true;
            }
        }
        let id = rng.pick(&[0, 1, 1, 2, 3, 7, 5000, u32::MAX]);
        let kind = rng.pick(&FrameType::ALL);
        let (header, payload) = match rng.below(8) {
            0 => (Header::new(FrameType::Credit, id).arg(rng.pick(&[0, 1, MAX_CREDIT, u32::MAX])), Vec::new()),
            1 => (Header::new(FrameType::Data, id), vec![7; rng.length(100_000)]),
            2 => (Header::new(FrameType::Response, id).flags(Flags(rng.next() as u8)), vec![7; rng.length(5000)]),
            3 => (Header { kind: rng.next() as u8, ..Header::new(kind, id) }, vec![0; rng.length(100)]),
            4 => (Header::new(FrameType::Error, id).code(Code::Internal), vec![0xff; rng.length(2000)]),
            5 => (Header::new(FrameType::Request, id).flags(Flags(rng.next() as u8)), vec![3; rng.length(500)]),
            6 => (Header::new(FrameType::Cancel, id), Vec::new()),
            _ => (Header::new(kind, id).flags(Flags(rng.next() as u8)), vec![0; rng.length(40)]),
        };
        let mut bytes = header.length(payload.len() as u32).encode().to_vec();
        bytes.extend(payload);
        if rng.one_in(8) {
            let at = rng.below(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
        }
        if rng.one_in(10) {
            bytes.truncate(rng.below(bytes.len()));
        }
        trace!(world, "{self} misbehaves with {}", show(&header));
        // a flood, now and then
        let floods = bytes.len() <= 64 && rng.one_in(5);
        if floods && is_first && self.welcome.is_some() {
            return self.flood(world);
        }
        for _ in 0..if floods { 1100 } else { 1 } {
            world.socks[self.sock].up.extend(&bytes);
        }
    }

    /// Sends whole frames that are no error each, and too many: its connection must be ended for it.
    fn flood(&mut self, world: &mut World) {
        self.flooded = true;
        // beyond what any budget gives in the time a run takes
        for _ in 0..8000 {
            match self.index % 4 {
                0 => self.send(world, Header::new(FrameType::Ping, 0), &[&[1; 8]]),
                1 if self.is_consumer() => self.send(world, Header::new(FrameType::Cancel, NOBODYS), &[]),
                2 => self.send(world, Header::new(FrameType::Pong, 0), &[&[1; 8]]),
                _ => self.send(world, Header { kind: 0x80, ..Header::new(FrameType::Ping, 0) }, &[]),
            }
        }
    }
}

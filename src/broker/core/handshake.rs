//! HELLO, the way to the channel's home core, WELCOME (§2).

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::access::Admitted;
use super::channel::Channel;
use super::conn::{Phase, Side};
use super::rx::{Violation, check_header};
use super::{Action, Core, Moved};
use crate::base::{ChannelId, Key, NoLeases};
use crate::protocol::{Code, HEADER_LEN, Header, Hello, MAX_CREDIT, MAX_HANDSHAKE_FRAME, Role, VERSION, Welcome};

impl Core {
    /// Bytes before WELCOME: gathered until HELLO is whole, at most one handshake frame and what came with it.
    pub(super) fn hello_input(&mut self, key: Key, bytes: &[u8], dealt: bool) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        conn.rx.gathered.extend_from_slice(bytes);
        let all = std::mem::take(&mut conn.rx.gathered);
        match self.hello(key, &all, dealt) {
            Ok(Some(used)) => {
                // what came with HELLO was sent before WELCOME could be read: REQUEST is not allowed there
                self.early = true;
                self.input(key, &all[used..], None, &NoLeases, false);
                self.early = false;
            }
            Ok(None) => {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.rx.gathered = all;
                    let handle = conn.handle;
                    if self.options.cores > 1 {
                        self.actions.push_back(Action::ReceiveOnce(handle));
                    }
                }
            }
            Err(violation) => self.violation(key, &violation),
        }
    }

    /// Looks for a whole HELLO at the start of `all`. Says how many bytes it took once the connection is open
    /// here; `None` while it is incomplete, and when the connection has moved.
    fn hello(&mut self, key: Key, all: &[u8], dealt: bool) -> Result<Option<usize>, Violation> {
        let Some(bytes) = all.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(bytes);
        check_header(&header, Side::Stranger, Phase::Hello, MAX_HANDSHAKE_FRAME)?;
        let end = HEADER_LEN + header.length as usize;
        let Some(payload) = all.get(HEADER_LEN..end) else { return Ok(None) };
        let hello = Hello::decode(payload).map_err(|bad| Violation::new(bad.code(), bad.to_string()))?;
        if hello.window > MAX_CREDIT {
            let text = format!("window of {} bytes, at most {MAX_CREDIT} are allowed", hello.window);
            return Err(Violation::new(Code::FlowControl, text));
        }
        if self.draining.is_some() {
            return Err(Violation::new(Code::Draining, "the broker is shutting down"));
        }
        // before anything comes of it; where it moves, once more by the list that core has then
        let admitted = self.admit(key, &hello)?;
        let target = self.place(&hello, dealt);
        if target.core != self.options.core {
            self.move_out(key, all, target);
            return Ok(None);
        }
        self.open(key, hello, admitted);
        Ok(Some(end))
    }

    /// Which core a connection on this channel goes to next.
    fn place(&mut self, hello: &Hello, dealt: bool) -> Target {
        let channel = hello.channel;
        let cores = self.options.cores;
        let hash = FixedState::with_seed(self.options.secret).hash_one(channel);
        let home = (hash % u64::from(cores)) as u16;
        let spread = self.channel_options(channel).map_or(1, |options| options.spread.clamp(1, cores));
        if dealt || spread == 1 {
            let core = if dealt { self.options.core } else { home };
            return Target { core, dealt };
        }
        if home != self.options.core {
            return Target { core: home, dealt: false };
        }
        // one core deals them all: if each dealt what it accepted, two providers might land on one core
        let index = self.deal(channel, hello.role);
        Target { core: (home + index % spread) % cores, dealt: true }
    }

    fn deal(&mut self, channel: ChannelId, role: Role) -> u16 {
        let index = self.channel_index(channel);
        let dealt = &mut self.channels[index as usize].dealt[usize::from(role == Role::Provider)];
        let this = *dealt;
        *dealt = this.wrapping_add(1);
        self.drop_unused(index);
        this
    }

    fn move_out(&mut self, key: Key, all: &[u8], target: Target) {
        let conn = self.conns.remove(key).expect("a connection in its handshake");
        if let Some(timer) = conn.timer {
            self.wheel.cancel(timer);
        }
        self.strangers -= 1;
        self.counters.connections_moved += 1;
        let (peer, identity) = (conn.info.peer, conn.info.identity);
        let moved = Moved { received: all.into(), peer, identity, since: conn.since, dealt: target.dealt };
        self.actions.push_back(Action::Move { handle: conn.handle, core: target.core, moved });
    }

    fn open(&mut self, key: Key, hello: Hello, admitted: Admitted) {
        let channel = self.channel_index(hello.channel);
        let state = &mut self.channels[channel as usize];
        state.connections += 1;
        let window = state.window;
        let limits = &self.options.limits;
        let welcome = Welcome {
            version: VERSION,
            core: self.options.core,
            cores: self.options.cores,
            features: 0,
            server: self.options.server,
            window,
            max_frame: limits.max_frame,
            max_streams: limits.max_streams,
            keepalive_ms: millis(limits.keepalive),
            default_timeout_ms: millis(limits.default_timeout),
        };
        let conn = self.conns.get_mut(key).expect("a connection in its handshake");
        self.strangers -= 1;
        conn.phase = Phase::Open;
        conn.channel = channel;
        conn.window = hello.window;
        conn.max_concurrent = hello.max_concurrent;
        conn.side = if hello.role == Role::Provider { Side::Provider } else { Side::Consumer };
        conn.grant(admitted.grant);
        conn.note_special(limits);
        conn.credentials = admitted.credentials;
        conn.info.name = hello.name;
        conn.info.client = hello.client;
        let mut frame = Vec::new();
        welcome.encode(&mut frame);
        conn.out.control(&mut self.spare, &frame);
        let side = conn.side;
        self.actions.push_back(Action::Welcomed(conn.handle));
        self.keep_receiving(key);
        self.set_dirty(key);
        self.rearm(key);
        if side == Side::Provider {
            self.provider_joined(key);
        }
    }

    fn channel_options(&self, id: ChannelId) -> Option<&super::options::Channel> {
        self.options.channels.iter().find(|options| options.id == id)
    }

    /// The channel's index, made on first use.
    pub(super) fn channel_index(&mut self, id: ChannelId) -> u32 {
        if let Some(&index) = self.channel_of.get(&id) {
            return index;
        }
        let limits = &self.options.limits;
        let own = self.channel_options(id);
        let remotes = own.map_or(0, |own| if own.spread > 1 { usize::from(self.options.cores) } else { 0 });
        let mut state = Channel::new(
            id,
            own.and_then(|own| own.window).unwrap_or(limits.window),
            own.and_then(|own| own.queue_requests).unwrap_or(limits.queue_requests),
            own.and_then(|own| own.queue_bytes).unwrap_or(limits.queue_bytes),
            if self.options.cores > 1 { remotes } else { 0 },
        );
        state.taps = self.tap.of(id);
        state.paused = self.is_to_pause(&state);
        let index = self.channels.insert(state) as u32;
        self.channel_of.insert(id, index);
        index
    }

    /// Forgets a channel nobody is on.
    pub(super) fn drop_unused(&mut self, index: u32) {
        let state = &self.channels[index as usize];
        // a spread channel is configured: it stays, with what it has dealt
        if state.is_unused() && !state.spread {
            let state = self.channels.remove(index as usize);
            self.meters.leave(&state);
            self.channel_of.remove(&state.id);
        }
    }
}

/// Where a connection goes.
struct Target {
    core: u16,
    dealt: bool,
}

fn millis(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

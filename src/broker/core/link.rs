//! Other cores, as one more kind of connection.
//!
//! Between every two cores there are two links, one for the requests of each. A link speaks the protocol of the
//! wire, so that a request that crosses it is, on the core it comes from, a request whose provider is the link, and
//! on the core it goes to, one whose consumer is. Two frames are the links' own:
//!
//! ```text
//!   0xC0 LINK_REQUEST   channel (16), origin u32, hops u8, then as REQUEST
//!   0xC1 CAPACITY       channel (16), capacity u32, in use u32: the sender's providers of a spread channel
//! ```
//!
//! Whether a request's work may have begun is known where its provider is. So a cancel, and a deadline that passes, of
//! a request on another core go there first, and its ERROR, with STARTED or without, is what the consumer gets.
//!
//! Credit crosses unspent: a link's sender grants its own source only what the far side has granted it, so that a
//! direction holds one window in all, however many cores it crosses.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::channel::Remote;
use super::conn::{Conn, Phase, Side};
use super::consumer::{Opening, check_block};
use super::flow::Dir;
use super::rx::Violation;
use super::{Core, Key};
use crate::base::ChannelId;
use crate::protocol::{Code, FrameType, HEADER_LEN, Header, REQUEST_ID_LEN};

/// LINK_REQUEST.
pub(super) const REQUEST: u8 = 0xC0;
/// CAPACITY.
const CAPACITY: u8 = 0xC1;
/// What LINK_REQUEST has in front of a REQUEST's payload, in bytes.
pub(super) const REQUEST_HEAD: usize = 16 + 4 + 1;
const CAPACITY_LEN: usize = 16 + 4 + 4;
/// Links a request may cross before it stays where it is: providers that come and go must not send it in circles.
const MAX_HOPS: u8 = 4;
/// A request stays on its consumer's core while there is room, unless the share in use there is larger by more than one
/// part in so many: crossing costs more than the request itself (two more frames to read and two to write), and shares
/// are known as of the last turn only.
const CROSSING: u128 = 4;

/// Which of the two links between a pair of cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// The sender's requests.
    Requests,
    /// Answers to the receiver's requests.
    Answers,
}

pub(super) fn is_known(kind: u8) -> bool {
    matches!(kind, REQUEST | CAPACITY)
}

pub(super) fn encode_head(channel: ChannelId, origin: u32, hops: u8) -> [u8; REQUEST_HEAD] {
    let mut head = [0; REQUEST_HEAD];
    head[..16].copy_from_slice(channel.as_bytes());
    head[16..20].copy_from_slice(&origin.to_le_bytes());
    head[20] = hops;
    head
}

impl Core {
    pub(super) fn open_links(&mut self) {
        for core in 0..self.options.cores {
            let mut open = |side| {
                let mut conn = Conn::new(side, Phase::Open, self.now, format!("core {core}"));
                conn.window = crate::protocol::MAX_CREDIT;
                self.conns.insert(conn)
            };
            if core == self.options.core {
                // a key that finds nothing: a core has no link to itself
                self.links_in.push(Key::unpack(u64::MAX));
                self.links_out.push(Key::unpack(u64::MAX));
            } else {
                self.links_in.push(open(Side::LinkIn(core)));
                self.links_out.push(open(Side::LinkOut(core)));
            }
        }
    }

    /// A frame of the links' own.
    pub(super) fn link_frame(&mut self, key: Key, header: &Header, head: &[u8]) -> Result<bool, Violation> {
        let (id, rest) = head.split_first_chunk::<16>().expect("the head was gathered whole");
        let channel = self.channel_index(ChannelId::from_bytes(*id));
        if header.kind == CAPACITY {
            let (capacity, in_use) = rest.split_first_chunk::<4>().expect("as above");
            let in_use = u32::from_le_bytes(in_use.try_into().expect("as above"));
            self.capacity(key, channel, u32::from_le_bytes(*capacity), in_use);
            return Ok(false);
        }
        let (origin, rest) = rest.split_first_chunk::<4>().expect("as above");
        let (&hops, rest) = rest.split_first().expect("as above");
        let (id, block) = rest.split_first_chunk::<REQUEST_ID_LEN>().expect("as above");
        check_block(block)?;
        let opening = Opening { id: *id, block, channel, origin: u32::from_le_bytes(*origin), hops };
        let window = self.channels[channel as usize].window;
        let conn = self.conns.get_mut(key).expect("links stay open");
        conn.window = window;
        self.open_request(key, header, &opening)?;
        Ok(true)
    }

    /// Another core's word on its providers.
    fn capacity(&mut self, key: Key, channel: u32, capacity: u32, in_use: u32) {
        let Some(Side::LinkIn(core)) = self.conns.get(key).map(|conn| conn.side) else { return };
        let state = &mut self.channels[channel as usize];
        let Some(remote) = state.remotes.get_mut(usize::from(core)) else { return };
        let had = remote.capacity > 0;
        (remote.capacity, remote.in_use) = (capacity, in_use);
        // what waits here without a provider of its own goes where there is one, or learns that there is none left
        if state.providers > 0 || state.queued == 0 {
            return;
        }
        if capacity > 0 {
            self.pass_on_queued(channel, capacity.saturating_sub(in_use));
        } else if had {
            self.no_provider_left(channel);
        }
    }

    /// Hands waiting requests to cores with providers, as many as there is room for: the rest waits here, where it was
    /// let in, for the news of the next slot freed.
    fn pass_on_queued(&mut self, channel: u32, room: u32) {
        for _ in 0..room {
            let Some(request) = self.channels[channel as usize].next_in_turn() else { return };
            let Some(core) = self.choose_core(request) else { return };
            self.unqueue(request);
            self.assign_link(request, core);
            self.enlist(request, Dir::Up);
        }
    }

    /// Has the core that works on a request end it, if that is another one: its terminal frame will say whether the
    /// work may have begun.
    pub(super) fn end_over_there(&mut self, request: Key, code: Code) -> bool {
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        let Some((link, stream)) = state.provider else { return false };
        let conn = self.conns.get(link).expect("a request's provider is connected");
        if !conn.side.is_link() || !state.up.opened || state.consumer.is_none() {
            return false;
        }
        if state.ending_there.replace(code).is_none() {
            self.held -= state.up.queue.heap();
            state.up.queue.clear(&mut self.released);
            state.up.ended = true;
            self.drop_replay(request);
            self.stage_frame(link, &Header::new(FrameType::Cancel, stream).code(code).encode());
        }
        true
    }

    /// Which other core a request is handed to: chosen once, by the keyed hash of its id, of two cores with
    /// providers the one with the smaller share in use, or if that has no room, one that has; but a request crosses
    /// only where that pays ([`CROSSING`]). `None`: this core, which then has providers or nobody has.
    pub(super) fn choose_core(&self, request: Key) -> Option<u16> {
        let request = self.requests.get(request).expect("looked up by the caller");
        let channel = &self.channels[request.channel as usize];
        if request.hops >= MAX_HOPS || request.hops > 0 && channel.capacity > 0 && channel.providers > 0 {
            return None;
        }
        let own = channel.load();
        let of = |core: u16| if core == self.options.core { own } else { channel.remotes[usize::from(core)] };
        let load = |core| (u64::from(of(core).capacity), u64::from(of(core).in_use));
        let total: u64 = (0..self.options.cores).map(|core| load(core).0).sum();
        if total == 0 {
            return None;
        }
        let pick = |random: u64| {
            let mut at = random % total;
            (0..self.options.cores).find(|&core| {
                let capacity = load(core).0;
                let found = at < capacity;
                at = at.wrapping_sub(capacity);
                found
            })
        };
        let hash = FixedState::with_seed(self.options.secret ^ 1).hash_one(request.id);
        let (first, second) = (pick(hash >> 32)?, pick(hash & 0xffff_ffff)?);
        let ((capacity_1, in_use_1), (capacity_2, in_use_2)) = (load(first), load(second));
        let mut chosen = if in_use_2 * capacity_1 < in_use_1 * capacity_2 { second } else { first };
        let has_room = |core: &u16| of(*core).in_use < of(*core).capacity;
        if !has_room(&chosen) {
            chosen = (0..self.options.cores).find(has_room).unwrap_or(chosen);
        }
        let stays = has_room(&self.options.core) && is_near_enough(own, of(chosen));
        (chosen != self.options.core && !stays).then_some(chosen)
    }

    /// Whether a consumer's request stays on this core, whichever other one [`Core::choose_core`] would look at.
    #[inline]
    pub(super) fn stays_here(&self, channel: u32) -> bool {
        let channel = &self.channels[channel as usize];
        let own = channel.load();
        own.in_use < own.capacity && channel.remotes.iter().all(|&remote| is_near_enough(own, remote))
    }

    /// Hands a request to another core.
    pub(super) fn assign_link(&mut self, request: Key, core: u16) {
        let link = self.links_out[usize::from(core)];
        let stream = self.open_stream(link, request, false);
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        let channel = &mut self.channels[state.channel as usize];
        channel.remotes[usize::from(core)].in_use += 1;
        state.provider = Some((link, stream));
        state.up.credit = channel.window;
        state.down.granted = channel.window;
        self.counters.passed_on += 1;
    }

    /// Remembers to tell the other cores of a spread channel's providers here.
    pub(super) fn note_news(&mut self, channel: u32) {
        let state = &mut self.channels[channel as usize];
        if state.spread && !state.has_news {
            state.has_news = true;
            self.news.push(channel);
        }
    }

    /// Tells them, once a turn.
    pub(super) fn publish_news(&mut self) {
        while let Some(channel) = self.news.pop() {
            let state = &mut self.channels[channel as usize];
            state.has_news = false;
            let Remote { capacity, in_use } = state.load();
            let told = (capacity, in_use);
            if !is_news(state.told, told) {
                continue;
            }
            state.told = told;
            let mut frame = [0; HEADER_LEN + CAPACITY_LEN];
            let header = Header { kind: CAPACITY, ..Header::new(FrameType::Hello, 0) };
            frame[..HEADER_LEN].copy_from_slice(&header.length(CAPACITY_LEN as u32).encode());
            frame[HEADER_LEN..][..16].copy_from_slice(state.id.as_bytes());
            frame[HEADER_LEN + 16..][..4].copy_from_slice(&capacity.to_le_bytes());
            frame[HEADER_LEN + 20..].copy_from_slice(&in_use.to_le_bytes());
            for core in 0..self.options.cores {
                let link = self.links_out[usize::from(core)];
                if let Some(conn) = self.conns.get_mut(link) {
                    conn.out.control(&mut self.spare, &frame);
                    self.set_dirty(link);
                }
            }
        }
    }
}

/// Whether a request may stay on its consumer's core, by what is in use of the capacity there and on another one: in
/// use / capacity + 1 / [`CROSSING`], without the fractions.
#[inline]
fn is_near_enough(own: Remote, other: Remote) -> bool {
    let [own, own_in_use, capacity, in_use] = [own.capacity, own.in_use, other.capacity, other.in_use].map(u128::from);
    own_in_use * capacity * CROSSING <= own * (in_use * CROSSING + capacity)
}

/// Whether the others are to hear of this capacity and use: each frame wakes a core that sleeps, so only what could
/// change its choices is told.
fn is_news((capacity, in_use): (u32, u32), (new_capacity, new_in_use): (u32, u32)) -> bool {
    let is_full = |capacity, in_use| in_use >= capacity;
    capacity != new_capacity
        || is_full(capacity, in_use)
        || is_full(new_capacity, new_in_use)
        || (new_in_use == 0) != (in_use == 0)
        // others may hold requests back until there is room
        || new_in_use < in_use && in_use > capacity / 2
        || in_use.abs_diff(new_in_use) > capacity / 8
}

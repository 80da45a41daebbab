//! One connection, as the core sees it: a consumer, a provider, or a link to another core.

use std::sync::Arc;

use slab::Slab;
use uuid::Uuid;

use super::budget::Budgets;
use super::outbox::Outbox;
use super::rx::Rx;
use super::streams::{Assigned, OpenedStreams};
use crate::auth::{Credentials, Rights};
use crate::base::Time;
use crate::base::wheel::Timer;

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Nobody has said yet.
    Stranger,
    /// Opens streams.
    Consumer,
    /// Answers them.
    Provider,
    /// Another core that opens streams here: like a consumer, on all channels.
    LinkIn(u16),
    /// Another core on which streams are opened: like a provider, on all channels.
    LinkOut(u16),
}

impl Side {
    /// The other end opens streams here.
    pub(super) fn opens(self) -> bool {
        matches!(self, Side::Consumer | Side::LinkIn(_))
    }

    /// The other end answers streams opened from here.
    pub(super) fn answers(self) -> bool {
        matches!(self, Side::Provider | Side::LinkOut(_))
    }

    /// The other end is another core.
    pub(super) fn is_link(self) -> bool {
        matches!(self, Side::LinkIn(_) | Side::LinkOut(_))
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// HELLO has not come whole.
    Hello,
    /// WELCOME is staged.
    Open,
    /// Its last frame is staged; what arrives is dropped.
    Closing,
    /// All is sent and the sending side is shut; waits for the peer's FIN.
    Lingering,
}

/// A connection's state.
#[derive(Debug)]
pub(super) struct Conn {
    /// The reactor's name for it.
    pub handle: u64,
    pub side: Side,
    pub phase: Phase,
    /// Index of the channel, once open.
    pub channel: u32,
    /// What the peer takes on a new stream before it grants more.
    pub window: u32,
    pub rx: Rx,
    pub out: Outbox,
    /// Ids the peer picked (consumers and links in).
    pub opened: OpenedStreams,
    /// Ids picked here (providers and links out): slot + 1 is the stream id.
    pub assigned: Slab<Assigned>,
    pub tenancies: u32,
    /// How many of them stand for a request that has not ended here.
    pub working: u32,
    pub max_concurrent: u32,
    /// Requests counted against max_concurrent.
    pub in_use: u32,
    /// Ids whose provider ignored a CANCEL for `cancel_grace`.
    pub overdue: u32,
    /// Index in the channel's list of available providers.
    pub available_at: Option<u32>,
    /// A provider that counts as one of its channel's.
    pub serving: bool,
    /// What it may do.
    pub rights: Rights,
    /// What it proved of itself, to be asked for again when the list of who may do what changes; `None` for nothing.
    pub credentials: Option<Box<Credentials>>,
    /// Requests it has given up whose provider still works on them.
    pub abandoned: u32,
    /// Its REQUESTs go the long way: there is something to be looked at that most connections don't have.
    pub special: bool,
    /// The peer sent GOAWAY.
    pub peer_goes: bool,
    /// GOAWAY was sent to the peer.
    pub goes: bool,
    /// When, until no REQUEST can have crossed it any more.
    pub goes_since: Option<Time>,
    /// The reactor was told to keep receiving.
    pub receiving: bool,
    /// Provoked more frames than it reads; about to be closed.
    pub flooded: bool,
    /// Accepted, and once closing: since when.
    pub since: Time,
    pub last_received: Time,
    /// When a PING was sent, if nothing has been received since.
    pub pinged: Option<Time>,
    pub budgets: Budgets,
    /// How many requests had been begun on it when its budget of CANCELs was last counted.
    pub requests_counted: u32,
    pub timer: Option<Timer>,
    /// When `timer` goes off.
    pub timer_at: Time,
    pub info: Box<Info>,
}

/// What a connection is called, for people.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Peer address, as the listener saw it.
    pub peer: String,
    /// The client's name in HELLO.
    pub name: String,
    /// The client's id in HELLO.
    pub client: Uuid,
    /// The name of the entry that lets it in, in place of its token; `None` where everybody is let in.
    pub user: Option<Arc<str>>,
    /// Who the transport has verified it to be: the name in its certificate (mutual TLS).
    pub identity: Option<Arc<str>>,
}

impl Conn {
    pub(super) fn new(side: Side, phase: Phase, now: Time, peer: String) -> Conn {
        Conn {
            handle: u64::MAX,
            side,
            phase,
            channel: u32::MAX,
            window: 0,
            rx: Rx::default(),
            out: Outbox::default(),
            opened: OpenedStreams::default(),
            assigned: Slab::new(),
            tenancies: 0,
            working: 0,
            max_concurrent: 0,
            in_use: 0,
            overdue: 0,
            available_at: None,
            serving: false,
            rights: Rights::NONE,
            credentials: None,
            abandoned: 0,
            special: false,
            peer_goes: false,
            goes: false,
            goes_since: None,
            receiving: false,
            flooded: false,
            since: now,
            last_received: now,
            pinged: None,
            budgets: Budgets::new(now),
            requests_counted: 0,
            timer: None,
            timer_at: Time::MAX,
            info: Box::new(Info { peer, ..Info::default() }),
        }
    }

    /// Whether a provider may be given one more request (§6; overdue ids: §3).
    pub(super) fn takes_more(&self) -> bool {
        self.serving && self.in_use < self.max_concurrent && self.overdue < self.max_concurrent
    }

    /// Nothing is in progress on it.
    pub(super) fn is_idle(&self) -> bool {
        self.opened.active() == 0 && self.working == 0
    }
}

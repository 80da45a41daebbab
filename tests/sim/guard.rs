//! Who may do what in the simulation, how that changes in mid-run, and what must never happen then.

use std::sync::Arc;

use corelay::auth::{AccessList, Digest, Entry, Rights};
use corelay::base::Secret;
use corelay::protocol::{Flags, Role};

use crate::rng::Rng;
use crate::world::{World, trace};

/// There are these tokens. The last one's holders may only publish, if they are consumers.
const TOKENS: [&str; 4] = ["token 0", "token 1", "token 2", "token publish"];
const PUBLISHES: usize = 3;

/// What is known of each client's rights.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    clients: Vec<Holder>,
    /// Which tokens are good; `None`: nobody is asked for one.
    good: Option<[bool; TOKENS.len()]>,
}

#[derive(Debug)]
struct Holder {
    role: Role,
    token: usize,
    /// Its token was no good at some time since it connected.
    denied: bool,
    /// Its session was open when its right was taken back: the first request that was opened after that.
    cut: Option<u64>,
}

impl Guard {
    /// One more client.
    pub(crate) fn joins(&mut self, role: Role, rng: &mut Rng) {
        let token = rng.below(TOKENS.len());
        let denied = self.good.is_some_and(|good| !good[token]);
        self.clients.push(Holder { role, token, denied, cut: None });
    }

    pub(crate) fn token(&self, client: usize) -> Secret {
        TOKENS[self.clients[client].token].into()
    }

    /// UNAUTHORIZED is a fair thing to tell it.
    pub(crate) fn was_denied(&self, client: usize) -> bool {
        self.clients[client].denied
    }

    /// A request of this kind is refused, while its session goes on.
    pub(crate) fn must_not_send(&self, client: usize, flags: Flags) -> bool {
        self.good.is_some() && self.clients[client].token == PUBLISHES && !flags.has(Flags::ONEWAY)
    }

    /// A provider has read this client's request.
    pub(crate) fn may_reach_a_provider(&self, client: usize, number: u64, flags: Flags) -> Result<(), &'static str> {
        if self.must_not_send(client, flags) {
            return Err("its consumer may only publish");
        }
        match self.clients[client].cut {
            Some(cut) if number >= cut => Err("it was opened after its consumer had lost the right to"),
            _ => Ok(()),
        }
    }

    /// Some tokens are no good any more, and some are again. `opened` is how many requests there were so far.
    pub(crate) fn reload(&mut self, world: &mut World, opened: u64, rng: &mut Rng) {
        let good = TOKENS.map(|_| !rng.one_in(3));
        trace!(world, "reload: tokens are good: {good:?}");
        // one more, so that the list is never empty: that would let all in
        let mut entries = vec![entry("nobody's", Rights::ALL)];
        for (token, &good) in TOKENS.iter().enumerate().map(|(n, text)| ((n, text), &good[n])) {
            let it = entry(token.1, if token.0 == PUBLISHES { Rights::PUBLISH } else { Rights::ALL });
            if good {
                entries.push(it);
            } else if opened.is_multiple_of(2) {
                // not by its absence, but by a rule against it, which wins over those that allow
                entries.push(Entry { deny: vec!["*:*".parse().unwrap()], ..it });
            }
        }
        // rights cut back with the first list, from all to some
        let first = self.good.is_none();
        self.good = Some(good);
        for (client, holder) in self.clients.iter_mut().enumerate() {
            let less = first && holder.token == PUBLISHES && holder.role == Role::Consumer;
            let loses = !good[holder.token] || less;
            holder.denied |= loses;
            if loses && holder.cut.is_none() && is_open(world, client) {
                holder.cut = Some(opened);
            }
        }
        world.set_access(&Arc::new(AccessList::new(entries, []).unwrap()));
        for (client, holder) in self.clients.iter().enumerate() {
            assert!(good[holder.token] || !is_open(world, client), "client {client} is still there, without a right");
        }
    }

    /// Whoever lost its right was told, and has gone.
    pub(crate) fn check_closed(&self, dead: &[bool]) {
        for (client, holder) in self.clients.iter().enumerate() {
            assert!(holder.cut.is_none() || dead[client], "client {client} lost its right, and goes on");
        }
    }
}

fn entry(token: &str, rights: Rights) -> Entry {
    let publish = ["publish:*", "provide:*"].map(|rule| rule.parse().unwrap()).to_vec();
    let allow = if rights == Rights::PUBLISH { publish } else { vec!["*:*".parse().unwrap()] };
    Entry { token: Some(Digest::of(token.as_bytes())), allow, ..Entry::new(token) }
}

/// Whether a core has an open session of this client.
fn is_open(world: &World, client: usize) -> bool {
    let id = uuid::Uuid::from_u128(client as u128 + 1);
    let all = world.shards.iter().flat_map(|shard| shard.core.snapshot().connections);
    all.into_iter().any(|conn| conn.info.client == id && matches!(conn.state, "open" | "draining"))
}

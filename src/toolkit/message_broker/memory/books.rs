//! The books of one topic: pure, with time as an argument.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::{Consume, Message};

/// Names a delivery: never used twice within a group.
pub(super) type Token = u64;

/// Names a member: never used twice within a topic.
pub(super) type Member = u64;

/// A message on its way through a group.
#[derive(Clone, Debug)]
struct Entry {
    message: Message,
    /// How often it has been handed out.
    attempts: u32,
}

/// What a member holds.
#[derive(Debug)]
struct Handed {
    entry: Entry,
    member: Member,
    until: Instant,
}

/// The messages of one group. Each is in exactly one of `ready`, `later`, `handed` and the queues of `keys`; of a key,
/// at most one is in the first three.
#[derive(Debug, Default)]
struct Group {
    ready: VecDeque<Entry>,
    /// Refused with a delay.
    later: BTreeMap<(Instant, Token), Entry>,
    handed: HashMap<Token, Handed>,
    /// When what is handed out is late.
    late: BTreeMap<(Instant, Token), ()>,
    /// Keys with a message in the group, and those that wait behind it.
    keys: HashMap<Bytes, VecDeque<Entry>>,
    /// How many each member holds.
    holding: HashMap<Member, usize>,
    count: usize,
    next: Token,
    wake: Arc<Notify>,
}

impl Group {
    fn add(&mut self, message: Message) {
        self.count += 1;
        let entry = Entry { message, attempts: 0 };
        if let Some(key) = entry.message.key().cloned() {
            match self.keys.entry(key) {
                MapEntry::Occupied(mut waiting) => return waiting.get_mut().push_back(entry),
                MapEntry::Vacant(free) => free.insert(VecDeque::new()),
            };
        }
        self.ready.push_back(entry);
        self.wake.notify_one();
    }

    /// Makes ready what is late or has waited long enough.
    fn pass(&mut self, now: Instant) {
        while let Some((&(at, token), ())) = self.late.first_key_value()
            && at <= now
        {
            if let Some(entry) = self.release(token) {
                self.ready.push_front(entry);
            }
        }
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            self.ready.push_front(first.remove());
        }
    }

    fn take(&mut self, member: Member, consume: &Consume, now: Instant) -> Option<(Token, Message, u32)> {
        self.pass(now);
        if self.holding.get(&member).is_some_and(|holds| *holds >= consume.in_flight) {
            return None;
        }
        let mut entry = self.ready.pop_front()?;
        entry.attempts += 1;
        let (message, attempts) = (entry.message.clone(), entry.attempts);
        self.next += 1;
        let (token, until) = (self.next, now + consume.ack_timeout);
        *self.holding.entry(member).or_default() += 1;
        self.late.insert((until, token), ());
        self.handed.insert(token, Handed { entry, member, until });
        if !self.ready.is_empty() {
            // one wake-up may stand for several messages
            self.wake.notify_one();
        }
        Some((token, message, attempts))
    }

    fn release(&mut self, token: Token) -> Option<Entry> {
        let Handed { entry, member, until } = self.handed.remove(&token)?;
        self.late.remove(&(until, token));
        if let Some(holds) = self.holding.get_mut(&member) {
            *holds -= 1;
            // it may have been at its bound with messages ready: a single wake-up might reach another member
            self.wake.notify_waiters();
        }
        Some(entry)
    }

    /// Whether the member still held it.
    fn ack(&mut self, token: Token) -> bool {
        let Some(entry) = self.release(token) else { return false };
        self.count -= 1;
        if let Some(key) = entry.message.key()
            && let Some(waiting) = self.keys.get_mut(key)
        {
            match waiting.pop_front() {
                Some(next) => {
                    self.ready.push_back(next);
                    self.wake.notify_one();
                }
                None => drop(self.keys.remove(key)),
            }
        }
        true
    }

    /// Whether the member still held it.
    fn nack(&mut self, token: Token, delay: Duration, now: Instant) -> bool {
        let Some(entry) = self.release(token) else { return false };
        if delay.is_zero() {
            self.ready.push_front(entry);
        } else {
            self.later.insert((now + delay, token), entry);
        }
        self.wake.notify_one();
        true
    }

    /// What a member held goes to the others, in the order in which it was handed out.
    fn lose(&mut self, member: Member) {
        let mut tokens: Vec<_> =
            self.handed.iter().filter(|(_, handed)| handed.member == member).map(|(token, _)| *token).collect();
        tokens.sort_unstable();
        for token in tokens.into_iter().rev() {
            if let Some(entry) = self.release(token) {
                self.ready.push_front(entry);
            }
        }
        self.holding.remove(&member);
        self.wake.notify_one();
    }

    /// When something happens by itself.
    fn next_due(&self) -> Option<Instant> {
        let late = self.late.first_key_value().map(|((at, _), ())| *at);
        let later = self.later.first_key_value().map(|((at, _), _)| *at);
        late.into_iter().chain(later).min()
    }
}

/// What there is for a member.
#[derive(Debug)]
pub(super) enum Next {
    Message(Token, Message, u32),
    /// Nothing; something may come up by itself then.
    Wait(Option<Instant>),
    /// The topic or the group is gone.
    Gone,
}

/// One topic.
#[derive(Debug)]
pub(in super::super) struct Topic {
    groups: HashMap<String, Group>,
    /// The latest messages, for groups that begin with the earliest.
    retained: VecDeque<Message>,
    retain: usize,
    members: Member,
    deleted: bool,
}

impl Topic {
    pub(super) fn new(retain: usize) -> Topic {
        Topic { groups: HashMap::new(), retained: VecDeque::new(), retain, members: 0, deleted: false }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.deleted
    }

    pub(super) fn delete(&mut self) {
        self.deleted = true;
        for group in self.groups.values() {
            // every member has to find out
            group.wake.notify_waiters();
            group.wake.notify_one();
        }
    }

    pub(super) fn has_room(&self, capacity: usize) -> bool {
        self.groups.values().all(|group| group.count < capacity)
    }

    pub(super) fn publish(&mut self, message: Message) {
        for group in self.groups.values_mut() {
            group.add(message.clone());
        }
        if self.retain > 0 {
            if self.retained.len() >= self.retain {
                self.retained.pop_front();
            }
            self.retained.push_back(message);
        }
    }

    /// A new member; of a new group, if there is none of that name.
    pub(super) fn join(&mut self, group: &str, earliest: bool) -> Member {
        self.members += 1;
        if !self.groups.contains_key(group) {
            let mut new = Group::default();
            for message in self.retained.iter().filter(|_| earliest) {
                new.add(message.clone());
            }
            self.groups.insert(group.into(), new);
        }
        self.members
    }

    /// What wakes members of the group.
    pub(super) fn wake(&self, group: &str) -> Option<Arc<Notify>> {
        Some(self.groups.get(group)?.wake.clone())
    }

    pub(super) fn take(&mut self, member: Member, consume: &Consume, now: Instant) -> Next {
        let Some(group) = self.groups.get_mut(&consume.group).filter(|_| !self.deleted) else { return Next::Gone };
        match group.take(member, consume, now) {
            Some((token, message, attempt)) => Next::Message(token, message, attempt),
            None => Next::Wait(group.next_due()),
        }
    }

    /// Whether the member still held it.
    pub(super) fn ack(&mut self, group: &str, token: Token) -> bool {
        self.groups.get_mut(group).is_some_and(|group| group.ack(token))
    }

    /// Whether the member still held it.
    pub(super) fn nack(&mut self, group: &str, token: Token, delay: Duration, now: Instant) -> bool {
        self.groups.get_mut(group).is_some_and(|group| group.nack(token, delay, now))
    }

    /// A member is gone, and its group with it if it was temporary.
    pub(super) fn leave(&mut self, group: &str, member: Member, temporary: bool) {
        if temporary {
            self.groups.remove(group);
        } else if let Some(group) = self.groups.get_mut(group) {
            group.lose(member);
        }
    }
}

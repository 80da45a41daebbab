//! Timer wheel.
use super::Time;
use std::collections::{BTreeMap, VecDeque};
/// Temporary.
#[derive(Debug)]
pub struct Wheel {
    map: BTreeMap<(Time, u32), u64>,
    due: VecDeque<(u32, u64)>,
    at: std::collections::HashMap<u32, Time>,
    next: u32,
}
/// Temporary.
#[derive(Debug, Clone, Copy)]
pub struct Timer(u32);
#[allow(missing_docs)]
impl Wheel {
    pub fn new(_now: Time) -> Wheel {
        Wheel { map: BTreeMap::new(), due: VecDeque::new(), at: Default::default(), next: 0 }
    }
    pub fn insert(&mut self, at: Time, token: u64) -> Timer {
        self.next += 1;
        self.map.insert((at, self.next), token);
        self.at.insert(self.next, at);
        Timer(self.next)
    }
    pub fn cancel(&mut self, t: Timer) -> bool {
        self.due.retain(|d| d.0 != t.0);
        match self.at.remove(&t.0) {
            Some(at) => self.map.remove(&(at, t.0)).is_some(),
            None => false,
        }
    }
    pub fn advance(&mut self, now: Time) {
        while let Some((&(at, id), &tok)) = self.map.first_key_value() {
            if at > now {
                break;
            }
            self.map.remove(&(at, id));
            self.due.push_back((id, tok));
        }
    }
    pub fn pop_due(&mut self) -> Option<u64> {
        let (id, tok) = self.due.pop_front()?;
        self.at.remove(&id);
        Some(tok)
    }
    pub fn next(&self) -> Option<Time> {
        if !self.due.is_empty() {
            return Some(Time::ZERO);
        }
        self.map.first_key_value().map(|(k, _)| k.0)
    }
}

//! What a member has fetched and not settled, by partition: pure.
//!
//! Kafka knows one figure for a group and partition, the offset it goes on from. So a member keeps account of what lies
//! behind it: an offset is committed when everything before it is settled.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::sync::oneshot;

use super::super::{Message, Order};

/// Names one time that a partition was this member's: never used twice.
pub(super) type Epoch = u64;

/// A message this member may hand out.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) partition: i32,
    pub(super) epoch: Epoch,
    pub(super) offset: i64,
    pub(super) attempt: u32,
    pub(super) message: Message,
}

/// A partition that is this member's at the moment.
#[derive(Debug)]
struct Partition {
    epoch: Epoch,
    /// Waiting to be handed out.
    ready: VecDeque<Entry>,
    /// Handed out and neither acknowledged nor refused.
    out: usize,
    /// Whether it is acknowledged, for each offset fetched that the position has not passed.
    open: BTreeMap<i64, bool>,
    /// Everything before it is settled. Negative until the first message came.
    position: i64,
    /// What the group was last told.
    committed: i64,
    /// Who waits to hear that it was told.
    waiting: BTreeMap<i64, oneshot::Sender<()>>,
}

/// What an acknowledgement came to.
#[derive(Debug)]
pub(super) enum Acked {
    /// The partition is no longer this member's.
    Expired,
    /// Taken note of; an earlier message is still open.
    Noted,
    /// The position moved: resolves when the group knows, fails when the partition was lost before.
    Moved(oneshot::Receiver<()>),
}

/// The partitions of one member.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    partitions: HashMap<i32, Partition>,
    epochs: Epoch,
    ready: usize,
    out: usize,
}

impl Ledger {
    /// They are this member's from now on.
    pub(super) fn assign(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            self.revoke([partition]);
            self.epochs += 1;
            let new = Partition {
                epoch: self.epochs,
                ready: VecDeque::new(),
                out: 0,
                open: BTreeMap::new(),
                position: -1,
                committed: -1,
                waiting: BTreeMap::new(),
            };
            self.partitions.insert(partition, new);
        }
    }

    /// They are somebody else's: what was out comes to them again.
    pub(super) fn revoke(&mut self, partitions: impl IntoIterator<Item = i32>) {
        for partition in partitions {
            if let Some(gone) = self.partitions.remove(&partition) {
                self.ready -= gone.ready.len();
                self.out -= gone.out;
            }
        }
    }

    /// All of them.
    pub(super) fn revoke_all(&mut self) {
        *self = Ledger { epochs: self.epochs, ..Ledger::default() };
    }

    /// A message was fetched. One of a partition that was lost meanwhile is dropped, for its next owner has it.
    pub(super) fn fetched(&mut self, partition: i32, offset: i64, message: Message) {
        let Some(found) = self.partitions.get_mut(&partition) else { return };
        if offset < found.position || found.open.contains_key(&offset) {
            return;
        }
        if found.position < 0 {
            // the group goes on here: it knows
            found.committed = offset;
        }
        if found.open.is_empty() {
            // offsets have gaps, where transactions or compaction left them
            found.position = offset;
        }
        found.open.insert(offset, false);
        found.ready.push_back(Entry { partition, epoch: found.epoch, offset, attempt: 1, message });
        self.ready += 1;
    }

    /// How many wait to be handed out.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// How many are out.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// The next to hand out.
    pub(super) fn take(&mut self, order: Order) -> Option<Entry> {
        let may =
            |partition: &&mut Partition| !partition.ready.is_empty() && (order == Order::Any || partition.out == 0);
        // none is forgotten over the others
        let found = self.partitions.values_mut().filter(may).min_by_key(|partition| partition.out)?;
        let entry = found.ready.pop_front()?;
        found.out += 1;
        self.out += 1;
        self.ready -= 1;
        Some(entry)
    }

    fn held(&mut self, partition: i32, epoch: Epoch) -> Option<&mut Partition> {
        self.partitions.get_mut(&partition).filter(|found| found.epoch == epoch)
    }

    /// A message that was out is settled.
    pub(super) fn ack(&mut self, partition: i32, epoch: Epoch, offset: i64) -> Acked {
        let Some(found) = self.held(partition, epoch) else { return Acked::Expired };
        found.out -= 1;
        found.open.insert(offset, true);
        let before = found.position;
        while let Some(first) = found.open.first_entry()
            && *first.get()
        {
            found.position = first.remove_entry().0 + 1;
        }
        if let Some((first, _)) = found.open.first_key_value() {
            found.position = *first;
        }
        let moved = found.position != before;
        let acked = if moved {
            let (told, hears) = oneshot::channel();
            found.waiting.insert(found.position, told);
            Acked::Moved(hears)
        } else {
            Acked::Noted
        };
        self.out -= 1;
        acked
    }

    /// A message that was out is refused: it is the next of its partition again.
    pub(super) fn nack(&mut self, mut entry: Entry) -> bool {
        let Some(found) = self.held(entry.partition, entry.epoch) else { return false };
        entry.attempt = entry.attempt.saturating_add(1);
        found.out -= 1;
        found.ready.push_front(entry);
        self.out -= 1;
        self.ready += 1;
        true
    }

    /// Positions the group has to be told.
    pub(super) fn uncommitted(&self) -> Vec<(i32, i64)> {
        let moved = self.partitions.iter().filter(|(_, found)| found.position > found.committed);
        moved.map(|(partition, found)| (*partition, found.position)).collect()
    }

    /// The group was told.
    pub(super) fn committed(&mut self, partition: i32, position: i64) {
        let Some(found) = self.partitions.get_mut(&partition) else { return };
        found.committed = found.committed.max(position);
        let later = found.waiting.split_off(&(position + 1));
        for (_, told) in std::mem::replace(&mut found.waiting, later) {
            // who no longer waits knows as little as before
            let _ = told.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message::builder("t").build().unwrap()
    }

    fn ledger(offsets: &[(i32, i64)]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.assign([0, 1]);
        for (partition, offset) in offsets {
            ledger.fetched(*partition, *offset, message());
        }
        ledger
    }

    fn ack(ledger: &mut Ledger, entry: &Entry) -> Acked {
        ledger.ack(entry.partition, entry.epoch, entry.offset)
    }

    #[test]
    fn the_position_stops_at_what_is_open() {
        let mut ledger = ledger(&[(0, 5), (0, 6), (0, 9)]);
        let entries: Vec<_> = std::iter::from_fn(|| ledger.take(Order::Any)).collect();
        assert_eq!(entries.iter().map(|entry| entry.offset).collect::<Vec<_>>(), [5, 6, 9]);
        assert!(matches!(ack(&mut ledger, &entries[1]), Acked::Noted));
        assert_eq!(ledger.uncommitted(), []);
        let Acked::Moved(mut first) = ack(&mut ledger, &entries[0]) else { panic!() };
        assert_eq!(ledger.uncommitted(), [(0, 9)]);
        let Acked::Moved(mut second) = ack(&mut ledger, &entries[2]) else { panic!() };
        assert_eq!((ledger.uncommitted(), ledger.out()), (vec![(0, 10)], 0));
        ledger.committed(0, 9);
        assert_eq!((first.try_recv(), second.try_recv().is_err()), (Ok(()), true));
        // what comes before the group was told does not hide that it has to be
        ledger.fetched(0, 10, message());
        assert_eq!(ledger.uncommitted(), [(0, 10)]);
        ledger.committed(0, 10);
        assert_eq!((second.try_recv(), ledger.uncommitted()), (Ok(()), vec![]));
    }

    #[test]
    fn a_refused_message_comes_before_those_behind_it() {
        let mut ledger = ledger(&[(0, 0), (0, 1)]);
        let first = ledger.take(Order::PerKey).unwrap();
        assert!(ledger.take(Order::PerKey).is_none(), "one of a partition at a time");
        assert!(ledger.nack(first));
        let again = ledger.take(Order::PerKey).unwrap();
        assert_eq!((again.offset, again.attempt), (0, 2));
        assert!(matches!(ack(&mut ledger, &again), Acked::Moved(_)));
        assert_eq!(ledger.take(Order::PerKey).unwrap().offset, 1);
    }

    #[test]
    fn what_was_lost_is_no_longer_this_members() {
        let mut ledger = ledger(&[(0, 0), (0, 1), (1, 0)]);
        let first = ledger.take(Order::Any).unwrap();
        let partition = first.partition;
        let Acked::Moved(mut waits) = ack(&mut ledger, &first) else { panic!() };
        let other = std::iter::from_fn(|| ledger.take(Order::Any)).collect::<Vec<_>>();
        ledger.revoke([0, 1]);
        assert!(waits.try_recv().is_err());
        // the same partition once more is another time
        ledger.assign([partition]);
        for entry in other {
            assert!(matches!(ack(&mut ledger, &entry), Acked::Expired));
            assert!(!ledger.nack(entry));
        }
        assert_eq!((ledger.ready(), ledger.out()), (0, 0));
        ledger.fetched(7, 0, message());
        assert!(ledger.take(Order::Any).is_none(), "not this member's");
    }
}

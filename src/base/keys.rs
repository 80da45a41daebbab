//! Generation-tagged keys into slab tables: a key kept too long finds nothing, never the slot's next tenant.

use slab::Slab;

/// A key into a [`Table`]: a slot, and which tenant of that slot was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The slot in the table; dense and reused.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The key of a tenant of a slot.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Key {
        Key { index, generation }
    }

    /// Which tenant of the slot.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The key in one integer, as handed to a reactor.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The inverse of [`Key::pack`].
    #[must_use]
    pub const fn unpack(packed: u64) -> Key {
        Key { index: packed as u32, generation: (packed >> 32) as u32 }
    }
}

/// The generation of the next entry. 31 bits, so that a packed key leaves its top bit to who packs it.
#[inline]
pub(crate) const fn next_generation(next: &mut u32) -> u32 {
    let generation = *next;
    *next = (generation + 1) & 0x7fff_ffff;
    generation
}

/// A table of at least so many slots gives memory back when its crowd has gone: as much as lies behind the last entry.
const LARGE: usize = 4096;
/// It has gone when no more than one slot in so many is in use.
const SPARSE: usize = 8;

/// A slab whose keys carry a generation.
///
/// Generations count insertions into the whole table, so a stale key could only match again after 2^31 further
/// insertions with the last of them in the very same slot.
///
/// ```
/// use corelay::base::Table;
/// let mut table = Table::new();
/// let old = table.insert("first");
/// table.remove(old);
/// let new = table.insert("second");
/// assert_eq!(old.index(), new.index());
/// assert_eq!(table.get(old), None);
/// assert_eq!(table.get(new), Some(&"second"));
/// ```
#[derive(Debug)]
pub struct Table<T> {
    slots: Slab<(u32, T)>,
    next_generation: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table::new()
    }
}

impl<T> Table<T> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Table<T> {
        Table { slots: Slab::new(), next_generation: 0 }
    }

    /// Puts `value` into a free slot.
    ///
    /// # Panics
    /// If the table would hold more than 2^32 values.
    #[inline]
    pub fn insert(&mut self, value: T) -> Key {
        let generation = next_generation(&mut self.next_generation);
        let index = u32::try_from(self.slots.insert((generation, value))).expect("fewer than 2^32 entries");
        Key { index, generation }
    }

    /// The value under `key`, if it is still the same tenant.
    #[inline]
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// As [`Table::get`], to change.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Takes the value out; `None` where the key is stale.
    #[inline]
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (_, value) = self.slots.remove(key.index as usize);
        if self.slots.capacity() >= LARGE {
            self.shrink();
        }
        Some(value)
    }

    /// Gives memory back, if most of the table is empty. Looked at whenever what is left has halved: those who stay may
    /// stand at the end.
    #[cold]
    fn shrink(&mut self) {
        let left = self.slots.len();
        if left <= self.slots.capacity() / SPARSE && (left == 0 || left.is_power_of_two()) {
            self.slots.shrink_to_fit();
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All keys and values, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots
            .iter()
            .map(|(index, (generation, value))| (Key { index: index as u32, generation: *generation }, value))
    }

    /// The keys and values in the `n` slots from `from` on, and the slot to go on from; `None` at the end. A walk in
    /// such steps meets each value that stays in the table exactly once, whatever comes and goes meanwhile.
    pub fn page(&self, from: u32, n: u32) -> (impl Iterator<Item = (Key, &T)>, Option<u32>) {
        let all = self.slots.capacity().min(u32::MAX as usize) as u32;
        let end = from.saturating_add(n).min(all);
        let slots = (from..end).filter_map(|index| {
            let (generation, value) = self.slots.get(index as usize)?;
            Some((Key { index, generation: *generation }, value))
        });
        (slots, (end < all).then_some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_a_crowd_has_left_is_small_again_and_old_keys_find_nothing() {
        let mut table = Table::new();
        let first = table.insert(0);
        for round in 1..4 {
            let keys: Vec<Key> = (0..10_000).map(|n| table.insert(round * 10_000 + n)).collect();
            assert!(table.slots.capacity() > 10_000);
            for (n, &key) in (0..).zip(&keys) {
                assert_eq!(table.remove(key), Some(round * 10_000 + n));
            }
            assert!(table.slots.capacity() < LARGE, "{}", table.slots.capacity());
            assert_eq!((table.get(first), table.len()), (Some(&0), 1));
            let next = table.insert(1);
            assert!(keys.iter().all(|&key| table.get(key).is_none() && key != next));
            table.remove(next);
        }
    }

    #[test]
    fn a_walk_in_pages_meets_all_that_stays_once() {
        let mut table = Table::new();
        let keys: Vec<Key> = (0..100).map(|n| table.insert(n)).collect();
        let (mut seen, mut from, mut steps) = (Vec::new(), Some(0), 0);
        while let Some(at) = from {
            let (page, next) = table.page(at, 7);
            seen.extend(page.map(|(_, &n)| n));
            from = next;
            // one goes, one comes, before or behind
            table.remove(keys[steps * 5 % 100]);
            table.insert(1000 + steps);
            steps += 1;
        }
        let stay = (0..100).filter(|n| table.get(keys[*n]).is_some());
        for n in stay {
            assert_eq!(seen.iter().filter(|&&met| met == n).count(), 1, "{n}");
        }
        assert_eq!(table.page(u32::MAX - 1, 7).1, None);
        assert_eq!(Table::<u8>::new().page(0, 7).1, None);
    }
}

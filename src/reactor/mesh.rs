//! Between cores: a bounded ring for each ordered pair, and the flag that says whom to wake.
//!
//! ```text
//!   core A: push* ─ flush ─ must_wake()? ─► wake        core B: prepare_sleep() ─ rings empty? ─► wait ─► awake()
//! ```
//!
//! Invariants:
//! - Slots from `head` to `tail` hold items; the producer owns the others, the consumer these.
//! - Whoever goes to sleep after [`Sleeper::prepare_sleep`] and a look at his rings can't miss a flush: see there.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Two cache lines: neighbours are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

struct Shared<T> {
    /// Next to be popped; written by the consumer. Counts on for ever, as does `tail`.
    head: Padded<AtomicUsize>,
    /// One beyond the last item published; written by the producer.
    tail: Padded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the producer only before `tail` is published beyond it, by the consumer only between
// that and publishing `head` beyond it; both publish with Release and look with Acquire. So items move between
// threads (T: Send) and are never shared.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the slots hold items only.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, at: usize) -> *mut MaybeUninit<T> {
        self.slots[at & (self.slots.len() - 1)].get()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (*self.head.0.get_mut(), *self.tail.0.get_mut());
        let mut at = head;
        while at != tail {
            // SAFETY: slots from head to tail hold items, and both ends are gone.
            unsafe { (*self.slot(at)).assume_init_drop() };
            at = at.wrapping_add(1);
        }
    }
}

/// The sending end of a [`ring`].
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// One beyond the last item pushed, published or not.
    tail: usize,
    published: usize,
    /// The consumer's head as last seen: it may be further by now.
    seen_head: usize,
}

/// The receiving end of a [`ring`].
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The producer's tail as last seen.
    seen_tail: usize,
}

/// A bounded queue from one thread to another.
///
/// # Panics
/// Where `capacity` is not a power of two.
///
/// ```
/// let (mut producer, mut consumer) = corelay::reactor::mesh::ring(4);
/// producer.push("job").unwrap();
/// assert_eq!(consumer.pop(), None); // not published yet
/// producer.flush();
/// assert_eq!(consumer.pop(), Some("job"));
/// ```
#[must_use]
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two(), "a ring of {capacity} items");
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared { head: Padded::default(), tail: Padded::default(), slots });
    let producer = Producer { shared: Arc::clone(&shared), tail: 0, published: 0, seen_head: 0 };
    (producer, Consumer { shared, head: 0, seen_tail: 0 })
}

impl<T> Producer<T> {
    /// Puts an item into the ring, unseen by the consumer until [`Producer::flush`].
    ///
    /// # Errors
    /// Gives the item back where the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.seen_head) == self.shared.slots.len() {
            self.seen_head = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.seen_head) == self.shared.slots.len() {
                return Err(item);
            }
        }
        // SAFETY: the slot lies outside head..tail, for fewer than all slots are taken: it is ours, and empty.
        unsafe { (*self.shared.slot(self.tail)).write(item) };
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Shows the consumer what was pushed; `true` if that was anything.
    #[inline]
    pub fn flush(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.shared.tail.0.store(self.tail, Ordering::Release);
        self.published = self.tail;
        true
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest item out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the slot lies in head..tail, so it holds an item, published with Release and seen with Acquire;
        // moving it out happens once, for head moves on.
        let item = unsafe { (*self.shared.slot(self.head)).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Whether nothing is published that was not popped.
    #[inline]
    #[must_use]
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.seen_tail {
            self.seen_tail = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.head == self.seen_tail
    }
}

impl<T> std::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Says whether a core sleeps, so that others wake it only then.
///
/// The sleeper writes the flag, fences, and looks at its rings; a sender writes the ring, fences, and looks at the
/// flag. The two fences have one order all agree on. If the sender's comes first, the sleeper sees the item; if the
/// sleeper's comes first, the sender sees the flag. In no order do both miss. Of several senders the first to take
/// the flag down wakes for all: what the others published is there when the sleeper looks again.
#[derive(Debug, Default)]
pub struct Sleeper {
    sleeping: Padded<AtomicBool>,
}

impl Sleeper {
    /// Announces sleep. The rings must be looked at once more between this and sleeping; whoever finds something
    /// there calls [`Sleeper::awake`] instead of sleeping.
    #[inline]
    pub fn prepare_sleep(&self) {
        self.sleeping.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends sleep, whatever ended it; then look at the rings.
    #[inline]
    pub fn awake(&self) {
        self.sleeping.0.store(false, Ordering::Relaxed);
    }

    /// For a sender, after publishing: whether it is his to wake the sleeper.
    #[inline]
    #[must_use]
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        // The load first: swapping takes the cache line away from a core that is awake, which most are under load.
        self.sleeping.0.load(Ordering::Relaxed) && self.sleeping.0.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::rc::Rc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_deque(bits in 0u32..5, steps in prop::collection::vec(0u8..4, 0..300)) {
            let capacity = 1 << bits;
            let (mut producer, mut consumer) = ring(capacity);
            let (mut hidden, mut model) = (VecDeque::new(), VecDeque::new());
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 if hidden.len() + model.len() == capacity => prop_assert!(producer.push(number).is_err()),
                    0 | 1 => {
                        prop_assert!(producer.push(number).is_ok());
                        hidden.push_back(number);
                    }
                    2 => {
                        prop_assert_eq!(producer.flush(), !hidden.is_empty());
                        model.append(&mut hidden);
                    }
                    _ => {
                        prop_assert_eq!(consumer.is_empty(), model.is_empty());
                        prop_assert_eq!(consumer.pop(), model.pop_front());
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_never_popped_is_dropped() {
        let item = Rc::new(());
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..6 {
            producer.push(Rc::clone(&item)).expect("room");
        }
        producer.flush();
        drop(consumer.pop());
        producer.push(Rc::clone(&item)).expect("room");
        drop(consumer);
        drop(producer);
        assert_eq!(Rc::strong_count(&item), 1);
    }

    /// Each side sleeps by parking, so a lost wake-up hangs the test. A stale unpark only looks once more.
    fn sleep_until<T>(me: &Sleeper, from: &mut Consumer<T>) {
        me.prepare_sleep();
        if from.is_empty() {
            thread::park();
        }
        me.awake();
    }

    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u32 = 50_000;
        let (mut to_b, mut from_a) = ring::<u32>(4);
        let (mut to_a, mut from_b) = ring::<u32>(4);
        let (a, b) = (Arc::new(Sleeper::default()), Arc::new(Sleeper::default()));
        let main = thread::current();
        let (a_there, b_there) = (Arc::clone(&a), Arc::clone(&b));
        let echo = thread::spawn(move || {
            for expected in 0..ROUNDS {
                let item = loop {
                    match from_a.pop() {
                        Some(item) => break item,
                        None => sleep_until(&b_there, &mut from_a),
                    }
                };
                assert_eq!(item, expected);
                to_a.push(item).expect("never more than four out");
                to_a.flush();
                if a_there.must_wake() {
                    main.unpark();
                }
            }
        });
        let (mut sent, mut back) = (0, 0);
        while back < ROUNDS {
            // One to three out at a time, so that both sides sleep and both find work on the way to it.
            while sent < ROUNDS && sent - back < 1 + back % 3 {
                to_b.push(sent).expect("never more than four out");
                sent += 1;
            }
            if to_b.flush() && b.must_wake() {
                echo.thread().unpark();
            }
            match from_b.pop() {
                Some(item) => {
                    assert_eq!(item, back);
                    back += 1;
                }
                None => sleep_until(&a, &mut from_b),
            }
        }
        echo.join().expect("the echo is whole");
    }
}

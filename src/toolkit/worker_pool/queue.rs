//! Where jobs wait for a worker: a bounded queue with any number of submitters and workers.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, TryAcquireError};

use super::metrics::Counts;

/// First in, first out; whoever finds it full waits in line.
///
/// Invariants: a permit of `room` is taken before an item goes in and given back when it comes out; nothing goes in
/// once `closed`. A worker that waits has looked again after it had itself put on `ready`'s list, so no item is left
/// lying while one waits.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: Mutex<Items<T>>,
    room: Semaphore,
    ready: Notify,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Items<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

/// Why something was not queued.
#[derive(Debug)]
pub(super) enum Refused<T> {
    Full(T),
    Closed(T),
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize, counts: Arc<Counts>) -> Queue<T> {
        let items = Items { waiting: VecDeque::new(), closed: false };
        Queue { items: Mutex::new(items), room: Semaphore::new(capacity), ready: Notify::new(), counts }
    }

    /// Waits for room. Gives the item back once closed.
    pub(super) async fn push(&self, item: T) -> Result<(), Refused<T>> {
        match self.room.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(Refused::Closed(item)),
        }
        self.put(item)
    }

    pub(super) fn try_push(&self, item: T) -> Result<(), Refused<T>> {
        match self.room.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::NoPermits) => return Err(Refused::Full(item)),
            Err(TryAcquireError::Closed) => return Err(Refused::Closed(item)),
        }
        self.put(item)
    }

    fn put(&self, item: T) -> Result<(), Refused<T>> {
        let mut items = self.lock();
        if items.closed {
            return Err(Refused::Closed(item));
        }
        self.counts.submitted.fetch_add(1, Relaxed);
        items.waiting.push_back(item);
        drop(items);
        self.ready.notify_one();
        Ok(())
    }

    /// The next item; `None` once closed and empty. Dropping the future loses nothing.
    pub(super) async fn pop(&self) -> Option<T> {
        loop {
            if let Some(item) = self.try_pop() {
                return Some(item);
            }
            let mut ready = pin!(self.ready.notified());
            ready.as_mut().enable();
            match self.look() {
                (Some(item), _) => return Some(item),
                (None, true) => return None,
                (None, false) => ready.await,
            }
        }
    }

    fn try_pop(&self) -> Option<T> {
        self.look().0
    }

    /// The next item, and whether the queue is closed.
    fn look(&self) -> (Option<T>, bool) {
        let mut items = self.lock();
        let (item, closed) = (items.waiting.pop_front(), items.closed);
        drop(items);
        if item.is_some() {
            self.room.add_permits(1);
        }
        (item, closed)
    }

    /// Nothing more goes in. What is in comes out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.ready.notify_waiters();
    }

    /// Takes out whatever is left.
    pub(super) fn drain(&self) -> Vec<T> {
        std::iter::from_fn(|| self.try_pop()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Items<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

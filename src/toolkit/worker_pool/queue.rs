//! Where jobs wait for a worker: a bounded queue with any number of submitters and workers.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::metrics::Counts;

/// First in, first out; whoever finds it full waits in line.
///
/// A job that goes in and out without anybody waiting costs two locks, held for some instructions. What else is
/// decided is decided under that lock too, so that it can be seen to be right:
/// - Who waits has been put on its list (of `room` or of `ready`) before the lock is let go. So nobody sleeps through
///   what comes after.
/// - While submitters wait, no other gets in before them.
/// - Each item wakes a worker if any waits, right away: it need not be this thread that has time for it.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    room: Notify,
    ready: Notify,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Submitters that wait for room.
    submitters: usize,
    /// No fewer than there are workers on the list of `ready`: one that gives up waiting is not taken off. One wake-up
    /// in excess finds nothing to do, and puts that right.
    workers: usize,
}

/// Why something was not queued.
#[derive(Debug)]
pub(super) enum Refused<T> {
    Full(T),
    Closed(T),
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize, counts: Arc<Counts>) -> Queue<T> {
        let state = State { items: VecDeque::new(), closed: false, submitters: 0, workers: 0 };
        Queue { state: Mutex::new(state), capacity, room: Notify::new(), ready: Notify::new(), counts }
    }

    /// Waits for room. Gives the item back once closed.
    pub(super) async fn push(&self, item: T) -> Result<(), Refused<T>> {
        match self.try_push(item) {
            Err(Refused::Full(item)) => self.push_in_turn(item).await,
            result => result,
        }
    }

    /// Puts the item in, if the queue has room and nobody waits for that.
    pub(super) fn try_push(&self, item: T) -> Result<(), Refused<T>> {
        let state = self.lock();
        if !state.closed && (state.submitters > 0 || state.items.len() >= self.capacity) {
            return Err(Refused::Full(item));
        }
        self.put(state, item)
    }

    async fn push_in_turn(&self, item: T) -> Result<(), Refused<T>> {
        let _waiting = Submitter::enter(self);
        loop {
            let mut room = pin!(self.room.notified());
            {
                let state = self.lock();
                if state.closed || state.items.len() < self.capacity {
                    return self.put(state, item);
                }
                room.as_mut().enable();
            }
            room.await;
        }
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T) -> Result<(), Refused<T>> {
        if state.closed {
            return Err(Refused::Closed(item));
        }
        self.counts.submitted.fetch_add(1, Relaxed);
        state.items.push_back(item);
        let awaited = state.workers > 0;
        if awaited {
            state.workers -= 1;
        }
        drop(state);
        if awaited {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// The next item; `None` once closed and empty. Dropping the future loses nothing.
    pub(super) async fn pop(&self) -> Option<T> {
        loop {
            let mut ready = pin!(self.ready.notified());
            {
                let mut state = self.lock();
                if !state.items.is_empty() || state.closed {
                    return self.take(state);
                }
                ready.as_mut().enable();
                state.workers += 1;
            }
            ready.await;
        }
    }

    fn take(&self, mut state: MutexGuard<'_, State<T>>) -> Option<T> {
        let item = state.items.pop_front();
        let awaited = state.submitters > 0;
        drop(state);
        if awaited {
            self.room.notify_one();
        }
        item
    }

    /// Nothing more goes in. What is in comes out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_waiters();
        self.ready.notify_waiters();
    }

    /// Takes out whatever is left.
    pub(super) fn drain(&self) -> Vec<T> {
        self.lock().items.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a submitter that waits, until it has got in or given up.
struct Submitter<'a, T>(&'a Queue<T>);

impl<'a, T> Submitter<'a, T> {
    fn enter(queue: &'a Queue<T>) -> Submitter<'a, T> {
        queue.lock().submitters += 1;
        Submitter(queue)
    }
}

impl<T> Drop for Submitter<'_, T> {
    fn drop(&mut self) {
        self.0.lock().submitters -= 1;
    }
}

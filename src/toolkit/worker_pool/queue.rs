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
        let (_waiting, mut is_its_turn) = Submitter::enter(self);
        loop {
            let mut room = pin!(self.room.notified());
            {
                let state = self.lock();
                if state.closed || (is_its_turn && state.items.len() < self.capacity) {
                    return self.put(state, item);
                }
                room.as_mut().enable();
            }
            room.await;
            is_its_turn = true;
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
    /// Also gives whether it is the first in line.
    fn enter(queue: &'a Queue<T>) -> (Submitter<'a, T>, bool) {
        let mut state = queue.lock();
        state.submitters += 1;
        (Submitter(queue), state.submitters == 1)
    }
}

impl<T> Drop for Submitter<'_, T> {
    fn drop(&mut self) {
        let queue = self.0;
        let mut state = queue.lock();
        state.submitters -= 1;
        let is_next_ones_turn = state.submitters > 0 && state.items.len() < queue.capacity;
        drop(state);
        if is_next_ones_turn {
            queue.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn queue(capacity: usize) -> Queue<u32> {
        Queue::new(capacity, Arc::new(Counts::new(1)))
    }

    #[test]
    fn submitters_get_in_as_they_came() {
        let queue = queue(1);
        queue.try_push(1).unwrap();
        let (mut second, mut third) = (pin!(queue.push(2)), pin!(queue.push(3)));
        assert!(poll(second.as_mut()).is_none());
        assert_eq!(poll(pin!(queue.pop())), Some(Some(1)));
        // there is room, but somebody waits for it
        assert!(matches!(queue.try_push(4), Err(Refused::Full(4))));
        assert!(poll(third.as_mut()).is_none());
        poll(second.as_mut()).unwrap().unwrap();
        assert_eq!(poll(pin!(queue.pop())), Some(Some(2)));
        poll(third.as_mut()).unwrap().unwrap();
        assert_eq!(poll(pin!(queue.pop())), Some(Some(3)));
    }

    #[test]
    fn who_gives_up_passes_its_turn_on() {
        let queue = queue(1);
        queue.try_push(1).unwrap();
        let mut third = pin!(queue.push(3));
        {
            let mut second = pin!(queue.push(2));
            assert!(poll(second.as_mut()).is_none());
            assert!(poll(third.as_mut()).is_none());
            assert_eq!(poll(pin!(queue.pop())), Some(Some(1)));
        }
        poll(third.as_mut()).unwrap().unwrap();
        queue.close();
        assert_eq!((poll(pin!(queue.pop())), poll(pin!(queue.pop()))), (Some(Some(3)), Some(None)));
        assert!(matches!(queue.try_push(4), Err(Refused::Closed(4))));
    }

    #[test]
    fn a_worker_that_gives_up_leaves_no_item_lying() {
        let queue = queue(4);
        let mut second = pin!(queue.pop());
        {
            let mut first = pin!(queue.pop());
            assert!(poll(first.as_mut()).is_none());
            assert!(poll(second.as_mut()).is_none());
            queue.try_push(1).unwrap(); // wakes the first
        }
        assert_eq!(poll(second.as_mut()), Some(Some(1)));
    }
}

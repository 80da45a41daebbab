//! Requests that came and nobody has received yet, from all connections of a provider.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::connection::Conn;
use super::session::Arrival;

/// Buffers kept for batches to come.
const SPARE: usize = 4;
/// Those for more requests than this are not kept.
const LARGE: usize = 1024;

pub(super) type Item = (Arc<Conn>, Arrival);

/// What a look gives.
pub(super) enum Next {
    Item(Item),
    Nothing,
    Closed,
}

/// A queue with any number of receivers. It is bounded by what the broker may send: max_concurrent a connection.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// Buffers of batches that have been received.
    spare: Vec<VecDeque<Arrival>>,
    closed: bool,
    /// A receiver has been woken that has not looked yet. It passes the word on if it finds more than it takes, so
    /// that a burst wakes no more receivers than there is work for.
    woken: bool,
}

/// What came at once, which is more than nothing. It is handed on in the buffer that it came in.
#[derive(Debug)]
struct Batch {
    conn: Arc<Conn>,
    arrivals: VecDeque<Arrival>,
}

impl Queue {
    #[inline]
    fn pop(&mut self) -> Option<Item> {
        let batch = self.batches.front_mut()?;
        let arrival = batch.arrivals.pop_front()?;
        if !batch.arrivals.is_empty() {
            return Some((batch.conn.clone(), arrival));
        }
        let mut batch = self.batches.pop_front()?;
        if self.spare.len() < SPARE && batch.arrivals.capacity() <= LARGE {
            // begins anew at its first line, which is in the cache
            batch.arrivals.clear();
            self.spare.push(batch.arrivals);
        }
        Some((batch.conn, arrival))
    }
}

impl Inbox {
    /// Takes all of `arrivals`.
    pub(super) fn push(&self, conn: &Arc<Conn>, arrivals: &mut VecDeque<Arrival>) {
        if arrivals.is_empty() {
            return;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            drop(queue);
            arrivals.drain(..).for_each(|arrival| conn.refuse(&arrival));
            return;
        }
        match queue.batches.back_mut() {
            // who lags behind keeps one buffer, not one for each request
            Some(last) if Arc::ptr_eq(&last.conn, conn) => last.arrivals.append(arrivals),
            _ => {
                let arrivals = std::mem::replace(arrivals, queue.spare.pop().unwrap_or_default());
                queue.batches.push_back(Batch { conn: conn.clone(), arrivals });
            }
        }
        self.wake_one(queue);
    }

    /// Of those who wait the one who came last, for what it works on is still in the cache.
    fn wake_one(&self, mut queue: MutexGuard<'_, Queue>) {
        if !std::mem::replace(&mut queue.woken, true) {
            drop(queue);
            self.came.notify_last();
        }
    }

    /// The next request, if there is one.
    #[inline]
    pub(super) fn next(&self) -> Next {
        self.look(false)
    }

    #[inline]
    fn look(&self, woken: bool) -> Next {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if woken {
            queue.woken = false;
        }
        if let Some(item) = queue.pop() {
            if !queue.batches.is_empty() {
                self.wake_one(queue);
            }
            return Next::Item(item);
        }
        if !queue.closed {
            return Next::Nothing;
        }
        drop(queue);
        self.came.notify_one();
        Next::Closed
    }

    /// Waits for the next request; `None` once closed.
    pub(super) async fn wait(&self) -> Option<Item> {
        loop {
            // Dropped after its wake-up, it wakes another in its place.
            self.came.notified().await;
            match self.look(true) {
                Next::Item(item) => return Some(item),
                Next::Nothing => {}
                Next::Closed => return None,
            }
        }
    }

    /// No more are received; those waiting are refused.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        let batches = std::mem::take(&mut queue.batches);
        drop(queue);
        self.came.notify_one();
        for Batch { conn, arrivals } in batches {
            arrivals.iter().for_each(|arrival| conn.refuse(arrival));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use uuid::Uuid;

    use super::*;
    use crate::base::{ChannelId, Key, Time};
    use crate::protocol::{Flags, Hello, Role, VERSION};

    use super::super::flight::Counts;
    use super::super::{Addr, Metrics};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn conn() -> Arc<Conn> {
        let (channel, client, token, name) = (ChannelId::NIL, Uuid::nil(), Default::default(), String::new());
        let (role, version) = (Role::Provider, VERSION);
        let hello = Hello { version, role, features: 0, channel, client, window: 1, max_concurrent: 9, token, name };
        let counts = Counts::new(Metrics::default());
        Arc::new(Conn::new(&hello, Addr::Tcp("a:1".into()), counts).unwrap())
    }

    async fn receive(inbox: &Inbox) -> Option<Item> {
        match inbox.next() {
            Next::Item(item) => Some(item),
            Next::Nothing => inbox.wait().await,
            Next::Closed => None,
        }
    }

    fn arrivals(n: u64) -> VecDeque<Arrival> {
        let one = |n| Arrival {
            key: Key::unpack(n),
            id: Uuid::nil(),
            flags: Flags::NONE,
            left_ms: 0,
            at: Time::ZERO,
            block: None,
            whole: None,
            lost: 0,
        };
        (0..n).map(one).collect()
    }

    #[test]
    fn requests_come_in_order_and_buffers_are_few() {
        let (inbox, one, other) = (Inbox::default(), conn(), conn());
        let keys = |from: u64, n: u64| -> VecDeque<Arrival> {
            let mut all = arrivals(n);
            all.iter_mut().zip(from..).for_each(|(arrival, n)| arrival.key = Key::unpack(n));
            all
        };
        // of who lags behind, one buffer
        for n in 0..10 {
            inbox.push(&one, &mut keys(n, 1));
        }
        inbox.push(&other, &mut keys(10, 2));
        inbox.push(&other, &mut VecDeque::new());
        inbox.push(&one, &mut keys(12, 1));
        assert_eq!(inbox.queue.lock().unwrap().batches.len(), 3);
        for n in 0..13 {
            let Next::Item((conn, arrival)) = inbox.next() else { panic!("request {n} is missing") };
            assert_eq!(arrival.key, Key::unpack(n));
            assert_eq!(Arc::ptr_eq(&conn, &other), n == 10 || n == 11);
        }
        assert!(matches!(inbox.next(), Next::Nothing));
        // a buffer that was emptied is the next one's
        let mut buffer = keys(0, 1);
        inbox.push(&one, &mut buffer);
        assert!(buffer.is_empty() && buffer.capacity() > 0);
        assert_eq!(inbox.queue.lock().unwrap().spare.len(), 2);
        // many at once leave no large buffer behind
        inbox.push(&other, &mut keys(0, 2 * LARGE as u64));
        while let Next::Item(_) = inbox.next() {}
        assert!(inbox.queue.lock().unwrap().spare.iter().all(|spare| spare.capacity() <= LARGE));
    }

    #[test]
    fn a_burst_wakes_one_receiver_at_a_time_and_none_is_lost() {
        let (inbox, conn) = (Inbox::default(), conn());
        let woken: Vec<Arc<Woken>> = std::iter::repeat_with(Arc::default).take(4).collect();
        let count = || woken.iter().map(|one| one.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let wakers: Vec<Waker> = woken.iter().map(|one| Waker::from(one.clone())).collect();
        let mut first = pin!(receive(&inbox));
        let mut second = Box::pin(receive(&inbox));
        let mut third = pin!(receive(&inbox));
        let mut fourth = pin!(receive(&inbox));
        // who waits the shortest is woken first: what it works on is in the cache
        assert!(fourth.as_mut().poll(&mut Context::from_waker(&wakers[3])).is_pending());
        assert!(third.as_mut().poll(&mut Context::from_waker(&wakers[2])).is_pending());
        assert!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
        assert!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
        inbox.push(&conn, &mut arrivals(2));
        inbox.push(&conn, &mut arrivals(1));
        assert_eq!(count(), [1, 0, 0, 0]);
        assert!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_ready());
        assert_eq!(count(), [1, 1, 0, 0], "there is more");
        drop(second);
        assert_eq!(count(), [1, 1, 1, 0], "who is woken and goes away wakes the next");
        assert!(third.as_mut().poll(&mut Context::from_waker(&wakers[2])).is_ready());
        assert_eq!(count(), [1, 1, 1, 1]);
        assert!(fourth.as_mut().poll(&mut Context::from_waker(&wakers[3])).is_ready());
        let mut last = pin!(receive(&inbox));
        assert!(last.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
        inbox.push(&conn, &mut arrivals(1));
        assert_eq!(count(), [2, 1, 1, 1]);
        assert!(matches!(last.as_mut().poll(&mut Context::from_waker(&wakers[0])), Poll::Ready(Some(_))));
    }
}

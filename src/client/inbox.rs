//! Requests that came and nobody has received yet, from all connections of a provider.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::connection::Conn;
use super::session::Arrival;

type Item = (Arc<Conn>, Arrival);

/// A queue with any number of receivers. It is bounded by what the broker may send: max_concurrent a connection.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    closed: bool,
    /// A receiver has been woken that has not looked yet. It passes the word on if it finds more than it takes, so
    /// that a burst wakes no more receivers than there is work for.
    woken: bool,
}

impl Inbox {
    pub(super) fn push(&self, conn: &Arc<Conn>, arrivals: &mut Vec<Arrival>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            drop(queue);
            arrivals.drain(..).for_each(|arrival| conn.refuse(arrival.key));
            return;
        }
        queue.items.extend(arrivals.drain(..).map(|arrival| (conn.clone(), arrival)));
        self.wake_one(queue);
    }

    fn wake_one(&self, mut queue: MutexGuard<'_, Queue>) {
        if !std::mem::replace(&mut queue.woken, true) {
            drop(queue);
            self.came.notify_one();
        }
    }

    /// The next request; `None` once closed.
    pub(super) async fn receive(&self) -> Option<Item> {
        // Whoever never has to wait lets the other tasks go on now and then.
        tokio::task::coop::consume_budget().await;
        let mut woken = false;
        loop {
            {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if woken {
                    queue.woken = false;
                }
                if let Some(item) = queue.items.pop_front() {
                    if !queue.items.is_empty() {
                        self.wake_one(queue);
                    }
                    return Some(item);
                }
                if queue.closed {
                    drop(queue);
                    self.came.notify_one();
                    return None;
                }
            }
            // Dropped after its wake-up, it wakes another in its place.
            self.came.notified().await;
            woken = true;
        }
    }

    /// No more are received; those waiting are refused.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        let items = std::mem::take(&mut queue.items);
        drop(queue);
        self.came.notify_one();
        items.into_iter().for_each(|(conn, arrival)| conn.refuse(arrival.key));
    }
}

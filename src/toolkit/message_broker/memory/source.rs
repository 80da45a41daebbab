//! A member's end of a topic in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};

use super::super::adapter::{Event, Received, Source};
use super::super::delivery::Settle;
use super::super::{Consume, Error, ErrorKind};
use super::Shelf;
use super::books::{Member, Next, Token};

/// Takes messages; leaves when dropped.
#[derive(Debug)]
pub(super) struct MemorySource {
    shelf: Arc<Shelf>,
    member: Member,
    consume: Arc<Consume>,
}

impl MemorySource {
    pub(super) fn new(shelf: Arc<Shelf>, member: Member, consume: Consume) -> MemorySource {
        MemorySource { shelf, member, consume: Arc::new(consume) }
    }

    fn gone(&self) -> Error {
        Error::unknown_topic(&self.consume.topic)
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let wake = self.shelf.topic().wake(&self.consume.group).ok_or_else(|| self.gone())?;
            let woken = wake.notified();
            tokio::pin!(woken);
            // before looking: what comes in between wakes
            woken.as_mut().enable();
            let next = self.shelf.topic().take(self.member, &self.consume, Instant::now());
            let due = match next {
                Next::Message(token, message, attempt) => {
                    let settle = Held { shelf: self.shelf.clone(), consume: self.consume.clone(), token };
                    return Ok(Received { message, attempt, settle: Box::new(settle) }.into());
                }
                Next::Wait(due) => due,
                Next::Gone => return Err(self.gone()),
            };
            tokio::select! {
                () = woken => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    async fn leave(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        let Consume { group, temporary, .. } = &*self.consume;
        self.shelf.topic().leave(group, self.member, *temporary);
        if *temporary {
            self.shelf.room.notify_waiters();
        }
    }
}

/// One message this member holds.
#[derive(Debug)]
struct Held {
    shelf: Arc<Shelf>,
    consume: Arc<Consume>,
    token: Token,
}

impl Held {
    fn nack(&self, delay: Duration) -> bool {
        self.shelf.topic().nack(&self.consume.group, self.token, delay, Instant::now())
    }
}

fn expired() -> Error {
    Error::new(ErrorKind::Expired, "the message is no longer this member's: it was late, or left")
}

#[async_trait]
impl Settle for Held {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        let held = self.shelf.topic().ack(&self.consume.group, self.token);
        if held {
            self.shelf.room.notify_one();
        }
        if held { Ok(()) } else { Err(expired()) }
    }

    async fn nack(self: Box<Self>, delay: Duration) -> Result<(), Error> {
        if Held::nack(&self, delay) { Ok(()) } else { Err(expired()) }
    }

    fn abandon(self: Box<Self>) {
        Held::nack(&self, Duration::ZERO);
    }
}

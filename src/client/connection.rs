//! One connection, as its handles and its driver share it.
//!
//! Handles work on the session directly, under its lock, which is held for the length of a table look-up or the
//! copying of one socket buffer. A short request thus costs its consumer two short locks and one wake-up, its provider
//! two locks and, in a burst, hardly a wake-up, and neither side a channel, task or timer of its own. With a channel to
//! the driver and a oneshot back it would be two allocations and two more queues.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::flight::Counts;
use super::session::{Arrival, Begun, End, Failure, Flow, NewRequest, Session, Taken};
use super::{Addr, Error, ErrorKind, ServerInfo};
use crate::base::{Key, Time};
use crate::protocol::{Code, Hello, Welcome};

/// From this many wakers on, their buffer is worth a second lock to keep it.
const MANY: usize = 16;

/// A connection. Its driver is the one task that reads and writes it.
#[derive(Debug)]
pub(super) struct Conn {
    shared: Mutex<Shared>,
    /// One permit a stream that may be opened.
    permits: Semaphore,
    epoch: Instant,
    addr: Addr,
    server: OnceLock<ServerInfo>,
    /// Notified when the broker leaves, and when this side leaves and is idle.
    changed: Notify,
    left: AtomicBool,
    /// [`Session::lost`], as it was when the lock was released last.
    lost: AtomicU64,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Shared {
    session: Session,
    /// The driver, and whether it sleeps with nothing to write.
    driver: Option<Waker>,
    idle: bool,
}

impl Conn {
    pub(super) fn new(hello: &Hello, addr: Addr, counts: Arc<Counts>) -> Result<Conn, crate::protocol::BadHandshake> {
        Ok(Conn {
            shared: Mutex::new(Shared { session: Session::new(hello)?, driver: None, idle: false }),
            permits: Semaphore::new(0),
            epoch: Instant::now(),
            addr,
            server: OnceLock::new(),
            changed: Notify::new(),
            left: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            counts,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Time {
        self.time_of(Instant::now())
    }

    pub(super) fn time_of(&self, instant: Instant) -> Time {
        Time::ZERO + instant.saturating_duration_since(self.epoch)
    }

    pub(super) fn instant_of(&self, time: Time) -> Option<Instant> {
        self.epoch.checked_add(time - Time::ZERO)
    }

    /// Works on the session; then wakes whom that concerns, the lock released.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Session) -> R) -> R {
        let mut shared = self.lock();
        let result = work(&mut shared.session);
        // A driver with bytes to write is woken by its socket; only a nearer deadline can't wait for that.
        let news = (shared.idle && shared.session.wants_write()) || shared.session.take_earlier();
        let driver = if news { shared.driver.take() } else { None };
        self.settle(shared, driver);
        result
    }

    /// As [`Conn::with`], for the driver: `work` says whether it goes to sleep with nothing to write.
    pub(super) fn drive<R>(&self, cx: &Context<'_>, work: impl FnOnce(&mut Session) -> (R, bool)) -> R {
        let mut shared = self.lock();
        let (result, idle) = work(&mut shared.session);
        shared.idle = idle;
        shared.session.take_earlier(); // the driver sets its timer after this
        match &mut shared.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.settle(shared, None);
        result
    }

    #[inline]
    fn settle(&self, shared: MutexGuard<'_, Shared>, driver: Option<Waker>) {
        self.lost.store(shared.session.lost(), Ordering::Release);
        if shared.session.is_quiet() {
            drop(shared);
        } else {
            self.tell(shared);
        }
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Wakes whom something concerns that has happened.
    #[inline(never)]
    fn tell(&self, mut shared: MutexGuard<'_, Shared>) {
        let wakes = shared.session.take_wakes();
        let freed = shared.session.take_freed();
        let gone = shared.session.end().is_some() || shared.session.broker_leaves();
        let idle = !shared.session.takes_requests() && shared.session.open() == 0;
        drop(shared);
        if freed > 0 {
            self.permits.add_permits(freed);
        }
        if gone && !self.left.swap(true, Ordering::Relaxed) {
            self.permits.close();
            self.changed.notify_waiters();
        }
        if idle {
            self.changed.notify_waiters();
        }
        if !wakes.is_empty() {
            self.wake(wakes);
        }
    }

    /// Wakes them, the lock released, and gives the buffer back.
    fn wake(&self, mut wakes: Vec<Waker>) {
        wakes.drain(..).for_each(Waker::wake);
        if wakes.capacity() >= MANY {
            self.lock().session.keep_buffer(wakes);
        }
    }

    pub(super) fn welcomed(&self, welcome: &Welcome) {
        let millis = |ms: u32| Duration::from_millis(ms.into());
        let info = ServerInfo {
            id: welcome.server,
            addr: self.addr.clone(),
            core: welcome.core,
            cores: welcome.cores,
            window: welcome.window,
            max_frame: welcome.max_frame,
            max_streams: welcome.max_streams,
            keepalive: millis(welcome.keepalive_ms),
            default_timeout: millis(welcome.default_timeout_ms),
        };
        if self.server.set(info).is_ok() {
            self.permits.add_permits(welcome.max_streams as usize);
        }
    }

    pub(super) fn server(&self) -> Option<&ServerInfo> {
        self.server.get()
    }

    /// Whether a frame of the broker's holds so many bytes and a header block.
    pub(super) fn check_block(&self, ahead: usize, block: &[u8]) -> Result<(), Error> {
        let max_frame = self.server().map_or(u32::MAX, |server| server.max_frame);
        if ahead + block.len() <= max_frame as usize {
            return Ok(());
        }
        let text = format!("headers don't fit the broker's frames of at most {max_frame} bytes");
        Err(Error::new(ErrorKind::InvalidInput, text))
    }

    /// Why the connection ended, once it has.
    pub(super) fn end(&self) -> Option<Error> {
        self.lock().session.end().map(Error::of_end)
    }

    pub(super) fn broker_leaves(&self) -> bool {
        self.lock().session.broker_leaves()
    }

    pub(super) fn takes_requests(&self) -> bool {
        self.lock().session.takes_requests()
    }

    pub(super) fn shut(&self, end: End) {
        let mut shared = self.lock();
        shared.session.shut(end);
        let driver = shared.driver.take();
        self.settle(shared, driver);
    }

    /// Requests that have not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().session.open()
    }

    /// Resolves when no new requests can be opened here any more.
    pub(super) async fn gone(&self) {
        self.until(|session| session.end().is_some() || session.broker_leaves()).await;
    }

    /// Resolves when every request here is over, which must be one that takes no new ones.
    pub(super) async fn idle(&self) {
        self.until(|session| session.end().is_some() || (session.open() == 0 && !session.wants_write())).await;
    }

    async fn until(&self, reached: impl Fn(&Session) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if reached(&self.lock().session) {
                return;
            }
            changed.await;
        }
    }

    /// Waits for a free stream, in turn. `false` if the connection takes no more.
    pub(super) async fn acquire(&self) -> bool {
        self.permits.acquire().await.map(|permit| permit.forget()).is_ok()
    }

    /// A stream that was acquired and not used.
    pub(super) fn give_back(&self) {
        self.permits.add_permits(1);
    }

    /// A free stream, if there is one and nobody waits for it.
    pub(super) fn try_acquire(&self) -> bool {
        self.permits.try_acquire().map(|permit| permit.forget()).is_ok()
    }

    /// `None` where none can be opened here any more.
    pub(super) fn open(&self, request: &NewRequest<'_>) -> Option<Key> {
        self.with(|session| session.open_request(request))
    }

    pub(super) fn poll_begin(&self, key: Key, cx: &Context<'_>, begun: &mut Begun) -> Poll<Result<(), Box<Error>>> {
        self.with(|session| {
            let result = session.poll_begin(key, cx, begun);
            result.map(|result| result.map_err(|failure| Box::new(Error::of_failure(&failure, session.end()))))
        })
    }

    pub(super) fn poll_chunk(&self, key: Key, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        self.with(|session| {
            session
                .poll_chunk(key, cx)
                .map(|result| result.map_err(|failure| Error::of_failure(&failure, session.end())))
        })
    }

    pub(super) fn poll_room(&self, key: Key, low: usize, cx: &Context<'_>) -> Poll<Flow> {
        self.with(|session| session.poll_room(key, low, cx))
    }

    /// Consumer: no answer is wanted any more.
    pub(super) fn release(&self, key: Key) {
        self.with(|session| session.release(key));
    }

    pub(super) fn give_up(&self, key: Key, failure: Failure) {
        self.with(|session| session.give_up(key, failure));
    }

    /// Provider: why a request can't be answered any more.
    pub(super) fn failure(&self, key: Key) -> Option<Error> {
        self.with(|session| session.failure(key).map(|failure| Error::of_failure(failure, session.end())))
    }

    /// Provider: a handler takes a request up. `false` if nobody waits for its answer any more.
    pub(super) fn take_up(&self, arrival: &mut Arrival) -> bool {
        if arrival.whole.is_some() {
            // mostly nothing has been lost since, which is told without the lock
            let same = self.lost.load(Ordering::Acquire) == arrival.lost;
            return same || !self.lock().session.is_over(arrival.key);
        }
        match self.with(|session| session.take_up(arrival.key)) {
            Taken::Over => return false,
            Taken::Whole(body) => arrival.whole = Some(body),
            Taken::Begun => {}
        }
        true
    }

    /// Provider: fails a request nobody received.
    pub(super) fn refuse(&self, arrival: &Arrival) {
        self.with(|session| {
            session.fail_request(arrival.key, Code::Application, "request dropped: the provider is closed");
            if arrival.whole.is_none() {
                session.release_reader(arrival.key);
            }
            session.release_writer(arrival.key);
        });
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Provider: answers that left in a turn count as given when it ends: the clock is read once for all.
    pub(super) fn record(&self, came: impl Iterator<Item = Time>, now: Time) {
        self.counts.metrics.handler_times.record(came.map(|at| now - at));
    }

    /// Consumer: when this side gives up on a request, once its connection's task has seen it.
    pub(super) fn limit_of(&self, key: Key) -> Option<Instant> {
        self.lock().session.limit_of(key).and_then(|time| self.instant_of(time))
    }

    /// The round trip of a PING.
    pub(super) async fn ping(self: &Arc<Self>) -> Result<Duration, Error> {
        struct Waiting<'a>(&'a Conn, u64);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.with(|session| session.forget_ping(self.1));
            }
        }
        let now = self.now();
        let id = self.with(|session| session.ping(now));
        let waiting = Waiting(self, id);
        let answer = std::future::poll_fn(|cx| waiting.0.with(|session| session.poll_pong(id, cx))).await;
        answer.ok_or_else(|| self.end().unwrap_or_else(|| Error::new(ErrorKind::Connection, "the connection ended")))
    }
}

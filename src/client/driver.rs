//! The one task of a connection: it reads, lets the session work, and writes, in turns.
//!
//! What several tasks were woken for, they are likely to answer at once: the driver lets them go first, so that one
//! write takes what all of them send. After news for one task alone it writes without that, for nothing else will come.
//!
//! It always reads. What holds the broker back is credit, never an unread socket: the CREDIT and CANCEL that would
//! free things lie behind those bytes (§4).

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep};

use super::connection::Conn;
use super::dial::Io;
use super::inbox::Inbox;
use super::session::{Arrival, End, Origin};
use crate::base::Time;

/// Bytes read at once.
const READ: usize = 64 * 1024;
/// How long a connection that is done waits for the broker to close it, so that nothing sent is lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// A timer for nothing in particular.
const FAR: Duration = Duration::from_secs(3600);

pub(super) struct Driver {
    io: Box<dyn Io>,
    conn: Arc<Conn>,
    inbox: Option<Arc<Inbox>>,
    /// Requests that came in this turn; empty between turns.
    arrivals: VecDeque<Arrival>,
    /// When requests came whose answers leave in this turn; empty between turns.
    answered: Vec<Time>,
    input: BytesMut,
    out: Vec<u8>,
    written: usize,
    /// What came last concerned several handles: each is likely to have something to send soon.
    crowd: bool,
    /// It has let others go first since it last wrote.
    waited: bool,
    timer: Pin<Box<Sleep>>,
}

/// What a read brought.
enum Read {
    Bytes,
    Nothing,
    End(End),
}

/// What a turn of the session left to do.
struct Turn {
    ended: bool,
    /// Nothing came and nothing is to be written: whoever adds something wakes the driver.
    sleeps: bool,
    /// There is something to be written, and likely more in a moment.
    gathers: bool,
}

impl Driver {
    pub(super) fn new(io: Box<dyn Io>, conn: Arc<Conn>, inbox: Option<Arc<Inbox>>) -> Driver {
        Driver {
            io,
            conn,
            inbox,
            arrivals: VecDeque::new(),
            answered: Vec::new(),
            input: BytesMut::with_capacity(READ),
            out: Vec::new(),
            written: 0,
            crowd: false,
            waited: false,
            timer: Box::pin(tokio::time::sleep(FAR)),
        }
    }

    /// Runs until the broker has said WELCOME, or the connection has ended.
    pub(super) async fn handshake(&mut self) {
        std::future::poll_fn(|cx| {
            let ended = self.poll_turns(cx).is_ready();
            if let Some(welcome) = self.conn.with(|session| session.welcome().copied()) {
                self.conn.welcomed(&welcome);
                return Poll::Ready(());
            }
            if ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Runs until the connection has ended.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll_turns(cx)).await;
        let _ = tokio::time::timeout(LINGER, self.linger()).await;
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let read = self.read(cx);
            let quiet = matches!(read, Read::Nothing);
            let turn = self.turn(cx, read);
            if let Some(inbox) = &self.inbox {
                inbox.push(&self.conn, &mut self.arrivals);
            }
            if turn.ended {
                return Poll::Ready(());
            }
            if turn.gathers {
                // Behind the tasks that were woken: one write then takes what all of them have to send.
                self.waited = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let blocked = match self.write(cx) {
                Ok(blocked) => blocked,
                Err(error) => {
                    self.conn.shut(End::lost("writing failed", Some(Arc::new(error))));
                    return Poll::Ready(());
                }
            };
            if (turn.sleeps || (quiet && blocked)) && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Read {
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
            Poll::Pending => Read::Nothing,
            Poll::Ready(Ok(0)) => Read::End(End::lost("the broker closed the connection", None)),
            Poll::Ready(Ok(_)) => Read::Bytes,
            Poll::Ready(Err(error)) => Read::End(End::lost("reading failed", Some(Arc::new(error)))),
        }
    }

    /// Lets the session work on what came and gather what leaves.
    fn turn(&mut self, cx: &Context<'_>, read: Read) -> Turn {
        let now = self.conn.now();
        let (input, out) = (&mut self.input, &mut self.out);
        let (crowd, waited, arrivals) = (&mut self.crowd, &mut self.waited, &mut self.arrivals);
        let answered = &mut self.answered;
        let turn = self.conn.drive(cx, |session| {
            session.date(now);
            let quiet = matches!(read, Read::Nothing);
            match read {
                Read::Bytes => session.receive(input, now),
                Read::Nothing => {}
                Read::End(end) => session.shut(end),
            }
            if now >= session.next_time() {
                session.on_time(now);
            }
            *crowd |= session.news() > 1;
            let gathers = *crowd && !*waited && out.is_empty() && session.wants_write();
            if out.is_empty() && !gathers {
                session.fill(out);
                (*crowd, *waited) = (*crowd && out.is_empty(), false);
            }
            session.write_begins();
            session.end_if_done();
            let sleeps = quiet && out.is_empty() && !gathers;
            let ended = session.end().is_some();
            // With bytes to write, it is the socket that wakes the driver.
            session.take_arrivals(arrivals);
            session.take_spans(answered);
            (Turn { ended, sleeps, gathers }, sleeps)
        });
        if !self.answered.is_empty() {
            self.conn.record(self.answered.drain(..), now);
        }
        turn
    }

    /// Writes what it can; whether the socket took less than all.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.out.is_empty() {
            return Ok(false);
        }
        let start = self.written;
        let mut blocked = false;
        while self.written < self.out.len() && !blocked {
            match Pin::new(&mut self.io).poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => blocked = true,
            }
        }
        // TLS may keep what it took: it is gone only when flushed
        if !blocked && Pin::new(&mut self.io).poll_flush(cx)?.is_pending() {
            blocked = true;
        }
        let (n, now) = (self.written - start, self.conn.now());
        self.conn.with(|session| session.wrote(n, blocked, now));
        if !blocked {
            self.out.clear();
            self.written = 0;
        }
        Ok(blocked)
    }

    /// Ready when the session has something to do because time passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let next = self.conn.with(|session| session.next_time());
        // The timer is moved only forward in urgency: one that fires early costs a turn, moving it each turn more.
        if let Some(at) = self.conn.instant_of(next).filter(|at| *at < self.timer.deadline()) {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx).map(|()| self.timer.as_mut().reset(Instant::now() + FAR))
    }

    /// Sends what is left, closes this side and waits for the other.
    async fn linger(&mut self) -> io::Result<()> {
        if self.conn.with(|session| session.end().is_some_and(|end| end.origin == Origin::Lost)) {
            return Ok(());
        }
        let (out, written) = (&mut self.out, self.written);
        self.conn.with(|session| session.fill(out));
        self.io.write_all(&self.out[written..]).await?;
        self.io.shutdown().await?;
        while self.io.read_buf(&mut self.input).await? > 0 {
            self.input.clear();
        }
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Only if the task was dropped before its end, with its runtime.
        self.conn.shut(End::lost("the connection's task was stopped", None));
        self.conn.with(|session| session.take_spans(&mut self.answered));
        if !self.answered.is_empty() {
            self.conn.record(self.answered.drain(..), self.conn.now());
        }
    }
}

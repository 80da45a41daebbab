//! A client's connection, whichever it is at the moment; and how one is made.
//!
//! ```text
//!   Connected ──lost──► Down ──backoff, next address──► Connected
//!       └──GOAWAY──► (the old connection finishes by itself) ──► next address
//!       └──UNAUTHORIZED──► Down, requests fail at once ──the longest backoff──► next address
//!   any ──close, drain, a fatal refusal──► Closed
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::backoff::Backoff;
use super::connection::Conn;
use super::dial::{self, Dial};
use super::driver::Driver;
use super::flight::Counts;
use super::inbox::Inbox;
use super::keeper::Keeper;
use super::{Addr, Addrs, Channel, Error, ErrorKind, Options, Retry};
use crate::protocol::{Hello, Role, VERSION};

/// What a client is connected to.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// A connection that takes requests, or did a moment ago.
    Connected(Arc<Conn>),
    /// None at the moment; and why.
    Down(Error),
    /// None any more; and why.
    Closed(Error),
}

/// What the user wants of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Drain(Option<Instant>),
    Close,
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    NotYet,
    Clean,
    /// Requests were in flight.
    Cut,
}

/// A client's connection, whichever it is at the moment.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) state: watch::Sender<State>,
    pub(super) wish: watch::Sender<Wish>,
    pub(super) finish: watch::Sender<Finish>,
    /// Why it ended for good, if nobody asked for it.
    pub(super) fatal: Mutex<Option<Error>>,
}

/// What is needed to connect.
pub(super) struct Plan {
    addrs: Vec<Addr>,
    hello: Hello,
    pub(super) options: Options,
    dial: Arc<dyn Dial>,
    inbox: Option<Arc<Inbox>>,
    pub(super) counts: Arc<Counts>,
    next_addr: usize,
}

pub(super) type Made = (Arc<Conn>, Driver);

impl Plan {
    pub(super) fn new(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        max_concurrent: Option<u32>,
        options: Options,
        dial: Arc<dyn Dial>,
        counts: Arc<Counts>,
    ) -> Result<Plan, Error> {
        options.check()?;
        if max_concurrent == Some(0) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "max_concurrent is 0: a provider holds at least 1 request",
            ));
        }
        let hello = Hello {
            version: VERSION,
            role: if max_concurrent.is_some() { Role::Provider } else { Role::Consumer },
            features: 0,
            channel: channel.into().id()?,
            client: uuid::Uuid::new_v4(),
            window: options.window,
            max_concurrent: max_concurrent.unwrap_or(0),
            token: options.token.clone().unwrap_or_default(),
            name: options.name.clone(),
        };
        let addrs = addr.into().list()?.to_vec();
        let inbox = max_concurrent.map(|_| Arc::new(Inbox::default()));
        Ok(Plan { addrs, hello, options, dial, inbox, counts, next_addr: 0 })
    }

    pub(super) fn inbox(&self) -> Option<Arc<Inbox>> {
        self.inbox.clone()
    }

    /// Connects to the first address that answers, and keeps connected from then on.
    pub(super) async fn start(mut self, retry: Retry) -> Result<Arc<Link>, Error> {
        let mut backoff = self.backoff();
        let began = Instant::now();
        let mut attempt = 1;
        let made = loop {
            let error = match self.round().await {
                Ok(made) => break made,
                Err(error) => error,
            };
            let wait = backoff.next();
            let over = match retry {
                Retry::Attempts(attempts) => attempt >= attempts,
                Retry::For(time) => began.elapsed() + wait >= time,
            };
            if over || error.kind.is_fatal() {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(wait).await;
        };
        let link = Arc::new(Link {
            state: watch::Sender::new(State::Connected(made.0.clone())),
            wish: watch::Sender::new(Wish::Run),
            finish: watch::Sender::new(Finish::NotYet),
            fatal: Mutex::new(None),
        });
        tokio::spawn(Keeper::new(self, link.clone()).run(made));
        Ok(link)
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.options.backoff_min, self.options.backoff_max, fastrand::Rng::new())
    }

    /// Tries each address once, from the one whose turn it is.
    pub(super) async fn round(&mut self) -> Result<Made, Error> {
        let mut last = None;
        for _ in 0..self.addrs.len() {
            let addr = self.addrs[self.next_addr].clone();
            self.next_addr = (self.next_addr + 1) % self.addrs.len();
            match self.connect(addr).await {
                Ok(made) => return Ok(made),
                Err(error) if error.kind.is_fatal() => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::InvalidInput, "no broker address given")))
    }

    async fn connect(&self, addr: Addr) -> Result<Made, Error> {
        let limit = Instant::now() + self.options.connect_timeout;
        let late = |_| Error::new(ErrorKind::Connection, format!("connecting to {addr} took too long"));
        let io = timeout_at(limit, self.dial.dial(&addr)).await.map_err(late)?.map_err(|error| {
            Error::new(dial::kind(&error), format!("connecting to {addr} failed: {error}"))
                .source(Some(Arc::new(error)))
        })?;
        let conn = Conn::new(&self.hello, addr.clone(), self.counts.clone())
            .map_err(|bad| Error::new(ErrorKind::InvalidInput, bad.to_string()).source(Some(Arc::new(bad))))?;
        let conn = Arc::new(conn);
        let mut driver = Driver::new(io, conn.clone(), self.inbox.clone());
        timeout_at(limit, driver.handshake()).await.map_err(late)?;
        match conn.end() {
            Some(error) if conn.server().is_none() => Err(error.at(&addr)),
            _ => Ok((conn, driver)),
        }
    }
}

impl Link {
    /// The connection new requests go to, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Conn>> {
        match &*self.state.borrow() {
            State::Connected(conn) => Some(conn.clone()),
            _ => None,
        }
    }

    /// The connection new requests go to: waits until `deadline` for one.
    pub(super) async fn connected(&self, deadline: Instant) -> Result<Arc<Conn>, Error> {
        let mut state = self.state.subscribe();
        let usable = |state: &State| match state {
            State::Connected(conn) => conn.takes_requests(),
            // it may be let in again, but nothing is gained by waiting for that
            State::Down(why) => why.kind == ErrorKind::Unauthorized,
            State::Closed(_) => true,
        };
        let state = match timeout_at(deadline, state.wait_for(usable)).await {
            Ok(Ok(state)) => state.clone(),
            _ => self.state.borrow().clone(),
        };
        match state {
            State::Connected(conn) if conn.takes_requests() => Ok(conn),
            State::Closed(error) => Err(error),
            State::Connected(_) => Err(Error::new(ErrorKind::Connection, "no connection within the timeout")),
            State::Down(why) if why.kind == ErrorKind::Unauthorized => Err(why),
            State::Down(why) => {
                let text = format!("no connection within the timeout: {why}");
                Err(Error::new(ErrorKind::Connection, text).source(Some(Arc::new(why))))
            }
        }
    }

    /// Why the broker doesn't let this client in, if that is so at the moment.
    pub(super) fn refused(&self) -> Option<Error> {
        match &*self.state.borrow() {
            State::Down(why) if why.kind == ErrorKind::Unauthorized => Some(why.clone()),
            _ => None,
        }
    }

    /// Why the client ended for good, if nobody asked for it.
    pub(super) fn fatal(&self) -> Option<Error> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the end, without waiting for it.
    pub(super) fn abandon(&self) {
        self.wish(Wish::Drain(None));
    }

    /// Ends all connections at once, and waits until they have.
    pub(super) async fn close(&self) {
        self.wish(Wish::Close);
        self.finished().await;
    }

    /// Opens no more, lets what is in flight finish, then ends.
    pub(super) async fn drain(&self, limit: Duration) -> Result<(), Error> {
        self.wish(Wish::Drain(Instant::now().checked_add(limit)));
        match self.finished().await {
            Finish::Cut => {
                Err(Error::new(ErrorKind::Deadline, "requests were still in flight at the drain's deadline"))
            }
            _ => Ok(()),
        }
    }

    /// The stronger wish wins: an end that is under way is only ever hastened.
    fn wish(&self, wish: Wish) {
        self.wish.send_if_modified(|current| {
            let stronger = match (*current, wish) {
                (Wish::Close, _) | (_, Wish::Run) => false,
                (Wish::Drain(_), Wish::Drain(None)) => false,
                (Wish::Drain(Some(old)), Wish::Drain(Some(new))) => new < old,
                _ => true,
            };
            if stronger {
                *current = wish;
            }
            stronger
        });
    }

    async fn finished(&self) -> Finish {
        let mut finish = self.finish.subscribe();
        match finish.wait_for(|finish| *finish != Finish::NotYet).await {
            Ok(finish) => *finish,
            Err(_) => Finish::Clean,
        }
    }
}

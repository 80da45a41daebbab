//! The task that keeps a client connected: it watches the connection and makes the next one.

use std::sync::{Arc, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::connection::Conn;
use super::link::{Finish, Link, Made, Plan, State, Wish};
use super::session::{End, Session};
use super::{Error, ErrorKind};

/// The task behind a [`Link`].
pub(super) struct Keeper {
    plan: Plan,
    link: Arc<Link>,
    /// Connections that have not ended: the current one, and those whose broker is leaving.
    live: Vec<(Arc<Conn>, JoinHandle<()>)>,
}

impl Keeper {
    pub(super) fn new(plan: Plan, link: Arc<Link>) -> Keeper {
        Keeper { plan, link, live: Vec::new() }
    }

    pub(super) async fn run(mut self, first: Made) {
        let link = self.link.clone();
        let mut wish = link.wish.subscribe();
        let fatal = tokio::select! {
            error = self.keep(first) => Some(error),
            _ = wish.wait_for(|wish| *wish != Wish::Run) => None,
        };
        let closed = || Error::new(ErrorKind::Closed, "this client was closed");
        link.state.send_replace(State::Closed(fatal.clone().unwrap_or_else(closed)));
        *link.fatal.lock().unwrap_or_else(PoisonError::into_inner) = fatal;
        let finish = self.finish(&mut wish).await;
        if let Some(inbox) = self.plan.inbox() {
            inbox.close();
        }
        link.finish.send_replace(finish);
    }

    /// Keeps a connection there; returns only what makes that hopeless.
    async fn keep(&mut self, first: Made) -> Error {
        let mut backoff = self.plan.backoff();
        let (mut conn, mut driver) = first;
        loop {
            let began = Instant::now();
            self.live.retain(|(_, task)| !task.is_finished());
            self.live.push((conn.clone(), tokio::spawn(driver.run())));
            self.link.state.send_replace(State::Connected(conn.clone()));
            conn.gone().await;
            let moved = conn.broker_leaves();
            let leaving = || Error::new(ErrorKind::Draining, "the broker is leaving");
            let mut why = conn.end().filter(|_| !moved).unwrap_or_else(leaving);
            let proved = began.elapsed() >= self.plan.options.backoff_max;
            if proved {
                backoff.reset();
            }
            // A broker that leaves in good order is no reason to wait.
            let mut at_once = moved && proved;
            let mut told = false;
            (conn, driver) = loop {
                // What it was let in with may be good again when the broker's rules are: but not soon.
                let refused = why.kind == ErrorKind::Unauthorized;
                if why.kind.is_fatal() && !refused {
                    return why;
                }
                if refused && !std::mem::replace(&mut told, true) {
                    warn!(error = %why, "the broker lets this client in no longer; it is asked again now and then");
                }
                self.link.state.send_replace(State::Down(why));
                if refused {
                    sleep(backoff.longest()).await;
                } else if !std::mem::take(&mut at_once) {
                    sleep(backoff.next()).await;
                }
                match self.plan.round().await {
                    Ok(made) => break made,
                    Err(error) => why = error,
                }
            };
            self.plan.counts.metrics.reconnects.inc();
        }
    }

    /// Ends what is live, as gently as is wished.
    async fn finish(&mut self, wish: &mut watch::Receiver<Wish>) -> Finish {
        let (conns, tasks): (Vec<_>, Vec<_>) = self.live.drain(..).unzip();
        conns.iter().for_each(|conn| conn.with(Session::leave));
        let idle = async {
            for conn in &conns {
                if self.plan.inbox().is_some() {
                    // What the broker sent before it read GOAWAY has come when its PONG has.
                    let _ = conn.ping().await;
                }
                conn.idle().await;
            }
        };
        tokio::pin!(idle);
        loop {
            let Wish::Drain(limit) = *wish.borrow_and_update() else { break };
            let limit = async {
                match limit {
                    Some(limit) => sleep_until(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut idle => break,
                () = limit => break,
                _ = wish.changed() => {}
            }
        }
        let cut = conns.iter().any(|conn| conn.in_flight() > 0);
        conns.iter().for_each(|conn| conn.shut(End::closed()));
        for task in tasks {
            let _ = task.await;
        }
        if cut { Finish::Cut } else { Finish::Clean }
    }
}

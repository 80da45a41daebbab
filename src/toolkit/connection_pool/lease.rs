//! Holding a turn, a booking, a connection: each ends by being dropped, wherever that happens.

use std::sync::{Arc, MutexGuard};

use tokio::time::Instant;

use super::shared::Shared;
use super::state::{Entry, State};
use super::{CloseReason, Error, Factory};

/// The right to hold one connection outside the idle list.
pub(super) struct Turn<F: Factory>(pub(super) Arc<Shared<F>>);

impl<F: Factory> Turn<F> {
    /// A turn that is free at this moment.
    pub(super) fn take_free(shared: &Arc<Shared<F>>) -> Option<Turn<F>> {
        shared.turns.try_acquire().ok()?.forget();
        Some(Turn(shared.clone()))
    }

    /// The next turn, in the order of asking.
    pub(super) async fn wait(shared: &Arc<Shared<F>>) -> Result<Turn<F>, Error<F::Error>> {
        shared.turns.acquire().await.map_err(|_| Error::Closed)?.forget();
        Ok(Turn(shared.clone()))
    }
}

impl<F: Factory> Drop for Turn<F> {
    fn drop(&mut self) {
        self.0.turns.add_permits(1);
    }
}

/// The booking of a connection that is being opened.
pub(super) struct Creating<F: Factory> {
    shared: Arc<Shared<F>>,
    ended: bool,
}

impl<F: Factory> Creating<F> {
    /// Books one, if there may be one more.
    pub(super) fn begin(shared: &Arc<Shared<F>>) -> Option<Creating<F>> {
        let may = shared.state().begin_create(shared.options.max_open);
        may.then(|| Creating::booked(shared))
    }

    /// Takes charge of a booking.
    pub(super) fn booked(shared: &Arc<Shared<F>>) -> Creating<F> {
        Creating { shared: shared.clone(), ended: false }
    }

    /// Ends under a lock already held.
    pub(super) fn end(mut self, state: &mut MutexGuard<'_, State<F::Connection>>) {
        state.end_create();
        self.ended = true;
    }
}

impl<F: Factory> Drop for Creating<F> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.shared.lost_one(State::end_create);
    }
}

/// A connection outside the idle list that no user has: new, or being checked. Dropped with its connection, that is in
/// an unknown state and closed.
pub(super) struct Checking<F: Factory> {
    entry: Option<Entry<F::Connection>>,
    turn: Option<Turn<F>>,
}

impl<F: Factory> Checking<F> {
    /// Takes charge of a connection booked as being checked.
    pub(super) fn new(turn: Turn<F>, entry: Entry<F::Connection>) -> Checking<F> {
        Checking { entry: Some(entry), turn: Some(turn) }
    }

    /// Makes the connection fit to be lent.
    pub(super) async fn freshen(&mut self) -> Result<(), Error<F::Error>> {
        match (&self.turn, &mut self.entry) {
            (Some(turn), Some(entry)) => turn.0.freshen(entry).await,
            _ => Ok(()),
        }
    }

    /// Validates the connection.
    pub(super) async fn validate(&mut self) -> Result<(), Error<F::Error>> {
        if let (Some(turn), Some(entry)) = (&self.turn, &mut self.entry) {
            turn.0.validate(&mut entry.conn).await?;
            entry.alive_at = Instant::now();
        }
        Ok(())
    }

    /// Lends it, unless the pool was closed meanwhile.
    pub(super) fn lend(mut self) -> Option<(Turn<F>, Entry<F::Connection>)> {
        let (turn, entry) = (self.turn.take()?, self.entry.take()?);
        {
            let mut state = turn.0.state();
            if !state.closed {
                state.lend_checked();
                drop(state);
                return Some((turn, entry));
            }
        }
        self.turn = Some(turn);
        self.entry = Some(entry);
        self.end(Some(CloseReason::Shutdown));
        None
    }

    /// Closes it.
    pub(super) fn close(mut self, reason: CloseReason) {
        self.end(Some(reason));
    }

    /// Puts it among the idle ones, if there is room.
    pub(super) fn keep(mut self) {
        self.end(None);
    }

    fn end(&mut self, reason: Option<CloseReason>) {
        if let (Some(turn), Some(entry)) = (self.turn.take(), self.entry.take()) {
            settle(turn, entry, reason, Instant::now(), |state| state.checking -= 1);
        }
    }
}

impl<F: Factory> Drop for Checking<F> {
    fn drop(&mut self) {
        self.end(Some(CloseReason::Abandoned));
    }
}

/// Ends a use: the connection is kept, or closed for `reason` or one the books have.
pub(super) fn give_back<F: Factory>(turn: Turn<F>, mut entry: Entry<F::Connection>, reason: Option<CloseReason>) {
    let is_broken = reason.is_none() && turn.0.factory.is_broken(&entry.conn);
    let now = Instant::now();
    entry.used = true;
    entry.idle_since = now;
    entry.alive_at = now;
    let reason = if is_broken { Some(CloseReason::Broken) } else { reason };
    settle(turn, entry, reason, now, |state| state.in_use -= 1);
}

/// Moves a connection from where `leave` has it booked to the idle list, or closes it.
fn settle<F: Factory>(
    turn: Turn<F>,
    entry: Entry<F::Connection>,
    reason: Option<CloseReason>,
    now: Instant,
    leave: impl FnOnce(&mut State<F::Connection>),
) {
    let shared = &turn.0;
    let mut state = shared.state();
    leave(&mut state);
    let reason = reason.or_else(|| state.why_close(&entry, &shared.options, now));
    let Some(reason) = reason else {
        let wake = state.put(entry, &shared.options);
        drop(state);
        if wake {
            shared.upkeep.notify_one();
        }
        return;
    };
    state.count_closing(reason, now);
    drop(state);
    let shared = shared.clone();
    shared.close(entry.conn, reason, Some(turn));
}

//! The one who calls the client: takes batches from the queue, sends, waits and tries again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::breaker::{Breaker, Gate};
use super::dead_letter::DeadLetters;
use super::producer::Shared;
use super::queue::{Entry, Queue, Ticket};
use super::trouble::Trouble;
use super::{Done, DropReason, Message, Promise, SendError, SendErrorKind};

/// What a client gets to say goodbye in.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The sending half of a [`Producer`](super::Producer). It must be run for anything to be delivered, on the runtime
/// that the client's connections are to live on; ending that runtime, or dropping this, ends the producer, and
/// what it had left is counted as dropped.
#[must_use = "nothing is delivered until it runs"]
pub struct Runner {
    shared: Arc<Shared>,
    closing: watch::Receiver<Option<Instant>>,
    breaker: Breaker,
    trouble: Trouble,
    dead_letters: Option<DeadLetters>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("producer", &self.shared.id).finish_non_exhaustive()
    }
}

/// What came of an attempt.
enum Attempt {
    /// There was nothing to send.
    Nothing,
    Done,
}

impl Runner {
    pub(super) fn new(shared: Arc<Shared>) -> Runner {
        let options = &shared.options;
        Runner {
            closing: shared.closing.subscribe(),
            breaker: Breaker::new(
                options.breaker_failures,
                options.backoff_min,
                options.backoff_max,
                fastrand::Rng::new(),
            ),
            trouble: Trouble::default(),
            dead_letters: options.dead_letter.clone().map(DeadLetters::new),
            shared,
        }
    }

    /// Delivers until the producer is [drained](super::Producer::drain), or its last handle is gone.
    pub async fn run(mut self) {
        self.shared.started.store(true, Ordering::Release);
        loop {
            self.expire().await;
            if self.is_finished() || self.is_past_deadline() {
                break;
            }
            let gate = self.breaker.gate(Instant::now());
            self.publish();
            match gate {
                Gate::Wait(until) => self.pause(until).await,
                Gate::Go => {
                    if let Attempt::Nothing = self.attempt(self.shared.options.batch_messages).await {
                        self.idle().await;
                    }
                }
                Gate::Try => {
                    if self.probe().await
                        && let Attempt::Nothing = self.attempt(1).await
                    {
                        self.succeeded();
                    }
                }
            }
        }
        self.finish().await;
    }

    fn is_finished(&self) -> bool {
        self.shared.queue(|queue| queue.is_finished())
    }

    fn is_past_deadline(&self) -> bool {
        self.closing.borrow().is_some_and(|deadline| deadline <= Instant::now())
    }

    /// One batch of at most so many, if there is anything.
    async fn attempt(&mut self, most: usize) -> Attempt {
        let (mut messages, mut tickets) = (Vec::new(), Vec::new());
        let too_large = self.shared.queue(|queue| queue.take(most, &mut messages, &mut tickets));
        if messages.is_empty() && too_large.is_empty() {
            return Attempt::Nothing;
        }
        let mut held = InFlight { shared: Arc::clone(&self.shared), messages, tickets };
        self.bury(too_large.into_iter().map(|entry| (entry, DropReason::TooLarge, None)).collect()).await;
        if held.messages.is_empty() {
            return Attempt::Done;
        }
        let done = tokio::select! {
            biased;
            done = self.shared.client.send_batch(&held.messages) => done,
            // what is in flight is given up as it is dropped
            () = past_deadline(&mut self.closing) => return Attempt::Done,
        };
        let (messages, tickets) = held.take();
        let given_up = self.settle(messages, tickets, done);
        self.bury(given_up).await;
        Attempt::Done
    }

    /// Enters what came of a batch into the books; returns what is to be given up.
    fn settle(&mut self, messages: Vec<Message>, tickets: Vec<Ticket>, done: Done) -> Vec<GivenUp> {
        let (now, promise) = (Instant::now(), self.shared.client.promise());
        let retries = self.shared.options.retries;
        let delivered = done.delivered.min(messages.len());
        let error = done.error.or_else(|| {
            let silent = delivered < messages.len();
            silent.then(|| SendError::new(SendErrorKind::Unavailable, "the client stopped without saying why"))
        });
        if delivered > 0 {
            self.succeeded();
        }
        let mut entries = messages.into_iter().zip(tickets).map(|(message, ticket)| Entry { message, ticket });
        let given_up = self.shared.queue(|queue| {
            entries.by_ref().take(delivered).for_each(|entry| queue.delivered(entry, now));
            match &error {
                Some(error) => fail(queue, entries.collect(), error, promise, retries),
                None => Vec::new(),
            }
        });
        if let Some(error) = error {
            self.failed(&error);
        }
        given_up
    }

    fn succeeded(&mut self) {
        self.breaker.success();
        if let Some((failures, lasted)) = self.trouble.is_over(Instant::now()) {
            let (producer, address) = (&self.shared.id, self.shared.client.address());
            tracing::info!(producer, address, failures, ?lasted, "forwarding works again");
        }
        self.publish();
    }

    fn failed(&mut self, error: &SendError) {
        let now = Instant::now();
        match error.kind() {
            // found out here, whether the target is there or not
            SendErrorKind::TooLarge => {}
            // a target that says no is there
            SendErrorKind::Rejected => self.breaker.success(),
            _ => self.breaker.failure(now),
        }
        if let Some(failures) = self.trouble.met(error, now) {
            let (producer, address) = (&self.shared.id, self.shared.client.address());
            let breaker = self.breaker.state().as_str();
            tracing::warn!(producer, address, %error, failures, breaker, "forwarding fails");
        }
        self.shared.queue(|queue| queue.counters.attempts_failed += 1);
        self.shared.note_error(error);
        self.publish();
    }

    fn publish(&self) {
        self.shared.set_state(self.breaker.state());
    }

    /// Asks the client whether its target is there.
    async fn probe(&mut self) -> bool {
        let found = tokio::select! {
            biased;
            found = self.shared.client.probe() => found,
            () = past_deadline(&mut self.closing) => return false,
        };
        match found {
            Ok(()) => true,
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// Waits for something to do, and asks after the target every now and then.
    async fn idle(&mut self) {
        let next_probe = Instant::now() + self.shared.options.probe_interval;
        let deadline = *self.closing.borrow();
        let is_time_to_probe = tokio::select! {
            biased;
            () = self.shared.wake.notified() => false,
            _ = self.closing.changed() => false,
            () = past_deadline_of(deadline) => false,
            () = sleep_until(next_probe) => true,
        };
        if is_time_to_probe {
            self.probe().await;
        }
    }

    /// Waits until then; less if something gets too old before, or the producer closes.
    async fn pause(&mut self, until: Instant) {
        let newest = Instant::now() + self.shared.options.max_age;
        // what comes during the pause is younger, so it need not wake anybody
        let expiry = self.shared.queue(|queue| queue.next_expiry()).unwrap_or(newest);
        let deadline = *self.closing.borrow();
        tokio::select! {
            () = sleep_until(until.min(expiry)) => {}
            _ = self.closing.changed() => {}
            () = past_deadline_of(deadline) => {}
        }
    }

    async fn expire(&mut self) {
        let expired = self.shared.queue(|queue| queue.expired(Instant::now()));
        if !expired.is_empty() {
            let error = self.trouble.error();
            self.bury(expired.into_iter().map(|entry| (entry, DropReason::TooOld, error.clone())).collect()).await;
        }
    }

    /// Gives messages up: to the dead letter file where there is one and it's for them.
    async fn bury(&mut self, given_up: Vec<GivenUp>) {
        if given_up.is_empty() {
            return;
        }
        let mut held = Held { shared: Arc::clone(&self.shared), given_up };
        let Some(dead_letters) = &self.dead_letters else { return };
        let is_kept = |given_up: &GivenUp| !given_up.0.is_partial() && given_up.1.is_kept();
        let kept = held.given_up.iter().filter(|given_up| is_kept(given_up));
        let letters = kept.map(|(entry, reason, _)| (entry.message.clone(), *reason)).collect::<Vec<_>>();
        if letters.is_empty() {
            return;
        }
        let count = letters.len() as u64;
        match dead_letters.write(letters).await {
            Ok(()) => {
                let (kept, gone) = held.take().into_iter().partition::<Vec<_>, _>(is_kept);
                held.given_up = gone;
                self.shared.queue(|queue| {
                    kept.into_iter().for_each(|(entry, reason, error)| queue.dead_lettered(entry, reason, error));
                });
            }
            Err(error) => {
                tracing::error!(
                    producer = %self.shared.id, file = %dead_letters.path().display(), %error, messages = count,
                    "dead letters could not be written: the messages are lost"
                );
                self.shared.queue(|queue| queue.counters.dead_letters_failed += count);
            }
        }
    }

    async fn finish(&mut self) {
        self.shared.queue(Queue::close);
        self.shared.note_left();
        let waiting = self.shared.queue(|queue| queue.take_all());
        self.bury(waiting.into_iter().map(|entry| (entry, DropReason::Shutdown, None)).collect()).await;
        self.shared.give_up_waiting();
        let _ = timeout(CLOSE_TIMEOUT, self.shared.client.close()).await;
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.shared.note_left();
        self.shared.give_up_waiting();
        self.shared.finished.send_replace(true);
    }
}

/// What came of the messages a client has not delivered. All but those returned go back into the queue.
fn fail(queue: &mut Queue, mut entries: Vec<Entry>, error: &SendError, promise: Promise, retries: u32) -> Vec<GivenUp> {
    let is_final = !error.kind().is_worth_another_attempt();
    let in_doubt = error.is_in_doubt();
    let lost = match (in_doubt && promise == Promise::AtMostOnce, error.is_alone()) {
        (true, false) => entries.len(),
        _ => 1,
    };
    let rest = entries.split_off(lost.min(entries.len()));
    for entry in rest.into_iter().rev() {
        queue.put_back(entry, !in_doubt || error.is_alone());
    }
    let mut given_up = Vec::new();
    for mut entry in entries {
        entry.ticket.attempts += 1;
        let reason = match error.kind() {
            SendErrorKind::TooLarge => DropReason::TooLarge,
            _ if is_final => DropReason::Rejected,
            _ if in_doubt && promise == Promise::AtMostOnce => DropReason::InDoubt,
            _ if entry.ticket.attempts > retries => DropReason::RetriesSpent,
            _ => {
                queue.put_back(entry, !in_doubt);
                continue;
            }
        };
        given_up.push((entry, reason, Some(error.clone())));
    }
    given_up
}

type GivenUp = (Entry, DropReason, Option<SendError>);

/// Messages on their way out: counted as dropped if nothing better becomes of them, as when the runtime ends.
struct Held {
    shared: Arc<Shared>,
    given_up: Vec<GivenUp>,
}

impl Held {
    fn take(&mut self) -> Vec<GivenUp> {
        std::mem::take(&mut self.given_up)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let given_up = self.take();
        self.shared.queue(|queue| {
            given_up.into_iter().for_each(|(entry, reason, error)| queue.give_up(entry, reason, error));
        });
    }
}

/// Messages with the client: given up if the attempt is cut short.
struct InFlight {
    shared: Arc<Shared>,
    messages: Vec<Message>,
    tickets: Vec<Ticket>,
}

impl InFlight {
    fn take(&mut self) -> (Vec<Message>, Vec<Ticket>) {
        (std::mem::take(&mut self.messages), std::mem::take(&mut self.tickets))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let (messages, tickets) = self.take();
        if messages.is_empty() {
            return;
        }
        self.shared.note_left();
        let reason = match self.shared.client.promise() {
            Promise::AtMostOnce => DropReason::InDoubt,
            Promise::AtLeastOnce => DropReason::Shutdown,
        };
        self.shared.queue(|queue| {
            for (message, ticket) in messages.into_iter().zip(tickets) {
                queue.give_up(Entry { message, ticket }, reason, None);
            }
        });
    }
}

async fn past_deadline_of(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Until the producer is closing and its time is up.
async fn past_deadline(closing: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let deadline = *closing.borrow_and_update();
        tokio::select! {
            () = past_deadline_of(deadline) => return,
            changed = closing.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

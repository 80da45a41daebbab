//! When to try a target that fails: waits that grow, and a breaker.
//!
//! ```text
//!            N failures in a row                    the wait is over
//!   Closed ───────────────────────► Open ──────────────────────────────► HalfOpen
//!     ▲  each failure: a wait        ▲                 a failure            │
//!     │                              └──────────────────────────────────────┤
//!     └─────────────────────────────────────────────────────────────────────┘ one message delivered
//! ```
//!
//! A plain state machine: the time is given to it.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::backoff;

/// Whether a producer sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// It does; after a failure with a wait before the next attempt.
    #[default]
    Closed,
    /// It doesn't: the target has failed too often in a row.
    Open,
    /// It tries one message.
    HalfOpen,
}

impl State {
    /// As logs and metrics spell it: `closed`, `open` or `half_open`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
        }
    }
}

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Send.
    Go,
    /// Ask whether the target is there, and if it is, send one message.
    Try,
    /// Nothing before then.
    Wait(Instant),
}

#[derive(Debug)]
pub(super) struct Breaker {
    threshold: u32,
    min: Duration,
    max: Duration,
    rng: fastrand::Rng,
    failures: u32,
    state: State,
    until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(threshold: u32, min: Duration, max: Duration, rng: fastrand::Rng) -> Breaker {
        Breaker { threshold, min, max, rng, failures: 0, state: State::Closed, until: None }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// What may be done now; an open breaker whose wait is over is half open from here on.
    pub(super) fn gate(&mut self, now: Instant) -> Gate {
        if let Some(until) = self.until.filter(|until| now < *until) {
            return Gate::Wait(until);
        }
        self.until = None;
        if self.state == State::Open {
            self.state = State::HalfOpen;
        }
        if self.state == State::HalfOpen { Gate::Try } else { Gate::Go }
    }

    /// The target took something.
    pub(super) fn success(&mut self) {
        self.failures = 0;
        self.until = None;
        self.state = State::Closed;
    }

    /// It did not: a wait begins, which grows with each failure in a row.
    pub(super) fn failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + backoff(self.min, self.max, self.failures, self.rng.f64()));
        if self.state == State::HalfOpen || self.failures >= self.threshold {
            self.state = State::Open;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);

    fn breaker(threshold: u32) -> Breaker {
        Breaker::new(threshold, MIN, MAX, fastrand::Rng::with_seed(1))
    }

    #[test]
    fn waits_double_within_their_bounds() {
        let (mut breaker, now) = (breaker(u32::MAX), Instant::now());
        let mut bound = MIN;
        for _ in 0..40 {
            breaker.failure(now);
            let Gate::Wait(until) = breaker.gate(now) else { panic!("no wait") };
            let wait = until - now;
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} of {bound:?}");
            assert_eq!(breaker.gate(until), Gate::Go);
            bound = (bound * 2).min(MAX);
        }
        breaker.success();
        breaker.failure(now);
        assert!(matches!(breaker.gate(now), Gate::Wait(until) if until - now <= MIN), "short again");
    }

    #[test]
    fn it_opens_at_its_threshold_and_closes_at_a_delivery() {
        let (mut breaker, now) = (breaker(3), Instant::now());
        for _ in 0..2 {
            breaker.failure(now);
            assert_eq!(breaker.state(), State::Closed);
        }
        breaker.failure(now);
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.gate(now + MAX), Gate::Try);
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.failure(now);
        assert_eq!(breaker.state(), State::Open, "one failure is enough for a half open one");
        assert_eq!(breaker.gate(now + MAX), Gate::Try);
        breaker.success();
        assert_eq!((breaker.state(), breaker.gate(now)), (State::Closed, Gate::Go));
    }

    #[test]
    fn a_success_between_keeps_it_closed() {
        let (mut breaker, now) = (breaker(2), Instant::now());
        for _ in 0..10 {
            breaker.failure(now);
            breaker.success();
        }
        assert_eq!(breaker.state(), State::Closed);
    }
}

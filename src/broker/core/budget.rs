//! What a peer may do only so often: token buckets (§7).

use super::Core;
use super::rx::Violation;
use crate::base::limits::{Budget, CANCELS, EMPTY_FRAMES, ERRORS, PINGS};
use crate::base::{Key, Time};
use crate::protocol::Code;

/// What is budgeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spending {
    Pings,
    Cancels,
    Errors,
    EmptyFrames,
}

impl Spending {
    const ALL: [Spending; 4] = [Spending::Pings, Spending::Cancels, Spending::Errors, Spending::EmptyFrames];

    pub(super) fn budget(self) -> Budget {
        match self {
            Spending::Pings => PINGS,
            Spending::Cancels => CANCELS,
            Spending::Errors => ERRORS,
            Spending::EmptyFrames => EMPTY_FRAMES,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Spending::Pings => "PINGs",
            Spending::Cancels => "CANCELs of nothing",
            Spending::Errors => "REQUESTs that had to be refused",
            Spending::EmptyFrames => "frames that say nothing",
        }
    }
}

/// What is left of one connection's budgets, in thousandths: a rate of 1/s is then one of them a millisecond.
#[derive(Debug)]
pub(super) struct Budgets {
    left: [u32; 4],
    counted: Time,
}

/// See [`Budgets`].
const ONE: u32 = 1000;

impl Budgets {
    /// All full.
    pub(super) fn new(now: Time) -> Budgets {
        Budgets { left: Spending::ALL.map(|spending| spending.budget().burst * ONE), counted: now }
    }

    /// Takes one off; `false` when there is none.
    pub(super) fn spend(&mut self, spending: Spending, now: Time) -> bool {
        let millis = (now - self.counted).as_millis() as u64;
        if millis > 0 {
            self.counted = now;
            for (left, each) in self.left.iter_mut().zip(Spending::ALL) {
                let Budget { rate, burst } = each.budget();
                let full = *left + millis.saturating_mul(rate.into()).min((burst * ONE).into()) as u32;
                // one that earned more than its burst keeps it
                *left = full.min((burst * ONE).max(*left));
            }
        }
        let left = &mut self.left[spending as usize];
        let enough = *left >= ONE;
        *left -= if enough { ONE } else { 0 };
        enough
    }

    /// Adds so many, as long as there are no more than `most` (or the burst, where that is more).
    pub(super) fn earn(&mut self, spending: Spending, n: u32, most: u32) {
        let most = most.max(spending.budget().burst).saturating_mul(ONE);
        let left = &mut self.left[spending as usize];
        *left = left.saturating_add(n.saturating_mul(ONE)).min(most.max(*left));
    }
}

impl Core {
    /// Takes one off the connection's budget.
    ///
    /// # Errors
    /// FLOOD, when it is spent.
    pub(super) fn spend(&mut self, key: Key, spending: Spending) -> Result<(), Violation> {
        let now = self.now;
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        // other cores pass on what was paid for where it came from
        if conn.side.is_link() || conn.budgets.spend(spending, now) {
            return Ok(());
        }
        let Budget { rate, burst } = spending.budget();
        let text = format!("more than {rate} {} a second, after {burst} at once", spending.words());
        Err(Violation::new(Code::Flood, text))
    }

    /// A CANCEL came for an id that is not in use: it crossed the terminal frame, once for each request at most.
    pub(super) fn cancelled_nothing(&mut self, key: Key) -> Result<(), Violation> {
        let max_streams = self.options.limits.max_streams;
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        let begun = conn.opened.begun();
        let requests = begun.wrapping_sub(std::mem::replace(&mut conn.requests_counted, begun));
        conn.budgets.earn(Spending::Cancels, requests, max_streams);
        self.spend(key, Spending::Cancels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn spend_all(budgets: &mut Budgets, spending: Spending, now: Time) -> u32 {
        (0..).take_while(|_| budgets.spend(spending, now)).count() as u32
    }

    #[test]
    fn each_budget_is_its_burst_and_comes_back_at_its_rate() {
        for spending in Spending::ALL {
            let Budget { rate, burst } = spending.budget();
            let mut now = Time::ZERO;
            let mut budgets = Budgets::new(now);
            assert_eq!(spend_all(&mut budgets, spending, now), burst, "{spending:?}");
            let one = Duration::from_millis((1000 / rate).into());
            now = now + (one - Duration::from_millis(1));
            assert!(!budgets.spend(spending, now));
            now = now + Duration::from_millis(1);
            assert_eq!(spend_all(&mut budgets, spending, now), 1);
            for _ in 0..1000 {
                now = now + one;
                assert!(budgets.spend(spending, now));
            }
            now = now + Duration::from_secs(86_400 * 365);
            assert_eq!(spend_all(&mut budgets, spending, now), burst);
            for other in Spending::ALL.into_iter().filter(|&other| other != spending) {
                assert_eq!(spend_all(&mut budgets, other, now), other.budget().burst, "{other:?} is another's");
            }
        }
    }

    #[test]
    fn what_is_earned_is_kept_up_to_its_bound() {
        let mut budgets = Budgets::new(Time::ZERO);
        budgets.earn(Spending::Cancels, u32::MAX, 4 * CANCELS.burst);
        assert!(budgets.spend(Spending::Cancels, Time::ZERO + Duration::from_secs(1)));
        budgets.earn(Spending::Cancels, 1, CANCELS.burst);
        assert_eq!(spend_all(&mut budgets, Spending::Cancels, Time::ZERO), 4 * CANCELS.burst - 1);
        budgets.earn(Spending::Cancels, 5, CANCELS.burst);
        assert_eq!(spend_all(&mut budgets, Spending::Cancels, Time::ZERO), 5);
    }
}

//! Failures in the log: the first one, then one line in ten seconds, then that it's over; of a target that comes and
//! goes, no more than that.

use std::time::Duration;

use tokio::time::Instant;

use super::SendError;

/// Between two lines on failures.
const EVERY: Duration = Duration::from_secs(10);

/// Says what is to be logged.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    began: Option<Instant>,
    /// The log knows of it.
    told: bool,
    failures: u64,
    error: Option<SendError>,
    /// When the log was last told of a failure, and those since then.
    warned: Option<Instant>,
    untold: u64,
}

impl Trouble {
    /// While it lasts: what went wrong last.
    pub(super) fn error(&self) -> Option<SendError> {
        self.error.clone()
    }

    /// A failure. If it's to be logged: how many there were since the last line.
    pub(super) fn met(&mut self, error: &SendError, now: Instant) -> Option<u64> {
        self.began.get_or_insert(now);
        self.error = Some(error.clone());
        self.failures += 1;
        self.untold += 1;
        if self.warned.is_some_and(|warned| now < warned + EVERY) {
            return None;
        }
        (self.warned, self.told) = (Some(now), true);
        Some(std::mem::take(&mut self.untold))
    }

    /// A success. If that is to be logged: how many failures came before, and how long it lasted.
    pub(super) fn is_over(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let began = self.began.take()?;
        self.error = None;
        let failures = std::mem::take(&mut self.failures);
        std::mem::take(&mut self.told).then(|| (failures, now.duration_since(began)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::SendErrorKind;

    #[test]
    fn one_line_at_first_then_one_in_ten_seconds_and_one_at_the_end() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let error = SendError::new(SendErrorKind::Closed, "reset");
        assert_eq!(trouble.is_over(at(0)), None);
        let told: Vec<_> = (0..25).map(|second| trouble.met(&error, at(second))).collect();
        let lines: Vec<_> = told.iter().enumerate().filter_map(|(at, told)| told.map(|count| (at, count))).collect();
        assert_eq!(lines, [(0, 1), (10, 10), (20, 10)]);
        assert_eq!(trouble.error(), Some(error.clone()));
        assert_eq!(trouble.is_over(at(25)), Some((25, Duration::from_secs(25))));
        assert_eq!((trouble.is_over(at(26)), trouble.error()), (None, None));
        // again and again, within ten seconds of the last line: nothing, but it's counted
        for _ in 0..100 {
            assert_eq!((trouble.met(&error, at(27)), trouble.is_over(at(27))), (None, None));
        }
        assert_eq!(trouble.met(&error, at(30)), Some(4 + 100 + 1));
        assert_eq!(trouble.is_over(at(31)), Some((1, Duration::from_secs(1))));
    }
}

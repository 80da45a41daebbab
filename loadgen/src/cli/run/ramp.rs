//! `--ramp-p99`: the highest rate whose p99 stays below a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Failure, Measured, Report, RunArgs, once, step};
use crate::report::text::count;

/// Doublings before it gives up: from 1,000/s that is a billion.
const DOUBLINGS: usize = 20;
/// Halvings of the distance between good and bad: it ends within 3 % of the rate.
const HALVINGS: usize = 5;

/// Searches from `--rate` on: doubles while it is good, then halves the distance.
pub(super) fn ramp(args: &RunArgs, bound_ms: f64, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let mut search = Search { args, bound_ms, stop, best: None };
    let (mut good, mut bad, mut rate) = (0.0, f64::INFINITY, args.rate);
    for _ in 0..DOUBLINGS {
        if !search.try_rate(rate)? {
            bad = rate;
            break;
        }
        good = rate;
        rate *= 2.0;
    }
    for _ in 0..HALVINGS {
        if stop.load(Ordering::Relaxed) || !bad.is_finite() {
            break;
        }
        let rate = (good + bad) / 2.0;
        if search.try_rate(rate)? {
            good = rate;
        } else {
            bad = rate;
        }
    }
    let Some((report, measured)) = search.best else {
        return Err(format!("no rate was found whose p99 stays below {bound_ms} ms; try a lower --rate").into());
    };
    eprintln!("highest rate with a p99 below {bound_ms} ms: {}/s", count(good));
    args.output.write(&report, &measured)
}

struct Search<'a> {
    args: &'a RunArgs,
    bound_ms: f64,
    stop: &'a Arc<AtomicBool>,
    best: Option<(Report, Measured)>,
}

impl Search<'_> {
    /// Whether the broker keeps up with this rate: p99 below the bound, nothing failed, nearly all answered in time.
    fn try_rate(&mut self, rate: f64) -> Result<bool, Failure> {
        let args = RunArgs { rate, ..self.args.clone() };
        let (report, measured) = once(&args, self.stop)?;
        if self.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let good = is_good(&report, rate, self.bound_ms);
        eprintln!("{:>10}/s asked  {}", count(rate), step(&report, good));
        if good {
            self.best = Some((report, measured));
        }
        Ok(good)
    }
}

fn is_good(report: &Report, rate: f64, bound_ms: f64) -> bool {
    report.latency.get("p99") <= bound_ms * 1000.0 && report.failed() == 0 && report.rate >= rate * 0.98
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_good_if_it_was_kept_in_time_without_failures() {
        let mut report = crate::report::tests::report();
        assert!(!is_good(&report, 100.0, 991.0), "two failed");
        report.errors.clear();
        assert!(is_good(&report, 100.0, 991.0));
        assert!(!is_good(&report, 100.0, 980.0), "p99 is 990 ms");
        assert!(!is_good(&report, 110.0, 991.0), "100/s is not 110/s");
    }
}

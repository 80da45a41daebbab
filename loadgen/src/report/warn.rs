//! What makes a measurement doubtful, said with the result.

use super::Report;
use super::text::{count, micros};
use crate::measure::Measured;

/// A load thread this busy may have been what limited the rate, as a share of a CPU.
pub(crate) const SATURATED: f64 = 0.97;

/// Kept from its CPU by others for more than this share of the time, a load thread adds to the tail.
const CROWDED: f64 = 0.01;
/// More requests than ours by this share were others'.
const FOREIGN: f64 = 0.05;

/// Everything that should be known before the numbers are believed.
pub(super) fn warnings(report: &Report, measured: &Measured) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(schedule) = report.schedule {
        let (p99, max) = (micros(schedule.p99), micros(schedule.max));
        if schedule.late > 0 {
            let share = schedule.late as f64 * 100.0 / report.sent.max(1) as f64;
            found.push(format!(
                "the generator missed its schedule: {} requests ({share:.2} %) were sent more than 1 ms late \
                 (p99 of all {p99}, max {max}); their latency is counted from the intended time",
                schedule.late
            ));
        }
        if schedule.held > 0 {
            found.push(format!(
                "{} requests waited for a free place (max {max}): the other side was slower than the rate; \
                 more consumers or --in-flight lets more be open at a time",
                schedule.held
            ));
        }
        if schedule.unsent > 0 {
            found.push(format!(
                "{} requests that were due were never sent: the rate was not reached, latencies would be higher",
                schedule.unsent
            ));
        }
    }
    for (thread, &busy) in report.load_busy.iter().enumerate().filter(|(_, busy)| **busy > SATURATED) {
        let idle = report.broker.is_some_and(|broker| broker.busy < SATURATED);
        let verdict = if idle { "the broker was not: this measures the generator" } else { "the limit may be its own" };
        found.push(format!("load thread {thread} was busy {:.0} % of the time; {verdict}", busy * 100.0));
    }
    for (thread, &waited) in report.load_waited.iter().enumerate().filter(|(_, waited)| **waited > CROWDED) {
        found.push(format!(
            "something else ran on load thread {thread}'s CPU while it was ready to, {:.1} % of the time: high \
             percentiles are of that, too",
            waited * 100.0
        ));
    }
    if let Some((broker, counted)) = report.broker.and_then(|broker| Some((broker, broker.requests?))) {
        let others = counted.saturating_sub(report.answered) as f64;
        if others > report.answered as f64 * FOREIGN {
            found.push(format!(
                "the broker counted {} requests meanwhile, {} of them not ours: the {} of CPU a request are too much",
                count(counted as f64),
                count(others),
                micros(broker.cpu_us_per_request)
            ));
        }
    }
    let stolen = measured.uses.as_ref().map_or(0.0, |uses| uses.stolen_ticks as f64 * 1e7 / uses.wall_ns.max(1) as f64);
    if stolen > 0.01 {
        found.push(format!("the hypervisor took {:.1} % of a CPU away meanwhile", stolen * 100.0));
    }
    if report.answered > 0 && report.answered < 1000 && measured.rows.len() > 1 {
        found.push(format!("only {} answers: high percentiles mean little", count(report.answered as f64)));
    }
    if report.answered == 0 {
        found.push("not one request was answered".to_owned());
    }
    found.extend(measured.complaints.iter().cloned());
    found
}

#[cfg(test)]
mod tests {
    use crate::report::Report;
    use crate::report::tests::{measured, report};

    #[test]
    fn a_missed_schedule_and_a_saturated_generator_are_told() {
        let warnings = report().warnings;
        assert_eq!(warnings.len(), 2, "{warnings:#?}");
        assert!(warnings[0].starts_with("the generator missed its schedule: 1 requests (0.10 %)"), "{}", warnings[0]);
        assert!(warnings[1].contains("busy 99 %") && warnings[1].contains("measures the generator"), "{}", warnings[1]);
    }

    #[test]
    fn a_good_run_has_none() {
        let mut measured = measured();
        measured.counts.late = 0;
        measured.uses.as_mut().unwrap().threads_ns = vec![5_000_000_000];
        assert_eq!(Report::new("good", Default::default(), 0.0, &measured).warnings, Vec::<String>::new());
    }
}

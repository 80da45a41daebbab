//! Rows, and what they come to: medians and ratios. [`super::table`] writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::system::System;
use super::work::{FIGURES, Layout, ONE_CORE, Work};
use crate::report::Report;
use crate::report::text::{bytes, count, micros};

/// Above this share of a CPU one is saturated.
const SATURATED: f64 = 0.97;
/// Late sends above this share spoil an open loop.
const LATE: f64 = 0.01;
/// A thread with more than this share of a two-core broker's work did it alone.
const ALONE: f64 = 0.8;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// With whom.
    pub system: String,
    /// At what.
    pub work: String,
    /// Which repetition, from 0.
    pub round: usize,
    /// Answers a second.
    pub rate: f64,
    /// Body bytes a second, both ways together.
    pub bytes_per_s: f64,
    /// Latencies in microseconds, by name.
    pub latency: BTreeMap<String, f64>,
    /// CPU time of the broker for each answer, in microseconds.
    pub cpu_us: f64,
    /// Its CPU as a share of one.
    pub broker_busy: f64,
    /// The load thread's CPU as a share of one.
    pub load_busy: f64,
    /// Resident memory of the broker at the end, in bytes.
    pub resident: u64,
    /// How much of that came during the run, in bytes.
    pub grown: u64,
    /// CPU time of the broker's busiest thread, as a share of that of all.
    #[serde(default)]
    pub busiest: f64,
    /// How long the broker's threads were ready to run while something else ran on their CPU, as a share of the time.
    #[serde(default)]
    pub broker_waited: f64,
    /// The same of the load thread that waited most.
    #[serde(default)]
    pub load_waited: f64,
    /// How late the generator sent, 99 % less than this; open loops only. In microseconds.
    #[serde(default)]
    pub late_p99: Option<f64>,
    /// Resident memory each idle connection took, in bytes.
    #[serde(default)]
    pub per_connection: Option<f64>,
    /// Descriptors that are open still, with all connections closed.
    #[serde(default)]
    pub files_left: Option<i64>,
    /// Requests that failed.
    pub failed: u64,
    /// Why it doesn't count, if it doesn't.
    pub invalid: Option<String>,
    /// The load was saturated before the broker: the broker could do more than this. The row is invalid but for its
    /// CPU per request and memory.
    pub load_bound: bool,
}

impl Row {
    /// A row without a number.
    pub(super) fn empty(system: System, work: &Work, round: usize) -> Row {
        Row {
            system: system.to_string(),
            work: work.name.to_owned(),
            round,
            rate: 0.0,
            bytes_per_s: 0.0,
            latency: BTreeMap::new(),
            cpu_us: 0.0,
            broker_busy: 0.0,
            load_busy: 0.0,
            resident: 0,
            grown: 0,
            busiest: 0.0,
            broker_waited: 0.0,
            load_waited: 0.0,
            late_p99: None,
            per_connection: None,
            files_left: None,
            failed: 0,
            invalid: None,
            load_bound: false,
        }
    }

    /// The numbers of a run.
    #[must_use]
    pub fn new(system: System, work: &Work, round: usize, report: &Report) -> Row {
        let broker = report.broker.unwrap_or_default();
        let most = |shares: &[f64]| shares.iter().copied().fold(0.0, f64::max);
        let mut row = Row {
            rate: report.rate,
            bytes_per_s: report.bytes_per_s.0 + report.bytes_per_s.1,
            latency: report.latency.at.clone(),
            cpu_us: broker.cpu_us_per_request,
            broker_busy: broker.busy,
            load_busy: most(&report.load_busy),
            resident: broker.resident,
            grown: broker.resident.saturating_sub(broker.resident_before),
            busiest: broker.busiest,
            broker_waited: broker.waited,
            load_waited: most(&report.load_waited),
            late_p99: report.schedule.map(|schedule| schedule.p99),
            failed: report.failed(),
            ..Row::empty(system, work, round)
        };
        row.judge(work.layout, report);
        row
    }

    fn judge(&mut self, layout: Layout, report: &Report) {
        self.invalid = self.why_invalid(report);
        if layout != Layout::One {
            // where the load has to share the broker's cores, its own saturation says nothing
            if self.invalid.is_none() && self.busiest > ALONE {
                self.invalid = Some(format!("one core did {:.0} % of the work", self.busiest * 100.0));
            }
            return;
        }
        self.load_bound = self.invalid.is_none() && self.load_busy > SATURATED && self.broker_busy < SATURATED;
        if self.load_bound {
            self.invalid = Some("the load was saturated before the broker".into());
        }
    }

    fn why_invalid(&self, report: &Report) -> Option<String> {
        if self.failed > 0 || report.answered == 0 {
            let first = report.errors.keys().next().or(report.warnings.first());
            return Some(format!("{} failed ({})", self.failed, first.map_or("no answer", String::as_str)));
        }
        let schedule = report.schedule?;
        if schedule.late as f64 > report.sent as f64 * LATE {
            return Some(format!("{} sends late by the load's own fault", schedule.late));
        }
        None
    }
}

/// The line above the rows.
#[must_use]
pub fn heading() -> String {
    format!(
        "{:<12} {:<14} {:>3} {:>12} {:>12} {:>9} {:>9} {:>9} {:>11} {:>7} {:>10} {:>10}",
        "work",
        "broker",
        "run",
        "answers/s",
        "bytes/s",
        "p50",
        "p99",
        "p99.9",
        "CPU/req",
        "broker",
        "load idle",
        "resident"
    )
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |name: &str| self.latency.get(name).map_or("-".to_owned(), |&us| micros(us));
        write!(
            f,
            "{:<12} {:<14} {:>3} {:>12} {:>12} {:>9} {:>9} {:>9} {:>11} {:>6.1}% {:>9.1}% {:>10}",
            self.work,
            self.system,
            self.round + 1,
            count(self.rate),
            bytes(self.bytes_per_s),
            at("p50"),
            at("p99"),
            at("p99.9"),
            micros(self.cpu_us),
            self.broker_busy * 100.0,
            (1.0 - self.load_busy).max(0.0) * 100.0,
            bytes(self.resident as f64),
        )?;
        if let Some(each) = self.per_connection {
            write!(f, "  {} a connection", bytes(each))?;
        }
        if let Some(left) = self.files_left {
            write!(f, "  left behind: {} of memory, {left} descriptors", bytes(self.grown as f64))?;
        }
        self.invalid.as_ref().map_or(Ok(()), |why| write!(f, "  INVALID: {why}"))
    }
}

/// What the valid rows of one system at one work come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Median {
    /// With whom.
    pub system: String,
    /// At what.
    pub work: String,
    /// How many rows counted.
    pub rows: usize,
    /// No row counted, for the load was saturated first: rates and latencies are of those rows, and the broker could
    /// do more.
    pub load_bound: bool,
    /// Medians, by the names of [`FIGURES`].
    pub of: BTreeMap<String, f64>,
    /// Medians of the paired ratios to the limit: each run by the limit's of the same repetition.
    pub to_limit: BTreeMap<String, f64>,
    /// The same, to NATS.
    pub to_nats: BTreeMap<String, f64>,
    /// Of a two-core work: the same, to this system on one core.
    #[serde(default)]
    pub to_one_core: BTreeMap<String, f64>,
}

/// The medians of each system at each work, in the order of the rows.
#[must_use]
pub fn medians(rows: &[Row]) -> Vec<Median> {
    let mut found: Vec<Median> = Vec::new();
    for row in rows {
        if found.iter().any(|median| median.system == row.system && median.work == row.work) {
            continue;
        }
        let (system, work) = (row.system.clone(), row.work.clone());
        let (mine, load_bound) = counting(rows, &system, &work);
        let of = FIGURES.iter().filter_map(|figure| {
            let values = mine.iter().filter_map(|row| (figure.of)(row));
            Some((figure.name.to_owned(), median(values.collect())?))
        });
        let of = of.collect();
        let to = |other: &str, at: &str| ratios(&mine, &counting(rows, other, at).0);
        let (to_limit, to_nats) = (to("limit", &work), to("nats", &work));
        let two_cores = Work::named(&work).is_ok_and(|work| work.layout != Layout::One);
        let to_one_core = if two_cores { to(&system, ONE_CORE) } else { BTreeMap::new() };
        found.push(Median {
            rows: if load_bound { 0 } else { mine.len() },
            system,
            work,
            load_bound,
            of,
            to_limit,
            to_nats,
            to_one_core,
        });
    }
    found
}

/// The rows that count; if there are none, those at which the load was saturated, which is said.
fn counting<'a>(rows: &'a [Row], system: &str, work: &str) -> (Vec<&'a Row>, bool) {
    let mine = rows.iter().filter(|row| row.system == system && row.work == work);
    let (valid, others): (Vec<_>, Vec<_>) = mine.partition(|row| row.invalid.is_none());
    let bound: Vec<_> = others.into_iter().filter(|row| row.load_bound).collect();
    if valid.is_empty() && !bound.is_empty() { (bound, true) } else { (valid, false) }
}

/// Medians of the ratios of runs of the same repetition.
fn ratios(rows: &[&Row], others: &[&Row]) -> BTreeMap<String, f64> {
    let pairs: Vec<_> =
        rows.iter().filter_map(|row| Some((*row, *others.iter().find(|other| other.round == row.round)?))).collect();
    let all = FIGURES.iter().filter(|figure| figure.has_ratio).filter_map(|figure| {
        let ratios = pairs.iter().filter_map(|(row, other)| Some((figure.of)(row)? / (figure.of)(other)?));
        Some((figure.name.to_owned(), median(ratios.filter(|ratio| ratio.is_finite()).collect())?))
    });
    all.collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(values[middle - 1].midpoint(values[middle])),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::compare) fn row(system: &str, work: &str, round: usize, (rate, load_busy): (f64, f64)) -> Row {
        let (system, work) = (system.parse().unwrap(), Work::named(work).unwrap());
        let mut row = Row {
            rate,
            latency: BTreeMap::from([("p50".to_owned(), 1e6 / rate)]),
            load_busy,
            bytes_per_s: rate * 128.0,
            cpu_us: 1e6 / rate,
            broker_busy: 0.9,
            resident: 1 << 20,
            busiest: 0.5,
            ..Row::empty(system, &work, round)
        };
        row.judge(work.layout, &Report { answered: 1, schedule: None, ..crate::report::tests::report() });
        row
    }

    fn small(system: &str, round: usize, rate: f64, load_busy: f64) -> Row {
        row(system, "64x1", round, (rate, load_busy))
    }

    #[test]
    fn medians_and_paired_ratios_leave_out_what_is_invalid() {
        let rows = [
            small("limit", 0, 100.0, 0.5),
            small("corelay", 0, 120.0, 0.5),
            small("limit", 1, 200.0, 0.5),
            small("corelay", 1, 220.0, 0.5),
            small("limit", 2, 300.0, 0.99),
            small("corelay", 2, 900.0, 0.5),
        ];
        assert_eq!(rows[4].invalid.as_deref(), Some("the load was saturated before the broker"));
        let medians = medians(&rows);
        assert_eq!((medians[0].rows, medians[0].of["rate"]), (2, 150.0));
        assert_eq!((medians[1].rows, medians[1].of["rate"]), (3, 220.0));
        assert!((medians[1].to_limit["rate"] - f64::midpoint(1.2, 1.1)).abs() < 1e-9);
        assert!(medians[1].to_nats.is_empty() && medians[1].to_one_core.is_empty());
    }

    #[test]
    fn a_limit_that_was_not_reached_is_a_bound() {
        let rows = [small("limit", 0, 400.0, 0.99), small("corelay", 0, 100.0, 0.5)];
        let medians = medians(&rows);
        assert_eq!((medians[0].load_bound, medians[0].rows, medians[1].to_limit["cpu_us"]), (true, 0, 4.0));
    }

    #[test]
    fn two_cores_are_compared_with_one_unless_one_did_it_all() {
        let one = row("corelay", ONE_CORE, 0, (100.0, 0.5));
        let two = row("corelay", "spread", 0, (200.0, 0.99));
        assert_eq!(two.invalid, None, "the load shares the broker's cores");
        let found = medians(&[one, two.clone()]);
        assert_eq!((found[1].to_one_core["cpu_us"], found[1].to_one_core["rate"]), (0.5, 2.0));
        let mut alone = Row { busiest: 0.97, ..two };
        alone.judge(
            Layout::Spread,
            &Report { schedule: None, errors: BTreeMap::new(), ..crate::report::tests::report() },
        );
        assert_eq!(alone.invalid.as_deref(), Some("one core did 97 % of the work"));
    }

    #[test]
    fn failures_make_a_row_invalid() {
        let mut row = small("nats", 0, 1.0, 0.1);
        row.failed = 2;
        let report = crate::report::tests::report();
        assert_eq!(row.why_invalid(&report).as_deref(), Some("2 failed (DEADLINE)"));
        assert!(row.to_string().starts_with("64x1         nats             1 "), "{row}");
    }
}

//! Rows, and what they come to: medians and ratios.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::system::System;
use super::work::Work;
use crate::report::Report;
use crate::report::text::{bytes, count, micros};

/// Above this share of a CPU one is saturated.
const SATURATED: f64 = 0.97;
/// Late sends above this share spoil an open loop.
const LATE: f64 = 0.01;

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
    /// Requests that failed.
    pub failed: u64,
    /// Why it doesn't count, if it doesn't.
    pub invalid: Option<String>,
    /// The load was saturated before the broker: the broker could do more than this. The row is invalid but for its
    /// CPU per request and memory.
    pub load_bound: bool,
}

impl Row {
    /// The numbers of a run.
    #[must_use]
    pub fn new(system: System, work: &Work, round: usize, report: &Report) -> Row {
        let broker = report.broker.unwrap_or_default();
        let mut row = Row {
            system: system.to_string(),
            work: work.name.to_owned(),
            round,
            rate: report.rate,
            bytes_per_s: report.bytes_per_s.0 + report.bytes_per_s.1,
            latency: report.latency.at.clone(),
            cpu_us: broker.cpu_us_per_request,
            broker_busy: broker.busy,
            load_busy: report.load_busy.iter().copied().fold(0.0, f64::max),
            resident: broker.resident,
            grown: broker.resident.saturating_sub(broker.resident_before),
            failed: report.failed(),
            invalid: None,
            load_bound: false,
        };
        row.judge(report);
        row
    }

    fn judge(&mut self, report: &Report) {
        self.invalid = self.why_invalid(report);
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

    fn at(&self, name: &str) -> f64 {
        self.latency.get(name).copied().unwrap_or(0.0)
    }
}

/// The line above the rows.
#[must_use]
pub fn heading() -> String {
    format!(
        "{:<9} {:<14} {:>3} {:>12} {:>12} {:>9} {:>9} {:>9} {:>11} {:>7} {:>10} {:>10}",
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
        write!(
            f,
            "{:<9} {:<14} {:>3} {:>12} {:>12} {:>9} {:>9} {:>9} {:>11} {:>6.1}% {:>9.1}% {:>10}",
            self.work,
            self.system,
            self.round + 1,
            count(self.rate),
            bytes(self.bytes_per_s),
            micros(self.at("p50")),
            micros(self.at("p99")),
            micros(self.at("p99.9")),
            micros(self.cpu_us),
            self.broker_busy * 100.0,
            (1.0 - self.load_busy).max(0.0) * 100.0,
            bytes(self.resident as f64),
        )?;
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
}

type Figure = fn(&Row) -> f64;

/// What is compared of each row. Microseconds, bytes, or a second.
pub const FIGURES: [(&str, Figure); 8] = [
    ("rate", |row| row.rate),
    ("bytes_per_s", |row| row.bytes_per_s),
    ("cpu_us", |row| row.cpu_us),
    ("p50", |row| row.at("p50")),
    ("p99", |row| row.at("p99")),
    ("p99.9", |row| row.at("p99.9")),
    ("resident", |row| row.resident as f64),
    ("grown", |row| row.grown as f64),
];

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
        let of = FIGURES.iter().filter_map(|(name, figure)| {
            Some(((*name).to_owned(), median(mine.iter().map(|row| figure(row)).collect())?))
        });
        let of = of.collect();
        let to = |other: &str| ratios(&mine, &counting(rows, other, &work).0);
        let (to_limit, to_nats) = (to("limit"), to("nats"));
        found.push(Median {
            rows: if load_bound { 0 } else { mine.len() },
            system,
            work,
            load_bound,
            of,
            to_limit,
            to_nats,
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
    let all = FIGURES.iter().filter_map(|(name, figure)| {
        let ratios = pairs.iter().map(|(row, other)| figure(row) / figure(other)).filter(|ratio| ratio.is_finite());
        Some(((*name).to_owned(), median(ratios.collect())?))
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

/// The medians as a table in Markdown.
#[must_use]
pub fn markdown(medians: &[Median]) -> String {
    let mut out = String::from(
        "| work | broker | runs | answers/s | bytes/s | CPU/request | p50 | p99 | p99.9 | rate : limit | rate : NATS | p50 : limit | CPU : limit |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for median in medians {
        let of =
            |name: &str, write: fn(f64) -> String| median.of.get(name).map_or("-".to_owned(), |&value| write(value));
        // a limit that was not reached makes a ratio to it too high
        let bound = |other: &str| medians.iter().any(|m| m.system == other && m.work == median.work && m.load_bound);
        let at_most = |other: &str| if bound(other) && median.system != other { "< " } else { "" };
        let ratio = |ratios: &BTreeMap<String, f64>, name: &str| {
            ratios.get(name).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        let cells = [
            median.work.clone(),
            median.system.clone(),
            median.rows.to_string(),
            format!("{}{}", if median.load_bound { "> " } else { "" }, of("rate", count)),
            of("bytes_per_s", bytes),
            of("cpu_us", micros),
            of("p50", micros),
            of("p99", micros),
            of("p99.9", micros),
            format!("{}{}", at_most("limit"), ratio(&median.to_limit, "rate")),
            format!("{}{}", at_most("nats"), ratio(&median.to_nats, "rate")),
            ratio(&median.to_limit, "p50"),
            ratio(&median.to_limit, "cpu_us"),
        ];
        // writing to a string can't fail
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(system: &str, round: usize, rate: f64, load_busy: f64) -> Row {
        let latency = BTreeMap::from([("p50".to_owned(), 1e6 / rate)]);
        let (work, system) = ("64x1".to_owned(), system.to_owned());
        let mut row = Row {
            system,
            work,
            round,
            rate,
            latency,
            load_busy,
            bytes_per_s: rate * 128.0,
            cpu_us: 1e6 / rate,
            broker_busy: 0.9,
            resident: 1 << 20,
            grown: 0,
            failed: 0,
            invalid: None,
            load_bound: false,
        };
        row.judge(&Report { answered: 1, schedule: None, ..crate::report::tests::report() });
        row
    }

    #[test]
    fn medians_and_paired_ratios_leave_out_what_is_invalid() {
        let rows = [
            row("limit", 0, 100.0, 0.5),
            row("corelay", 0, 120.0, 0.5),
            row("limit", 1, 200.0, 0.5),
            row("corelay", 1, 220.0, 0.5),
            row("limit", 2, 300.0, 0.99),
            row("corelay", 2, 900.0, 0.5),
        ];
        assert_eq!(rows[4].invalid.as_deref(), Some("the load was saturated before the broker"));
        let medians = medians(&rows);
        assert_eq!((medians[0].rows, medians[0].of["rate"]), (2, 150.0));
        assert_eq!((medians[1].rows, medians[1].of["rate"]), (3, 220.0));
        assert!((medians[1].to_limit["rate"] - f64::midpoint(1.2, 1.1)).abs() < 1e-9);
        assert!(medians[1].to_nats.is_empty());
        let table = markdown(&medians);
        assert!(table.ends_with("| 64x1 | corelay | 3 | 220 | 27.5 KiB | 4.55 ms | 4.55 ms | 0.00 us | 0.00 us | 1.15 | - | 0.87 | 0.87 |\n"), "{table}");
    }

    #[test]
    fn a_limit_that_was_not_reached_is_a_bound() {
        let rows = [row("limit", 0, 400.0, 0.99), row("corelay", 0, 100.0, 0.5)];
        let medians = medians(&rows);
        assert_eq!((medians[0].load_bound, medians[0].rows, medians[1].to_limit["cpu_us"]), (true, 0, 4.0));
        let table = markdown(&medians);
        assert!(table.contains("| 64x1 | limit | 0 | > 400 |") && table.contains("| < 0.25 | - |"), "{table}");
    }

    #[test]
    fn failures_make_a_row_invalid() {
        let mut row = row("nats", 0, 1.0, 0.1);
        row.failed = 2;
        let report = crate::report::tests::report();
        assert_eq!(row.why_invalid(&report).as_deref(), Some("2 failed (DEADLINE)"));
        assert!(row.to_string().starts_with("64x1      nats             1 "), "{row}");
    }
}

//! What is told of a run: the numbers, and the ways they are written.

mod chart;
pub mod files;
pub mod html;
pub mod table;
pub mod text;
mod warn;

use std::collections::BTreeMap;

pub(crate) use warn::SATURATED;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corelay::protocol::Code;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::measure::{Measured, Uses};
use crate::proc::Usage;

/// The quantiles a report names.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// A run's numbers, as they are written to and read from JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What people call it.
    pub name: String,
    /// What was run, option by option.
    pub options: BTreeMap<String, String>,
    /// Kernel and CPU.
    pub machine: String,
    /// When it began, in seconds since 1970.
    pub began: f64,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Requests begun.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests that failed, by the name of the reason.
    pub errors: BTreeMap<String, u64>,
    /// Answers a second, of those that came in time.
    pub rate: f64,
    /// Body bytes a second, of requests and of answers.
    pub bytes_per_s: (f64, f64),
    /// From the intended send to the answer.
    pub latency: Latency,
    /// From the actual send; missing in a closed loop, where it is the same.
    pub uncorrected: Option<Latency>,
    /// How late sends were; missing in a closed loop.
    pub schedule: Option<Schedule>,
    /// CPU of each load thread as a share of one, without what it spent looking for work.
    pub load_busy: Vec<f64>,
    /// How long each load thread was ready to run while something else ran on its CPU, as a share of the time.
    #[serde(default)]
    pub load_waited: Vec<f64>,
    /// The broker's use of the machine, if it was watched.
    pub broker: Option<Broker>,
    /// What makes the numbers doubtful.
    pub warnings: Vec<String>,
    /// How it went over time.
    pub intervals: Vec<Interval>,
}

/// A distribution of latencies, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// By the names of [`QUANTILES`], and `max`.
    pub at: BTreeMap<String, f64>,
    /// The whole histogram of nanoseconds: HdrHistogram's V2 with deflate, in base64.
    pub histogram: String,
}

/// How well the schedule of an open loop was kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Requests sent more than 1 ms late by the generator's own fault.
    pub late: u64,
    /// Requests sent late because all places were taken: the other side was slow.
    pub held: u64,
    /// Requests not sent at all.
    pub unsent: u64,
    /// How late, in microseconds: median.
    pub p50: f64,
    /// 99 % were less late than this, in microseconds.
    pub p99: f64,
    /// The latest, in microseconds.
    pub max: f64,
}

/// What the broker used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// CPU time for each answered request, in microseconds.
    pub cpu_us_per_request: f64,
    /// CPU time as a share of one CPU.
    pub busy: f64,
    /// Resident memory at the end, in bytes.
    pub resident: u64,
    /// Resident memory when measuring began, in bytes.
    pub resident_before: u64,
    /// Context switches a second, its own will or not; an admin address doesn't tell.
    pub switches_per_s: Option<f64>,
    /// How long its threads were ready to run while something else ran on their CPU, as a share of the time.
    #[serde(default)]
    pub waited: f64,
    /// CPU time of its busiest thread, as a share of that of all.
    #[serde(default)]
    pub busiest: f64,
    /// Requests it counted meanwhile, of whomever; only an admin address tells.
    #[serde(default)]
    pub requests: Option<u64>,
}

/// A stretch of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its beginning, in seconds from the start of measuring.
    pub at: f64,
    /// Its length, in seconds.
    #[serde(default)]
    pub seconds: f64,
    /// Answers a second.
    pub rate: f64,
    /// Requests that failed.
    pub errors: u64,
    /// Latencies in microseconds: p50, p90, p99, p99.9, max.
    pub latency: [f64; 5],
}

impl Report {
    /// The numbers of `measured`.
    #[must_use]
    pub fn new(name: &str, options: BTreeMap<String, String>, began: f64, measured: &Measured) -> Report {
        let counts = &measured.counts;
        let seconds = measured.measured_ns as f64 / 1e9;
        let each_second = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let in_time = counts.answered - measured.drained.answered;
        let open = !measured.lateness.is_empty() || counts.unsent > 0;
        let mut report = Report {
            name: name.to_owned(),
            options,
            machine: crate::proc::machine(),
            began,
            seconds,
            sent: counts.sent,
            answered: counts.answered,
            errors: errors(measured),
            rate: each_second(in_time),
            bytes_per_s: (
                each_second(counts.bytes_up - measured.drained.bytes_up),
                each_second(counts.bytes_down - measured.drained.bytes_down),
            ),
            latency: Latency::new(&measured.latency),
            uncorrected: open.then(|| Latency::new(&measured.uncorrected)),
            schedule: open.then(|| schedule(measured)),
            load_busy: measured.uses.as_ref().map(|uses| load_busy(uses, counts.spun)).unwrap_or_default(),
            load_waited: measured.uses.as_ref().map(load_waited).unwrap_or_default(),
            broker: measured.uses.as_ref().and_then(|uses| broker(uses, in_time)),
            warnings: Vec::new(),
            intervals: measured.rows.iter().map(Interval::new).collect(),
        };
        report.warnings = warn::warnings(&report, measured);
        report
    }

    /// The requests that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn errors(measured: &Measured) -> BTreeMap<String, u64> {
    let counts = &measured.counts;
    let codes = counts.failed.iter().enumerate().map(|(wire, &n)| {
        let name = Code::from_wire(wire as u16).map_or_else(|| format!("code {wire}"), |code| code.name().to_owned());
        (name, n)
    });
    let others = [("connection lost", counts.cut), ("no answer", counts.lost)];
    let others = others.into_iter().map(|(name, n)| (name.to_owned(), n));
    codes.chain(others).filter(|(_, n)| *n > 0).collect()
}

fn schedule(measured: &Measured) -> Schedule {
    let (counts, lateness) = (&measured.counts, &measured.lateness);
    Schedule {
        late: counts.late,
        held: counts.held,
        unsent: counts.unsent,
        p50: micros(lateness.value_at_quantile(0.5)),
        p99: micros(lateness.value_at_quantile(0.99)),
        max: micros(lateness.max()),
    }
}

fn load_busy(uses: &Uses, spun: u64) -> Vec<f64> {
    let spun = spun / uses.threads_ns.len().max(1) as u64;
    let wall = uses.wall_ns.max(1) as f64;
    uses.threads_ns.iter().map(|&cpu| cpu.saturating_sub(spun) as f64 / wall).collect()
}

fn load_waited(uses: &Uses) -> Vec<f64> {
    uses.threads_waited_ns.iter().map(|&waited| waited as f64 / uses.wall_ns.max(1) as f64).collect()
}

fn broker(uses: &Uses, answered: u64) -> Option<Broker> {
    let (before, after) = uses.broker?;
    let wall = uses.wall_ns.max(1) as f64;
    let cpu = after.cpu_ns.saturating_sub(before.cpu_ns) as f64;
    let switches = |usage: Usage| usage.voluntary + usage.involuntary;
    let switched = switches(after).saturating_sub(switches(before)) as f64 / (wall / 1e9);
    Some(Broker {
        cpu_us_per_request: if answered > 0 { cpu / 1e3 / answered as f64 } else { 0.0 },
        busy: cpu / wall,
        resident: after.resident,
        resident_before: before.resident,
        switches_per_s: after.requests.is_none().then_some(switched),
        waited: after.waited_ns.saturating_sub(before.waited_ns) as f64 / wall,
        busiest: after.busiest_ns.saturating_sub(before.busiest_ns) as f64 / cpu.max(1.0),
        requests: after.requests.zip(before.requests).map(|(after, before)| after.saturating_sub(before)),
    })
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

impl Latency {
    /// The distribution of a histogram of nanoseconds.
    #[must_use]
    pub fn new(histogram: &Histogram<u64>) -> Latency {
        let named = QUANTILES.iter().map(|&(name, quantile)| (name.to_owned(), histogram.value_at_quantile(quantile)));
        let at = named.chain([("max".to_owned(), histogram.max())]).map(|(name, ns)| (name, micros(ns))).collect();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("a vector takes all bytes");
        Latency { mean: histogram.mean() / 1e3, at, histogram: STANDARD.encode(bytes) }
    }

    /// The latency at a name of [`QUANTILES`], or `max`, in microseconds.
    #[must_use]
    pub fn get(&self, name: &str) -> f64 {
        self.at.get(name).copied().unwrap_or(0.0)
    }

    /// The histogram of nanoseconds; `None` if what was read is none.
    #[must_use]
    pub fn to_histogram(&self) -> Option<Histogram<u64>> {
        let bytes = STANDARD.decode(&self.histogram).ok()?;
        Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
    }
}

impl Interval {
    /// Where it is drawn, in seconds from the start of measuring.
    fn middle(&self) -> f64 {
        self.at + self.seconds / 2.0
    }

    fn new(row: &crate::measure::Row) -> Interval {
        Interval {
            at: row.at,
            seconds: row.seconds,
            rate: row.answered as f64 / row.seconds.max(1e-9),
            errors: row.errors,
            latency: row.latency.map(micros),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine;
    use crate::measure::Measured;
    use std::time::Duration;

    /// Ten seconds, 1,000 answers of 1 to 1,000 ms, two failures, one late send.
    pub(crate) fn measured() -> Measured {
        let mut measured = Measured::new(&crate::run::tests::plan(Duration::from_secs(10)));
        let mut interval = engine::Interval::new();
        (interval.measured, interval.to) = (true, 10_000_000_000);
        let mut whole = engine::Whole { uncorrected: engine::new_histogram(), lateness: engine::new_histogram() };
        for n in 1..=1000_u64 {
            interval.latency.record(n * 1_000_000).unwrap();
            whole.uncorrected.record(n * 500_000).unwrap();
            whole.lateness.record(n * 1_000).unwrap();
        }
        interval.whole = Some(Box::new(whole));
        let counts = &mut interval.counts;
        (counts.sent, counts.answered, counts.bytes_up, counts.bytes_down) = (1002, 1000, 64_000, 128_000);
        (counts.failed[2], counts.lost, counts.late) = (1, 1, 1);
        assert!(measured.add(&interval, 1).is_some());
        let after = Usage {
            cpu_ns: 2_000_000_000,
            resident: 1 << 20,
            peak: 1 << 20,
            voluntary: 90,
            involuntary: 10,
            ..Usage::default()
        };
        let broker = Some((Usage { resident: 1 << 19, ..Usage::default() }, after));
        let threads_ns = vec![9_900_000_000];
        let threads_waited_ns = vec![50_000_000];
        measured.uses = Some(Uses { wall_ns: 10_000_000_000, threads_ns, threads_waited_ns, broker, stolen_ticks: 0 });
        measured
    }

    pub(crate) fn report() -> Report {
        let options = BTreeMap::from([("rate".to_owned(), "100".to_owned())]);
        let mut report = Report::new("golden", options, 1.5, &measured());
        report.machine = "a machine".to_owned();
        report
    }

    #[test]
    fn the_numbers_are_right() {
        let report = report();
        assert_eq!((report.rate, report.bytes_per_s), (100.0, (6400.0, 12800.0)));
        assert_eq!(report.errors, BTreeMap::from([("DEADLINE".to_owned(), 1), ("no answer".to_owned(), 1)]));
        let close = |name: &str, ms: f64| {
            let got = report.latency.get(name) / 1000.0;
            assert!((got - ms).abs() < ms * 0.002, "{name} is {got} ms, not {ms}");
        };
        close("p50", 500.0);
        close("p99", 990.0);
        close("p99.9", 999.0);
        close("max", 1000.0);
        assert!((report.latency.mean / 1000.0 - 500.5).abs() < 1.0);
        let broker = report.broker.unwrap();
        assert_eq!((broker.cpu_us_per_request, broker.busy, broker.switches_per_s), (2000.0, 0.2, Some(10.0)));
        assert_eq!((report.load_busy.as_slice(), report.load_waited.as_slice()), (&[0.99][..], &[0.005][..]));
        assert_eq!(report.schedule.unwrap().late, 1);
    }

    #[test]
    fn json_keeps_everything() {
        let report = report();
        let text = serde_json::to_string(&report).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back, report);
        assert_eq!(back.latency.to_histogram().unwrap(), measured().latency);
    }
}

//! The works a comparison is made of.

use super::result::Row;
use crate::engine::Mode;
use crate::report::text::{bytes, count, micros};
use crate::schedule::Arrivals;
use crate::size::Size;

/// A kind of load, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Its name, for `--work`.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// What is done to the broker.
    pub kind: Kind,
    /// How many cores the broker has, and how its channels lie on them.
    pub layout: Layout,
    /// The figures it is judged by: what the table shows.
    pub judged_by: &'static [Figure],
    /// Consumer connections.
    pub consumers: usize,
    /// Provider connections; the limit pairs each consumer with one of its own instead.
    pub providers: usize,
    /// Requests each consumer keeps in flight (closed loop).
    pub in_flight: u32,
    /// Requests a second (open loop).
    pub rate: Option<f64>,
    /// Request bodies.
    pub size: Size,
    /// Answers.
    pub response: Size,
    /// It ends with so many answers, however long that takes.
    pub requests: Option<u64>,
}

/// What is done to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Requests are sent.
    Requests,
    /// So many consumers connect, and do nothing.
    Idle(usize),
    /// So many consumers connect and close, one after the other.
    Churn(usize),
}

/// The broker's cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One core.
    One,
    /// Two cores, and two channels: one on each.
    TwoChannels,
    /// Two cores, and one channel spread over both.
    Spread,
}

/// What of a row is shown and compared.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its name for people.
    pub about: &'static str,
    /// Where it is.
    pub of: fn(&Row) -> Option<f64>,
    /// How it is written.
    pub write: fn(f64) -> String,
    /// Whether a ratio says anything.
    pub has_ratio: bool,
}

// `of` and `write` are told by the name
impl PartialEq for Figure {
    fn eq(&self, other: &Figure) -> bool {
        self.name == other.name
    }
}

impl Figure {
    const fn new(
        name: &'static str,
        about: &'static str,
        of: fn(&Row) -> Option<f64>,
        write: fn(f64) -> String,
    ) -> Figure {
        Figure { name, about, of, write, has_ratio: true }
    }
}

/// Requests a second, or connects a second.
const RATE: Figure = Figure::new("rate", "requests/s", |row| Some(row.rate), count);
const CONNECTS: Figure = Figure { about: "connects/s", ..RATE };
const BYTES: Figure = Figure::new("bytes_per_s", "bytes/s", |row| Some(row.bytes_per_s), |b| format!("{}/s", bytes(b)));
const CPU: Figure = Figure::new("cpu_us", "broker CPU a request", |row| Some(row.cpu_us), micros);
const P50: Figure = Figure::new("p50", "p50", |row| row.latency.get("p50").copied(), micros);
const P99: Figure = Figure::new("p99", "p99", |row| row.latency.get("p99").copied(), micros);
const P999: Figure = Figure::new("p99.9", "p99.9", |row| row.latency.get("p99.9").copied(), micros);
const RESIDENT: Figure = Figure::new("resident", "resident", |row| Some(row.resident as f64), bytes);
const GROWN: Figure =
    Figure { has_ratio: false, ..Figure::new("grown", "memory left behind", |row| Some(row.grown as f64), bytes) };
const EACH: Figure = Figure::new("per_connection", "resident each", |row| row.per_connection, bytes);
const FILES: Figure = Figure {
    has_ratio: false,
    ..Figure::new("files_left", "descriptors left", |row| row.files_left.map(|n| n as f64), count)
};

/// All figures, as they stand in JSON.
pub const FIGURES: [Figure; 10] = [RATE, BYTES, CPU, P50, P99, P999, RESIDENT, GROWN, EACH, FILES];

/// The work that two-core works are compared with.
pub const ONE_CORE: &str = "16x64";

impl Work {
    /// All there are, in the order of the goals.
    #[must_use]
    pub fn all() -> Vec<Work> {
        let mut all = on_one_core();
        all.extend(on_two_cores());
        all.extend(connections());
        all
    }

    /// The one of this name.
    ///
    /// # Errors
    /// The names there are.
    pub fn named(name: &str) -> Result<Work, String> {
        let all = Work::all();
        let names: Vec<_> = all.iter().map(|work| work.name).collect();
        let expected = format!("expected one of {}", names.join(", "));
        all.into_iter().find(|work| work.name == name).ok_or(expected)
    }

    /// How requests are begun.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.rate.map_or(Mode::Closed, |rate| Mode::Open { rate, arrivals: Arrivals::Even })
    }

    /// Its place in a table: what it is, and what the columns show of it.
    #[must_use]
    pub fn title(&self) -> String {
        let figures: Vec<_> = self.judged_by.iter().map(|figure| figure.about).collect();
        format!("{}: {}", self.about, figures.join("; "))
    }
}

/// Small requests in a closed loop.
fn small(name: &'static str, about: &'static str, (consumers, providers, in_flight): (usize, usize, u32)) -> Work {
    Work {
        name,
        about,
        kind: Kind::Requests,
        layout: Layout::One,
        judged_by: &[RATE],
        consumers,
        providers,
        in_flight,
        rate: None,
        size: Size::Fixed(64),
        response: Size::Fixed(64),
        requests: None,
    }
}

fn on_one_core() -> Vec<Work> {
    let large = Size::Fixed(64 << 10);
    vec![
        Work { judged_by: &[P50, CPU], ..small("1x1", "1 consumer, 1 in flight", (1, 1, 1)) },
        small("64x1", "64 consumers, 4 providers, 1 in flight each", (64, 4, 1)),
        small(ONE_CORE, "16 consumers x 64 in flight, 4 providers", (16, 4, 64)),
        small("1000x1", "1,000 consumers, 8 providers, 1 in flight each", (1000, 8, 1)),
        Work {
            size: large.clone(),
            response: large,
            ..small("64k", "8 consumers x 4 in flight, 4 providers, 64 KiB each way", (8, 4, 4))
        },
        Work {
            rate: Some(30_000.0),
            judged_by: &[P99, P999],
            ..small("open30k", "open loop at 30,000/s, 64 consumers, 4 providers", (64, 4, 1024))
        },
        Work {
            size: Size::Fixed(1 << 30),
            response: Size::Fixed(0),
            requests: Some(1),
            judged_by: &[BYTES],
            ..small("stream1g", "one request of 1 GiB streamed, the provider discards it", (1, 1, 1))
        },
    ]
}

/// Twice the load of [`ONE_CORE`], for twice the cores.
fn on_two_cores() -> Vec<Work> {
    let two = |name, about, layout| {
        let judged_by = &[CPU, RATE];
        Work { layout, judged_by, ..small(name, about, (32, 8, 64)) }
    };
    vec![
        two(
            "two-channels",
            "two cores, a channel on each, 32 consumers x 64 in flight, 8 providers",
            Layout::TwoChannels,
        ),
        two("spread", "two cores, one channel spread over both, 32 x 64 in flight, 8 providers", Layout::Spread),
    ]
}

fn connections() -> Vec<Work> {
    let none = |name, about, kind| Work { kind, ..small(name, about, (0, 0, 1)) };
    vec![
        Work { judged_by: &[EACH], ..none("idle10k", "10,000 idle connections", Kind::Idle(10_000)) },
        Work {
            judged_by: &[GROWN, FILES, CONNECTS],
            ..none("churn", "100,000 connects and closes", Kind::Churn(100_000))
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_work_and_figures_their_names() {
        for work in Work::all() {
            assert_eq!(Work::named(work.name), Ok(work.clone()));
            assert!(work.judged_by.iter().all(|figure| FIGURES.contains(figure)), "{}", work.name);
        }
        let told = Work::named("2x2").unwrap_err();
        assert!(told.contains("16x64") && told.contains("two-channels") && told.contains("churn"), "{told}");
        let first = &Work::all()[0];
        assert_eq!(first.title(), "1 consumer, 1 in flight: p50; broker CPU a request");
    }
}

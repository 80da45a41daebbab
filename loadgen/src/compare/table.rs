//! A comparison as it is kept and shown: everything as JSON, all medians for the terminal, the README's table.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::result::{Median, Row};
use super::system::System;
use super::work::{Figure, Layout, Work};
use crate::report::text::{bytes, count, micros};

/// A whole comparison, with what is needed to read it and to do it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Kernel, number of CPUs and their model.
    pub machine: String,
    /// When it began, RFC 3339 in UTC.
    pub date: String,
    /// The command.
    pub command: String,
    /// Versions of the brokers, by system, where they tell.
    pub versions: BTreeMap<String, String>,
    /// How often each was run.
    pub repeat: usize,
    /// How long each run was measured, in seconds.
    pub seconds: f64,
    /// Every run.
    pub rows: Vec<Row>,
    /// What they come to.
    pub medians: Vec<Median>,
}

/// All medians as a table in Markdown, a line for each broker and work.
#[must_use]
pub fn overview(medians: &[Median]) -> String {
    let mut out = String::from(
        "| work | broker | runs | answers/s | bytes/s | CPU/request | p50 | p99 | p99.9 | rate : limit | rate : NATS | p50 : limit | CPU : limit | CPU : one core |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for median in medians {
        let of =
            |name: &str, write: fn(f64) -> String| median.of.get(name).map_or("-".to_owned(), |&value| write(value));
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
            format!("{}{}", at_most(medians, median, System::Limit), ratio(&median.to_limit, "rate")),
            format!("{}{}", at_most(medians, median, System::Nats), ratio(&median.to_nats, "rate")),
            ratio(&median.to_limit, "p50"),
            ratio(&median.to_limit, "cpu_us"),
            ratio(&median.to_one_core, "cpu_us"),
        ];
        // writing to a string can't fail
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

fn ratio(ratios: &BTreeMap<String, f64>, name: &str) -> String {
    ratios.get(name).map_or("-".to_owned(), |&ratio| share(ratio))
}

/// A ratio: two digits behind the point below 2, one below 100.
fn share(ratio: f64) -> String {
    match ratio {
        r if r < 1.995 => format!("{r:.2}"),
        r if r < 99.95 => format!("{r:.1}"),
        r => count(r),
    }
}

/// A rate that was not reached for the load's sake makes a ratio to it too high.
fn at_most(medians: &[Median], median: &Median, other: System) -> &'static str {
    let bound = |m: &Median| m.system == other.to_string() && m.work == median.work && m.load_bound;
    if medians.iter().any(bound) && median.system != other.to_string() { "< " } else { "" }
}

/// The README's table, with the sentence and the command above it.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let Comparison { machine, date, command, repeat, seconds, .. } = comparison;
    let day = date.split('T').next().unwrap_or(date);
    let runs = match repeat {
        1 => "one run".to_owned(),
        n => format!("medians of {n} runs in alternating order"),
    };
    let mut out = format!("{machine}, {day}, {runs}, {seconds} s each:\n\n```sh\n{command}\n```\n\n");
    out.push_str(&table(comparison));
    let bound = comparison.medians.iter().any(|median| median.load_bound);
    if bound {
        out.push_str("\n\">\" and \"<\": the load core was saturated before the broker was.\n");
    }
    out
}

/// The table alone.
#[must_use]
pub fn table(comparison: &Comparison) -> String {
    let nats = comparison.versions.get("nats").map_or("NATS".to_owned(), |version| format!("NATS {version}"));
    let mut out =
        format!("| work | limit | corelay | {nats} | corelay : limit | corelay : NATS |\n|---|---|---|---|---|---|\n");
    let mut seen = Vec::new();
    for row in &comparison.rows {
        if seen.contains(&&row.work) {
            continue;
        }
        seen.push(&row.work);
        if let Ok(work) = Work::named(&row.work) {
            let spins = comparison
                .rows
                .iter()
                .any(|other| other.work == row.work && other.system == System::CorelaySpin.to_string());
            for system in std::iter::once(System::Corelay).chain(spins.then_some(System::CorelaySpin)) {
                // writing to a string can't fail
                let _ = writeln!(out, "| {} |", line(&work, &comparison.medians, system).join(" | "));
            }
        }
    }
    out
}

fn line(work: &Work, medians: &[Median], ours: System) -> Vec<String> {
    let of = |system: System| medians.iter().find(|m| m.work == work.name && m.system == system.to_string());
    let corelay = of(ours);
    let ratios = |other: System, ratios: fn(&Median) -> &BTreeMap<String, f64>| {
        let Some(median) = corelay else { return "-".to_owned() };
        let bound = at_most(medians, median, other);
        let all = work.judged_by.iter().filter_map(|figure| ratios(median).get(figure.name));
        joined(all.map(|&ratio| format!("{bound}{}", share(ratio))))
    };
    vec![
        work.title() + if ours == System::CorelaySpin { "; corelay with `--spin-us`" } else { "" },
        of(System::Limit).map_or("-".to_owned(), |median| cell(work, median)),
        corelay.map_or("-".to_owned(), |median| cell(work, median)),
        of(System::Nats).map_or("-".to_owned(), |median| cell(work, median)),
        ratios(System::Limit, |median| &median.to_limit),
        ratios(System::Nats, |median| &median.to_nats),
    ]
}

/// What one broker came to at what the work is judged by.
fn cell(work: &Work, median: &Median) -> String {
    let written = |figure: &Figure| {
        let value = (figure.write)(*median.of.get(figure.name)?);
        let bound = if median.load_bound && figure.name == "rate" { "> " } else { "" };
        let to_one = median.to_one_core.get(figure.name).filter(|_| work.layout != Layout::One);
        let to_one = to_one.map_or(String::new(), |&ratio| format!(" ({} x one core's)", share(ratio)));
        Some(format!("{bound}{value}{to_one}"))
    };
    joined(work.judged_by.iter().filter_map(written))
}

fn joined(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<_> = cells.collect();
    if cells.is_empty() { "-".to_owned() } else { cells.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::super::result::medians;
    use super::super::result::tests::row;
    use super::*;

    fn comparison(rows: Vec<Row>) -> Comparison {
        Comparison {
            machine: "Linux 6.18, 2 x CPU".into(),
            date: "2026-11-21T10:00:00Z".into(),
            command: "loadgen compare --repeat 3 -d 2s".into(),
            versions: BTreeMap::from([("nats".into(), "2.15.1".into())]),
            repeat: 3,
            seconds: 2.0,
            medians: medians(&rows),
            rows,
        }
    }

    #[test]
    fn the_table_is_the_readmes() {
        let rows = vec![
            row("limit", "1x1", 0, (8000.0, 0.5)),
            row("corelay", "1x1", 0, (10_000.0, 0.5)),
            row("nats", "1x1", 0, (5000.0, 0.5)),
            row("limit", "16x64", 0, (400.0, 0.99)),
            row("corelay", "16x64", 0, (100.0, 0.5)),
            row("corelay", "spread", 0, (180.0, 0.99)),
            Row { per_connection: Some(900.0), ..row("corelay", "idle10k", 0, (1.0, 0.0)) },
            row("corelay-spin", "1x1", 0, (20_000.0, 0.5)),
        ];
        let expected = "\
Linux 6.18, 2 x CPU, 2026-11-21, medians of 3 runs in alternating order, 2 s each:

```sh
loadgen compare --repeat 3 -d 2s
```

| work | limit | corelay | NATS 2.15.1 | corelay : limit | corelay : NATS |
|---|---|---|---|---|---|
| 1 consumer, 1 in flight: p50; broker CPU a request | 125 us; 125 us | 100 us; 100 us | 200 us; 200 us | 0.80; 0.80 | 0.50; 0.50 |
| 1 consumer, 1 in flight: p50; broker CPU a request; corelay with `--spin-us` | 125 us; 125 us | 50.0 us; 50.0 us | 200 us; 200 us | 0.40; 0.40 | 0.25; 0.25 |
| 16 consumers x 64 in flight, 4 providers: requests/s | > 400 | 100 | - | < 0.25 | - |
| two cores, one channel spread over both, 32 x 64 in flight, 8 providers: broker CPU a request; requests/s | - | 5.56 ms (0.56 x one core's); 180 (1.80 x one core's) | - | - | - |
| 10,000 idle connections: resident each | - | 900 B | - | - | - |

\">\" and \"<\": the load core was saturated before the broker was.
";
        assert_eq!(markdown(&comparison(rows)), expected);
    }

    #[test]
    fn the_overview_has_a_line_for_each_broker() {
        let rows = vec![row("limit", "64x1", 0, (400.0, 0.99)), row("corelay", "64x1", 0, (100.0, 0.5))];
        let told = overview(&medians(&rows));
        assert!(told.contains("| 64x1 | limit | 0 | > 400 |") && told.contains("| < 0.25 | - |"), "{told}");
    }

    #[test]
    fn json_keeps_everything() {
        let all = comparison(vec![row("corelay", "64x1", 0, (100.0, 0.5))]);
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), all);
    }
}

//! One page with nothing outside of it: percentile curve and latency over time, of one run or several.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use super::chart::{Axis, Series, escape, svg};
use super::text::{bytes, count, micros};
use super::{Latency, QUANTILES, Report};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
#[must_use]
pub fn page(reports: &[Report]) -> String {
    let title = match reports {
        [one] => one.name.clone(),
        many => format!("{} runs compared", many.len()),
    };
    let title = escape(&title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    // writing to a string can't fail
    let _ = body(&mut out, reports);
    out.push_str(&format!("{}\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n", island(reports)));
    out
}

const ISLAND: (&str, &str) = (r#"<script type="application/json" id="reports">"#, "</script>");

/// All numbers, for programs: the page can be given to `loadgen report` again.
fn island(reports: &[Report]) -> String {
    let json = serde_json::to_string(reports).expect("numbers and texts");
    // in a script element only its end tag, and what opens a comment, mean anything; both begin with <
    format!("{}{}{}", ISLAND.0, json.replace('<', "\\u003c"), ISLAND.1)
}

/// The reports a page was made of; `None` if it is no such page.
#[must_use]
pub fn read(page: &str) -> Option<Vec<Report>> {
    let (_, rest) = page.split_once(ISLAND.0)?;
    let (json, _) = rest.split_once(ISLAND.1)?;
    serde_json::from_str(json).ok()
}

fn body(out: &mut String, reports: &[Report]) -> std::fmt::Result {
    summary(out, reports)?;
    for (name, report) in short_names(reports).iter().zip(reports) {
        let name = if name.is_empty() { String::new() } else { format!("<strong>{}</strong>: ", escape(name)) };
        for warning in &report.warnings {
            writeln!(out, r#"<p class="warning">{name}{}</p>"#, escape(warning))?;
        }
    }
    writeln!(out, "<h2>Latency by percentile</h2>")?;
    let curves = curves(reports);
    legend(out, &curves)?;
    out.push_str(&percentiles(&curves));
    writeln!(out, "<h2>Latency over time</h2>")?;
    let lines = over_time(reports);
    legend(out, &lines)?;
    out.push_str(&times("latency", reports, &lines, |low, high| Axis::logarithmic("latency", low, high, micros)));
    writeln!(out, "<h2>Answers a second over time</h2>")?;
    let rates = rates(reports);
    legend(out, &rates)?;
    out.push_str(&times("rate", reports, &rates, |_, high| Axis::linear("answers/s", high, count)));
    options(out, reports)
}

fn summary(out: &mut String, reports: &[Report]) -> std::fmt::Result {
    let names = short_names(reports);
    let run = if reports.len() == 1 { "" } else { "<th>run</th>" };
    writeln!(out, "<table>\n<thead><tr>{run}<th>answers/s</th><th>bytes/s</th>")?;
    for name in QUANTILES.iter().map(|(name, _)| *name).chain(["max"]) {
        writeln!(out, "<th>{name}</th>")?;
    }
    writeln!(out, "<th>errors</th><th>CPU/request</th><th>memory</th><th>load CPU</th></tr></thead>\n<tbody>")?;
    for (n, report) in reports.iter().enumerate() {
        // both ways together: a comparison has no room for each
        let bytes_per_s = bytes(report.bytes_per_s.0 + report.bytes_per_s.1);
        write!(out, "<tr>")?;
        if !names[n].is_empty() {
            write!(out, r#"<th scope="row"><span class="key c{}"></span>{}</th>"#, n % 8, escape(&names[n]))?;
        }
        write!(out, "<td>{}</td><td>{bytes_per_s}</td>", count(report.rate))?;
        for name in QUANTILES.iter().map(|(name, _)| *name).chain(["max"]) {
            write!(out, "<td>{}</td>", micros(report.latency.get(name)))?;
        }
        let errors: Vec<_> = report.errors.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let errors = if errors.is_empty() { "none".to_owned() } else { escape(&errors.join(", ")) };
        let cpu = report.broker.map_or("-".to_owned(), |broker| micros(broker.cpu_us_per_request));
        let busy: Vec<_> = report.load_busy.iter().map(|busy| format!("{:.0} %", busy * 100.0)).collect();
        let memory = report.broker.map_or("-".to_owned(), |broker| bytes(broker.resident as f64));
        writeln!(out, "<td>{errors}</td><td>{cpu}</td><td>{memory}</td><td>{}</td></tr>", busy.join(", "))?;
    }
    writeln!(out, "</tbody>\n</table>")
}

fn legend(out: &mut String, series: &[Series]) -> std::fmt::Result {
    writeln!(out, r#"<p class="legend">"#)?;
    for line in series {
        let (name, colour, dashed) = (escape(&line.name), line.colour % 8, if line.dashed { " dashed" } else { "" });
        writeln!(
            out,
            r#"<button type="button" data-for="{name}"><span class="key c{colour}{dashed}"></span>{name}</button>"#
        )?;
    }
    writeln!(out, "</p>")
}

/// Numbered names without what all of them share; none for a single run.
fn short_names(reports: &[Report]) -> Vec<String> {
    if let [_] = reports {
        return vec![String::new()];
    }
    let parts = |report: &Report| report.name.split(", ").map(str::to_owned).collect::<Vec<_>>();
    let all: Vec<Vec<String>> = reports.iter().map(parts).collect();
    let own = |parts: &Vec<String>| {
        let differing = |part: &&String| !all.iter().all(|other| other.contains(part));
        let own: Vec<_> = parts.iter().filter(differing).map(String::as_str).collect();
        if own.is_empty() { parts.first().cloned().unwrap_or_default() } else { own.join(", ") }
    };
    all.iter().enumerate().map(|(n, parts)| format!("{}. {}", n + 1, own(parts))).collect()
}

/// A line's name: its run's, which differs from the others' even where two are called the same, and what it shows.
fn named(names: &[String], n: usize, what: &str) -> String {
    if names[n].is_empty() { what.to_owned() } else { format!("{}: {what}", names[n]) }
}

fn curves(reports: &[Report]) -> Vec<Series> {
    let (names, mut all) = (short_names(reports), Vec::new());
    for (n, report) in reports.iter().enumerate() {
        let kinds = [("from intended send", Some(&report.latency)), ("from actual send", report.uncorrected.as_ref())];
        let closed = report.uncorrected.is_none();
        for (what, latency) in kinds.into_iter().filter_map(|(what, latency)| Some((what, latency?))) {
            let what = if closed { "from send" } else { what };
            let dashed = what == "from actual send";
            all.push(Series { name: named(&names, n, what), colour: n, dashed, points: curve(latency) });
        }
    }
    all
}

/// Points of the percentile curve: x is how many nines, y the logarithm of the latency.
fn curve(latency: &Latency) -> Vec<(f64, f64, String)> {
    let Some(histogram) = latency.to_histogram().filter(|histogram| !histogram.is_empty()) else { return Vec::new() };
    let mut points = Vec::new();
    // beyond one in the number of values there is nothing to know
    let most = (histogram.len() as f64).log10();
    for step in 0..=160 {
        let nines = f64::from(step) * 0.05;
        if nines > most {
            break;
        }
        let quantile = 1.0 - 10_f64.powf(-nines);
        let us = histogram.value_at_quantile(quantile) as f64 / 1e3;
        points.push((nines, us.max(0.1).log10(), format!("p{:.5} {}", quantile * 100.0, micros(us))));
    }
    let max = histogram.max() as f64 / 1e3;
    points.push((most, max.max(0.1).log10(), format!("max {}", micros(max))));
    points
}

fn percentiles(curves: &[Series]) -> String {
    let (low, high) = range(curves);
    let most = curves.iter().flat_map(|line| &line.points).map(|point| point.0).fold(1.0, f64::max);
    let names = ["0", "90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999", "99.999999"];
    let ticks = names.iter().enumerate().map(|(n, name)| (n as f64, format!("{name} %")));
    // half of the requests lie left of this one
    let ticks = ticks.chain([(2_f64.log10(), "50 %".to_owned())]).filter(|(at, _)| *at <= most).collect();
    let x = Axis { label: "percentile".into(), from: 0.0, to: most, ticks };
    svg("Latency by percentile", &x, &Axis::logarithmic("latency", low, high, micros), curves)
}

/// The lowest and highest value of lines of logarithms.
fn range(lines: &[Series]) -> (f64, f64) {
    let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if low.is_finite() { (10_f64.powf(low), 10_f64.powf(high)) } else { (1.0, 10.0) }
}

fn over_time(reports: &[Report]) -> Vec<Series> {
    let (names, mut all) = (short_names(reports), Vec::new());
    for (n, report) in reports.iter().enumerate() {
        for (what, which, dashed) in [("p50", 0, true), ("p99", 2, false), ("max", 4, true)] {
            if reports.len() > 1 && what == "max" {
                continue;
            }
            let points = report.intervals.iter().filter(|interval| interval.latency[4] > 0.0).map(|interval| {
                let us = interval.latency[which];
                (interval.middle(), us.max(0.1).log10(), format!("{:.1} s: {what} {}", interval.at, micros(us)))
            });
            let colour = if reports.len() > 1 { n } else { which };
            all.push(Series { name: named(&names, n, what), colour, dashed, points: points.collect() });
        }
    }
    all
}

fn rates(reports: &[Report]) -> Vec<Series> {
    let names = short_names(reports);
    let line = |(n, report): (usize, &Report)| {
        let points = report.intervals.iter().map(|interval| {
            (interval.middle(), interval.rate, format!("{:.1} s: {}/s", interval.at, count(interval.rate)))
        });
        Series { name: named(&names, n, "answers/s"), colour: n, dashed: false, points: points.collect() }
    };
    reports.iter().enumerate().map(line).collect()
}

fn times(what: &str, reports: &[Report], lines: &[Series], y: impl Fn(f64, f64) -> Axis) -> String {
    let longest = reports.iter().map(|report| report.seconds).fold(0.0, f64::max);
    let x = Axis::linear("seconds", longest, |seconds| count((seconds * 100.0).round() / 100.0));
    let (low, high) = if what == "rate" {
        let values = lines.iter().flat_map(|line| &line.points).map(|point| point.1);
        (0.0, values.fold(1.0, f64::max))
    } else {
        range(lines)
    };
    svg(&format!("{what} over time"), &x, &y(low, high), lines)
}

fn options(out: &mut String, reports: &[Report]) -> std::fmt::Result {
    writeln!(out, "<h2>How it was measured</h2>")?;
    for (n, report) in reports.iter().enumerate() {
        let began = UNIX_EPOCH + Duration::from_secs_f64(report.began.clamp(0.0, 1e11));
        let (name, began) = (escape(&report.name), humantime::format_rfc3339_seconds(began));
        let (open, machine) = (if reports.len() == 1 { " open" } else { "" }, escape(&report.machine));
        writeln!(out, "<details{open}><summary>{}. {name}</summary>\n<p>{machine}; {began}</p>", n + 1)?;
        writeln!(out, "<dl>")?;
        for (name, value) in &report.options {
            writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value))?;
        }
        writeln!(out, "</dl></details>")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    /// Every element that is opened is closed, in order; text is escaped.
    fn check(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        let scriptless = page.split("<script type").next().unwrap();
        for part in scriptless.split('<').skip(1) {
            let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("< without > before {part:.40}"));
            let name = tag.split([' ', '\n']).next().unwrap().trim_end_matches('/');
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') || ["!DOCTYPE", "meta"].contains(&name) => {}
                None => open.push(name),
            }
        }
        assert_eq!(open, ["html", "body"]);
        assert!(page.ends_with("</script>\n</body>\n</html>\n"));
        assert!(!scriptless.contains("NaN") && !scriptless.contains("inf"), "a number is none");
        assert!(!page.contains("http"), "nothing from outside");
    }

    #[test]
    fn the_page_is_well_formed_whatever_is_on_it() {
        let mut nasty = report();
        nasty.name = "<script>alert(1)</script> & \"more\"".into();
        let mut empty = report();
        (empty.intervals, empty.latency, empty.uncorrected) = (Vec::new(), Latency::default(), None);
        check(&page(&[report()]));
        check(&page(&[nasty.clone()]).replacen("&lt;script&gt;", "", 9));
        check(&page(&[report(), nasty, empty.clone()]));
        check(&page(&[empty]));
        check(&page(&[]));
    }

    #[test]
    fn the_page_holds_its_reports() {
        let mut nasty = report();
        nasty.name = "</script><!-- & \"more\"".into();
        let reports = [report(), nasty];
        let page = page(&reports);
        assert_eq!(page.matches("</script>").count(), 2, "the island's and the script's own");
        assert_eq!(read(&page).unwrap(), reports);
        assert_eq!(read("<html></html>"), None);
    }

    #[test]
    fn names_say_what_differs() {
        let named = |names: &[&str]| {
            let report = |name: &&str| Report { name: (*name).to_owned(), ..report() };
            short_names(&names.iter().map(report).collect::<Vec<_>>())
        };
        let differ = named(&["open, 1/s, to a:1", "open, 2/s, to a:1", "closed, to a:1"]);
        assert_eq!(differ, ["1. open, 1/s", "2. open, 2/s", "3. closed"]);
        assert_eq!(named(&["open, to a:1", "open, to a:1"]), ["1. open", "2. open"]);
        assert_eq!(named(&["open, to a:1"]), [""]);
    }

    #[test]
    fn the_curve_ends_at_the_maximum() {
        let points = curve(&report().latency);
        assert_eq!(points.first().unwrap().0, 0.0);
        let last = points.last().unwrap();
        assert!((last.0 - 3.0).abs() < 1e-9 && last.2 == "max 1.00 s", "{last:?}");
        assert!(points.is_sorted_by(|a, b| a.1 <= b.1));
    }
}

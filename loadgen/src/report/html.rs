//! One page with nothing outside of it: percentile curve and latency over time, of one run or several.

use std::fmt::Write;

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
    out.push_str(&format!("<script>\n{SCRIPT}</script>\n</body>\n</html>\n"));
    out
}

fn body(out: &mut String, reports: &[Report]) -> std::fmt::Result {
    summary(out, reports)?;
    for report in reports {
        for warning in &report.warnings {
            let (name, warning) = (escape(&report.name), escape(warning));
            writeln!(out, r#"<p class="warning"><strong>{name}</strong>: {warning}</p>"#)?;
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
    writeln!(out, "<table>\n<thead><tr><th>run</th><th>answers/s</th><th>bytes/s up</th><th>bytes/s down</th>")?;
    for name in QUANTILES.iter().map(|(name, _)| *name).chain(["max"]) {
        writeln!(out, "<th>{name}</th>")?;
    }
    writeln!(out, "<th>errors</th><th>CPU/request</th><th>load CPU</th></tr></thead>\n<tbody>")?;
    for (n, report) in reports.iter().enumerate() {
        let (up, down) = (bytes(report.bytes_per_s.0), bytes(report.bytes_per_s.1));
        let key = n % 8;
        write!(out, r#"<tr><td><span class="key c{key}"></span>{}</td>"#, escape(&report.name))?;
        write!(out, "<td>{}</td><td>{up}</td><td>{down}</td>", count(report.rate))?;
        for name in QUANTILES.iter().map(|(name, _)| *name).chain(["max"]) {
            write!(out, "<td>{}</td>", micros(report.latency.get(name)))?;
        }
        let errors: Vec<_> = report.errors.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let errors = if errors.is_empty() { "none".to_owned() } else { escape(&errors.join(", ")) };
        let cpu = report.broker.map_or("-".to_owned(), |broker| micros(broker.cpu_us_per_request));
        let busy: Vec<_> = report.load_busy.iter().map(|busy| format!("{:.0} %", busy * 100.0)).collect();
        writeln!(out, "<td>{errors}</td><td>{cpu}</td><td>{}</td></tr>", busy.join(", "))?;
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

/// A name that differs from the others' even where two runs have the same.
fn named(reports: &[Report], n: usize, what: &str) -> String {
    let name = if reports.len() == 1 { String::new() } else { format!("{}. {} ", n + 1, reports[n].name) };
    format!("{name}{what}")
}

fn curves(reports: &[Report]) -> Vec<Series> {
    let mut all = Vec::new();
    for (n, report) in reports.iter().enumerate() {
        let kinds = [("from intended send", Some(&report.latency)), ("from actual send", report.uncorrected.as_ref())];
        let closed = report.uncorrected.is_none();
        for (what, latency) in kinds.into_iter().filter_map(|(what, latency)| Some((what, latency?))) {
            let what = if closed { "from send" } else { what };
            let dashed = what == "from actual send";
            all.push(Series { name: named(reports, n, what), colour: n, dashed, points: curve(latency) });
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
    let most = curves.iter().flat_map(|line| &line.points).map(|point| point.0).fold(1.0, f64::max).ceil();
    let names = ["0", "90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999", "99.999999"];
    let ticks = names.iter().enumerate().map(|(n, name)| (n as f64, format!("{name} %")));
    let ticks = ticks.take_while(|(at, _)| *at <= most).collect();
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
    let mut all = Vec::new();
    for (n, report) in reports.iter().enumerate() {
        for (what, which, dashed) in [("p50", 0, true), ("p99", 2, false), ("max", 4, true)] {
            if reports.len() > 1 && what == "max" {
                continue;
            }
            let points = report.intervals.iter().filter(|interval| interval.latency[4] > 0.0).map(|interval| {
                let us = interval.latency[which];
                (interval.at, us.max(0.1).log10(), format!("{:.1} s: {what} {}", interval.at, micros(us)))
            });
            let colour = if reports.len() > 1 { n } else { which };
            all.push(Series { name: named(reports, n, what), colour, dashed, points: points.collect() });
        }
    }
    all
}

fn rates(reports: &[Report]) -> Vec<Series> {
    let line = |(n, report): (usize, &Report)| {
        let points = report
            .intervals
            .iter()
            .map(|interval| (interval.at, interval.rate, format!("{:.1} s: {}/s", interval.at, count(interval.rate))));
        Series { name: named(reports, n, "answers/s"), colour: n, dashed: false, points: points.collect() }
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
    for report in reports {
        writeln!(out, "<details><summary>{}</summary>\n<p>{}</p>", escape(&report.name), escape(&report.machine))?;
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
        let scriptless = page.split("<script>").next().unwrap();
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
        assert!(!page.contains("NaN") && !page.contains("inf"), "a number is none");
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
    fn the_curve_ends_at_the_maximum() {
        let points = curve(&report().latency);
        assert_eq!(points.first().unwrap().0, 0.0);
        let last = points.last().unwrap();
        assert!((last.0 - 3.0).abs() < 1e-9 && last.2 == "max 1.00 s", "{last:?}");
        assert!(points.is_sorted_by(|a, b| a.1 <= b.1));
    }
}

//! The table a run ends with.

use std::fmt::Write;

use super::text::{bytes, count, micros};
use super::{QUANTILES, Report};

/// The whole report, for a terminal.
///
/// ```text
/// open loop, 1,000/s ...
///   answered   10,000 of 10,000 in 10.0 s: 1,000/s, 62.5 KiB/s up, 62.5 KiB/s down
///   latency           p50      p90 ...
/// ```
#[must_use]
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    // writing to a string can't fail
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "{}", report.name)?;
    let (up, down) = (bytes(report.bytes_per_s.0), bytes(report.bytes_per_s.1));
    writeln!(out, "  rate        {}/s, {up}/s up, {down}/s down", count(report.rate))?;
    let (answered, sent) = (count(report.answered as f64), count(report.sent as f64));
    writeln!(out, "  requests    {answered} answered of {sent} sent, measured for {:.2} s", report.seconds)?;
    latencies(out, report)?;
    if report.errors.is_empty() {
        writeln!(out, "  errors      none")?;
    }
    for (name, n) in &report.errors {
        writeln!(out, "  errors      {} {name}", count(*n as f64))?;
    }
    machine(out, report)?;
    for warning in &report.warnings {
        writeln!(out, "  WARNING: {warning}")?;
    }
    Ok(())
}

fn latencies(out: &mut String, report: &Report) -> std::fmt::Result {
    let names = QUANTILES.iter().map(|(name, _)| *name).chain(["max"]);
    write!(out, "  {:<20}", "latency")?;
    names.clone().try_for_each(|name| write!(out, "{name:>10}"))?;
    writeln!(out, "{:>10}", "mean")?;
    let from = if report.uncorrected.is_some() { "from intended send" } else { "from send" };
    let rows = [(from, Some(&report.latency)), ("from actual send", report.uncorrected.as_ref())];
    for (what, latency) in rows.into_iter().filter_map(|(what, latency)| Some((what, latency?))) {
        write!(out, "    {what:<18}")?;
        names.clone().try_for_each(|name| write!(out, "{:>10}", micros(latency.get(name))))?;
        writeln!(out, "{:>10}", micros(latency.mean))?;
    }
    Ok(())
}

fn machine(out: &mut String, report: &Report) -> std::fmt::Result {
    if let Some(schedule) = report.schedule {
        let (p50, p99, max) = (micros(schedule.p50), micros(schedule.p99), micros(schedule.max));
        writeln!(out, "  schedule    sends were late by p50 {p50}, p99 {p99}, max {max}")?;
    }
    let shares = |of: &[f64]| of.iter().map(|share| format!("{:.1} %", share * 100.0)).collect::<Vec<_>>().join(", ");
    write!(out, "  load CPU    busy {}", shares(&report.load_busy))?;
    if !report.load_waited.is_empty() {
        write!(out, "; kept from it by others {}", shares(&report.load_waited))?;
    }
    writeln!(out)?;
    if let Some(broker) = report.broker {
        let (cpu, busy) = (micros(broker.cpu_us_per_request), broker.busy * 100.0);
        write!(out, "  broker      {cpu} CPU a request, {busy:.1} % of a CPU")?;
        if broker.switches_per_s.is_some() {
            write!(out, "; kept from it by others {:.1} %", broker.waited * 100.0)?;
        }
        writeln!(out)?;
        let (resident, grown) = (bytes(broker.resident as f64), broker.resident.saturating_sub(broker.resident_before));
        write!(out, "              {resident} resident (+{})", bytes(grown as f64))?;
        if let Some(switches) = broker.switches_per_s {
            write!(out, ", {} context switches/s", count(switches))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_as_it_was() {
        let expected = "\
golden
  rate        100/s, 6.25 KiB/s up, 12.5 KiB/s down
  requests    1,000 answered of 1,002 sent, measured for 10.00 s
  latency                    p50       p90       p99     p99.9    p99.99       max      mean
    from intended send    500 ms    900 ms    990 ms    999 ms    1.00 s    1.00 s    501 ms
    from actual send      250 ms    450 ms    495 ms    500 ms    500 ms    500 ms    250 ms
  errors      1 DEADLINE
  errors      1 no answer
  schedule    sends were late by p50 500 us, p99 990 us, max 1.00 ms
  load CPU    busy 99.0 %; kept from it by others 0.5 %
  broker      2.00 ms CPU a request, 20.0 % of a CPU; kept from it by others 0.0 %
              1.00 MiB resident (+512 KiB), 10 context switches/s
";
        let mut report = crate::report::tests::report();
        report.warnings.clear();
        assert_eq!(super::table(&report), expected);
    }
}

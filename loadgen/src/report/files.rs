//! What HdrHistogram's tools read: the percentile text (`.hgrm`), and the interval log (V2).

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use crate::measure::Row;

/// Writes the percentiles of a histogram of nanoseconds, in milliseconds, as HdrHistogram's plotter reads them.
///
/// # Errors
/// If `out` can't be written.
pub fn hgrm(histogram: &Histogram<u64>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / 1e6, step.quantile_iterated_to());
        if quantile < 1.0 {
            writeln!(out, "{value:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out, "{value:12.3} {quantile:2.12} {total:10}")?;
        }
    }
    let ms = |nanos: f64| nanos / 1e6;
    writeln!(out, "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]", ms(histogram.mean()), ms(histogram.stdev()))?;
    writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", ms(histogram.max() as f64), histogram.len())?;
    let buckets = histogram.buckets();
    let sub_buckets = 2_u64 << (f64::from(histogram.sigfig()) * 10_f64.log2()).ceil() as u64;
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]")
}

/// Writes the intervals as a log, format V2; values are nanoseconds, the maxima shown in milliseconds. `began` is
/// the start of measuring, in seconds since 1970.
///
/// # Errors
/// If `out` can't be written.
pub fn interval_log(rows: &[Row], began: f64, mut out: &mut dyn Write) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let began = began.max(0.0);
    writeln!(out, "#[Histogram log format version 1.3]")?;
    writeln!(out, "#[StartTime: {began:.3} (seconds since epoch)]\n#[BaseTime: {began:.3} (seconds since epoch)]")?;
    // the line that Java's tools write and show as the names of the columns
    writeln!(out, "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"")?;
    let mut log =
        IntervalLogWriterBuilder::new().with_max_value_divisor(1e6).begin_log_with(&mut out, &mut serializer)?;
    for row in rows {
        let histogram: Histogram<u64> =
            Deserializer::new().deserialize(&mut row.histogram.as_slice()).map_err(io::Error::other)?;
        let (at, length) = (Duration::from_secs_f64(row.at), Duration::from_secs_f64(row.seconds));
        log.write_histogram(&histogram, at, length, None).map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn percentiles_are_written_as_the_plotter_reads_them() {
        let mut histogram = crate::engine::new_histogram();
        (1..=100_u64).for_each(|n| histogram.record(n * 1_000_000).unwrap());
        let mut out = Vec::new();
        hgrm(&histogram, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        assert!(lines.iter().any(|line| line.trim_start().starts_with("50.0") && line.contains(" 0.5000")), "{text}");
        assert!(lines.iter().any(|line| line.ends_with("1.000000000000        100")), "{text}");
        assert!(
            text.contains("#[Mean    =       50.499,") && text.contains("Total count    =          100]"),
            "{text}"
        );
    }

    #[test]
    fn the_log_is_read_back() {
        let rows = crate::report::tests::measured().rows;
        let mut out = Vec::new();
        interval_log(&rows, 1000.0, &mut out).unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(&out).map(Result::unwrap).collect();
        let intervals: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some((interval.start_timestamp(), interval.duration())),
                _ => None,
            })
            .collect();
        assert_eq!(intervals, [(Duration::ZERO, Duration::from_secs(10))]);
    }
}

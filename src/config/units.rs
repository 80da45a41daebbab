//! Durations and sizes, as people write them.

use std::time::Duration;

const DURATIONS: [(&str, u64); 6] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const SIZES: [(&str, u64); 6] =
    [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// What [`parse_duration`] takes.
pub(crate) const DURATION_EXPECTED: &str = "a duration such as 250ms, 5s, 2m or 1h";
/// What [`parse_size`] takes.
pub(crate) const SIZE_EXPECTED: &str = "a size such as 4096, 256KiB, 64MiB or 1GiB";

/// Reads `5s`, `250ms`, `2m`, `1h`, `7d`, `10us`, or `0`.
///
/// # Errors
/// Anything else.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    scaled(text, &DURATIONS).map(Duration::from_nanos).ok_or_else(|| format!("expected {DURATION_EXPECTED}"))
}

/// Reads plain bytes, or `256KiB`, `1MiB` and so on.
///
/// # Errors
/// Anything else. `KB` and `MB` are refused: people disagree on what they mean.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    scaled(text, &SIZES).ok_or_else(|| format!("expected {SIZE_EXPECTED}"))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// The inverse of [`parse_duration`], in the largest unit that leaves no fraction.
pub(crate) fn show_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    shown(nanos, &DURATIONS).unwrap_or_else(|| "0s".into())
}

/// The inverse of [`parse_size`], in the largest unit that leaves no fraction.
pub(crate) fn show_size(bytes: u64) -> String {
    // plain bytes where no larger unit fits
    shown(bytes, &SIZES[2..]).unwrap_or_else(|| bytes.to_string())
}

fn shown(value: u64, units: &[(&str, u64)]) -> Option<String> {
    let fits = |(_, scale): &&(&str, u64)| value >= *scale && value.is_multiple_of(*scale);
    units.iter().rev().find(fits).map(|(name, scale)| format!("{}{name}", value / scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_read() {
        for (text, millis) in
            [("5s", 5_000), ("250ms", 250), ("2m", 120_000), ("1h", 3_600_000), ("0", 0), ("2 s", 2_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, bytes) in
            [("17", 17), ("4B", 4), ("256KiB", 256 << 10), ("1MiB", 1 << 20), ("3gib", 3 << 30), ("0", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_unclear_is_refused() {
        for text in ["", "5", "s", "-5s", "1.5s", "5 sec", "99999999999999999999s", "999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "KiB", "-1", "1KB", "1MB", "1k", "1.5MiB", "99999999TiB", "1 2"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_comes_back(micros in 0..u64::MAX / 1_000) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn every_round_duration_comes_back_in_its_unit(n in 1_u64..59, unit in prop::sample::select(vec!["us", "ms", "s", "m"])) {
            let text = format!("{n}{unit}");
            prop_assert_eq!(show_duration(parse_duration(&text).unwrap()), text);
        }

        #[test]
        fn every_size_comes_back(bytes in any::<u64>(), shift in 0..63_u32) {
            for bytes in [bytes, bytes >> shift << shift] {
                prop_assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,12}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}

//! Figures and times, for people.

use std::time::Duration;

/// `12,345,678`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let comma = |(index, digit): (usize, char)| {
        let left = digits.len() - index;
        let before = (index > 0 && left.is_multiple_of(3)).then_some(',');
        before.into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(comma).collect()
}

/// Three digits that count, in a fitting unit: `950 ns`, `48.2 us`, `1.25 ms`, `12.0 s`.
pub(crate) fn time(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (scale, unit) = match time.as_nanos() {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (1e3, "us"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{} {unit}", three_digits(nanos / scale))
}

/// Bytes in binary units: `17 B`, `1.50 KiB`, `1.00 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), units[unit])
}

fn three_digits(value: f64) -> String {
    match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (nanos, text) in [(950, "950 ns"), (48_200, "48.2 us"), (1_250_000, "1.25 ms"), (12_000_000_000, "12.0 s")]
        {
            assert_eq!(time(Duration::from_nanos(nanos)), text);
        }
        for (n, text) in [(17, "17 B"), (1536, "1.50 KiB"), (1 << 30, "1.00 GiB"), (1 << 50, "1024 TiB")] {
            assert_eq!(bytes(n), text);
        }
    }
}

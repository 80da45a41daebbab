//! Numbers for people.

/// A number with its thousands set off: `1,234,567`; below 100 with two digits behind the point.
#[must_use]
pub fn count(number: f64) -> String {
    if number.abs() < 100.0 && number.fract() != 0.0 {
        return format!("{number:.2}");
    }
    let digits = format!("{:.0}", number.abs());
    let mut text = String::from(if number <= -0.5 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in nanoseconds, with three digits and its unit.
#[must_use]
pub fn nanos(nanos: u64) -> String {
    micros(nanos as f64 / 1e3)
}

/// A time in microseconds, with three digits and its unit.
#[must_use]
pub fn micros(micros: f64) -> String {
    match micros {
        m if m < 999.5 => format!("{} us", digits(m)),
        m if m < 999_500.0 => format!("{} ms", digits(m / 1e3)),
        m => format!("{} s", digits(m / 1e6)),
    }
}

/// A number of bytes, with three digits and its unit.
#[must_use]
pub fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{} {}", digits(value), units[unit]) }
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (number, text) in [(0.0, "0"), (0.2, "0.20"), (999.4, "999"), (1000.0, "1,000"), (4_839_000.0, "4,839,000")]
        {
            assert_eq!(count(number), text);
        }
        for (number, text) in
            [(0.2, "0.20 us"), (53.0, "53.0 us"), (999.6, "1.00 ms"), (2.5e6, "2.50 s"), (123e3, "123 ms")]
        {
            assert_eq!(micros(number), text);
        }
        for (number, text) in [(12.0, "12 B"), (1023.0, "1.00 KiB"), (65536.0, "64.0 KiB"), (1.5e9, "1.40 GiB")] {
            assert_eq!(bytes(number), text);
        }
    }
}

//! How large bodies are: a number, or a distribution of numbers.

use std::fmt;
use std::str::FromStr;

/// The largest body that can be asked for: 1 TiB.
const MAX: u64 = 1 << 40;

/// How large bodies are, in bytes.
///
/// Written `64`, `64KiB`, `uniform:100-2KiB`, `exp:1KiB` (exponential with this mean, at most 16 times it) or
/// `choice:64=90,64KiB=10` (sizes with their weights).
///
/// ```
/// use loadgen::size::Size;
/// assert_eq!("64KiB".parse(), Ok(Size::Fixed(65536)));
/// assert_eq!("uniform:10-20".parse(), Ok(Size::Uniform(10, 20)));
/// assert!("uniform:20-10".parse::<Size>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Size {
    /// Always this many.
    Fixed(u64),
    /// Any number from the first to the second, both included.
    Uniform(u64, u64),
    /// Exponentially distributed with this mean, cut at 16 times it.
    Exponential(u64),
    /// One of these, by weight.
    Choice(Vec<(u64, u32)>),
}

impl Size {
    /// The next size.
    #[inline]
    pub fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        match self {
            Size::Fixed(size) => *size,
            Size::Uniform(from, to) => uniform(*from, *to, random),
            Size::Exponential(mean) => exponential(*mean as f64, random).min(*mean as f64 * 16.0) as u64,
            Size::Choice(sizes) => chosen(sizes, random),
        }
    }

    /// The largest size that can come.
    #[must_use]
    pub fn max(&self) -> u64 {
        match self {
            Size::Fixed(size) => *size,
            Size::Uniform(_, to) => *to,
            Size::Exponential(mean) => mean.saturating_mul(16),
            Size::Choice(sizes) => sizes.iter().map(|(size, _)| *size).max().unwrap_or(0),
        }
    }
}

// Calls, so that a fixed size is drawn where it is needed.
#[inline(never)]
fn uniform(from: u64, to: u64, random: &mut fastrand::Rng) -> u64 {
    random.u64(from..=to)
}

/// One of these, by weight.
#[inline(never)]
fn chosen(sizes: &[(u64, u32)], random: &mut fastrand::Rng) -> u64 {
    let total: u64 = sizes.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut at = random.u64(0..total);
    let drawn = sizes.iter().find(|(_, weight)| match at.checked_sub(u64::from(*weight)) {
        None => true,
        Some(left) => {
            at = left;
            false
        }
    });
    drawn.map_or(0, |(size, _)| *size)
}

/// The next value of an exponential distribution.
#[inline(never)]
pub(crate) fn exponential(mean: f64, random: &mut fastrand::Rng) -> f64 {
    // 1 − u is never 0
    -mean * (1.0 - random.f64()).ln()
}

/// A size that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?}: expected bytes (64, 64KiB, 1MiB), uniform:FROM-TO, exp:MEAN or choice:SIZE=WEIGHT,...")]
pub struct BadSize {
    given: String,
}

impl FromStr for Size {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Size, BadSize> {
        parse(text).ok_or_else(|| BadSize { given: text.chars().take(80).collect() })
    }
}

fn parse(text: &str) -> Option<Size> {
    match text.split_once(':') {
        None => Some(Size::Fixed(bytes(text)?)),
        Some(("uniform", range)) => {
            let (from, to) = range.split_once('-')?;
            let (from, to) = (bytes(from)?, bytes(to)?);
            (from <= to).then_some(Size::Uniform(from, to))
        }
        Some(("exp", mean)) => bytes(mean).filter(|&mean| mean > 0).map(Size::Exponential),
        Some(("choice", list)) => {
            let sizes = list.split(',').map(|entry| {
                let (size, weight) = entry.split_once('=')?;
                Some((bytes(size)?, weight.parse().ok()?))
            });
            let sizes: Vec<(u64, u32)> = sizes.collect::<Option<_>>()?;
            sizes.iter().any(|(_, weight)| *weight > 0).then_some(Size::Choice(sizes))
        }
        Some(_) => None,
    }
}

/// A number of bytes, with `KiB`, `MiB` or `GiB` behind it if wanted.
///
/// # Errors
/// [`BadSize`] if it is none, or above 1 TiB.
pub fn parse_bytes(text: &str) -> Result<u64, BadSize> {
    bytes(text).ok_or_else(|| BadSize { given: text.chars().take(80).collect() })
}

fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10_u32), ("MiB", 20), ("GiB", 30), ("B", 0)];
    let found = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = found.unwrap_or((text, 0));
    number.trim().parse::<u64>().ok()?.checked_mul(1 << shift).filter(|&bytes| bytes <= MAX)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Fixed(size) => write!(f, "{size}"),
            Size::Uniform(from, to) => write!(f, "uniform:{from}-{to}"),
            Size::Exponential(mean) => write!(f, "exp:{mean}"),
            Size::Choice(sizes) => {
                let entries: Vec<_> = sizes.iter().map(|(size, weight)| format!("{size}={weight}")).collect();
                write!(f, "choice:{}", entries.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(size: &str, n: usize) -> Vec<u64> {
        let size: Size = size.parse().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        (0..n).map(|_| size.draw(&mut random)).collect()
    }

    fn mean(sizes: &[u64]) -> f64 {
        sizes.iter().sum::<u64>() as f64 / sizes.len() as f64
    }

    #[test]
    fn each_distribution_keeps_its_range_and_mean() {
        assert!(drawn("64", 10).iter().all(|&size| size == 64));
        let uniform = drawn("uniform:10-20", 20_000);
        assert_eq!((uniform.iter().min(), uniform.iter().max()), (Some(&10), Some(&20)));
        assert!((mean(&uniform) - 15.0).abs() < 0.1, "{}", mean(&uniform));
        let exponential = drawn("exp:1000", 50_000);
        assert!((mean(&exponential) - 1000.0).abs() < 20.0, "{}", mean(&exponential));
        assert!(*exponential.iter().max().unwrap() <= 16_000);
        let choice = drawn("choice:1=9,1000=1,7=0", 50_000);
        let large = choice.iter().filter(|&&size| size == 1000).count();
        assert!((4_700..5_300).contains(&large), "{large}");
        assert!(!choice.contains(&7));
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(drawn("exp:50", 100), drawn("exp:50", 100));
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for text in ["0", "64", "uniform:1-2", "exp:9", "choice:1=2,3=4"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("2MiB".parse(), Ok(Size::Fixed(2 << 20)));
        assert_eq!("exp:1KiB".parse::<Size>().unwrap().max(), 16 << 10);
        for bad in ["", "x", "-1", "5TiB", "9999999GiB", "uniform:5", "exp:0", "choice:", "choice:1=0", "zipf:3"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}

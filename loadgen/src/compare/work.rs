//! The works a comparison is made of.

use crate::engine::Mode;
use crate::schedule::Arrivals;
use crate::size::Size;

/// A kind of load, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Its name, for `--work`.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
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

impl Work {
    /// All there are, in the order of the goals.
    #[must_use]
    pub fn all() -> Vec<Work> {
        let small = |name, about, consumers, providers, in_flight| {
            let (size, response) = (Size::Fixed(64), Size::Fixed(64));
            Work { name, about, consumers, providers, in_flight, rate: None, size, response, requests: None }
        };
        let large = Size::Fixed(64 << 10);
        vec![
            small("1x1", "1 consumer, 1 in flight", 1, 1, 1),
            small("64x1", "64 consumers, 4 providers, 1 in flight each", 64, 4, 1),
            small("16x64", "16 consumers x 64 in flight, 4 providers", 16, 4, 64),
            small("1000x1", "1,000 consumers, 8 providers, 1 in flight each", 1000, 8, 1),
            Work {
                size: large.clone(),
                response: large,
                ..small("64k", "8 consumers x 4 in flight, 4 providers, 64 KiB each way", 8, 4, 4)
            },
            Work {
                rate: Some(30_000.0),
                ..small("open30k", "open loop, 30,000/s, 64 consumers, 4 providers", 64, 4, 1024)
            },
            Work {
                size: Size::Fixed(1 << 30),
                response: Size::Fixed(0),
                requests: Some(1),
                ..small("stream1g", "one request of 1 GiB streamed, the provider discards it", 1, 1, 1)
            },
        ]
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

    /// Requests a consumer may have open.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.in_flight
    }
}

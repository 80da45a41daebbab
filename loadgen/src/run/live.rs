//! The line that moves while a run goes on.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::text::{count, nanos};

/// One interval of all threads, for people to see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Seconds from the start of the run.
    pub at: f64,
    /// Whether it counts.
    pub measured: bool,
    /// Answers a second.
    pub rate: f64,
    /// Median latency, in nanoseconds.
    pub p50: u64,
    /// 99th percentile, in nanoseconds.
    pub p99: u64,
    /// Requests that failed so far.
    pub errors: u64,
}

/// A bar on a terminal, a line each interval otherwise, or nothing.
#[derive(Debug)]
pub struct Live {
    bar: Option<ProgressBar>,
    lines: bool,
}

impl Live {
    /// Shows how a run of this length goes, on standard error: a bar if that is a terminal, else plain lines.
    #[must_use]
    pub fn new(length: Duration) -> Live {
        if !std::io::stderr().is_terminal() {
            return Live { bar: None, lines: true };
        }
        let bar = ProgressBar::with_draw_target(Some(length.as_millis() as u64), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:12} {percent:>3}% {msg}").expect("a sound template");
        // with the longest line a bar still fits 80 columns
        bar.set_style(style);
        Live { bar: Some(bar), lines: false }
    }

    /// Shows nothing.
    #[must_use]
    pub fn silent() -> Live {
        Live { bar: None, lines: false }
    }

    /// Shows an interval.
    pub fn show(&mut self, line: &Line) {
        let text = line.to_string();
        match &self.bar {
            Some(bar) => {
                bar.set_position((line.at * 1000.0) as u64);
                bar.set_message(text);
            }
            None if self.lines => eprintln!("{:6.1}s  {text}", line.at),
            None => {}
        }
    }

    /// The run is over.
    pub fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rate, p50, p99) = (count(self.rate), nanos(self.p50), nanos(self.p99));
        let phase = if self.measured { "" } else { "  (warm-up)" };
        write!(f, "{rate:>9}/s  p50 {p50:>8}  p99 {p99:>8}  errors {}{phase}", self.errors)
    }
}

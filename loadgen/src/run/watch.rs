//! The CPU clocks of the load threads and of the broker, when measuring begins and when it ends.

use std::time::Instant;

use crate::measure::Uses;
use crate::proc::{self, Target, TargetError};

/// Takes one sample at the beginning and one at the end.
pub(super) struct Watch {
    target: Option<Target>,
    threads: Vec<u32>,
    begin: Option<Sample>,
    end: Option<Sample>,
}

/// The clocks at one moment.
struct Sample {
    at: Instant,
    threads: Vec<(u64, u64)>,
    broker: Option<proc::Usage>,
    stolen: u64,
}

impl Watch {
    pub(super) fn new(target: Option<Target>, threads: Vec<u32>) -> Result<Watch, TargetError> {
        target.map(Target::usage).transpose()?;
        Ok(Watch { target, threads, begin: None, end: None })
    }

    /// Looks at the clocks if measuring has just begun, or ended.
    pub(super) fn look(&mut self, begun: bool, ended: bool) {
        if begun && self.begin.is_none() {
            self.begin = Some(self.sample());
        }
        if ended && self.end.is_none() {
            self.end = Some(self.sample());
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            at: Instant::now(),
            threads: self.threads.iter().map(|&thread| proc::thread_cpu(thread).unwrap_or_default()).collect(),
            broker: self.target.and_then(|target| target.usage().ok()),
            stolen: proc::stolen_ticks(),
        }
    }

    /// What was used between the two.
    pub(super) fn finish(self) -> Option<Uses> {
        let (begin, end) = (self.begin?, self.end?);
        let pairs = || begin.threads.iter().zip(&end.threads);
        Some(Uses {
            wall_ns: (end.at - begin.at).as_nanos() as u64,
            threads_ns: pairs().map(|(begin, end)| end.0.saturating_sub(begin.0)).collect(),
            threads_waited_ns: pairs().map(|(begin, end)| end.1.saturating_sub(begin.1)).collect(),
            broker: begin.broker.zip(end.broker),
            stolen_ticks: end.stolen.saturating_sub(begin.stolen),
        })
    }
}

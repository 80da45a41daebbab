//! What a thread measures, interval by interval.

use std::sync::mpsc::{Receiver, Sender};

use hdrhistogram::Histogram;

use crate::wire::Outcome;

/// A request sent this much after its intended time is late, in nanoseconds: 1 ms, far above a timer's error.
pub const LATE: u64 = 1_000_000;
/// Codes that are counted one by one; what is above shares the last.
pub(crate) const CODES: usize = 32;

/// A histogram of nanoseconds, from below 1 us to 1 h, to three digits.
#[must_use]
pub fn new_histogram() -> Histogram<u64> {
    // 64 ns is fine enough for what takes microseconds, and keeps the counts a fifth smaller
    Histogram::new_with_bounds(64, 3_600_000_000_000, 3).expect("sound bounds")
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests begun.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests that failed, by the protocol's code.
    pub failed: [u64; CODES],
    /// Requests whose connection ended.
    pub cut: u64,
    /// Requests that were still open when the run gave up waiting.
    pub lost: u64,
    /// Body bytes of the requests that were answered.
    pub bytes_up: u64,
    /// Body bytes of their answers.
    pub bytes_down: u64,
    /// Sent more than [`LATE`] after the intended time, though there was a free place: the generator's own fault.
    pub late: u64,
    /// Sent late because every consumer had all it may have in flight: the other side's slowness.
    pub held: u64,
    /// Intended, but not sent before the end.
    pub unsent: u64,
    /// Nanoseconds spent looking for work instead of sleeping.
    pub spun: u64,
}

impl Counts {
    /// Adds `other` to these.
    pub fn add(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.failed.iter_mut().zip(other.failed).for_each(|(sum, n)| *sum += n);
        self.cut += other.cut;
        self.lost += other.lost;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.late += other.late;
        self.held += other.held;
        self.unsent += other.unsent;
        self.spun += other.spun;
    }

    /// All requests that got no answer.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.failed.iter().sum::<u64>() + self.cut + self.lost
    }
}

/// What one thread measured in one stretch of time. Times are nanoseconds from the start of the run.
#[derive(Debug)]
pub struct Interval {
    /// Whose.
    pub thread: usize,
    /// Whether it counts: it is not warm-up.
    pub measured: bool,
    /// Whether it is the wait for the last answers, after the end.
    pub drain: bool,
    /// When it began.
    pub from: u64,
    /// When it ended.
    pub to: u64,
    /// From the intended time to the answer.
    pub latency: Histogram<u64>,
    /// The numbers.
    pub counts: Counts,
    /// With the last interval: what is not told apart by intervals.
    pub whole: Option<Box<Whole>>,
}

/// What is measured over the whole run: three histograms an interval would be three times the work for whoever adds
/// them up, on CPUs that have other things to do.
#[derive(Debug)]
pub struct Whole {
    /// From the actual send to the answer; empty in a closed loop, where it is the same as the latency.
    pub uncorrected: Histogram<u64>,
    /// From the intended time to the actual send; empty in a closed loop.
    pub lateness: Histogram<u64>,
}

impl Interval {
    /// An empty one.
    #[must_use]
    pub fn new() -> Interval {
        Interval {
            thread: 0,
            measured: false,
            drain: false,
            from: 0,
            to: 0,
            latency: new_histogram(),
            counts: Counts::default(),
            whole: None,
        }
    }

    /// Empties it. Done by whoever read it, not by the load thread: it is a write over 200 KiB.
    pub fn clear(&mut self) {
        self.latency.reset();
        self.counts = Counts::default();
    }
}

impl Default for Interval {
    fn default() -> Interval {
        Interval::new()
    }
}

/// Records into the current interval, and hands it over when it is full.
#[derive(Debug)]
pub struct Recorder {
    now: Box<Interval>,
    /// Until the first ones come back.
    spare: [Option<Box<Interval>>; 2],
    whole: Option<Box<Whole>>,
    open: bool,
    /// Measured requests that were sent while the warm-up's interval was not handed over yet.
    carried: u64,
    warm: u64,
    end: u64,
    every: u64,
    next: u64,
    out: Sender<Box<Interval>>,
    back: Receiver<Box<Interval>>,
}

impl Recorder {
    /// Thread `thread` measures from `warm` to `end`, in intervals of `every` nanoseconds, which go to `out` and come back empty by
    /// `back`. In an open loop (`open`) intended and actual times differ.
    #[must_use]
    pub fn new(
        thread: usize,
        (warm, end, every): (u64, u64, u64),
        open: bool,
        out: Sender<Box<Interval>>,
        back: Receiver<Box<Interval>>,
    ) -> Recorder {
        let touched = || {
            let mut interval = Box::new(Interval::new());
            // its pages are there before the clock runs
            interval.clear();
            interval
        };
        let (mut now, spare) = (touched(), [Some(touched()), Some(touched())]);
        let whole = Some(Box::new(Whole { uncorrected: new_histogram(), lateness: new_histogram() }));
        now.measured = warm == 0;
        now.thread = thread;
        let next = if warm == 0 { every } else { every.min(warm) };
        Recorder { now, spare, whole, open, carried: 0, warm, end, every, next: next.min(end), out, back }
    }

    /// The current interval's numbers.
    #[inline]
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.now.counts
    }

    /// When [`Recorder::tick`] has something to do next.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A request was sent; it was to be at `intended`. `held`: there was no place for it before.
    #[inline]
    pub fn sent(&mut self, intended: u64, now: u64, held: bool) {
        // the clock of a turn may be past the warm-up before the interval is
        match (self.now.measured, intended >= self.warm) {
            (true, false) => return,
            (false, true) => self.carried += 1,
            _ => self.now.counts.sent += 1,
        }
        if let (true, Some(whole)) = (self.open && intended >= self.warm, &mut self.whole) {
            let late = now.saturating_sub(intended);
            whole.lateness.saturating_record(late);
            if late > LATE {
                let count = if held { &mut self.now.counts.held } else { &mut self.now.counts.late };
                *count += 1;
            }
        }
    }

    /// A request ended. Whether it is counted: one that began in the warm-up isn't, afterwards.
    #[inline]
    pub fn ended(&mut self, intended: u64, sent: u64, size: u64, outcome: Outcome, now: u64) -> bool {
        if self.now.measured && intended < self.warm {
            return false;
        }
        match outcome {
            Outcome::Answered(bytes) => {
                self.now.latency.saturating_record(now.saturating_sub(intended));
                if let (true, Some(whole)) = (self.open && self.now.measured, &mut self.whole) {
                    whole.uncorrected.saturating_record(now.saturating_sub(sent));
                }
                let counts = &mut self.now.counts;
                counts.answered += 1;
                counts.bytes_up += size;
                counts.bytes_down += bytes;
            }
            Outcome::Failed(code) => self.now.counts.failed[usize::from(code).min(CODES - 1)] += 1,
        }
        true
    }

    /// Hands the interval over if it is full.
    #[inline]
    pub fn tick(&mut self, now: u64) {
        while now >= self.next {
            let at = self.next;
            self.rotate(at);
            self.next = if at < self.warm {
                (at + self.every).min(self.warm)
            } else if at < self.end {
                (at + self.every).min(self.end)
            } else {
                u64::MAX
            };
        }
    }

    /// No request is begun any more: what follows is the wait for the last answers.
    pub fn end_at(&mut self, now: u64) {
        self.tick(now);
        if !self.now.drain {
            self.end = now;
            self.rotate(now);
            self.next = u64::MAX;
        }
    }

    /// Hands over what there is.
    pub fn finish(&mut self, now: u64) {
        self.now.whole = self.whole.take();
        self.rotate(now);
    }

    #[cold]
    fn rotate(&mut self, at: u64) {
        let spare = self.spare.iter_mut().find_map(Option::take);
        let mut fresh = spare.or_else(|| self.back.try_recv().ok()).unwrap_or_default();
        fresh.from = at;
        fresh.thread = self.now.thread;
        fresh.measured = at >= self.warm;
        fresh.drain = at >= self.end;
        if fresh.measured {
            fresh.counts.sent = std::mem::take(&mut self.carried);
        }
        let mut full = std::mem::replace(&mut self.now, fresh);
        full.to = at;
        // nobody listens any more only when the run is given up
        let _ = self.out.send(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn intervals_follow_warm_up_measurement_and_drain() {
        let ((out, full), (_keep, back)) = (channel(), channel());
        let mut recorder = Recorder::new(0, (150, 400, 100), true, out, back);
        assert!(recorder.ended(10, 20, 1, Outcome::Answered(1), 50));
        recorder.tick(160);
        assert!(!recorder.ended(140, 140, 1, Outcome::Answered(1), 170), "it began in the warm-up");
        recorder.sent(200, 200 + LATE + 1, false);
        recorder.sent(200, 200 + LATE + 1, true);
        assert!(recorder.ended(160, 200, 7, Outcome::Answered(9), 300));
        recorder.ended(160, 160, 7, Outcome::Failed(2), 300);
        recorder.tick(400);
        recorder.finish(500);
        let all: Vec<_> = full.try_iter().collect();
        let spans: Vec<_> = all.iter().map(|i| (i.from, i.to, i.measured, i.drain)).collect();
        let expected = [(0, 100, false, false), (100, 150, false, false), (150, 250, true, false)];
        assert_eq!(spans[..3], expected);
        assert_eq!(spans[3..], [(250, 350, true, false), (350, 400, true, false), (400, 500, true, true)]);
        let counts = &all[2].counts;
        assert_eq!((counts.late, counts.held, counts.answered, counts.errors()), (1, 1, 1, 1));
        assert_eq!((counts.bytes_up, counts.bytes_down, counts.failed[2]), (7, 9, 1));
        let whole = all[5].whole.as_ref().unwrap();
        assert_eq!((all[2].latency.max() / 64, whole.uncorrected.max() / 64), (140 / 64, 100 / 64));
        assert_eq!((whole.uncorrected.len(), whole.lateness.len()), (1, 2), "nothing of the warm-up");
    }

    #[test]
    fn an_early_end_begins_the_drain() {
        let ((out, full), (_keep, back)) = (channel(), channel());
        let mut recorder = Recorder::new(0, (0, 1000, 1000), false, out, back);
        recorder.end_at(300);
        recorder.end_at(310);
        recorder.finish(350);
        let spans: Vec<_> = full.try_iter().map(|i| (i.from, i.to, i.drain)).collect();
        assert_eq!(spans, [(0, 300, false), (300, 350, true)]);
    }
}

//! The last five minutes, second by second: so that a dashboard just opened has something to show, and percentiles are
//! of a second rather than of a broker's whole life.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;

use super::latency::{Distribution, Earlier};
use super::state::State;
use super::view::{Historyz, Point};
use super::{cores, process};

/// Points kept: five minutes. About 200 bytes each.
const KEPT: usize = 300;
/// From one point to the next.
const EVERY: Duration = Duration::from_secs(1);

/// The points.
#[derive(Debug)]
pub(super) struct History {
    points: VecDeque<Point>,
    next: u64,
    /// What each core had come to at the last point it was heard at.
    before: Vec<Before>,
    at: Instant,
}

#[derive(Clone, Debug, Default)]
struct Before {
    sums: Sums,
    latency: Earlier,
    cpu: Duration,
    at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    requests: u64,
    responses: u64,
    errors: u64,
    received: u64,
    sent: u64,
}

impl History {
    pub(super) fn new(cores: usize) -> History {
        History { points: VecDeque::new(), next: 0, before: vec![Before::default(); cores], at: Instant::now() }
    }

    /// The points after this number.
    pub(super) fn after(&self, after: Option<u64>) -> Historyz {
        let wanted = |point: &&Point| after.is_none_or(|after| point.number > after);
        Historyz { points: self.points.iter().filter(wanted).cloned().collect() }
    }

    fn push(&mut self, mut point: Point) {
        point.number = self.next;
        self.next += 1;
        if self.points.len() == KEPT {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }
}

/// Takes a point every second, for ever.
pub(super) async fn keep(state: Arc<State>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // the first tick comes at once, and is what the first second is measured from
    ticks.tick().await;
    take(&state).await;
    state.history.lock().unwrap_or_else(PoisonError::into_inner).points.clear();
    loop {
        ticks.tick().await;
        take(&state).await;
    }
}

async fn take(state: &State) {
    let figures = state.figures().await;
    let mut meters = Vec::with_capacity(figures.len());
    for (core, figures) in figures.iter().enumerate() {
        // who has just been silent would only be waited for once more
        meters.push(if figures.is_ok() { cores::meters_sum(&state.inspector, core as u16).await.ok() } else { None });
    }
    let now = Instant::now();
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let mut history = state.history.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = (now - std::mem::replace(&mut history.at, now)).as_secs_f64().max(1e-3);
    let resident_bytes = process::usage().resident;
    let mut point = Point { at_ms, seconds, resident_bytes, ..Point::default() };
    let mut latency = Distribution::default();
    for (before, (figures, meter)) in history.before.iter_mut().zip(figures.into_iter().zip(meters)) {
        let Ok(figures) = figures else {
            point.load.push(None);
            continue;
        };
        let counters = &figures.core.counters;
        let sums = Sums {
            requests: counters.requests,
            responses: counters.answered + counters.oneway_answered,
            errors: counters.failed.iter().sum(),
            received: counters.bytes_received,
            sent: counters.bytes_sent,
        };
        let last = std::mem::replace(&mut before.sums, sums);
        point.requests += (sums.requests - last.requests) as f64 / seconds;
        point.responses += (sums.responses - last.responses) as f64 / seconds;
        point.errors += (sums.errors - last.errors) as f64 / seconds;
        point.received += (sums.received - last.received) as f64 / seconds;
        point.sent += (sums.sent - last.sent) as f64 / seconds;
        point.in_flight += figures.core.in_flight as u64;
        point.connections += figures.core.connections as u64;
        if let Some(meter) = meter {
            latency.add_since(&meter.total, &before.latency);
            before.latency = Earlier::of(&meter.total);
        }
        let cpu = process::thread_cpu(figures.thread).unwrap_or_default();
        let spent = cpu.saturating_sub(std::mem::replace(&mut before.cpu, cpu));
        let since = before.at.replace(now).map(|at| (now - at).as_secs_f64());
        point.load.push(since.map(|since| (spent.as_secs_f64() / since.max(1e-3)).min(1.0)));
    }
    point.latency = latency.summary();
    history.push(point);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_points_are_kept_and_asked_for() {
        let mut history = History::new(1);
        for _ in 0..KEPT + 5 {
            history.push(Point::default());
        }
        let all = history.after(None).points;
        assert_eq!((all.len(), all[0].number), (KEPT, 5));
        let last = history.next - 1;
        assert_eq!(history.after(Some(last - 2)).points.len(), 2);
        assert!(history.after(Some(last)).points.is_empty());
    }
}

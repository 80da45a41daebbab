//! Memory that a crowd took and left: the heap keeps it, and is made to give it back.
//!
//! A heap hands out freed memory again, and returns to the system only what lies at its end. After a thousand clients
//! with a body each have come and gone, the process would keep most of what they took. So a thread looks now and then
//! whether the process has grown by more than what its clients and their requests take, and trims the heap when that
//! has lasted. A trim locks the heap for a few milliseconds; under a load that goes on there is nothing to trim, and
//! none.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use corelay::broker::Inspector;
use corelay::reactor::sys;
use tracing::debug;

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(5);
/// So many looks in a row must find it: what comes and goes in bursts is better kept.
const LOOKS: u32 = 2;
/// Less is not worth a trim, in bytes.
const WORTH: usize = 4 << 20;

/// What a connection takes besides what is counted as held, in bytes (docs/OPERATING.md, Sizing).
const CONNECTION: usize = 1 << 10;

/// What was seen so far.
#[derive(Debug)]
struct Watch {
    /// Bytes that the process had and its cores had no use for, at the least since the last trim.
    settled: usize,
    looks: u32,
}

impl Watch {
    fn new(resident: usize, held: usize) -> Watch {
        Watch { settled: resident.saturating_sub(held), looks: 0 }
    }

    /// Whether a trim is worth it.
    fn look(&mut self, resident: usize, held: usize) -> bool {
        let other = resident.saturating_sub(held);
        self.settled = self.settled.min(other);
        self.looks = if other >= self.settled + WORTH { self.looks + 1 } else { 0 };
        self.looks >= LOOKS
    }
}

/// Looks from now on, on a thread of its own, until the broker has ended.
pub(crate) fn watch(inspector: Inspector) {
    thread::spawn(move || {
        let Some(held) = held(&inspector) else { return };
        let mut watch = Watch::new(sys::resident(), held);
        loop {
            thread::sleep(PERIOD);
            let Some(held) = self::held(&inspector) else { return };
            let before = sys::resident();
            if watch.look(before, held) {
                sys::trim_heap();
                let after = sys::resident();
                debug!(before, after, held, "memory was given back to the system");
                // what is left is in use by something else, and no reason to try again
                watch = Watch::new(after, held);
            }
        }
    });
}

/// What all cores have in use, in bytes; `None` when one has ended.
fn held(inspector: &Inspector) -> Option<usize> {
    let mut sum = 0;
    for core in 0..inspector.cores() {
        let (answer, answered) = mpsc::channel();
        inspector.ask(core, move |view| {
            let figures = view.figures().core;
            let _ = answer.send(figures.held + figures.connections * CONNECTION);
        });
        sum += answered.recv().ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_held_is_no_reason_and_what_was_held_is_one_when_it_lasts() {
        let mut watch = Watch::new(20 * MIB, 0);
        // a load that holds what the process has grown by
        for _ in 0..5 {
            assert!(!watch.look(120 * MIB, 100 * MIB));
        }
        // it has gone, comes back, and has gone for good
        assert!(!watch.look(120 * MIB, 0));
        assert!(!watch.look(120 * MIB, 100 * MIB));
        assert!(!watch.look(120 * MIB, 0));
        assert!(watch.look(120 * MIB, 0));
    }

    #[test]
    fn little_is_no_reason_and_neither_is_what_a_trim_left() {
        let mut watch = Watch::new(20 * MIB, 0);
        assert!((0..5).all(|_| !watch.look(20 * MIB + WORTH - 1, 0)));
        let mut watch = Watch::new(60 * MIB, 0);
        assert!((0..5).all(|_| !watch.look(60 * MIB + WORTH - 1, 0)));
        // but growth beyond it is
        assert!(!watch.look(60 * MIB + WORTH, 0) && watch.look(60 * MIB + WORTH, 0));
    }
}

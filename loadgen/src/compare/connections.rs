//! What connections cost a broker that get no requests: many at a time, and many one after the other.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::result::Row;
use super::system::System;
use super::work::{Kind, Work};
use crate::dial::{Dial, DialError};
use crate::proc::{self, Usage};

/// How long a broker gets to be done with what came before, until it is looked at.
const SETTLE: Duration = Duration::from_millis(500);
/// Connects before those that count: the broker's tables and the allocator have their size then.
const WARM: usize = 1_000;
/// How long free ports are waited for. A port that was closed is taken again after a second at the earliest.
const PORTS: Duration = Duration::from_secs(10);

/// What a process used between two looks.
struct Look {
    at: Instant,
    usage: Usage,
    files: u64,
}

impl Look {
    fn at(pid: u32) -> Look {
        std::thread::sleep(SETTLE);
        let (usage, files) = (proc::usage(pid).unwrap_or_default(), proc::open_files(pid).unwrap_or(0));
        Look { at: Instant::now(), usage, files }
    }
}

/// Runs `work`, which is of connections alone, against the process `pid`; `None` if it was stopped.
pub(super) fn measure<D: Dial>(
    (system, work, round): (System, &Work, usize),
    dial: &mut D,
    pid: u32,
    stop: &AtomicBool,
) -> Result<Option<Row>, DialError> {
    let (warm, n) = match work.kind {
        // a closed one: 10,000 are as many as a broker may allow
        Kind::Idle(n) => (1, n),
        Kind::Churn(n) => (WARM, n),
        Kind::Requests => (0, 0),
    };
    let mut held = Vec::new();
    let mut connect = |from: usize, n: usize| -> Result<bool, DialError> {
        for number in from..from + n {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let (socket, ..) = patiently(|| dial.consumer(number))?;
            held.extend((number >= warm && matches!(work.kind, Kind::Idle(_))).then_some(socket));
        }
        Ok(true)
    };
    if !connect(0, warm)? {
        return Ok(None);
    }
    let before = Look::at(pid);
    if !connect(warm, n)? {
        return Ok(None);
    }
    let connected = before.at.elapsed();
    let after = Look::at(pid);
    drop(held);
    Ok(Some(row((system, work, round), n, connected, (&before, &after))))
}

fn row(what: (System, &Work, usize), n: usize, connected: Duration, (before, after): (&Look, &Look)) -> Row {
    let cpu = after.usage.cpu_ns.saturating_sub(before.usage.cpu_ns) as f64;
    let grown = after.usage.resident.saturating_sub(before.usage.resident);
    let idle = matches!(what.1.kind, Kind::Idle(_));
    Row {
        rate: n as f64 / connected.as_secs_f64(),
        cpu_us: cpu / 1e3 / n as f64,
        broker_busy: cpu / connected.as_nanos() as f64,
        resident: after.usage.resident,
        grown,
        per_connection: idle.then_some(grown as f64 / n as f64),
        files_left: (!idle).then_some(after.files as i64 - before.files as i64),
        ..Row::empty(what.0, what.1, what.2)
    }
}

/// Connects; with all ports in use, waits for one.
fn patiently<T>(mut connect: impl FnMut() -> Result<T, DialError>) -> Result<T, DialError> {
    let until = Instant::now() + PORTS;
    loop {
        match connect() {
            Err(DialError::Connect { source, .. })
                if source.kind() == ErrorKind::AddrNotAvailable && Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

//! Two channels that live on different cores. Which core a channel lives on is the broker's secret, drawn at its start;
//! so it is observed: the thread that works for a channel is the one whose CPU clock moves.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use corelay::base::ChannelId;

use crate::dial::Frames;
use crate::engine::Mode;
use crate::proc;
use crate::run::{Live, Plan, RunError, execute};
use crate::size::Size;

/// Requests that are sent to see who works: enough to stand out, some milliseconds of work.
const REQUESTS: u64 = 2_000;
/// Channels that are tried. With two cores, each is on the other one with a chance of a half.
const TRIES: usize = 24;

/// Two channels of the broker `pid` that live on different cores; `None` if none were found.
pub(super) fn channels(
    dial: &Frames,
    pid: u32,
    load_cpus: &[usize],
    stop: &Arc<AtomicBool>,
) -> Result<Option<[ChannelId; 2]>, RunError> {
    let mut first = None;
    for n in 0..TRIES {
        let channel = ChannelId::named(&format!("loadgen-{n}"));
        let before = proc::threads(pid);
        // nobody provides: each is answered at once, by the channel's core
        execute(&plan(load_cpus), &mut Frames { channels: vec![channel], ..dial.clone() }, &mut Live::silent(), stop)?;
        let used = |(thread, cpu): (&u32, &u64)| (cpu - before.get(thread).unwrap_or(&0), *thread);
        let Some((_, home)) = proc::threads(pid).iter().map(used).max() else { return Ok(None) };
        match first {
            None => first = Some((channel, home)),
            Some((other, at)) if at != home => return Ok(Some([other, channel])),
            Some(_) => {}
        }
    }
    Ok(None)
}

fn plan(load_cpus: &[usize]) -> Plan {
    Plan {
        consumers: 1,
        providers: 0,
        mode: Mode::Closed,
        size: Size::Fixed(0),
        duration: Duration::from_secs(10),
        warmup: Duration::ZERO,
        patience: Duration::from_secs(1),
        interval: Duration::from_secs(1),
        requests: Some(REQUESTS),
        threads: 1,
        pin: load_cpus.to_vec(),
        spin: Duration::ZERO,
        seed: 1,
        broker: None,
    }
}

//! What systemd is told where it started this process (`Type=notify`, sd_notify(3)): that it serves, reloads, ends, and
//! that it is well (`WatchdogSec=`). Started by anybody else, it tells nobody.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use corelay::broker::Inspector;
use sd_notify::NotifyState;
use tracing::warn;

/// What systemd grants beyond `drain_timeout`: clients that keep their sockets open delay the end of a drain by 2 s.
const BEYOND_DRAIN: Duration = Duration::from_secs(10);
/// How often is looked whether a drain has begun, where no watchdog asks for more.
const LOOK: Duration = Duration::from_secs(1);

/// The broker serves.
pub(crate) fn ready(inspector: &Inspector) {
    let addrs: Vec<_> = inspector.addrs().iter().map(ToString::to_string).collect();
    let status = format!("serving {} by {} on {} cores", addrs.join(", "), inspector.io(), inspector.cores());
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// It reads its settings anew; followed by [`reloaded`].
pub(crate) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// It has read them.
pub(crate) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// It drains. Where that may take longer than the unit's `TimeoutStopSec=`, systemd waits nevertheless.
pub(crate) fn stopping(inspector: &Inspector) {
    let longest = inspector.options().limits.drain_timeout + BEYOND_DRAIN;
    let longest = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("draining: what is in flight may finish"),
        NotifyState::ExtendTimeoutUsec(longest),
    ]);
}

/// Feeds the watchdog while every core answers, and says that a drain has begun, whoever began it. On a thread of its
/// own, if anybody listens.
pub(crate) fn supervise(inspector: Inspector) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // twice in the time that systemd waits, as sd_watchdog_enabled(3) advises
    let every = watchdog.map_or(LOOK, |period| (period / 2).min(LOOK));
    thread::spawn(move || {
        let mut draining = false;
        loop {
            let began = Instant::now();
            if !draining && inspector.is_draining() {
                draining = true;
                stopping(&inspector);
            }
            if let Some(period) = watchdog {
                match silent_core(&inspector, period / 2) {
                    None => tell(&[NotifyState::Watchdog]),
                    Some(core) => warn!(core, "the core gives no answer: the watchdog goes hungry"),
                }
            }
            thread::sleep(every.saturating_sub(began.elapsed()));
        }
    });
}

/// A core that does not answer within this time; one that has ended in a drain is not missed.
fn silent_core(inspector: &Inspector, patience: Duration) -> Option<u16> {
    let until = Instant::now() + patience;
    let ask = |core| {
        let (answer, answered) = mpsc::channel();
        inspector.ask(core, move |_| {
            let _ = answer.send(());
        });
        answered
    };
    let asked: Vec<_> = (0..inspector.cores()).map(|core| (core, ask(core))).collect();
    let silent = asked.into_iter().find(|(_, answered)| {
        let left = until.saturating_duration_since(Instant::now());
        match answered.recv_timeout(left) {
            Ok(()) => false,
            Err(RecvTimeoutError::Disconnected) => !inspector.is_draining(),
            Err(RecvTimeoutError::Timeout) => true,
        }
    });
    silent.map(|(core, _)| core)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelay::Server;

    #[test]
    fn a_stuck_core_is_noticed_and_an_ended_one_only_if_nobody_wanted_that() {
        let server = Server::bind("127.0.0.1:0").unwrap();
        let inspector = server.inspector();
        let long = Duration::from_secs(20);
        assert_eq!(silent_core(&inspector, long), None);
        let (release, released) = mpsc::channel::<()>();
        let (stuck, is_stuck) = mpsc::channel();
        inspector.ask(0, move |_| {
            stuck.send(()).unwrap();
            let _ = released.recv();
        });
        is_stuck.recv().unwrap();
        assert_eq!(silent_core(&inspector, Duration::from_millis(20)), Some(0));
        release.send(()).unwrap();
        assert_eq!(silent_core(&inspector, long), None);
        server.kill();
        server.join().unwrap();
        assert_eq!(silent_core(&inspector, long), None);
    }
}

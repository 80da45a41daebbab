//! A bound on what a peer can make the broker log.
//!
//! Each kind of line that a peer's behaviour provokes may come so many times in a while, on each core; what is beyond
//! that is counted, and told in one line when the while is over.

use std::time::Duration;

use tracing::warn;

use crate::base::Time;

/// Lines of one kind within [`EVERY`], on each core: enough to see what happens and to whom.
const MOST: u32 = 10;
/// The while.
const EVERY: Duration = Duration::from_secs(10);

/// Kinds of lines that a peer's behaviour provokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Descriptors ran out.
    AcceptFailed,
    /// A peer broke the protocol or ran into a limit, and was told to go.
    Expelled,
    /// A peer was not let in, or is no longer.
    Unauthorized,
    /// A socket failed.
    SocketFailed,
    /// A request was ended for its memory.
    Shed,
    /// A request took long.
    Slow,
    /// A connection could not change cores.
    NotMoved,
    /// A TLS handshake failed.
    TlsFailed,
    /// An established TLS session failed.
    TlsBroken,
    /// A TLS handshake was given up, or took too long.
    TlsGivenUp,
}

impl Line {
    const ALL: [Line; 10] = [
        Line::AcceptFailed,
        Line::Expelled,
        Line::Unauthorized,
        Line::SocketFailed,
        Line::Shed,
        Line::Slow,
        Line::NotMoved,
        Line::TlsFailed,
        Line::TlsBroken,
        Line::TlsGivenUp,
    ];

    /// What was not told of, in the line that says how often.
    fn what(self) -> &'static str {
        match self {
            Line::AcceptFailed => "accepting paused",
            Line::Expelled => "connections ended for what their peer did",
            Line::Unauthorized => "connections not let in",
            Line::SocketFailed => "connections failed",
            Line::Shed => "requests ended with OVERLOADED",
            Line::Slow => "slow requests",
            Line::NotMoved => "connections could not be moved",
            Line::TlsFailed => "TLS handshakes failed",
            Line::TlsBroken => "TLS sessions failed",
            Line::TlsGivenUp => "TLS handshakes given up",
        }
    }
}

/// One core's lines.
#[derive(Debug, Default)]
pub(super) struct Noise {
    kinds: [Kind; Line::ALL.len()],
    /// Lines not written, of all kinds, since the start.
    suppressed: u64,
    /// Some kind has lines to be told of.
    owes: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    since: Time,
    written: u32,
    suppressed: u64,
}

impl Noise {
    /// Whether a line of this kind may be written now; counts it where it may not.
    pub(super) fn allows(&mut self, line: Line, now: Time) -> bool {
        self.settle(now);
        let kind = &mut self.kinds[line as usize];
        if kind.written == 0 || now - kind.since >= EVERY {
            *kind = Kind { since: now, ..Kind::default() };
        }
        if kind.written < MOST {
            kind.written += 1;
            return true;
        }
        kind.suppressed += 1;
        self.suppressed += 1;
        self.owes = true;
        false
    }

    /// Tells of what was left out, of kinds whose while is over.
    #[inline]
    pub(super) fn settle(&mut self, now: Time) {
        if self.owes {
            self.tell(now);
        }
    }

    #[cold]
    fn tell(&mut self, now: Time) {
        self.owes = false;
        for line in Line::ALL {
            let kind = &mut self.kinds[line as usize];
            if kind.suppressed > 0 && now - kind.since >= EVERY {
                warn!(suppressed = kind.suppressed, seconds = EVERY.as_secs(), "{}: more than were told", line.what());
                *kind = Kind::default();
            }
            self.owes |= kind.suppressed > 0;
        }
    }

    /// Lines not written so far.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn a_flood_is_bounded_counted_and_told_once() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut noise = Noise::default();
            let written = (0..1000).filter(|_| noise.allows(Line::Expelled, at(0))).count();
            assert_eq!((written, noise.suppressed()), (MOST as usize, 990));
            // the others have their own bound
            assert!(noise.allows(Line::Slow, at(0)));
            noise.settle(at(9));
            assert!(!noise.allows(Line::Expelled, at(9)));
            assert_eq!(log.0.lock().unwrap().len(), 0);
            noise.settle(at(10));
            noise.settle(at(11));
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.matches("suppressed=991").count(), 1, "{text}");
            assert!(text.contains("connections ended for what their peer did"), "{text}");
            let written = (0..1000).filter(|_| noise.allows(Line::Expelled, at(12))).count();
            assert_eq!(written, MOST as usize);
        });
    }

    #[test]
    fn what_comes_seldom_is_all_told() {
        let mut noise = Noise::default();
        assert!((0..1000).all(|n| noise.allows(Line::Shed, at(2 * n))));
        assert_eq!(noise.suppressed(), 0);
    }
}

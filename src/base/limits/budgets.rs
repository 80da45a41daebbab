//! How often a peer may do what costs the broker something and brings nothing forward (`docs/PROTOCOL.md` §7).
//!
//! They are part of the protocol, as the bound on PINGs always was: a client must know what it may do, so they are no
//! settings.

/// So often a second, and so many at once after a while without: a token bucket.
///
/// ```
/// use corelay::base::limits::PINGS;
/// assert_eq!((PINGS.rate, PINGS.burst), (10, 20));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What comes back each second.
    pub rate: u32,
    /// What there is at most, and at the start.
    pub burst: u32,
}

/// PINGs of one connection. 10/s: a client that keeps to the shortest keepalive ([`MIN_KEEPALIVE`](super::MIN_KEEPALIVE))
/// sends no more; 20 at once: two seconds' worth, for one that was held up.
pub const PINGS: Budget = Budget { rate: 10, burst: 20 };

/// CANCELs that cancel nothing, of one connection: for ids that are not in use. An honest one crossed the terminal frame
/// on its way, so there is at most one for each request; that many are allowed at any rate (each REQUEST gives one more,
/// up to the burst, or max_streams where that is more), and these beyond it.
///
/// A CANCEL that does end a request is not counted at all: it costs no more than the answer it saves. What HTTP/2 calls
/// rapid reset (CVE-2023-44487) rests on work that goes on after it was cancelled and is counted nowhere; here it counts
/// (see `max_streams`).
pub const CANCELS: Budget = Budget { rate: 100, burst: 1000 };

/// REQUESTs refused for what their sender could know, of one connection: beyond max_streams, or a kind its token does
/// not allow. A client that counts its streams provokes none; 1,000 at once are a whole connection's worth of a mistake.
/// What is nobody's fault (NO_PROVIDER, a full queue, a drain) is not counted.
pub const ERRORS: Budget = Budget { rate: 100, burst: 1000 };

/// Frames that say nothing, of one connection: DATA with neither body nor END, extensions without payload, PONGs, a
/// second GOAWAY. 100/s: a sender that flushes on a timer may make some, and answers to PINGs are ten times rarer.
pub const EMPTY_FRAMES: Budget = Budget { rate: 100, burst: 200 };

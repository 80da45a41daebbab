//! The limits of a broker: one named bound for everything a peer could make grow, and what they add up to.
//!
//! Each default has its reason beside it. [`Limits::validate`] refuses a value that can't work, by name;
//! [`Limits::worst_case`] sums the memory they allow, so that start-up can refuse what the machine doesn't have.

mod budgets;
mod worst_case;

use std::time::Duration;

pub use budgets::{Budget, CANCELS, EMPTY_FRAMES, ERRORS, PINGS};
pub use worst_case::{CONNECTION_STATE, Layout, REQUEST_STATE, STREAM_ID_STATE, Share, Term, WorstCase};

use crate::protocol::{MAX_CREDIT, MAX_HANDSHAKE_FRAME, MAX_HEADER_BLOCK, REQUEST_ID_LEN};

/// The smallest window: below it a stream costs more CREDIT frames than body, in bytes.
pub const MIN_WINDOW: u32 = 4 * 1024;
/// The smallest max_frame: what a handshake frame may already have (§1), in bytes.
pub const MIN_MAX_FRAME: u32 = MAX_HANDSHAKE_FRAME;
/// The shortest keepalive: with less, clients that keep to it would exceed 10 PINGs a second (§7).
pub const MIN_KEEPALIVE: Duration = Duration::from_millis(100);

/// The least bound on the requests a connection has given up, by CANCEL or timeout, whose providers still work on them;
/// it is max_streams, where that is more. 100, as a client that opens one stream at a time may have to give up a few in
/// a row before a slow provider hears of it.
pub const MIN_ABANDONED: u32 = 100;

/// The limits of a broker. Those of a core hold for each core, all others for the whole broker.
///
/// ```
/// use corelay::base::limits::Limits;
/// let limits = Limits { window: 1024, ..Limits::default() };
/// assert_eq!(limits.validate().unwrap_err().key, "window");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all. Default 10,000: the number the memory of an idle connection is measured at; what
    /// comes beyond it is closed at once, so that those who are in keep their service.
    pub max_connections: u32,
    /// Connections from one IP address (IPv6: from one /64, which is what one host or customer is given); 0 for no such
    /// bound. Default 0: behind a proxy or NAT many honest clients share an address, so only the operator can know a
    /// number. Unix sockets are exempt, and so is loopback, but for `limit_loopback`.
    pub max_connections_per_ip: u32,
    /// Connections that have not been sent WELCOME, those included that were refused and are about to close. Default
    /// 4,096: a restart lets all clients come back at once, and at 4 KiB each strangers can tie up no more than 16 MiB.
    pub max_unauthenticated: u32,
    /// Of those, the ones from one IP address (IPv6: from one /64); 0 for no such bound. Default 1,024: one address
    /// alone can't take more than a quarter of the places from all others. Exempt: as for `max_connections_per_ip`.
    pub max_unauthenticated_per_ip: u32,
    /// Whether the bounds on one address hold for loopback too. Default no: one proxy on this machine would be the limit
    /// of everybody behind it, and who is on this machine has other ways to use it up.
    pub limit_loopback: bool,
    /// From accepting a connection to its whole HELLO (§2). Default 5 s: several retransmissions on a bad path.
    pub handshake_timeout: Duration,
    /// Longest payload of a frame, in bytes. Default 1 MiB: bodies are cut through, so a long frame costs no memory
    /// here, but clients may gather one.
    pub max_frame: u32,
    /// Open streams on one connection (§3). Default 1,024: ids below that are looked up in a plain vector, and
    /// more in flight on one connection than that gains no speed. As many again ([`MIN_ABANDONED`] at least) may have been
    /// given up by the connection while their providers still work on them.
    pub max_streams: u32,
    /// Body bytes taken on a new stream before more are granted, in bytes (§4). Default 256 KiB: fills 1 Gbit/s at
    /// 2 ms of round trip, and 1,000 streams stalled at full windows just reach `core_buffer`.
    pub window: u32,
    /// What a stream's window may grow to, in bytes: it doubles each time the sender has nearly used it up and all it
    /// sent has left the broker, so that a long round trip is filled and a slow reader gets no more than `window`.
    /// Windows grow only while a quarter of `core_buffer` or less is in use, and not on spread channels. Default 4 MiB:
    /// fills 1 Gbit/s at 30 ms of round trip. At most `window`: windows never grow.
    pub max_window: u32,
    /// From the first byte of a frame to the end of its header block (§7). Default 10 s: a head is sent in one
    /// piece, and only a peer in trouble takes that long.
    pub frame_timeout: Duration,
    /// Without one byte taken while something waits (§7). Default 30 s: outlasts a peer's long pause or a short
    /// failure of the network, but not a peer that is gone.
    pub write_timeout: Duration,
    /// Silence after which a PING is sent; after three times that the peer is gone (§7). Default 20 s: below the
    /// idle limits of common NATs and load balancers (60 s and more).
    pub keepalive: Duration,
    /// Timeout of a request that states none. Default 30 s: the customary patience of callers.
    pub default_timeout: Duration,
    /// The longest timeout; longer ones are cut to it. Default 1 h: long enough for a transfer of many gigabytes,
    /// short enough that a forgotten request doesn't stay for ever.
    pub max_timeout: Duration,
    /// How long a cancelled request counts against its provider's max_concurrent (§3). Default 5 s: a provider that
    /// obeys needs milliseconds, and one that doesn't must not be starved by its own lateness for longer.
    pub cancel_grace: Duration,
    /// Requests that wait for a provider, for each channel. Default 10,000: a second's worth at 10,000 requests/s;
    /// a longer queue only makes more requests late.
    pub queue_requests: u32,
    /// Body bytes that wait for a provider, for each channel. Default 64 MiB: a quarter of `core_buffer`, so that
    /// one channel without providers doesn't take the others' room.
    pub queue_bytes: usize,
    /// Bytes staged for sending on one connection. Default 256 KiB, a window: with less, several streams of large
    /// bodies on one connection need a turn for each 64 KiB (a third more CPU at 64 KiB a message); with more, the
    /// frames of other streams only wait longer behind it.
    pub connection_buffer: usize,
    /// Memory for what is under way, on each core: bodies held, header blocks, output, and [`REQUEST_STATE`] for each
    /// open request. Above three quarters new requests get OVERLOADED (§4). Default 256 MiB: 1,000 streams of a full
    /// window.
    pub core_buffer: usize,
    /// From the start of a drain to its end, when what is still in flight is ended (§7). Default 20 s: within the
    /// 30 s that Kubernetes leaves before SIGKILL (systemd leaves 90 s).
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        Limits {
            max_connections: 10_000,
            max_connections_per_ip: 0,
            max_unauthenticated: 4096,
            max_unauthenticated_per_ip: 1024,
            limit_loopback: false,
            handshake_timeout: seconds(5),
            max_frame: 1 << 20,
            max_streams: 1024,
            window: 256 << 10,
            max_window: 4 << 20,
            frame_timeout: seconds(10),
            write_timeout: seconds(30),
            keepalive: seconds(20),
            default_timeout: seconds(30),
            max_timeout: seconds(3600),
            cancel_grace: seconds(5),
            queue_requests: 10_000,
            queue_bytes: 64 << 20,
            connection_buffer: 256 << 10,
            core_buffer: 256 << 20,
            drain_timeout: seconds(20),
        }
    }
}

/// A limit that can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits.{key} = {value}: expected {expected}")]
pub struct BadLimit {
    /// The field of [`Limits`].
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What would do.
    pub expected: String,
}

impl BadLimit {
    fn check(
        ok: bool,
        key: &'static str,
        value: impl ToString,
        expected: impl FnOnce() -> String,
    ) -> Result<(), BadLimit> {
        if ok { Ok(()) } else { Err(BadLimit { key, value: value.to_string(), expected: expected() }) }
    }
}

impl Limits {
    /// Checks each limit by itself and against the others.
    ///
    /// # Errors
    /// The first limit that can't work.
    pub fn validate(&self) -> Result<(), BadLimit> {
        self.validate_counts()?;
        self.validate_sizes()?;
        self.validate_times()
    }

    /// Requests that one connection may have given up while their providers still work on them (§3).
    #[must_use]
    pub fn max_abandoned(&self) -> u32 {
        self.max_streams.max(MIN_ABANDONED)
    }

    fn validate_counts(&self) -> Result<(), BadLimit> {
        for (key, value) in [
            ("max_connections", self.max_connections),
            ("max_unauthenticated", self.max_unauthenticated),
            ("max_streams", self.max_streams),
            ("queue_requests", self.queue_requests),
        ] {
            BadLimit::check(value > 0, key, value, || "at least 1".into())?;
        }
        Ok(())
    }

    fn validate_sizes(&self) -> Result<(), BadLimit> {
        let window = (MIN_WINDOW..=MAX_CREDIT).contains(&self.window);
        BadLimit::check(window, "window", self.window, || format!("{MIN_WINDOW} (4KiB) to {MAX_CREDIT} bytes"))?;
        BadLimit::check(self.max_window <= MAX_CREDIT, "max_window", self.max_window, || {
            format!("at most {MAX_CREDIT} bytes")
        })?;
        // a REQUEST with a full header block must fit into one frame
        let head = (REQUEST_ID_LEN + 2 + MAX_HEADER_BLOCK) as u32;
        let frame = self.max_frame >= MIN_MAX_FRAME && self.max_frame <= MAX_CREDIT;
        BadLimit::check(frame, "max_frame", self.max_frame, || {
            format!("{MIN_MAX_FRAME} (4KiB) to {MAX_CREDIT} bytes; below {head} not every header block fits")
        })?;
        let window = self.window as usize;
        BadLimit::check(self.queue_bytes >= window, "queue_bytes", self.queue_bytes, || {
            format!("at least limits.window ({window} bytes), or no request of that size could ever wait")
        })?;
        let least = MIN_WINDOW as usize;
        BadLimit::check(self.connection_buffer >= least, "connection_buffer", self.connection_buffer, || {
            format!("at least {least} bytes (4KiB)")
        })?;
        let least = 2 * window + self.connection_buffer + MAX_HEADER_BLOCK + REQUEST_STATE;
        // new requests are taken up to three quarters of it
        BadLimit::check(self.core_buffer / 4 * 3 >= least, "core_buffer", self.core_buffer, || {
            format!("at least {} bytes: room for one request with both its windows full", least.div_ceil(3) * 4)
        })
    }

    fn validate_times(&self) -> Result<(), BadLimit> {
        let longest = Duration::from_millis(u32::MAX.into());
        for (key, value, least) in [
            ("handshake_timeout", self.handshake_timeout, Duration::from_millis(1)),
            ("frame_timeout", self.frame_timeout, Duration::from_millis(1)),
            ("write_timeout", self.write_timeout, Duration::from_millis(1)),
            ("keepalive", self.keepalive, MIN_KEEPALIVE),
            ("default_timeout", self.default_timeout, Duration::from_millis(1)),
            ("max_timeout", self.max_timeout, Duration::from_millis(1)),
            ("cancel_grace", self.cancel_grace, Duration::ZERO),
            ("drain_timeout", self.drain_timeout, Duration::ZERO),
        ] {
            BadLimit::check(value >= least && value <= longest, key, format!("{value:?}"), || {
                format!("{least:?} to 49 days (what 32 bits of milliseconds hold)")
            })?;
        }
        BadLimit::check(
            self.default_timeout <= self.max_timeout,
            "default_timeout",
            format!("{:?}", self.default_timeout),
            || format!("at most limits.max_timeout ({:?})", self.max_timeout),
        )
    }
}

#[cfg(test)]
mod tests;

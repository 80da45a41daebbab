//! What the limits add up to.

use std::fmt;

use super::Limits;
use crate::protocol::{MAX_HANDSHAKE_FRAME, MAX_HEADER_BLOCK};

/// What an open connection takes besides its buffers, in bytes: the goal of at most 8 KiB resident for an idle one
/// at 10,000, everything included.
pub const CONNECTION_STATE: usize = 8 * 1024;
/// What an open request takes besides its body and header block, in bytes: its entry, its timer and its stream entries
/// on both connections. Counted against `core_buffer`.
pub const REQUEST_STATE: usize = 1024;
/// What a stream id takes that is held by a request already ended (§3), in bytes: an entry of a hash map at the
/// least load.
pub const STREAM_ID_STATE: usize = 32;
/// A thread's stack as far as it is ever touched, and its rings, in bytes.
const CORE_STATE: usize = 4 << 20;
/// The program, its allocator's slack and its admin thread, in bytes.
const PROCESS: usize = 32 << 20;
/// Bytes of one ring of the mesh, between two cores.
const MESH_RING: usize = 256 << 10;

/// How a broker is laid out, as far as memory goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Cores that run the broker.
    pub cores: usize,
    /// Receive buffers of each core, in bytes.
    pub receive_pool: usize,
    /// Histograms of each core's channels, in bytes.
    pub histograms: usize,
    /// Messages each core forwards: on their way, in the making, in queues; in bytes.
    pub forwarding: usize,
    /// What TLS takes on each core to work in, in bytes.
    pub tls_core: usize,
    /// What TLS takes for a connection, in bytes; 0 where nothing listens with it.
    pub tls_connection: usize,
    /// What TLS takes besides until the handshake is over, in bytes.
    pub tls_handshake: usize,
}

/// Whether a term comes once for each core, or once for the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Once for each core.
    Core,
    /// Once; all of it may fall on one core.
    Broker,
}

/// One line of the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// What takes the memory.
    pub name: &'static str,
    /// The settings that bound it.
    pub bound: &'static str,
    /// Bytes, once.
    pub bytes: usize,
    /// How many times.
    pub share: Share,
}

/// The most memory a broker takes, kernel memory (socket buffers) not included. Its `Display` is a table.
///
/// ```
/// use corelay::base::limits::{Layout, Limits};
/// let layout = Layout { cores: 2, receive_pool: 16 << 20, histograms: 3 << 20, ..Layout::default() };
/// let worst = Limits::default().worst_case(layout);
/// println!("{worst}");
/// assert!(worst.total() < 2 << 30);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorstCase {
    /// The lines of the sum.
    pub terms: Vec<Term>,
    /// Cores that run the broker.
    pub cores: usize,
}

impl Limits {
    /// The most memory these limits allow, when every peer does its worst at once.
    #[must_use]
    pub fn worst_case(&self, layout: Layout) -> WorstCase {
        let connections = self.max_connections as usize;
        let strangers = self.max_unauthenticated as usize;
        let line = |name, bound, share, bytes| Term { name, bound, bytes, share };
        let mut terms = vec![
            // filled and touched at start, never more
            line("receive buffers", "io.buffers x io.buffer_size", Share::Core, layout.receive_pool),
            // bodies, header blocks, staged output (connection_buffer is inside it), open requests: all accounted
            line("requests under way", "limits.core_buffer", Share::Core, self.core_buffer),
            // what each channel's requests took
            line("histograms", "telemetry.channels", Share::Core, layout.histograms),
            // copies; with when_full = "block" as much again as the channels' queues hold may come on top
            line("forwarding", "forward.* + producer.queue_bytes", Share::Core, layout.forwarding),
            // stack, rings
            line("thread and rings", "fixed", Share::Core, CORE_STATE),
            // one ring towards each other core
            line("mesh", "cores - 1 rings", Share::Core, layout.cores.saturating_sub(1).saturating_mul(MESH_RING)),
            // idle cost of a connection
            line("connections", "limits.max_connections", Share::Broker, connections.saturating_mul(CONNECTION_STATE)),
            // a header block that came in part stays until frame_timeout
            line(
                "heads received in part",
                "limits.max_connections",
                Share::Broker,
                connections.saturating_mul(MAX_HEADER_BLOCK),
            ),
            // requests refused or answered whose END has not come hold their ids
            line(
                "ids of ended requests",
                "limits.max_connections x max_streams",
                Share::Broker,
                connections.saturating_mul(self.max_streams as usize).saturating_mul(STREAM_ID_STATE),
            ),
            // HELLO in part
            line(
                "handshakes",
                "limits.max_unauthenticated",
                Share::Broker,
                strangers.saturating_mul(MAX_HANDSHAKE_FRAME as usize),
            ),
            // code, allocator, admin
            line("process", "fixed", Share::Broker, PROCESS),
        ];
        if layout.tls_connection > 0 {
            terms.extend([
                // what is decrypted and encrypted just now, and spare buffers for it
                line("TLS at work", "fixed, io.buffer_size", Share::Core, layout.tls_core),
                // keys and state of a session, and the part of a record that has come; what it sends is ciphertext in
                // place of what core_buffer counts
                line(
                    "TLS sessions",
                    "limits.max_connections",
                    Share::Broker,
                    connections.saturating_mul(layout.tls_connection),
                ),
                // a chain of certificates that came in part, until handshake_timeout
                line(
                    "TLS handshakes",
                    "limits.max_unauthenticated",
                    Share::Broker,
                    strangers.saturating_mul(layout.tls_handshake),
                ),
            ]);
        }
        WorstCase { terms, cores: layout.cores.max(1) }
    }
}

impl WorstCase {
    /// Bytes of one term over all cores.
    #[must_use]
    pub fn bytes_of(&self, term: &Term) -> usize {
        match term.share {
            Share::Core => term.bytes.saturating_mul(self.cores),
            Share::Broker => term.bytes,
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.terms.iter().fold(0, |sum, term| sum.saturating_add(self.bytes_of(term)))
    }

    /// The term that takes most: where to save.
    #[must_use]
    pub fn largest(&self) -> Option<&Term> {
        self.terms.iter().max_by_key(|term| self.bytes_of(term))
    }
}

impl fmt::Display for WorstCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for term in &self.terms {
            let times = match term.share {
                Share::Core if self.cores > 1 => format!(" x {} cores", self.cores),
                _ => String::new(),
            };
            let mib = mebibytes(self.bytes_of(term));
            writeln!(f, "{:<24}{mib:>10} MiB  {}{times}", term.name, term.bound)?;
        }
        write!(f, "{:<24}{:>10} MiB", "at most", mebibytes(self.total()))
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

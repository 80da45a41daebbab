//! What happened on one core, in plain numbers; published by the shard once a turn.

/// Why a connection is closed as soon as it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `max_connections` are open.
    MaxConnections,
    /// `max_connections_per_ip` are open from its address.
    MaxConnectionsPerIp,
    /// `max_unauthenticated` are in their handshake.
    MaxUnauthenticated,
    /// `max_unauthenticated_per_ip` are in their handshake from its address.
    MaxUnauthenticatedPerIp,
}

impl Refused {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Refused; 4] = [
        Refused::MaxConnections,
        Refused::MaxConnectionsPerIp,
        Refused::MaxUnauthenticated,
        Refused::MaxUnauthenticatedPerIp,
    ];

    /// The limit that was reached, as the configuration names it in `[limits]`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Refused::MaxConnections => "max_connections",
            Refused::MaxConnectionsPerIp => "max_connections_per_ip",
            Refused::MaxUnauthenticated => "max_unauthenticated",
            Refused::MaxUnauthenticatedPerIp => "max_unauthenticated_per_ip",
        }
    }

    /// What is so many.
    #[must_use]
    pub const fn of_what(self) -> &'static str {
        match self {
            Refused::MaxConnections => "connections are open",
            Refused::MaxConnectionsPerIp => "connections from this address are open",
            Refused::MaxUnauthenticated => "connections are in their handshake",
            Refused::MaxUnauthenticatedPerIp => "connections from this address are in their handshake",
        }
    }
}

/// Counts since the start. `*_by_code` are indexed by the number of the [`Code`](crate::protocol::Code).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted here.
    pub connections_accepted: u64,
    /// Of those, refused at once for a limit, by the number of the [`Refused`].
    pub connections_refused: [u64; Refused::ALL.len()],
    /// Connections moved to another core after HELLO.
    pub connections_moved: u64,
    /// Connections ended by the broker with an ERROR, by code.
    pub connections_failed: [u64; 17],
    /// Requests read, on consumers' connections.
    pub requests: u64,
    /// Requests whose answer was staged whole.
    pub answered: u64,
    /// Requests ended with an ERROR to the consumer, by code.
    pub failed: [u64; 17],
    /// Requests whose consumer was lost.
    pub consumer_lost: u64,
    /// One-way requests answered by the broker.
    pub oneway_answered: u64,
    /// Answered one-way requests lost with their provider, or at their deadline.
    pub oneway_lost: u64,
    /// Requests handed to a second provider (RETRY).
    pub retried: u64,
    /// Requests passed to another core.
    pub passed_on: u64,
    /// Requests that had to wait for a provider.
    pub queued: u64,
    /// Requests ended because `core_buffer` was full.
    pub shed: u64,
    /// Frames read.
    pub frames_received: u64,
    /// Bytes read.
    pub bytes_received: u64,
    /// Bytes the kernel or another core took.
    pub bytes_sent: u64,
    /// Bytes copied out of leased buffers because their socket was slow.
    pub bytes_settled: u64,
    /// Body bytes received for streams that had ended.
    pub bytes_discarded: u64,
}

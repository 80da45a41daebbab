//! Reasons: why a stream or a connection ended (§6).

use std::fmt;

/// A reason code of ERROR, CANCEL and GOAWAY frames (§6).
///
/// ```
/// use corelay::protocol::Code;
/// assert_eq!(Code::from_wire(2), Some(Code::Deadline));
/// assert_eq!(Code::Deadline.to_wire(), 2);
/// assert_eq!(Code::Deadline.name(), "DEADLINE");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Code {
    /// Nobody serves the channel and WAIT was not set.
    NoProvider = 1,
    /// The timeout passed.
    Deadline = 2,
    /// The provider's connection ended first.
    ProviderLost = 3,
    /// The consumer cancelled.
    Cancelled = 4,
    /// A queue or limit is full; nothing was started, unless STARTED says so.
    Overloaded = 5,
    /// The provider's own error.
    Application = 6,
    /// The protocol was broken.
    Protocol = 7,
    /// Bad token, or not allowed on this channel in this role.
    Unauthorized = 8,
    /// The rules of credit were broken (§4).
    FlowControl = 9,
    /// A frame's length is above the limit.
    FrameTooLarge = 10,
    /// The broker takes no new requests.
    Draining = 11,
    /// No common protocol version.
    Version = 12,
    /// A fault of the broker.
    Internal = 13,
    /// The consumer's connection ended.
    ConsumerLost = 14,
    /// Handshake, keepalive or write took too long.
    Timeout = 15,
    /// Too many cancels, pings or provoked errors.
    Flood = 16,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Code; 16] = [
        Code::NoProvider,
        Code::Deadline,
        Code::ProviderLost,
        Code::Cancelled,
        Code::Overloaded,
        Code::Application,
        Code::Protocol,
        Code::Unauthorized,
        Code::FlowControl,
        Code::FrameTooLarge,
        Code::Draining,
        Code::Version,
        Code::Internal,
        Code::ConsumerLost,
        Code::Timeout,
        Code::Flood,
    ];

    /// The code with this number; `None` for one this version doesn't know.
    #[must_use]
    pub fn from_wire(wire: u16) -> Option<Code> {
        Code::ALL.get(usize::from(wire).wrapping_sub(1)).copied()
    }

    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        self as u16
    }

    /// The name in `docs/PROTOCOL.md`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Code::NoProvider => "NO_PROVIDER",
            Code::Deadline => "DEADLINE",
            Code::ProviderLost => "PROVIDER_LOST",
            Code::Cancelled => "CANCELLED",
            Code::Overloaded => "OVERLOADED",
            Code::Application => "APPLICATION",
            Code::Protocol => "PROTOCOL",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::FlowControl => "FLOW_CONTROL",
            Code::FrameTooLarge => "FRAME_TOO_LARGE",
            Code::Draining => "DRAINING",
            Code::Version => "VERSION",
            Code::Internal => "INTERNAL",
            Code::ConsumerLost => "CONSUMER_LOST",
            Code::Timeout => "TIMEOUT",
            Code::Flood => "FLOOD",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire_and_no_other_exists() {
        for code in Code::ALL {
            assert_eq!(Code::from_wire(code.to_wire()), Some(code));
        }
        assert_eq!(Code::from_wire(0), None);
        assert_eq!(Code::from_wire(17), None);
        assert_eq!(Code::from_wire(u16::MAX), None);
    }
}

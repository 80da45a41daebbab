//! Channel identifiers: a UUID, or a name that stands for one.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The UUIDv5 namespace (RFC 9562, 5.5) of channel names. Drawn once at random and fixed for ever, so that a name
/// means the same channel everywhere.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6f0c_5c2a_93d1_5a57_8b5e_3d0a_f1c7_e294);

/// A channel: where consumers' requests and providers meet.
///
/// Parsed from a UUID in any of the usual notations, or from a name of up to 255 bytes, which stands for the
/// UUIDv5 of the name in [`NAMESPACE`].
///
/// ```
/// use corelay::base::ChannelId;
/// let by_name: ChannelId = "orders".parse()?;
/// assert_eq!(by_name, ChannelId::named("orders"));
/// let by_id: ChannelId = "550e8400-e29b-41d4-a716-446655440000".parse()?;
/// assert_eq!(by_id.to_string(), "550e8400-e29b-41d4-a716-446655440000");
/// # Ok::<(), corelay::base::channel::BadChannel>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(Uuid);

impl ChannelId {
    /// The nil channel: nobody serves it; `corelay ping` connects here.
    pub const NIL: ChannelId = ChannelId(Uuid::nil());

    /// The channel that `name` stands for: its UUIDv5 in [`NAMESPACE`].
    #[must_use]
    pub fn named(name: &str) -> ChannelId {
        ChannelId(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }

    /// The channel with these 16 bytes (RFC 9562 order).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> ChannelId {
        ChannelId(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes, in RFC 9562 order.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl From<Uuid> for ChannelId {
    fn from(id: Uuid) -> Self {
        ChannelId(id)
    }
}

impl From<ChannelId> for Uuid {
    fn from(id: ChannelId) -> Self {
        id.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A channel that is neither a UUID nor a usable name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no channel: expected a UUID or a name of 1 to 255 bytes without control characters")]
pub struct BadChannel {
    given: String,
}

impl FromStr for ChannelId {
    type Err = BadChannel;

    fn from_str(text: &str) -> Result<ChannelId, BadChannel> {
        if let Ok(id) = Uuid::try_parse(text) {
            return Ok(ChannelId(id));
        }
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err(BadChannel { given: text.chars().take(80).collect() });
        }
        Ok(ChannelId::named(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What other implementations are checked against: both stand in `docs/PROTOCOL.md`.
    #[test]
    fn the_test_vector_of_the_protocol_holds() {
        let page = include_str!("../../docs/PROTOCOL.md");
        let orders = ChannelId::named("orders").to_string();
        assert_eq!(NAMESPACE.to_string(), "6f0c5c2a-93d1-5a57-8b5e-3d0af1c7e294");
        assert_eq!(orders, "73b5cf50-6207-50e2-a85c-7f37b1c8e916");
        assert!(page.contains(&format!("`{NAMESPACE}`")) && page.contains(&format!("`orders` is `{orders}`")));
    }
}

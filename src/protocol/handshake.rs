//! HELLO and WELCOME (§2).

use uuid::Uuid;

use super::{Code, FrameType, Header, MAX_HANDSHAKE_FRAME};
use crate::base::{ChannelId, Secret};

/// The first four bytes of every HELLO.
pub const MAGIC: [u8; 4] = *b"CRLY";
/// The protocol version this library speaks.
pub const VERSION: u8 = 1;

/// What a connection is for, for its whole life (§2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Sends requests.
    Consumer = 1,
    /// Answers them.
    Provider = 2,
}

/// A client's first frame (§2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Highest version the client speaks.
    pub version: u8,
    /// Consumer or provider.
    pub role: Role,
    /// Feature bits; 0 in version 1.
    pub features: u16,
    /// The channel it is on.
    pub channel: ChannelId,
    /// The client's own id.
    pub client: Uuid,
    /// Body bytes the client takes on a new stream before it grants more (§4).
    pub window: u32,
    /// Provider: requests it will hold at once. Consumer: 0.
    pub max_concurrent: u32,
    /// What proves who it is; empty for none.
    pub token: Secret,
    /// For people: shown in metrics and lists.
    pub name: String,
}

/// The broker's answer to a HELLO it accepts (§2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Version chosen.
    pub version: u8,
    /// Which core owns this connection.
    pub core: u16,
    /// How many cores there are.
    pub cores: u16,
    /// Feature bits that are on.
    pub features: u16,
    /// The broker's id, new with each start.
    pub server: Uuid,
    /// Body bytes the broker takes on a new stream before it grants more (§4).
    pub window: u32,
    /// Longest payload of a frame, in bytes.
    pub max_frame: u32,
    /// Open streams allowed on this connection.
    pub max_streams: u32,
    /// Silence after which a PING is sent, in ms (§7).
    pub keepalive_ms: u32,
    /// Timeout of a REQUEST that states none, in ms.
    pub default_timeout_ms: u32,
}

/// A HELLO or WELCOME that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHandshake {
    /// Shorter than its fixed part, or than its lengths say.
    #[error("{0} payload cut short")]
    Truncated(&'static str),
    /// Doesn't begin with `CRLY`.
    #[error("HELLO does not begin with the magic bytes CRLY")]
    Magic,
    /// Version 0.
    #[error("version {0} is not supported; this side speaks version {VERSION}")]
    Version(u8),
    /// Neither consumer nor provider.
    #[error("role {0} is neither consumer (1) nor provider (2)")]
    Role(u8),
    /// A provider that takes nothing, or a consumer that claims to.
    #[error("max_concurrent {0} does not fit the role: a provider states at least 1, a consumer 0")]
    MaxConcurrent(u32),
    /// Name not UTF-8.
    #[error("name is not UTF-8")]
    Name,
    /// The two together don't fit a handshake frame.
    #[error("token and name take {0} bytes, more than a handshake frame holds")]
    TooLarge(usize),
}

impl BadHandshake {
    /// The reason the connection ends with (§6).
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            BadHandshake::Version(_) => Code::Version,
            _ => Code::Protocol,
        }
    }
}

const HELLO_FIXED: usize = 4 + 1 + 1 + 2 + 16 + 16 + 4 + 4;
const WELCOME_LEN: usize = 1 + 1 + 2 + 2 + 2 + 16 + 4 + 4 + 4 + 4 + 4;

impl Hello {
    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    /// [`BadHandshake::TooLarge`] where token and name don't fit.
    ///
    /// ```
    /// use corelay::{base::ChannelId, protocol::{Hello, Role, HEADER_LEN, VERSION}};
    /// let hello = Hello {
    ///     version: VERSION, role: Role::Consumer, features: 0, channel: ChannelId::named("orders"),
    ///     client: uuid::Uuid::new_v4(), window: 65536, max_concurrent: 0, token: Default::default(), name: "shop".into(),
    /// };
    /// let mut frame = Vec::new();
    /// hello.encode(&mut frame)?;
    /// assert_eq!(Hello::decode(&frame[HEADER_LEN..])?, hello);
    /// # Ok::<(), corelay::protocol::BadHandshake>(())
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), BadHandshake> {
        let length = HELLO_FIXED + 2 + self.token.len() + 2 + self.name.len();
        if length > MAX_HANDSHAKE_FRAME as usize {
            return Err(BadHandshake::TooLarge(self.token.len() + self.name.len()));
        }
        out.extend_from_slice(&Header::new(FrameType::Hello, 0).length(length as u32).encode());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.version, self.role as u8]);
        out.extend_from_slice(&self.features.to_le_bytes());
        out.extend_from_slice(self.channel.as_bytes());
        out.extend_from_slice(self.client.as_bytes());
        out.extend_from_slice(&self.window.to_le_bytes());
        out.extend_from_slice(&self.max_concurrent.to_le_bytes());
        out.extend_from_slice(&(self.token.len() as u16).to_le_bytes());
        out.extend_from_slice(self.token.expose());
        out.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        out.extend_from_slice(self.name.as_bytes());
        Ok(())
    }

    /// The HELLO in this payload; what follows it is ignored (§2).
    ///
    /// # Errors
    /// [`BadHandshake`]: its [`code`](BadHandshake::code) is what the connection ends with.
    pub fn decode(payload: &[u8]) -> Result<Hello, BadHandshake> {
        let mut read = Reader { left: payload, what: "HELLO" };
        if read.array::<4>()? != MAGIC {
            return Err(BadHandshake::Magic);
        }
        let version = read.array::<1>()?[0];
        if version == 0 {
            return Err(BadHandshake::Version(version));
        }
        let role = match read.array::<1>()?[0] {
            1 => Role::Consumer,
            2 => Role::Provider,
            other => return Err(BadHandshake::Role(other)),
        };
        let features = read.u16()?;
        let channel = ChannelId::from_bytes(read.array()?);
        let client = Uuid::from_bytes(read.array()?);
        let window = read.u32()?;
        let max_concurrent = read.u32()?;
        if (role == Role::Provider) != (max_concurrent > 0) {
            return Err(BadHandshake::MaxConcurrent(max_concurrent));
        }
        let token = read.counted()?.into();
        let name = std::str::from_utf8(read.counted()?).map_err(|_| BadHandshake::Name)?.to_owned();
        Ok(Hello { version, role, features, channel, client, window, max_concurrent, token, name })
    }
}

impl Welcome {
    /// Appends the whole frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Header::new(FrameType::Welcome, 0).length(WELCOME_LEN as u32).encode());
        out.extend_from_slice(&[self.version, 0]);
        for value in [self.core, self.cores, self.features] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(self.server.as_bytes());
        for value in [self.window, self.max_frame, self.max_streams, self.keepalive_ms, self.default_timeout_ms] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// The WELCOME in this payload; what follows it is ignored (§2).
    ///
    /// # Errors
    /// [`BadHandshake::Truncated`], or [`BadHandshake::Version`] for one this side doesn't speak.
    ///
    /// ```
    /// use corelay::protocol::{Welcome, HEADER_LEN, VERSION};
    /// let welcome = Welcome {
    ///     version: VERSION, core: 0, cores: 1, features: 0, server: uuid::Uuid::new_v4(), window: 65536,
    ///     max_frame: 1 << 20, max_streams: 1000, keepalive_ms: 15_000, default_timeout_ms: 30_000,
    /// };
    /// let mut frame = Vec::new();
    /// welcome.encode(&mut frame);
    /// assert_eq!(Welcome::decode(&frame[HEADER_LEN..])?, welcome);
    /// # Ok::<(), corelay::protocol::BadHandshake>(())
    /// ```
    pub fn decode(payload: &[u8]) -> Result<Welcome, BadHandshake> {
        let mut read = Reader { left: payload, what: "WELCOME" };
        let [version, _reserved] = read.array::<2>()?;
        if version != VERSION {
            return Err(BadHandshake::Version(version));
        }
        Ok(Welcome {
            version,
            core: read.u16()?,
            cores: read.u16()?,
            features: read.u16()?,
            server: Uuid::from_bytes(read.array()?),
            window: read.u32()?,
            max_frame: read.u32()?,
            max_streams: read.u32()?,
            keepalive_ms: read.u32()?,
            default_timeout_ms: read.u32()?,
        })
    }
}

struct Reader<'a> {
    left: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadHandshake> {
        let (head, rest) = self.left.split_first_chunk::<N>().ok_or(BadHandshake::Truncated(self.what))?;
        self.left = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, BadHandshake> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadHandshake> {
        self.array().map(u32::from_le_bytes)
    }

    fn counted(&mut self) -> Result<&'a [u8], BadHandshake> {
        let len = usize::from(self.u16()?);
        let (head, rest) = self.left.split_at_checked(len).ok_or(BadHandshake::Truncated(self.what))?;
        self.left = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::HEADER_LEN;

    fn hello() -> Hello {
        Hello {
            version: 1,
            role: Role::Provider,
            features: 0,
            channel: ChannelId::named("a"),
            client: Uuid::from_u128(7),
            window: 4096,
            max_concurrent: 3,
            token: "secret".into(),
            name: "worker".into(),
        }
    }

    #[test]
    fn every_cut_is_noticed_and_a_longer_one_is_taken() {
        let mut frame = Vec::new();
        hello().encode(&mut frame).unwrap();
        let payload = &frame[HEADER_LEN..];
        for cut in 0..payload.len() {
            assert_eq!(Hello::decode(&payload[..cut]), Err(BadHandshake::Truncated("HELLO")), "cut at {cut}");
        }
        frame.extend_from_slice(b"from a later version");
        assert_eq!(Hello::decode(&frame[HEADER_LEN..]).unwrap(), hello());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let broken = |at: usize, with: &[u8]| {
            let mut frame = Vec::new();
            hello().encode(&mut frame).unwrap();
            frame[HEADER_LEN + at..][..with.len()].copy_from_slice(with);
            Hello::decode(&frame[HEADER_LEN..]).unwrap_err()
        };
        assert_eq!(broken(0, b"HTTP"), BadHandshake::Magic);
        assert_eq!(broken(4, &[0]), BadHandshake::Version(0));
        assert_eq!(broken(4, &[0]).code(), Code::Version);
        assert_eq!(broken(5, &[9]), BadHandshake::Role(9));
        assert_eq!(broken(44, &[0; 4]), BadHandshake::MaxConcurrent(0));
        assert_eq!(broken(5, &[1]), BadHandshake::MaxConcurrent(3));
        assert_eq!(broken(58, &[0xff]), BadHandshake::Name);
    }

    #[test]
    fn a_token_is_never_shown() {
        assert!(format!("{:?}", hello()).contains("token: ***"));
    }

    #[test]
    fn token_and_name_must_fit() {
        let long = Hello { name: "n".repeat(5000), ..hello() };
        assert_eq!(long.encode(&mut Vec::new()), Err(BadHandshake::TooLarge(5006)));
    }
}

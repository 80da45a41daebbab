//! Tokens' hashes.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What a written hash begins with.
const PREFIX: &str = "sha256:";

/// The SHA-256 of a token: what is kept of it.
///
/// No salt and no slow function: both are for passwords people choose. A token is made by a machine, of 16 random
/// bytes or more (`openssl rand -hex 32`), and nobody finds those from their hash.
///
/// ```
/// use corelay::auth::Digest;
/// let digest = Digest::of(b"0f3ac1d8e5b7426f");
/// let written = digest.to_string();
/// assert!(written.starts_with("sha256:"));
/// assert_eq!(written.parse(), Ok(digest));
/// ```
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The hash of this token.
    #[must_use]
    pub fn of(token: &[u8]) -> Digest {
        Digest(Sha256::digest(token).into())
    }

    /// The hash in `text`, where it is one (`sha256:` and 64 hexadecimal digits), else the hash of `text`, as a token.
    ///
    /// # Errors
    /// [`BadDigest`] for what begins like a hash and is none.
    pub fn of_written(text: &str) -> Result<Digest, BadDigest> {
        if text.starts_with(PREFIX) { text.parse() } else { Ok(Digest::of(text.as_bytes())) }
    }

    /// Whether both are the same, in a time that tells nothing of where they differ.
    pub(super) fn is(&self, other: &Digest) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        self.is(other).into()
    }
}

impl Eq for Digest {}

/// A text that is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected sha256: and 64 hexadecimal digits")]
pub struct BadDigest;

impl FromStr for Digest {
    type Err = BadDigest;

    /// With `sha256:` in front or without.
    fn from_str(text: &str) -> Result<Digest, BadDigest> {
        let digits = text.strip_prefix(PREFIX).unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(BadDigest);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(BadDigest);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            // two digits of four bits
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not even the hash: a token that somebody chose badly could be guessed from it.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn hashes_are_read_and_written() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(Digest::of_written(ABC), Ok(Digest::of(b"abc")));
        assert_eq!(Digest::of_written("abc"), Ok(Digest::of(b"abc")));
        assert_eq!(ABC[7..].to_uppercase().parse(), Ok(Digest::of(b"abc")));
        for bad in ["sha256:", "sha256:ab", &ABC[..70], &format!("{ABC}0"), &ABC.replace('b', "g")] {
            assert_eq!(Digest::of_written(bad), Err(BadDigest), "{bad}");
        }
        assert_eq!(format!("{:?}", Digest::of(b"abc")), "***");
    }
}

//! Bytes that must not be seen: tokens.

use std::fmt;

/// Bytes that `Debug` does not show, so that no log, panic or dump of a struct tells them.
///
/// ```
/// use corelay::base::Secret;
/// let token = Secret::from("correct horse battery staple");
/// assert_eq!(format!("{token:?}"), "***");
/// assert_eq!(token.expose().len(), 28);
/// ```
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes, for who has to have them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Without an early end at the first byte that differs.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let differences = self.0.iter().zip(&other.0).fold(0, |all, (one, other)| all | (one ^ other));
        self.0.len() == other.0.len() && std::hint::black_box(differences) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<Vec<u8>> for Secret {
    fn from(secret: Vec<u8>) -> Secret {
        Secret(secret)
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Secret {
        Secret(secret.into_bytes())
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Secret {
        Secret(secret.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Secret {
    fn from(secret: &[u8]) -> Secret {
        Secret(secret.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_whole_and_never_shown() {
        let (one, other) = (Secret::from("a secret"), Secret::from("a secreT"));
        assert!(one == one.clone() && one != other && one != Secret::from("a secret, and more"));
        assert_eq!(format!("{:?} {:#?}", one, Some(&one)), "*** Some(\n    ***,\n)");
    }
}

//! Header blocks: key-value pairs in front of a body (§1).
//!
//! ```text
//!   u16 size | ( u8 key length, key, u16 value length, value )*      the entries fill `size` exactly
//! ```

/// The most bytes a block's entries may take (§1).
pub const MAX_HEADER_BLOCK: usize = 16 * 1024;

/// Keys and values, in the order they came. Keys are lower-case ASCII; a key may occur more than once.
pub type Headers = Vec<(String, Vec<u8>)>;

/// A header block that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeaders {
    /// The entries take more than [`MAX_HEADER_BLOCK`].
    #[error("header block of {0} bytes, at most {MAX_HEADER_BLOCK} are allowed")]
    TooLarge(usize),
    /// The entries don't fill the block exactly.
    #[error("header block of {size} bytes is cut short in the entry at byte {at}")]
    Truncated {
        /// Size of the entries, as stated.
        size: usize,
        /// Where the entry that doesn't fit begins.
        at: usize,
    },
    /// A key that is empty, longer than 255 bytes or not lower-case ASCII.
    #[error("header key {0:?} is not 1 to 255 bytes of lower-case ASCII")]
    Key(String),
    /// A value longer than 65,535 bytes.
    #[error("value of header {key:?} has {len} bytes, at most 65535 are allowed")]
    Value {
        /// Whose value.
        key: String,
        /// Its length in bytes.
        len: usize,
    },
}

/// Appends a block with these entries to `out`.
///
/// # Errors
/// [`BadHeaders`] for a key or value that can't be sent, or too much of them; `out` is then as it was.
///
/// ```
/// use corelay::protocol::{encode_headers, iter_headers};
/// let mut block = Vec::new();
/// encode_headers([("content-type", "text/plain")], &mut block)?;
/// let entries: Vec<_> = iter_headers(&block[2..]).collect();
/// assert_eq!(entries, [(&b"content-type"[..], &b"text/plain"[..])]);
/// # Ok::<(), corelay::protocol::BadHeaders>(())
/// ```
pub fn encode_headers<K: AsRef<str>, V: AsRef<[u8]>>(
    entries: impl IntoIterator<Item = (K, V)>,
    out: &mut Vec<u8>,
) -> Result<(), BadHeaders> {
    let start = out.len();
    let result = append_entries(entries, out, start);
    match &result {
        Ok(size) => out[start..start + 2].copy_from_slice(&size.to_le_bytes()),
        Err(_) => out.truncate(start),
    }
    result.map(|_| ())
}

fn append_entries<K: AsRef<str>, V: AsRef<[u8]>>(
    entries: impl IntoIterator<Item = (K, V)>,
    out: &mut Vec<u8>,
    start: usize,
) -> Result<u16, BadHeaders> {
    out.extend_from_slice(&[0, 0]);
    for (key, value) in entries {
        let (key, value) = (key.as_ref(), value.as_ref());
        let key_len = u8::try_from(key.len()).ok().filter(|&len| len > 0);
        let key_ok = key.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase());
        let (Some(key_len), true) = (key_len, key_ok) else {
            return Err(BadHeaders::Key(key.chars().take(80).collect()));
        };
        let Ok(value_len) = u16::try_from(value.len()) else {
            return Err(BadHeaders::Value { key: key.to_owned(), len: value.len() });
        };
        out.push(key_len);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(value);
    }
    let size = out.len() - start - 2;
    if size > MAX_HEADER_BLOCK {
        return Err(BadHeaders::TooLarge(size));
    }
    Ok(size as u16)
}

/// Checks that `entries` (a block without its size) holds whole entries and nothing else. Keys are not looked at.
///
/// # Errors
/// [`BadHeaders::TooLarge`] or [`BadHeaders::Truncated`].
pub fn check_header_block(entries: &[u8]) -> Result<(), BadHeaders> {
    if entries.len() > MAX_HEADER_BLOCK {
        return Err(BadHeaders::TooLarge(entries.len()));
    }
    let mut walk = Entries { left: entries };
    walk.by_ref().for_each(drop);
    if walk.left.is_empty() {
        Ok(())
    } else {
        Err(BadHeaders::Truncated { size: entries.len(), at: entries.len() - walk.left.len() })
    }
}

/// The entries of a block (without its size), as raw bytes; stops at the first that is cut short.
pub fn iter_headers(entries: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    Entries { left: entries }
}

struct Entries<'a> {
    left: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&key_len, rest) = self.left.split_first()?;
        let (key, rest) = rest.split_at_checked(usize::from(key_len))?;
        let (value_len, rest) = rest.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*value_len)))?;
        self.left = rest;
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_sent_is_named_and_leaves_no_trace() {
        let mut out = b"before".to_vec();
        let long = "v".repeat(70_000);
        for (key, value, error) in [
            ("", "x", BadHeaders::Key(String::new())),
            ("Upper", "x", BadHeaders::Key("Upper".into())),
            ("a", long.as_str(), BadHeaders::Value { key: "a".into(), len: 70_000 }),
            ("a", &long[..20_000], BadHeaders::TooLarge(20_004)),
        ] {
            assert_eq!(encode_headers([(key, value)], &mut out), Err(error));
            assert_eq!(out, b"before");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let mut block = Vec::new();
        encode_headers([("a", "1"), ("bb", "22")], &mut block).unwrap();
        let entries = &block[2..];
        assert_eq!(check_header_block(entries), Ok(()));
        for cut in 1..entries.len() {
            let whole_entry = cut == 5;
            assert_eq!(check_header_block(&entries[..cut]).is_ok(), whole_entry, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn any_entries_come_back(entries in prop::collection::vec(("[a-z0-9-]{1,40}", prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
            let mut block = Vec::new();
            encode_headers(entries.iter().map(|(k, v)| (k, v)), &mut block).unwrap();
            prop_assert_eq!(usize::from(u16::from_le_bytes([block[0], block[1]])), block.len() - 2);
            prop_assert_eq!(check_header_block(&block[2..]), Ok(()));
            let back: Vec<_> = iter_headers(&block[2..]).map(|(k, v)| (String::from_utf8(k.to_vec()).unwrap(), v.to_vec())).collect();
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = check_header_block(&bytes);
        }
    }
}

//! Header blocks.

use corelay::protocol::{BadHeaders, MAX_HEADER_BLOCK, check_header_block, encode_headers, iter_headers};

/// A block that is checked has nothing but whole entries, and they make the same block again; one that is refused, for
/// its length or an entry cut short, is cut short in the entry named.
///
/// # Panics
/// If not.
pub fn headers(data: &[u8]) {
    let entries: Vec<(&[u8], &[u8])> = iter_headers(data).collect();
    let whole: usize = entries.iter().map(|(key, value)| 3 + key.len() + value.len()).sum();
    match check_header_block(data) {
        Ok(()) => assert_eq!(whole, data.len()),
        Err(BadHeaders::TooLarge(size)) => assert!(size == data.len() && size > MAX_HEADER_BLOCK),
        Err(BadHeaders::Truncated { size, at }) => assert_eq!((size, at), (data.len(), whole)),
        Err(other) => panic!("{other} is not for who reads"),
    }
    let mut block = b"before".to_vec();
    let texts = entries.iter().map(|(key, value)| (String::from_utf8_lossy(key), value));
    match encode_headers(texts, &mut block) {
        // what is encoded is what was read
        Ok(()) => {
            let again = &block[6 + 2..];
            assert_eq!(usize::from(u16::from_le_bytes([block[6], block[7]])), again.len());
            assert!(again == &data[..whole], "an entry changed");
            assert_eq!(check_header_block(again), Ok(()));
        }
        Err(_) => assert_eq!(block, b"before", "a block that is refused leaves no trace"),
    }
}

//! Bytes where a system takes text only.

use bytes::Bytes;

/// Whether it can stand in a header as it is: visible ASCII, no space at its ends.
pub(super) fn is_plain(value: &[u8]) -> bool {
    let inner = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    !value.is_empty() && value.iter().all(inner) && value[0] != b' ' && value[value.len() - 1] != b' '
}

pub(super) fn encode(value: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = value.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

pub(super) fn decode(text: &str) -> Option<Bytes> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| match pair {
        [high, low] => Some((digit(high)? * 16 + digit(low)?) as u8),
        _ => None,
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        assert_eq!((encode(b""), decode("")), (String::new(), Some(Bytes::new())));
        assert_eq!((decode("0"), decode("0g"), decode("é")), (None, None, None));
        assert!(is_plain(b"a b") && !is_plain(b" a") && !is_plain(b"") && !is_plain(b"a\n") && !is_plain(&all));
    }
}

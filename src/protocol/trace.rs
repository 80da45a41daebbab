//! `traceparent` (W3C Trace Context, level 1, §3.2): which trace a request belongs to, as its header entry says.

use std::fmt;

use super::iter_headers;

/// A `traceparent` entry, understood.
///
/// ```
/// use corelay::protocol::TraceParent;
/// let parent = TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
/// assert!(parent.is_sampled());
/// assert_eq!(parent.trace().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert_eq!(TraceParent::parse(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: [u8; 8],
    flags: u8,
}

/// The id of a trace; shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// The entry's key.
const KEY: &[u8] = b"traceparent";
/// `00-<32>-<16>-<2>`: what version 0 has, and every later one begins with.
const LEN: usize = 55;

impl TraceParent {
    /// Reads an entry's value; `None` for one that names no trace.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let (known, rest) = value.split_at_checked(LEN)?;
        let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let [version] = digits(&known[..2])?;
        // a later version may go on behind another dash, version 0 may not; ff is none
        let ends = rest.is_empty() || version > 0 && rest[0] == b'-';
        let trace = digits(&known[3..35])?;
        let span = digits(&known[36..52])?;
        let [flags] = digits(&known[53..])?;
        let valid = dashes && ends && version < 0xff && trace != [0; 16] && span != [0; 8];
        valid.then_some(TraceParent { trace: TraceId(trace), span, flags })
    }

    /// Finds it among a header block's entries (a block without its size). Where there are several, none is meant.
    #[must_use]
    pub fn find(entries: &[u8]) -> Option<TraceParent> {
        let mut values = iter_headers(entries).filter(|(key, _)| *key == KEY).map(|(_, value)| value);
        let (first, second) = (values.next()?, values.next());
        if second.is_some() { None } else { TraceParent::parse(first) }
    }

    /// The trace.
    #[must_use]
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// The id of the span that the request was sent in: the parent of whatever is recorded about it.
    #[must_use]
    pub fn span(&self) -> [u8; 8] {
        self.span
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }
}

impl TraceId {
    /// Its 16 bytes, the first digits first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Lower-case hexadecimal digits, two a byte.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encode_headers;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_names_no_trace_is_none() {
        assert!(TraceParent::parse(GOOD.as_bytes()).is_some());
        let later = GOOD.replacen("00-", "cc-", 1);
        assert!(TraceParent::parse(later.as_bytes()).is_some());
        assert!(TraceParent::parse(format!("{later}-more").as_bytes()).is_some());
        for bad in [
            String::new(),
            "00-1-2".to_owned(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            format!("{later}more"),
            GOOD.replacen("00-", "ff-", 1),
            GOOD.replace("4bf9", "4BF9"),
            GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            GOOD.replace('-', "_"),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_flag_says_whether_it_is_sampled() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let text = format!("{}{flags}", &GOOD[..53]);
            assert_eq!(TraceParent::parse(text.as_bytes()).unwrap().is_sampled(), sampled, "{flags}");
        }
    }

    #[test]
    fn it_is_found_among_others_and_once_only() {
        let find = |entries: &[(&str, &str)]| {
            let mut block = Vec::new();
            encode_headers(entries.iter().copied(), &mut block).unwrap();
            TraceParent::find(&block[2..])
        };
        assert_eq!(find(&[("a", GOOD), ("traceparent", GOOD)]), TraceParent::parse(GOOD.as_bytes()));
        assert_eq!(find(&[("a", GOOD)]), None);
        assert_eq!(find(&[("traceparent", GOOD), ("traceparent", GOOD)]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (TraceParent::parse(&bytes), TraceParent::find(&bytes));
        }
    }
}

//! What is to be sent on a connection: staged bytes, and filler that is sent from where it lies.

/// Longest run of filler one slice can show, in bytes.
const FILLER_LEN: usize = 256 << 10;

/// The bytes of every body: their content doesn't matter, so they are never copied in user space when they are many.
pub static FILLER: [u8; FILLER_LEN] = [b'x'; FILLER_LEN];

/// Bodies up to this are copied behind their header: cheaper than an iovec each, in bytes.
const COPY_BELOW: usize = 2048;

/// Bytes to send, in order: what was put, with runs of filler between.
#[derive(Debug, Default)]
pub struct Out {
    staged: Vec<u8>,
    /// Where in `staged` a run of filler is to be inserted, and how long it is.
    runs: Vec<(usize, usize)>,
    filler: usize,
}

impl Out {
    /// An empty one with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Out {
        Out { staged: Vec::with_capacity(bytes), runs: Vec::with_capacity(16), filler: 0 }
    }

    /// Appends `bytes`.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.staged.extend_from_slice(bytes);
    }

    /// Appends these words, each little-endian. Word by word from registers: bytes that were just written one by one
    /// and are then copied by sixteen cost a stall each time.
    #[inline]
    pub fn put_words<const N: usize>(&mut self, words: [u64; N]) {
        self.staged.reserve(N * 8);
        for word in words {
            self.staged.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// The staged bytes, for codecs that append to a vector.
    pub fn staged(&mut self) -> &mut Vec<u8> {
        &mut self.staged
    }

    /// Appends `len` bytes of filler.
    #[inline]
    pub fn put_filler(&mut self, len: usize) {
        if len <= COPY_BELOW {
            self.staged.extend_from_slice(&FILLER[..len]);
        } else {
            self.runs.push((self.staged.len(), len));
            self.filler += len;
        }
    }

    /// Bytes in all.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.staged.len() + self.filler
    }

    /// Whether there is nothing to send.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything, keeps the room.
    pub fn clear(&mut self) {
        self.staged.clear();
        self.runs.clear();
        self.filler = 0;
    }

    /// The staged bytes, if there is nothing else.
    #[inline]
    pub(super) fn plain(&self) -> Option<&[u8]> {
        self.runs.is_empty().then_some(&self.staged[..])
    }

    /// Shows what is left behind the first `skip` bytes, slice by slice, while `more` takes them.
    pub(super) fn slices(&self, mut skip: usize, mut more: impl FnMut(&[u8]) -> bool) {
        let mut show = |mut bytes: &[u8]| {
            let passed = skip.min(bytes.len());
            skip -= passed;
            bytes = &bytes[passed..];
            bytes.is_empty() || more(bytes)
        };
        let mut at = 0;
        for &(before, len) in &self.runs {
            if !show(&self.staged[at..before]) {
                return;
            }
            at = before;
            let mut left = len;
            while left > 0 {
                let now = left.min(FILLER_LEN);
                if !show(&FILLER[..now]) {
                    return;
                }
                left -= now;
            }
        }
        show(&self.staged[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(out: &Out, skip: usize, at_most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut slices = 0;
        out.slices(skip, |bytes| {
            all.extend_from_slice(bytes);
            slices += 1;
            slices < at_most
        });
        all
    }

    #[test]
    fn bytes_and_filler_keep_their_order_from_any_point() {
        let mut out = Out::default();
        out.put(b"head");
        out.put_filler(5000);
        out.put(b"mid");
        out.put_filler(10);
        out.put_filler(FILLER_LEN + 1);
        out.put(b"end");
        let mut expected = b"head".to_vec();
        expected.extend([b'x'; 5000]);
        expected.extend(b"mid");
        expected.extend(vec![b'x'; 10 + FILLER_LEN + 1]);
        expected.extend(b"end");
        assert_eq!(out.len(), expected.len());
        for skip in [0, 1, 4, 5, 5003, 5004, 5010, expected.len() - 4, expected.len() - 1, expected.len()] {
            assert_eq!(gathered(&out, skip, usize::MAX), &expected[skip..], "from {skip}");
        }
        assert_eq!(gathered(&out, 0, 1), b"head");
        out.clear();
        assert!(out.is_empty() && out.plain() == Some(&[][..]));
    }
}

//! Body bytes in a row.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Pieces this small are joined when many of them wait, so that a body of one-byte frames costs no more than its
/// window.
const SMALL: usize = 512;
/// How many pieces may wait before small ones are joined.
const MANY: usize = 32;

/// A queue of bytes. The usual single piece needs no allocation of its own, and no room for more.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// Never an empty piece.
    front: Option<Bytes>,
    /// What follows; there only from the second piece on.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    pieces: VecDeque<Bytes>,
    /// Of all of them.
    len: usize,
}

impl Rest {
    fn pop(&mut self) -> Option<Bytes> {
        let bytes = self.pieces.pop_front()?;
        self.len -= bytes.len();
        Some(bytes)
    }
}

impl From<Bytes> for Chunks {
    #[inline]
    fn from(bytes: Bytes) -> Chunks {
        Chunks { front: (!bytes.is_empty()).then_some(bytes), rest: None }
    }
}

impl Chunks {
    pub(crate) fn len(&self) -> usize {
        self.front.as_ref().map_or(0, Bytes::len) + self.rest.as_ref().map_or(0, |rest| rest.len)
    }

    #[inline]
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        match self.front {
            None => self.front = Some(bytes),
            Some(_) => self.push_behind(bytes),
        }
    }

    fn push_behind(&mut self, bytes: Bytes) {
        let rest = self.rest.get_or_insert_default();
        rest.len += bytes.len();
        rest.pieces.push_back(bytes);
        if rest.pieces.len() >= MANY && rest.len / rest.pieces.len() < SMALL {
            self.join();
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let bytes = self.front.take()?;
        if let Some(rest) = &mut self.rest {
            self.front = rest.pop();
        }
        Some(bytes)
    }

    /// Moves the first `n` bytes to the end of `out`.
    pub(crate) fn move_to(&mut self, mut n: usize, out: &mut Vec<u8>) {
        let len = self.len();
        assert!(n <= len, "{n} of {len} bytes");
        while n > 0 {
            let Some(front) = &mut self.front else { return };
            let part = n.min(front.len());
            out.extend_from_slice(&front[..part]);
            n -= part;
            if part == front.len() {
                self.front = self.rest.as_mut().and_then(|rest| rest.pop());
            } else {
                front.advance(part);
            }
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.front = None;
        // looked at first: letting go of nothing is a call, too
        if self.rest.is_some() {
            self.rest = None;
        }
    }

    fn join(&mut self) {
        let mut all = BytesMut::with_capacity(self.len());
        let rest = self.rest.take().into_iter().flat_map(|rest| rest.pieces);
        self.front.take().into_iter().chain(rest).for_each(|piece| all.put_slice(&piece));
        self.front = Some(all.freeze());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(pieces in prop::collection::vec(0usize..700, 0..120), takes in prop::collection::vec(0usize..900, 0..120)) {
            let (mut queue, mut put, mut got, mut next) = (Chunks::default(), Vec::new(), Vec::new(), 0u8);
            let mut takes = takes.into_iter();
            for len in pieces {
                let piece: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                put.extend_from_slice(&piece);
                queue.push(piece.into());
                match takes.next() {
                    Some(n) if n % 3 == 0 => got.extend(queue.pop().unwrap_or_default()),
                    Some(n) if n % 3 == 1 => queue.move_to(n.min(queue.len()), &mut got),
                    _ => {}
                }
                prop_assert_eq!(queue.len(), put.len() - got.len());
            }
            while let Some(piece) = queue.pop() {
                prop_assert!(!piece.is_empty());
                got.extend(piece);
            }
            prop_assert_eq!(got, put);
        }
    }

    #[test]
    fn many_tiny_pieces_are_joined() {
        let mut queue = Chunks::default();
        (0..10_000).for_each(|_| queue.push(Bytes::from_static(b"x")));
        assert!(queue.rest.as_ref().is_none_or(|rest| rest.pieces.len() <= MANY));
        assert_eq!(queue.len(), 10_000);
    }
}

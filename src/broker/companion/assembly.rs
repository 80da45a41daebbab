//! From records to messages: what comes in pieces is put together, what is too large goes on in parts.

use std::collections::HashMap;
use std::time::SystemTime;

use bytes::Bytes;
use foldhash::fast::RandomState;
use uuid::Uuid;

use crate::broker::core::Record;
use crate::forward::{Headers, Kind, Message, Part};

/// Messages that have begun on one core and not ended.
#[derive(Debug)]
pub(super) struct Assembly {
    open: HashMap<(u64, bool), Open, RandomState>,
    /// A body larger than this goes on in parts, each but the last of this size.
    max_message: usize,
    /// Bytes of bodies that may be held in all.
    max_held: usize,
    held: usize,
    /// The key of the next message: drawn at random once, then counted on.
    next_key: u128,
    /// Producers that take messages in parts, as bits.
    takes_parts: u64,
    /// Messages given up for want of memory.
    cut: u64,
}

#[derive(Debug)]
struct Open {
    producers: u64,
    /// All but the body and the part.
    message: Message,
    body: Vec<u8>,
    sequence: u32,
    /// Given up: the rest is thrown away.
    cut: bool,
}

impl Assembly {
    pub(super) fn new(max_message: usize, max_held: usize, takes_parts: u64) -> Assembly {
        let open = HashMap::default();
        Assembly { open, max_message, max_held, held: 0, next_key: Uuid::new_v4().as_u128(), takes_parts, cut: 0 }
    }

    /// Takes a record in, and gives out what is ready, with who is to get it.
    pub(super) fn take(&mut self, record: Record<'_>, now: SystemTime, mut out: impl FnMut(u64, Message)) {
        match record {
            Record::Begin { message, producers, id, channel, headers, body, end } => {
                self.next_key = self.next_key.wrapping_add(1);
                let whole = end && body.len() <= self.max_message;
                let first = Message {
                    id: Uuid::from_bytes(id),
                    channel,
                    kind: if message.1 { Kind::Response } else { Kind::Request },
                    headers: Headers::from_block(Bytes::copy_from_slice(headers)),
                    time: now,
                    part: Part::Whole,
                    body: if whole { Bytes::copy_from_slice(body) } else { Bytes::new() },
                    key: Uuid::from_u128(self.next_key),
                };
                if whole {
                    return out(producers, first);
                }
                let open = Open { producers, message: first, body: Vec::new(), sequence: 0, cut: false };
                self.open.insert(message, open);
                self.data(message, body, end, &mut out);
            }
            Record::Data { message, body, end } => self.data(message, body, end, &mut out),
            Record::Abort { message } => {
                let Some(open) = self.open.remove(&message) else { return };
                self.held -= open.body.len();
                if !open.cut {
                    open.abort(&mut out);
                }
            }
        }
    }

    fn data(&mut self, message: (u64, bool), mut body: &[u8], end: bool, out: &mut impl FnMut(u64, Message)) {
        let Some(open) = self.open.get_mut(&message) else { return };
        if open.cut {
            body = &[];
        }
        while open.body.len() + body.len() > self.max_message {
            // full, and something follows
            let (now, rest) = body.split_at(self.max_message - open.body.len());
            self.held -= open.body.len();
            open.body.extend_from_slice(now);
            body = rest;
            open.chunk(false, out);
        }
        open.body.extend_from_slice(body);
        self.held += body.len();
        if end {
            let Some(mut open) = self.open.remove(&message) else { return };
            self.held -= open.body.len();
            if open.cut {
                return;
            }
            if open.sequence > 0 {
                open.chunk(true, out);
            } else {
                open.message.body = Bytes::from(open.body);
                out(open.producers, open.message);
            }
        } else if self.held > self.max_held {
            self.held -= open.body.len();
            if open.producers & !self.takes_parts == 0 {
                if !open.body.is_empty() {
                    open.chunk(false, out);
                }
                return;
            }
            open.body = Vec::new();
            open.cut = true;
            self.cut += 1;
            open.abort(out);
        }
    }

    /// Messages given up for want of memory, so far.
    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    /// Nothing more will come: what is open never ends.
    pub(super) fn end(&mut self, mut out: impl FnMut(u64, Message)) {
        for (_, open) in self.open.drain().filter(|(_, open)| !open.cut) {
            open.abort(&mut out);
        }
        self.held = 0;
    }
}

impl Open {
    fn chunk(&mut self, last: bool, out: &mut impl FnMut(u64, Message)) {
        let body = Bytes::from(std::mem::take(&mut self.body));
        let part = Part::Chunk { sequence: self.sequence, last };
        self.sequence += 1;
        out(self.producers, Message { part, body, ..self.message.clone() });
    }

    fn abort(&self, out: &mut impl FnMut(u64, Message)) {
        let part = Part::Aborted { sequence: self.sequence };
        out(self.producers, Message { part, ..self.message.clone() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ChannelId;

    fn begin<'a>(message: (u64, bool), body: &'a [u8], end: bool) -> Record<'a> {
        Record::Begin { message, producers: 1, id: [7; 16], channel: ChannelId::NIL, headers: b"", body, end }
    }

    fn run(assembly: &mut Assembly, records: &[Record<'_>]) -> Vec<(Part, Vec<u8>)> {
        let mut said = Vec::new();
        for record in records {
            assembly
                .take(*record, SystemTime::UNIX_EPOCH, |_, message| said.push((message.part, message.body.to_vec())));
        }
        said
    }

    const M: (u64, bool) = (1, false);

    #[test]
    fn what_comes_in_pieces_is_one_message() {
        let mut assembly = Assembly::new(10, 100, 0);
        let data = |body: &'static [u8], end| Record::Data { message: M, body, end };
        let said = run(&mut assembly, &[begin(M, b"ab", false), data(b"cd", false), data(b"", true)]);
        assert_eq!(said, [(Part::Whole, b"abcd".to_vec())]);
        // exactly as large as may be
        let said = run(&mut assembly, &[begin(M, b"12345", false), data(b"67890", true)]);
        assert_eq!(said, [(Part::Whole, b"1234567890".to_vec())]);
        assert_eq!(assembly.held, 0);
    }

    #[test]
    fn one_that_never_ends_is_aborted_and_no_more_comes_of_it() {
        let mut assembly = Assembly::new(4, 100, 0);
        let abort = Record::Abort { message: M };
        assert_eq!(run(&mut assembly, &[begin(M, b"ab", false), abort]), [(Part::Aborted { sequence: 0 }, vec![])]);
        let said = run(&mut assembly, &[begin(M, b"abcdef", false), abort]);
        let chunk = (Part::Chunk { sequence: 0, last: false }, b"abcd".to_vec());
        assert_eq!(said, [chunk, (Part::Aborted { sequence: 1 }, vec![])]);
        assert_eq!((assembly.held, assembly.open.len()), (0, 0));
    }

    #[test]
    fn too_much_at_once_is_cut_or_goes_early() {
        for (takes_parts, first) in [(0, Part::Aborted { sequence: 0 }), (1, Part::Chunk { sequence: 0, last: false })]
        {
            let mut assembly = Assembly::new(100, 5, takes_parts);
            let said = run(&mut assembly, &[begin(M, b"0123456789", false)]);
            assert_eq!(said[0].0, first);
            assert_eq!((assembly.held, assembly.cut()), (0, u64::from(takes_parts == 0)));
            let said = run(&mut assembly, &[Record::Data { message: M, body: b"x", end: true }]);
            assert_eq!(said.len(), takes_parts as usize);
        }
    }

    proptest! {
        #[test]
        fn parts_come_to_the_whole(max in 1usize..40, pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..8)) {
            let mut assembly = Assembly::new(max, usize::MAX, 0);
            let last = pieces.len() - 1;
            let record = |at: usize| match at {
                0 => begin(M, &pieces[0], last == 0),
                _ => Record::Data { message: M, body: &pieces[at], end: at == last },
            };
            let records: Vec<_> = (0..pieces.len()).map(record).collect();
            let said = run(&mut assembly, &records);
            let whole = pieces.concat();
            prop_assert_eq!(said.iter().flat_map(|(_, body)| body.clone()).collect::<Vec<_>>(), whole.clone());
            if whole.len() <= max {
                prop_assert_eq!(&said[..], &[(Part::Whole, whole)]);
            } else {
                for (at, (part, body)) in said.iter().enumerate() {
                    prop_assert_eq!(*part, Part::Chunk { sequence: at as u32, last: at == said.len() - 1 });
                    prop_assert!(body.len() == max || at == said.len() - 1);
                }
            }
            prop_assert_eq!(assembly.held, 0);
        }
    }
}

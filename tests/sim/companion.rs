//! What reads a core's copies, and puts messages together again.

use std::collections::{BTreeMap, VecDeque};

use corelay::base::ChannelId;
use corelay::broker::core::{Record, records};

/// A message that was copied to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) producers: u64,
    pub(crate) id: [u8; 16],
    pub(crate) response: bool,
    pub(crate) channel: ChannelId,
    pub(crate) headers: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// One core's.
#[derive(Debug, Default)]
pub(crate) struct Companion {
    /// Batches it has not read.
    waiting: VecDeque<Vec<u8>>,
    /// Reads nothing for now.
    pub(crate) stalled: bool,
    /// Bytes read.
    pub(crate) read: u64,
    /// Producers whose queue is full.
    pub(crate) full: u64,
    open: BTreeMap<(u64, bool), Copy>,
    pub(crate) whole: Vec<Copy>,
    pub(crate) aborted: u64,
}

impl Companion {
    pub(crate) fn hand_over(&mut self, batch: Vec<u8>) {
        assert!(!batch.is_empty(), "an empty batch");
        self.waiting.push_back(batch);
    }

    /// Reads what waits, and gives the buffers back. Says whether there was anything.
    pub(crate) fn turn(&mut self, mut give_back: impl FnMut(Vec<u8>)) -> bool {
        let mut any = false;
        while !self.stalled
            && let Some(batch) = self.waiting.pop_front()
        {
            any = true;
            self.read += batch.len() as u64;
            records(&batch).for_each(|record| self.record(record));
            give_back(batch);
        }
        any
    }

    fn record(&mut self, record: Record<'_>) {
        let (message, end) = match record {
            Record::Begin { message, producers, id, channel, headers, body, end } => {
                assert_ne!(producers, 0, "a copy for nobody");
                let (headers, body) = (headers.to_vec(), body.to_vec());
                let copy = Copy { producers, id, response: message.1, channel, headers, body };
                assert_eq!(self.open.insert(message, copy), None, "{message:?} begins twice");
                (message, end)
            }
            Record::Data { message, body, end } => {
                let copy = self.open.get_mut(&message).unwrap_or_else(|| panic!("{message:?} goes on without a begin"));
                copy.body.extend_from_slice(body);
                (message, end)
            }
            Record::Abort { message } => {
                assert!(self.open.remove(&message).is_some(), "{message:?} is aborted and had not begun");
                self.aborted += 1;
                return;
            }
        };
        if end {
            self.whole.extend(self.open.remove(&message));
        }
    }

    /// Messages that have begun, and neither ended nor been aborted.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

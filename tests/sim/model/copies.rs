//! What was copied for producers, held against what was sent.

use std::collections::BTreeSet;

use super::{FOREIGN, Shared, body, header_block, number_of};
use crate::companion::Copy;

impl Shared {
    /// Asserts that each copy is a message of this run, whole, and there once.
    pub(crate) fn check_copies<'a>(&self, copies: impl Iterator<Item = &'a Copy>) {
        let mut seen = BTreeSet::new();
        for copy in copies {
            let number = number_of(&copy.id);
            if number == FOREIGN || self.specs[number as usize].hostile {
                continue;
            }
            let spec = &self.specs[number as usize];
            if copy.response && self.tainted[spec.channel] {
                continue;
            }
            assert!(seen.insert((number, copy.response)), "request {number} was copied twice: {copy:?}");
            let up = !copy.response;
            let len = if up { spec.up_len } else { spec.down_len };
            assert!(body(number, up, 0, len).eq(copy.body.iter().copied()), "request {number}, copied wrong: {copy:?}");
            let headers = if spec.headers { header_block(number, up) } else { Vec::new() };
            assert_eq!(headers.get(2..).unwrap_or_default(), copy.headers, "headers of request {number}");
        }
    }
}

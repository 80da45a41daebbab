//! A fuzzer's input read as a script: a byte says what happens next, the bytes behind it how.

/// What is left of the input; zeros behind its end.
pub(crate) struct Script<'a> {
    pub(crate) left: &'a [u8],
}

impl<'a> Script<'a> {
    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        first
    }

    /// As many bytes as the next one says, of which there are at most `most`.
    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let n = (usize::from(self.byte()) % (most + 1)).min(self.left.len());
        let (taken, rest) = self.left.split_at(n);
        self.left = rest;
        taken
    }
}

//! What a reactor is built with.

use std::time::Duration;

/// What a reactor is built with; the same for both kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Receive buffers; a power of two, at most 32,768 (the kernel's limit of a buffer ring).
    ///
    /// A small frame takes a whole buffer until the end of the turn; a turn takes in some 256 completions.
    pub buffers: u32,
    /// Bytes in each receive buffer; a multiple of 64.
    ///
    /// 256 of 64 KiB are 16 MiB a core. With 16 KiB, messages of 64 KiB took half as much CPU again.
    pub buffer_size: u32,
    /// Submissions that fit one kernel entry (io_uring only); more are handed over in between.
    pub entries: u32,
    /// How long to poll for something to happen before sleeping. Zero: sleep at once.
    pub spin: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { buffers: 256, buffer_size: 64 << 10, entries: 1024, spin: Duration::ZERO }
    }
}

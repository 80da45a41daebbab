//! What a reactor is built with.

use std::time::Duration;

/// What a reactor is built with; the same for both kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Receive buffers; a power of two, at most 32,768 (the kernel's limit of a buffer ring).
    ///
    /// A receive of a small frame takes a whole buffer until the end of the turn. 1,024 of them let a thousand
    /// connections be heard in one turn without running dry.
    pub buffers: u32,
    /// Bytes in each receive buffer; a multiple of 64.
    ///
    /// 16 KiB with 1,024 buffers are 16 MiB a core. A larger one would save completions on streams only; what is
    /// smaller costs them more of these (64 KiB are four).
    pub buffer_size: u32,
    /// Submissions that fit one kernel entry (io_uring only); more are handed over in between.
    pub entries: u32,
    /// How long to poll for something to happen before sleeping. Zero: sleep at once.
    pub spin: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { buffers: 1024, buffer_size: 16 << 10, entries: 1024, spin: Duration::ZERO }
    }
}

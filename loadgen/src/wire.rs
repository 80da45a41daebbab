//! What the load engine asks of a protocol: a consumer that numbers its requests by slot, and a provider that answers.

use crate::pump::Out;

/// How much may wait to be sent on one connection before streamed bodies pause, in bytes.
pub const HIGH_WATER: usize = 256 << 10;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, with so many bytes of body.
    Answered(u64),
    /// Failed, with this code of the protocol's (corelay: PROTOCOL.md §6).
    Failed(u16),
}

/// The connection can't go on: the other side broke the protocol, or said goodbye.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

/// The requests of a connection that ended, by slot.
pub type Done = Vec<(u32, Outcome)>;

/// A consumer's side of a connection. No call blocks or, once warm, allocates.
pub trait Consumer {
    /// Begins a request of `size` body bytes under a number that is free.
    fn request(&mut self, slot: u32, size: u64, out: &mut Out);

    /// Bytes came. Requests that ended are added to `done`; their slots are free.
    ///
    /// # Errors
    /// If the connection can't go on.
    fn receive(&mut self, bytes: &[u8], out: &mut Out, done: &mut Done) -> Result<(), Broken>;

    /// Goes on with bodies that are streamed, until [`HIGH_WATER`] waits in `out`.
    fn resume(&mut self, out: &mut Out);
}

/// A provider's side of a connection. No call blocks or, once warm, allocates.
pub trait Provider {
    /// Bytes came; requests that are complete are answered. Returns how many.
    ///
    /// # Errors
    /// If the connection can't go on.
    fn receive(&mut self, bytes: &[u8], out: &mut Out) -> Result<u64, Broken>;

    /// Goes on with bodies that are streamed, until [`HIGH_WATER`] waits in `out`.
    fn resume(&mut self, out: &mut Out);
}

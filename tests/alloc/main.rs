//! The proof that a warm broker allocates nothing for a small request: its thread's allocations are counted.

#![allow(unreachable_pub)] // one binary: what its modules share is public to each other

#[path = "../../benches/common/mod.rs"]
mod common;
mod core;
mod counter;
mod shard;

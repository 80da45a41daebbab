//! What the benches share with each other, and with the tests that prove what the benches only show (`tests/alloc`,
//! `tests/it/syscalls.rs`).

// each binary that includes this uses its part of it
#![allow(dead_code, unreachable_pub)]

pub mod frames;
pub mod peers;
pub mod requests;
pub mod world;

//! The targets that need nothing but what the crate shows to everybody. Each is a function of bytes that panics if a
//! rule is broken; `fuzz/fuzz_targets` has a line for each, and so has this directory's `main.rs`.

mod broker;
mod frames;
mod headers;
mod script;
mod tls;

pub use broker::broker;
pub use frames::{frames, handshake};
pub use headers::headers;
pub use tls::tls;

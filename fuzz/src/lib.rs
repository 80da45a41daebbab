//! All fuzz targets by name, gathered from where they stand: each is a function of bytes that panics if a rule is
//! broken. The files of `fuzz_targets` call them.

#![allow(unreachable_pub)]

#[allow(dead_code, unused_imports)]
#[path = "../../tests/sim/companion.rs"]
mod companion;
#[allow(dead_code)]
#[path = "../../tests/it/pki.rs"]
mod pki;
#[allow(dead_code, unused_imports)]
#[path = "../../tests/sim/pool.rs"]
mod pool;
#[allow(dead_code, unused_imports)]
#[path = "../../tests/sim/world.rs"]
mod world;

#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

/// The command's modules; the path is that of the directory.
#[allow(dead_code, unused_imports)]
#[path = "../../src"]
mod command {
    pub(crate) mod config;
}

#[path = "../../loadgen/tests/fuzz/target.rs"]
mod load;

pub use corelay::client::fuzz_session as session;
pub use load::loadgen;
pub use targets::{broker, frames, handshake, headers, tls};

/// See the command's `config::fuzzing`.
pub fn config(data: &[u8]) {
    command::config::fuzzing::config(data);
}

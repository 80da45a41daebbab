//! The corelay command.

mod config;

fn main() {}

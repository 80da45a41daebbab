//! The corelay command.
fn main() {}

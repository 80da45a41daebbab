//! The broker: its core, and what drives it.

pub mod core;
pub mod options;

pub use options::*;

/// A broker.
#[derive(Debug)]
pub struct Server;

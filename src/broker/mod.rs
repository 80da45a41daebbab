//! The broker: its core, and what drives it.

pub mod core;

/// A broker.
#[derive(Debug)]
pub struct Server;

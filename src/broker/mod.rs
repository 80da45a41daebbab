//! The broker.

/// A broker.
#[derive(Debug)]
pub struct Server;

//! Building blocks for services, each usable alone, with or without the broker.

pub mod connection_pool;
pub mod message_broker;

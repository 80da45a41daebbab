//! Clients against a scripted broker, over pipes in memory and with time under control.

mod consumer;
#[cfg(feature = "toolkit")]
mod events;
mod provider;
mod reconnect;
mod sockets;
mod wire;

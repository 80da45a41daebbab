//! The forwarding clients for other systems' servers, against these servers: what they are given arrives whole and in
//! order, whatever becomes of the server in between.

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
pub mod rig;

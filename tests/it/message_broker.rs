//! The message broker interface: one suite that every adapter passes against the real system, and what is special to
//! each: its server killed in the middle of the work.

#[cfg(feature = "amqp")]
mod amqp;
mod conformance;
mod corelay;
#[cfg(feature = "kafka")]
mod kafka;
mod memory;
#[cfg(feature = "nats")]
mod nats;
pub mod outage;
#[cfg(feature = "redis")]
mod redis;
pub mod system;
mod table;

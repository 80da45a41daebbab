//! The connection pool with real servers.

mod outage;
mod postgres;
mod tcp;

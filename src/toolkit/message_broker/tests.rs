//! The handle and the embedded system, in virtual time.

mod groups;
mod in_flight;
mod ordering;
mod outage;
mod stuck;

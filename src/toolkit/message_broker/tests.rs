//! The handle and the embedded system, in virtual time.

mod groups;
mod ordering;

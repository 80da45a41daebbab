//! Counters and logs.

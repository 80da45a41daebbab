//! The client library, for tokio programs.

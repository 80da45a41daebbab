//! The pool over a make-believe server, in virtual time.

mod lifecycle;
mod limits;
mod property;
mod server;

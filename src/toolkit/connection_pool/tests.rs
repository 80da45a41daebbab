//! The pool over a make-believe server, in virtual time.

mod lifecycle;
mod limits;
mod property;

use super::{Options, Pool};
use crate::toolkit::testing::FakeServer;

/// A pool over a server of its own.
fn pool(options: Options) -> (Pool<FakeServer>, FakeServer) {
    let server = FakeServer::default();
    (Pool::new(server.clone(), options).unwrap(), server)
}

/// Nothing happens by itself, so that tests say what does.
fn quiet(max_open: usize) -> Options {
    Options {
        max_open,
        max_idle: Some(max_open),
        health_interval: None,
        idle_timeout: None,
        max_lifetime: None,
        validate_after: None,
        create_retries: 0,
        ..Options::default()
    }
}

/// Lets everything that can run do so, without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

//! A protocol of one's own for the producer pool: `cargo run --example forward_protocol`.
//!
//! ```text
//! the schemes: knock now among them
//! door: knock, knock: Hello!
//! nobody: there is no producer "nobody"
//! door: rejected: it is not polite to say nothing
//! 1 forwarded, 1 rejected, 0 left
//! ```

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use corelay::forward::{
    Client, ClientFactory, DropReason, ForwardError, Message, ProducerPool, Promise, SendError, SendErrorKind,
    SendFuture, Takes, UrlError,
};

/// 1. The client: what knows one target. This one speaks to people at a door, `knock://NAME`.
struct Knock {
    name: String,
}

impl Client for Knock {
    fn protocol_name(&self) -> &str {
        "knock"
    }

    // for people: were there a password in the URL, it would not be here
    fn address(&self) -> &str {
        &self.name
    }

    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(async move {
            if message.body.is_empty() {
                // no attempt will do better, so the producer makes none
                return Err(SendError::new(SendErrorKind::Rejected, "it is not polite to say nothing"));
            }
            // a client of a real protocol connects here if it must, and gives up after a timeout of its own
            let text = String::from_utf8_lossy(&message.body);
            writeln!(std::io::stdout(), "{}: knock, knock: {text}", self.name)
                .map_err(|error| SendError::new(SendErrorKind::Unavailable, error.to_string()))
        })
    }

    // somebody opened: that is an acknowledgement
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    fn takes(&self) -> Takes {
        Takes { max_body: Some(80), parts: false }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 2. its scheme
    ClientFactory::register("knock", |url| {
        let name = url.strip_prefix("knock://").filter(|name| !name.is_empty()).ok_or("expected knock://NAME")?;
        Ok(Arc::new(Knock { name: name.to_owned() }))
    })?;
    let is_known = matches!(ClientFactory::create("knock://"), Err(UrlError::Client { .. }));
    println!("the schemes: knock {} among them", if is_known { "now" } else { "not" });

    // 3. and it works like any other
    let pool = ProducerPool::new();
    let door = pool.add_url("door", "knock://door")?;
    for (id, result) in pool.forward_to_many_blocking(&["door", "nobody"], "Hello!") {
        match result {
            Ok(()) => {}
            Err(error) => println!("{id}: {error}"),
        }
    }
    if let Err(ForwardError::Dropped { error: Some(error), .. }) = door.forward_blocking("") {
        println!("door: {error}");
    }

    let report = pool.drain_blocking(Duration::from_secs(5));
    let counters = door.snapshot().counters;
    println!(
        "{} forwarded, {} rejected, {} left",
        counters.forwarded,
        counters.dropped.get(DropReason::Rejected),
        report["door"].left
    );
    Ok(())
}

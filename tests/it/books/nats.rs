//! NATS: with JetStream's acknowledgement, and without.

use std::time::Duration;

use async_nats::jetstream;
use tokio::task::{block_in_place, spawn_blocking};

use super::served::{Served, Service};
use super::{goes_wrong, number_of_whole};
use crate::servers::{Server, nats};

const SUBJECT: &str = "books";

/// A server of the test's own, with a stream that keeps all of one subject.
struct Nats {
    server: Server,
    acknowledged: bool,
}

impl Nats {
    async fn served(acknowledged: bool) -> Option<Served<Nats>> {
        let nats = Nats { server: spawn_blocking(nats::private).await.unwrap()?, acknowledged };
        let config = jetstream::stream::Config {
            name: SUBJECT.to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            ..jetstream::stream::Config::default()
        };
        nats.context().await.create_stream(config).await.unwrap();
        Some(Served::new(nats).await)
    }

    async fn context(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(nats::url(&self.server)).await.unwrap())
    }
}

impl Service for Nats {
    /// The stream itself drops what comes twice; without an acknowledgement nothing is sent twice.
    const TWICE: bool = false;
    /// Its library sends the rest of a batch on the next connection, before what the last one lost is tried again.
    const REORDERS: bool = true;

    fn port(&self) -> u16 {
        self.server.port
    }

    fn url(&self, port: u16, timeout: Duration) -> String {
        format!("nats://127.0.0.1:{port}/{SUBJECT}?jetstream={}&timeout={}s", self.acknowledged, timeout.as_secs())
    }

    async fn kill(&mut self) {
        block_in_place(|| self.server.kill());
    }

    async fn restart(&mut self) {
        block_in_place(|| self.server.restart(Server::listens));
    }

    async fn arrived(&mut self) -> Vec<u32> {
        let mut stream = self.context().await.get_stream(SUBJECT).await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut arrived = Vec::new();
        for sequence in 1..=last {
            arrived.push(number_of_whole(&stream.get_raw_message(sequence).await.unwrap().payload));
        }
        arrived
    }
}

mod acknowledged {
    use super::*;
    goes_wrong!(Nats::served(true), Nats::served(true), 2);
}

mod not_acknowledged {
    use super::*;
    goes_wrong!(Nats::served(false), Nats::served(false), 2);
}

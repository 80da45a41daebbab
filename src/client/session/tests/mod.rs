//! Sessions against a model broker: random work, random splits, every rule of the protocol checked on what is written.
//!
//! A failing seed is printed; `CORELAY_SEED=n` runs that one alone, `CORELAY_SEEDS=n` runs so many.

mod consumer;
mod faults;
mod fuzz;
mod peer;
mod provider;

use super::Session;
use crate::base::{ChannelId, Time};
use crate::protocol::{Hello, Role, VERSION, Welcome};

const WINDOW: u32 = 300;
const MAX_STREAMS: usize = 8;

fn hello(role: Role) -> Hello {
    Hello {
        version: VERSION,
        role,
        features: 0,
        channel: ChannelId::NIL,
        client: uuid::Uuid::nil(),
        window: WINDOW,
        max_concurrent: u32::from(role == Role::Provider) * MAX_STREAMS as u32,
        token: Default::default(),
        name: String::new(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: VERSION,
        core: 0,
        cores: 1,
        features: 0,
        server: uuid::Uuid::nil(),
        window: 200,
        max_frame: 128,
        max_streams: MAX_STREAMS as u32,
        keepalive_ms: 1000,
        default_timeout_ms: 0,
    }
}

/// A session past its handshake.
fn session(role: Role) -> Session {
    let mut session = Session::new(&hello(role)).unwrap();
    session.fill(&mut Vec::new());
    let mut bytes = Vec::new();
    welcome().encode(&mut bytes);
    session.receive(&mut bytes::BytesMut::from(&bytes[..]), Time::ZERO);
    assert!(session.welcome().is_some() && session.end().is_none());
    session
}

/// Runs `test` for each seed, and says which one failed.
fn for_seeds(test: impl Fn(&mut fastrand::Rng)) {
    struct Tell(u64);
    impl Drop for Tell {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with CORELAY_SEED={}", self.0);
            }
        }
    }
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let seeds = match number("CORELAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CORELAY_SEEDS").unwrap_or(300),
    };
    for seed in seeds {
        let tell = Tell(seed);
        test(&mut fastrand::Rng::with_seed(seed));
        drop(tell);
    }
}

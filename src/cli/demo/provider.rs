//! The two providers of the demo: they send back what they get, and hash it as it passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use corelay::broker::Server;
use corelay::client::{Error, Options, Provider, Request};
use xxhash_rust::xxh3::Xxh3;

use crate::cli::exit::Failure;

/// The channel of the demo.
pub(crate) const CHANNEL: &str = "demo";
/// Requests each provider holds at once.
const CONCURRENCY: u32 = 64;
/// Asks a provider to hash the request's body.
pub(crate) const HASH: &str = "x-demo-hash";

/// What one provider did.
#[derive(Debug, Default)]
struct Done {
    requests: AtomicU64,
    hash: Mutex<Option<u128>>,
}

/// Both providers.
#[derive(Debug)]
pub(crate) struct Providers {
    done: Vec<Arc<Done>>,
}

impl Providers {
    /// Connects them.
    pub(crate) async fn connect(server: &Server) -> Result<Providers, Failure> {
        let mut done = Vec::new();
        for name in ["demo provider A", "demo provider B"] {
            let options = Options::default().name(name);
            let provider = Provider::connect_with(server.addr(), CHANNEL, CONCURRENCY, options).await;
            let provider = provider.map_err(|error| Failure::new(super::WRONG, format!("{name}: {error}")))?;
            let one = Arc::new(Done::default());
            done.push(Arc::clone(&one));
            tokio::spawn(async move {
                let handler = move |request| echo(request, Arc::clone(&one));
                provider.serve(CONCURRENCY as usize, handler).await;
            });
        }
        Ok(Providers { done })
    }

    /// What the provider that was asked to hash saw, and which it was.
    pub(crate) fn take_hash(&self) -> Option<(char, u128)> {
        let hashes = ('A'..).zip(&self.done).map(|(name, done)| (name, done.hash.lock().ok()?.take()).into());
        hashes
            .into_iter()
            .find_map(|found: Option<(char, Option<u128>)>| found.and_then(|(name, hash)| Some((name, hash?))))
    }

    /// Requests answered so far, by each.
    pub(crate) fn answered(&self) -> Vec<u64> {
        self.done.iter().map(|done| done.requests.load(Ordering::Relaxed)).collect()
    }
}

async fn echo(mut request: Request, done: Arc<Done>) -> Result<(), Error> {
    let mut hash = request.header(HASH).is_some().then(|| Box::new(Xxh3::new()));
    let mut response = request.start_response(Vec::new())?;
    while let Some(chunk) = request.chunk().await? {
        if let Some(hash) = &mut hash {
            hash.update(&chunk);
        }
        response.write(chunk).await?;
    }
    // told before the end is sent, for whoever sees the end asks next
    if let (Some(hash), Ok(mut slot)) = (hash, done.hash.lock()) {
        *slot = Some(hash.digest128());
    }
    done.requests.fetch_add(1, Ordering::Relaxed);
    response.finish().await
}

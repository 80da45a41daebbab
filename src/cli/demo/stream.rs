//! One large request, there and back.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use corelay::broker::Server;
use corelay::client::{Body, Consumer, Response};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};
use xxhash_rust::xxh3::Xxh3;

use super::file::Source;
use super::memory::Watch;
use super::provider::{CHANNEL, HASH, Providers};
use super::{WRONG, say};
use crate::cli::exit::Failure;
use crate::cli::text;

/// Longer than any disk takes for a file that somebody would try this with.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Streams the file, checks it, and says what was measured.
pub(crate) async fn play(server: &Server, source: &Source, providers: &Providers) -> Result<(), Failure> {
    let wrong = |error: corelay::client::Error| Failure::new(WRONG, format!("streaming failed: {error}"));
    let consumer = Consumer::connect(server.addr(), CHANNEL).await.map_err(wrong)?;
    let hash = Arc::new(Mutex::new(Xxh3::new()));
    let mut file = source.reader().map_err(|error| Failure::local(format!("cannot read {}: {error}", source.name)))?;
    file.set_max_buf_size(256 * 1024);
    let body = Body::reader(Hashed { file, hash: Arc::clone(&hash) });
    let watch = Watch::start();
    let started = Instant::now();
    let response = consumer.request(body).timeout(TIMEOUT).header(HASH, "").send().await.map_err(wrong)?;
    let (received, back) = receive(response, source.len).await.map_err(wrong)?;
    let elapsed = started.elapsed();
    let sent = hash.lock().map_or(0, |hash| hash.digest128());
    let Some((provider, there)) = providers.take_hash() else {
        return Err(Failure::new(WRONG, "the response ended before the provider had"));
    };
    if received != source.len || sent != there || there != back {
        return Err(Failure::new(
            WRONG,
            format!(
                "the bytes changed on their way: sent {} bytes, xxh3 {sent:032x}; provider {there:032x}; \
                 received {received} bytes, {back:032x}",
                source.len
            ),
        ));
    }
    say(&report(source, provider, elapsed, sent, &watch))
}

fn report(source: &Source, provider: char, elapsed: Duration, hash: u128, watch: &Watch) -> String {
    let rate = source.len as f64 / elapsed.as_secs_f64();
    let (before, most) = (watch.before, watch.most());
    format!(
        "One request of {size} ({name}), streamed to a provider and back\n  \
         time       {time}: {rate}/s each way at once\n  \
         checked    sent = at provider {provider} = received: xxh3 {hash:032x}\n  \
         memory     {most} at most while it streamed, {before} before (all of this process)\n",
        size = text::bytes(source.len),
        name = source.name,
        time = text::time(elapsed),
        rate = text::bytes(rate as u64),
        most = text::bytes(most),
        before = text::bytes(before),
    )
}

async fn receive(mut response: Response, len: u64) -> Result<(u64, u128), corelay::client::Error> {
    // hidden by itself unless stderr is a terminal
    let bar = ProgressBar::new(len);
    let style = ProgressStyle::with_template("  {bytes}/{total_bytes} {wide_bar} {binary_bytes_per_sec}");
    bar.set_style(style.expect("a template that is tested"));
    let (mut received, mut hash) = (0, Xxh3::new());
    while let Some(chunk) = response.chunk().await? {
        received += chunk.len() as u64;
        hash.update(&chunk);
        bar.set_position(received);
    }
    bar.finish_and_clear();
    Ok((received, hash.digest128()))
}

/// A file that is hashed as it is read.
struct Hashed {
    file: File,
    hash: Arc<Mutex<Xxh3>>,
}

impl AsyncRead for Hashed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let poll = Pin::new(&mut self.file).poll_read(cx, into);
        if let Ok(mut hash) = self.hash.lock() {
            hash.update(&into.filled()[before..]);
        }
        poll
    }
}

//! `corelay demo`: the main job on real input, in one process, measured.
//!
//! ```text
//!   file ─► consumer ═► broker ═► provider ─┐      every byte is hashed where it is read from the file, at the
//!              ▲                            │      provider, and where it arrives back
//!              └═════════ broker ◄══════════┘
//! ```

mod file;
mod memory;
mod provider;
mod small;
mod stream;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use corelay::broker::{Cores, Io, Server, ServerOptions};
use tokio::runtime::{Builder, Runtime};

use super::exit::Failure;
use super::signals::Signals;
use super::text;
use crate::config::parse_size;
use file::Source;
use provider::Providers;

/// Show what it does: a file streamed through a broker and back, many small requests, measured
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// The file to stream [default: one of random bytes, made in the temporary directory and removed]
    file: Option<PathBuf>,
    /// Size of that made file
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size, conflicts_with = "file")]
    size: u64,
    /// Small requests to send
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// How the kernel is asked: auto, uring or epoll
    #[arg(long, value_name = "KIND", default_value = "auto")]
    io: Io,
    /// How many cores run the broker, or which: 4, or 0-3,6 [default: half of them; the others are for the clients]
    #[arg(long, value_name = "N|LIST")]
    cores: Option<Cores>,
}

const AFTER: &str = "\
Broker, providers and consumer share this one process and its cores, so the figures are those of all of them \
together: a floor for what the broker does, not its limit.

Examples:
  corelay demo
  corelay demo ~/Downloads/debian.iso --requests 100000
  corelay demo --size 100MiB --io epoll --cores 1

Exit codes:
    0  all of it came through unchanged
    1  something was lost or changed, or a request failed
    2  bad usage, or the file can't be read
   10  no room for the file, or the broker could not start";

/// Something was lost or changed.
const WRONG: u8 = 1;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let half = || Cores::Count((cpus / 2).max(1));
    let options = ServerOptions {
        listen: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        cores: args.cores.clone().unwrap_or_else(half),
        io: args.io,
        name: "demo".into(),
        ..ServerOptions::default()
    };
    // the size is known to fit before anything runs
    let source = match &args.file {
        Some(path) => Source::open(path)?,
        None => {
            say(&format!(
                "Making {} of random bytes in {} ...",
                text::bytes(args.size),
                std::env::temp_dir().display()
            ))?;
            Source::make(args.size)?
        }
    };
    let server =
        Server::start(options).map_err(|error| Failure::local(format!("the broker did not start: {error}")))?;
    let runtime = Builder::new_multi_thread().worker_threads((cpus / 2).max(2)).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::local(format!("cannot start: {error}")))?;
    let result = play(&runtime, &server, &source, &args);
    runtime.shutdown_background();
    if result.is_err() {
        server.kill();
    }
    let stopped = server.stop();
    result?;
    stopped.map_err(|error| Failure::new(WRONG, format!("the broker did not end in order: {error}")))
}

fn play(runtime: &Runtime, server: &Server, source: &Source, args: &Args) -> Result<(), Failure> {
    let started = Instant::now();
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let scenes = async {
            let providers = Providers::connect(server).await?;
            say(&opening(server, args))?;
            stream::play(server, source, &providers).await?;
            small::play(server, args.requests, &providers).await?;
            say(&closing(started))
        };
        signals.unless(scenes).await
    })
}

fn opening(server: &Server, args: &Args) -> String {
    let io = match server.io() {
        Io::Epoll if args.io == Io::Auto => "epoll (io_uring can't be used here)".to_owned(),
        Io::Epoll => "epoll".to_owned(),
        _ => "io_uring".to_owned(),
    };
    format!("A broker at {} on {io}, two providers and a consumer, all in this process.\n", server.addr())
}

fn closing(started: Instant) -> String {
    format!(
        "All of it came through unchanged, in {}. Next:\n  \
         corelay serve                               a broker of your own\n  \
         corelay reply shout --exec 'tr a-z A-Z'     a provider, any command\n  \
         echo hello | corelay request shout          a request",
        text::time(started.elapsed())
    )
}

/// One piece of the report, at once.
fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| Failure::stdout(&error))
}

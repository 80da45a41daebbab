//! `corelay request`: one request; its answer goes to stdout as it comes.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use corelay::client::{Body, Consumer, Headers, Response};
use indicatif::{HumanBytes, ProgressBar};
use tokio::io::AsyncWriteExt;

use super::client::SendArgs;
use super::exit::{self, Failure};
use super::input::Input;
use super::signals::{Signals, block_on};

/// Send one request; the response goes to stdout as it comes
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Args {
    #[command(flatten)]
    send: SendArgs,
    /// Print the response's headers to stderr, as KEY: VALUE
    #[arg(long)]
    show_headers: bool,
}

const EXAMPLES: &str = "\
Examples:
  echo hello | corelay request shout
  corelay request thumbnails photo.jpg --header content-type=image/jpeg --timeout 10s > thumbnail.jpg
  corelay request shrink big.log --timeout 10m > big.log.gz
  corelay request jobs job.json --wait --retry --timeout 5m --server broker-1:9090,broker-2:9090";

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    block_on(async {
        let mut signals = Signals::new()?;
        let input = Input::open(&args.send.file).await?;
        let consumer = signals.unless(args.send.server.consumer(args.send.channel, "corelay request")).await?;
        let (body, bar) = input.into_body();
        let result = signals.unless(exchange(&args, &consumer, body, &bar)).await;
        bar.finish_and_clear();
        settle(&consumer).await;
        result
    })
}

/// How long a cancelled request gets to be cancelled on the wire, too.
const SETTLE: Duration = Duration::from_secs(1);

/// Lets what was dropped before its end be cancelled at the broker.
pub(crate) async fn settle(consumer: &Consumer) {
    // whether it was or not, the command ends with the request's own outcome
    let _ = consumer.drain(SETTLE).await;
}

async fn exchange(args: &Args, consumer: &Consumer, body: Body, bar: &ProgressBar) -> Result<(), Failure> {
    let response = args.send.build(consumer, body).send().await.map_err(|error| Failure::request(&error))?;
    if args.show_headers {
        bar.suspend(|| show(response.headers()));
    }
    copy_to_stdout(response, bar).await
}

fn show(headers: &Headers) {
    let mut stderr = std::io::stderr().lock();
    for (key, value) in headers {
        // a peer's bytes must not steer a terminal
        let _ = writeln!(stderr, "{key}: {}", value.escape_ascii());
    }
}

async fn copy_to_stdout(mut response: Response, bar: &ProgressBar) -> Result<(), Failure> {
    let mut stdout = tokio::io::stdout();
    let mut received = 0;
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::request(&error))? {
        if received == 0 && std::io::stdout().is_terminal() {
            bar.finish_and_clear();
        }
        received += chunk.len() as u64;
        bar.set_message(format!("received {}", HumanBytes(received)));
        let written = async {
            stdout.write_all(&chunk).await?;
            stdout.flush().await
        };
        written.await.map_err(|error| Failure::stdout(&error))?;
    }
    Ok(())
}

//! `corelay reply`: answers a channel's requests, by echoing them or by a command for each.

use std::convert::Infallible;
use std::time::Duration;

use clap::ArgGroup;
use corelay::base::ChannelId;
use corelay::client::{Error, Provider, Request};
use corelay::toolkit::worker_pool::{Attempt, Handler, Options as PoolOptions, Source, SourcePool};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::client::ServerArgs;
use super::exec::Exec;
use super::exit::{self, Failure};
use super::signals::{Signals, block_on};

/// Answer a channel's requests: echo them, or run a command for each
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("how").required(true), after_help = AFTER)]
pub(crate) struct Args {
    /// The channel: a UUID or a name
    channel: ChannelId,
    /// Send each request's body and headers back
    #[arg(long, group = "how")]
    echo: bool,
    /// Run this command (sh -c) for each request: body on its stdin, its stdout the response, both streamed
    #[arg(long, value_name = "CMD", group = "how")]
    exec: Option<String>,
    /// Requests to hold at once; the broker gives no more
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: u32,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER: &str = "\
The command finds these in its environment:
  CORELAY_REQUEST_ID     the request's id
  CORELAY_CHANNEL        the channel
  CORELAY_HEADER_<NAME>  each header, upper-cased, - as _ (content-type: CORELAY_HEADER_CONTENT_TYPE)

A non-zero exit fails the request with the end of the command's stderr. When the consumer cancels, goes away or its \
timeout passes, the command's whole process group gets SIGTERM, and SIGKILL 2 s later. What a command leaves running \
behind it is killed. It is the process group that is signalled: what makes a session or group of its own (setsid) runs \
on, and so does every command when this provider is itself ended by SIGKILL.

SIGTERM or SIGINT: no new requests, those in hand are finished (10 s at most), exit 0.

Examples:
  corelay reply echo --echo
  corelay reply shout --exec 'tr a-z A-Z' --concurrency 4
  corelay reply thumbnails --exec 'convert - -resize 200x200 jpg:-'

Exit codes:
    0  ended in order by SIGTERM or SIGINT
    2  bad usage
    3  no connection: unreachable or not allowed
    9  the protocol was broken, or the broker is at fault
  130  ended at once by a second SIGINT; 143: by a second SIGTERM";

/// How long requests in hand may take after a signal.
const DRAIN: Duration = Duration::from_secs(10);

enum How {
    Echo,
    Exec(Exec),
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    block_on(async {
        let mut signals = Signals::new()?;
        let options = args.server.options("corelay reply")?;
        let connect = async {
            let connected = Provider::connect_with(args.server.addrs(), args.channel, args.concurrency, options).await;
            connected.map_err(|error| args.server.unreachable(&error))
        };
        let provider = signals.unless(connect).await?;
        let how = args.exec.map_or(How::Echo, |command| How::Exec(Exec { command, channel: args.channel }));
        info!(channel = %args.channel, "answering");
        serve(&provider, args.concurrency as usize, how, &mut signals).await
    })
}

async fn serve(provider: &Provider, workers: usize, how: How, signals: &mut Signals) -> Result<(), Failure> {
    // each request has a time of its own: its deadline
    let options = PoolOptions::new(workers).timeout(None);
    let pool = SourcePool::start(options, Requests(provider.clone()), how)
        .map_err(|error| Failure::usage(error.to_string()))?;
    tokio::select! {
        () = pool.finished() => return lost(provider),
        _ = signals.next() => {}
    }
    // ends in order: what the broker has handed over is still answered
    let result = tokio::select! {
        drained = provider.drain(DRAIN) => {
            if let Err(error) = drained {
                warn!(%error, "requests were not finished");
            }
            Ok(())
        }
        number = signals.next() => Err(Failure::signal(number)),
    };
    // what is left is dropped, and its commands with it
    pool.shutdown(Duration::ZERO).await;
    result
}

/// The channel's requests, for workers to fetch.
struct Requests(Provider);

impl Source for Requests {
    /// Until a worker takes it.
    type Job = Option<Request>;

    async fn next(&self) -> Option<Option<Request>> {
        self.0.receive().await.map(Some)
    }
}

impl Handler for How {
    type Job = Option<Request>;
    type Error = Infallible;

    async fn process(&self, request: &mut Option<Request>, _: &Attempt<'_>) -> Result<(), Infallible> {
        if let Some(request) = request.take() {
            self.answer(request).await;
        }
        Ok(())
    }

    /// A command is told to end at its request's deadline, and made to 2 s later. This is for what even that doesn't
    /// end, so that it keeps no other request waiting for good; it is logged.
    fn deadline(&self, request: &Option<Request>) -> Option<Instant> {
        request.as_ref()?.deadline().checked_add(DRAIN)
    }
}

fn lost(provider: &Provider) -> Result<(), Failure> {
    match provider.error() {
        Some(error) => Err(Failure::new(exit::code_of(error.kind), error.to_string())),
        None => Ok(()),
    }
}

impl How {
    async fn answer(&self, request: Request) {
        let id = request.id();
        let result = match self {
            How::Echo => echo(request).await,
            How::Exec(exec) => exec.answer(request).await,
        };
        match result {
            Ok(()) => debug!(%id, "answered"),
            // cancelled, mostly; the broker knows why
            Err(error) => info!(%id, %error, "not answered"),
        }
    }
}

async fn echo(mut request: Request) -> Result<(), Error> {
    let headers = request.headers().clone();
    let mut response = request.start_response(headers)?;
    while let Some(chunk) = request.chunk().await? {
        response.write(chunk).await?;
    }
    response.finish().await
}

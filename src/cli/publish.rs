//! `corelay publish`: one request that wants no answer.

use super::client::SendArgs;
use super::exit::{self, Failure};
use super::input::Input;
use super::request::settle;
use super::signals::{Signals, block_on};

/// Send one request that wants no answer; done when a provider has it whole
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Args {
    #[command(flatten)]
    send: SendArgs,
}

const EXAMPLES: &str = "\
Examples:
  corelay publish events event.json --header event-type=order.created
  tail -n 1000 app.log | corelay publish logs --wait --timeout 1m";

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    block_on(async {
        let mut signals = Signals::new()?;
        let input = Input::open(&args.send.file).await?;
        let consumer = signals.unless(args.send.server.consumer(args.send.channel, "corelay publish")).await?;
        let (body, bar) = input.into_body();
        let publish =
            async { args.send.build(&consumer, body).publish().await.map_err(|error| Failure::request(&error)) };
        let result = signals.unless(publish).await;
        bar.finish_and_clear();
        settle(&consumer).await;
        result
    })
}

//! `corelay ping`: round trips to a broker.

use std::io::Write;
use std::time::{Duration, Instant};

use corelay::base::ChannelId;
use corelay::client::Consumer;
use tokio::time::MissedTickBehavior;

use super::client::ServerArgs;
use super::exit::{self, Failure};
use super::signals::{Signals, block_on};
use super::text;
use crate::config::parse_duration;

/// Measure round trips to a broker
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// How many [default: until Ctrl-C]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// From one to the next; the broker allows 10 a second
    #[arg(long, short, value_name = "TIME", default_value = "200ms", value_parser = interval)]
    interval: Duration,
}

const AFTER: &str = "\
A round trip is one PING frame and its PONG, answered by the core that owns the connection: what the network, both \
kernels and the broker's loop take, without a provider.

Examples:
  corelay ping
  corelay ping --server broker-1:9090 --count 50 --interval 100ms

Exit codes:
    0  every PING was answered
    2  bad usage
    3  no connection, or it was lost
    5  a PING was not answered within 5 s";

/// After that a PING counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

fn interval(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time >= Duration::from_millis(100) {
        Ok(time)
    } else {
        Err("the broker allows 10 a second: at least 100ms".into())
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    block_on(async {
        let mut signals = Signals::new()?;
        let consumer = signals.unless(args.server.consumer(ChannelId::NIL, "corelay ping")).await?;
        if let Some(broker) = consumer.server() {
            say(format_args!("PING {}: broker {}, core {} of {}", broker.addr, broker.id, broker.core, broker.cores))?;
        }
        let started = Instant::now();
        let mut trips = Trips::default();
        let result = tokio::select! {
            result = pings(&consumer, &args, &mut trips) => result,
            _ = signals.next() => Ok(()),
        };
        trips.summary(&args.server.addrs().to_string(), started.elapsed())?;
        result
    })
}

async fn pings(consumer: &Consumer, args: &Args, trips: &mut Trips) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(args.interval);
    // the broker counts: never two at once to make up for a late one
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1..=args.count.unwrap_or(u64::MAX) {
        ticks.tick().await;
        trips.sent += 1;
        let trip = tokio::time::timeout(PATIENCE, consumer.ping()).await;
        let trip = trip.map_err(|_| Failure::new(5, format!("no answer within {PATIENCE:?}")))?;
        let trip = trip.map_err(|error| Failure::new(exit::code_of(error.kind), error.to_string()))?;
        trips.times.push(trip);
        say(format_args!("seq={number} time={}", text::time(trip)))?;
    }
    Ok(())
}

fn say(line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::stdout(&error))
}

/// What was measured.
#[derive(Debug, Default)]
struct Trips {
    sent: u64,
    /// 16 bytes each, at most 10 a second: a day's are 14 MiB.
    times: Vec<Duration>,
}

impl Trips {
    fn summary(&mut self, addr: &str, elapsed: Duration) -> Result<(), Failure> {
        self.times.sort_unstable();
        let answered = self.times.len();
        say(format_args!("--- {addr} ping statistics ---"))?;
        say(format_args!("{} sent, {answered} answered, time {}", self.sent, text::time(elapsed)))?;
        let (Some(&min), Some(&max)) = (self.times.first(), self.times.last()) else { return Ok(()) };
        let mean = self.times.iter().sum::<Duration>() / u32::try_from(answered).unwrap_or(u32::MAX);
        let p99 = self.times[(answered * 99).div_ceil(100) - 1];
        let [min, mean, max, p99] = [min, mean, max, p99].map(text::time);
        say(format_args!("round trip min/avg/max/p99 = {min} / {mean} / {max} / {p99}"))
    }
}

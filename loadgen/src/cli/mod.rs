//! The command line: flags in, plans out.

mod compare;
mod output;
mod report;
mod run;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use compare::{ChildArgs, CompareArgs, PumpArgs, SystemArgs};
pub use output::OutputArgs;
pub use report::ReportArgs;
pub use run::{Client, RunArgs};

/// What anything here fails with, told on standard error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Load for a corelay broker, with latencies that are not made to look better than they are.
///
/// Latency is counted from when a request was INTENDED to be sent (no coordinated omission); the histogram from the
/// actual send stands beside it. What makes a measurement doubtful (a missed schedule, a saturated load thread) is
/// said with the result.
///
/// Examples:
///   loadgen run --rate 30000 --consumers 64 --providers 4 --duration 30s
///   loadgen run --in-flight 64 --consumers 16 --providers 4 --pid $(pidof corelay)
///   loadgen run --rate 1000 --ramp-p99 5 --duration 5s          the highest rate with a p99 below 5 ms
///   loadgen run --rate 5000 --providers 0 --channel orders      load for a service that is there
///   loadgen run --rate 5000 --json a.json --html a.html --hgrm a.hgrm --log a.hlog
///   loadgen report a.json b.json --html both.html
///   loadgen limit                                               what this machine could do at best
///   loadgen compare --repeat 3 --markdown table.md              limit, corelay, NATS, ZeroMQ, alike
///   loadgen compare --work two-channels,spread,idle10k,churn    two cores against one; connections
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, verbatim_doc_comment, args_override_self = true, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Puts load on a broker and reports what came of it.
    Run(Box<RunArgs>),
    /// Shows runs that were written with --json beside each other.
    Report(ReportArgs),
    /// Measures the limit on this machine: a bare byte pump between paired connections, no broker's work.
    Limit {
        #[command(flatten)]
        args: CompareArgs,
        /// Microseconds that it looks for work before it sleeps
        #[arg(long, value_name = "US", default_value_t = 0)]
        spin_us: u64,
    },
    /// Measures the limit, corelay and its peers, each bound to one CPU and loaded from another.
    Compare {
        #[command(flatten)]
        args: CompareArgs,
        #[command(flatten)]
        systems: SystemArgs,
    },
    /// The limit's relay, started by limit and compare.
    #[command(hide = true)]
    Pump(PumpArgs),
    /// Another program that ends with this one, started by limit and compare.
    #[command(hide = true)]
    Child(ChildArgs),
    /// ZeroMQ's proxy, started by compare.
    #[cfg(feature = "zmq")]
    #[command(hide = true)]
    ZmqProxy,
}

/// Exit code of a run that a signal ended early, as shells have it.
const STOPPED: u8 = 130;

/// Runs the command; the exit code is 0 unless something failed, and 130 if a signal ended it early.
#[must_use]
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let (Command::Run(args), Some(("run", given))) = (&mut cli.command, matches.subcommand()) {
        args.rate_given = given.value_source("rate") == Some(ValueSource::CommandLine);
    }
    // libzmq's proxy looks at no flag: signals end it as they end any process
    #[cfg(feature = "zmq")]
    if matches!(cli.command, Command::ZmqProxy) {
        return exit(compare::zmq_proxy());
    }
    // what it becomes is to have the signals' usual meaning
    if let Command::Child(args) = &cli.command {
        return exit(compare::child(args));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let is_relay = matches!(cli.command, Command::Pump(_));
    let result = signals(&stop).and_then(|()| match cli.command {
        Command::Run(args) => run::run(&args, &stop),
        Command::Report(args) => report::run(&args),
        Command::Limit { args, spin_us } => compare::limit(&args, spin_us, &stop),
        Command::Compare { args, systems } => compare::run(&args, &systems, &stop),
        Command::Pump(args) => compare::pump(&args, &stop),
        Command::Child(_) => unreachable!("handled above"),
        #[cfg(feature = "zmq")]
        Command::ZmqProxy => unreachable!("handled above"),
    });
    match (result, stop.load(Ordering::Relaxed)) {
        // what it has until then is told; but it is not what was asked for
        (Ok(()), true) if !is_relay => {
            eprintln!("loadgen: stopped early");
            ExitCode::from(STOPPED)
        }
        (result, _) => exit(result),
    }
}

fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first SIGINT or SIGTERM asks for an orderly end, the second ends the process.
fn signals(stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most_files())?;
    Ok(())
}

/// As many open files as are allowed: each connection is one.
fn most_files() -> rustix::process::Rlimit {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum }
}

/// Reads `30s`, `500ms`, `1.5s`, `2m`; a bare number is seconds.
///
/// # Errors
/// If it is none.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let found = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)));
    let (number, scale) = found.unwrap_or((text, 1.0));
    let seconds = number.trim().parse::<f64>().ok().map(|number| number * scale);
    seconds
        .filter(|seconds| (0.0..=1e7).contains(seconds))
        .map(std::time::Duration::from_secs_f64)
        .ok_or_else(|| "expected a time such as 30s, 500ms or 2m".to_owned())
}

/// Reads a list of CPUs: `0,2-3`.
///
/// # Errors
/// If it is none.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let bad = || "expected CPUs such as 0,2-3".to_owned();
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
        if from > to || to >= rustix::thread::CpuSet::MAX_CPU {
            return Err(bad());
        }
        cpus.extend(from..=to);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_and_cpus_are_read() {
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("1.5", 1500), ("2m", 120_000), ("0", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1s", "1d", "1e9", "nan"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_cpus("0,2-3"), Ok(vec![0, 2, 3]));
        for bad in ["", "3-2", "a", "0,,1", "99999"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }
}

//! The command line: flags in, options out, one file a subcommand.
//!
//! | file | what it is |
//! |---|---|
//! | `serve`, `reload` | the broker, and what it reads anew |
//! | `request`, `publish` | the sending side |
//! | `reply`, `exec` | the answering side |
//! | `ping` | round trips to a broker |
//! | `top`, `lists`, `drain`, `check` | a running broker, by its admin endpoint |
//! | `shell` | completions, the manual page |
//! | `demo` | all of it at once, measured |
//! | `admin`, `client`, `input`, `signals`, `exit`, `text` | what several of them need |

mod admin;
mod check;
mod client;
mod demo;
mod drain;
mod exec;
mod exit;
mod input;
mod lists;
mod ping;
mod publish;
mod reload;
mod reply;
mod request;
mod serve;
mod shell;
mod signals;
mod text;
mod top;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use exit::Failure;

/// A request/reply broker for Linux: streamed requests of any size, balanced over providers.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = ABOUT)]
struct Cli {
    /// What to log to stderr: error, warn, info, debug, trace, or a filter such as corelay=debug
    ///
    /// Default: info for serve, warn for all others.
    #[arg(long, global = true, env = "CORELAY_LOG", value_name = "LEVEL", hide_env_values = true, display_order = 100)]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "\
Try it:
  corelay demo                                    all of it at once, in one process, measured
Or by hand, in three terminals:
  corelay serve
  corelay reply shout --exec 'tr a-z A-Z'
  echo hello | corelay request shout";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Request(request::Args),
    Publish(publish::Args),
    Reply(reply::Args),
    Ping(ping::Args),
    Top(top::Args),
    Channels(lists::ChannelsArgs),
    Connections(lists::ConnectionsArgs),
    Latency(lists::LatencyArgs),
    Check(check::Args),
    Drain(drain::Args),
    Demo(demo::Args),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// Parses the arguments, runs the subcommand, and tells what became of it.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        // for monitoring 2 means that the broker is down
        let code = error.exit_code();
        let arguments = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned());
        let check = code == i32::from(exit::USAGE) && subcommand(arguments).is_some_and(|name| name == "check");
        std::process::exit(if check { i32::from(check::UNKNOWN) } else { code })
    });
    let level = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    let result = log_to_stderr(cli.log.as_deref().unwrap_or(level)).and_then(|()| match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Request(args) => request::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Reply(args) => reply::run(args),
        Command::Ping(args) => ping::run(args),
        Command::Top(args) => top::run(args),
        Command::Channels(args) => lists::channels(args),
        Command::Connections(args) => lists::connections(args),
        Command::Latency(args) => lists::latency(args),
        Command::Check(args) => check::run(args),
        Command::Drain(args) => drain::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = &failure.text {
                // nobody is left to tell if stderr is closed
                let _ = writeln!(std::io::stderr(), "corelay: {text}");
            }
            ExitCode::from(failure.code)
        }
    }
}

/// The subcommand among arguments that could not be parsed.
fn subcommand(mut arguments: impl Iterator<Item = String>) -> Option<String> {
    loop {
        match arguments.next()? {
            log if log == "--log" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            name => return Some(name),
        }
    }
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| Failure::usage(format!("--log {filter}: {error}")))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // it would tell of a closed stderr on stderr, and panic
    log.log_internal_errors(false).init();
    Ok(())
}

#[cfg(test)]
mod tests;

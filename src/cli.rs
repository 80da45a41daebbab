//! The command line: flags in, options out, one file a subcommand.
//!
//! | file | what it is |
//! |---|---|
//! | `serve`, `reload` | the broker, and what it reads anew |
//! | `request`, `publish` | the sending side |
//! | `reply`, `exec` | the answering side |
//! | `ping` | round trips to a broker |
//! | `top`, `lists`, `producers`, `drain`, `check`, `log` | a running broker, by its admin endpoint |
//! | `shell` | completions, the manual page |
//! | `demo` | all of it at once, measured |
//! | `notify`, `spans`, `heap` | what systemd is told; where spans go; memory that goes back |
//! | `admin`, `client`, `tls`, `input`, `signals`, `exit`, `text` | what several of them need |

mod admin;
mod check;
mod client;
mod demo;
mod drain;
mod exec;
mod exit;
mod heap;
mod input;
mod lists;
mod log;
mod notify;
mod ping;
mod producers;
mod publish;
mod reload;
mod reply;
mod request;
mod serve;
mod shell;
mod signals;
mod spans;
mod text;
mod tls;
mod top;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Failure;
use log::{Log, Writer};

use crate::config::LogOptions;

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
    Producers(producers::Args),
    Check(check::Args),
    Drain(drain::Args),
    Log(log::Args),
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
    match cli.command.run(cli.log) {
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

impl Command {
    /// Does it; `log` is what to log.
    fn run(self, log: Option<String>) -> Result<(), Failure> {
        // the broker's log is one of its settings, which it reads itself
        if !matches!(self, Command::Serve(_)) {
            let level = log.clone().unwrap_or_else(|| "warn".to_owned());
            Log::start(&LogOptions { level, ..LogOptions::default() }, Writer::Direct)?;
        }
        match self {
            Command::Serve(args) => serve::run(args, log),
            Command::Request(args) => request::run(args),
            Command::Publish(args) => publish::run(args),
            Command::Reply(args) => reply::run(args),
            Command::Ping(args) => ping::run(args),
            Command::Top(args) => top::run(args),
            Command::Channels(args) => lists::channels(args),
            Command::Connections(args) => lists::connections(args),
            Command::Latency(args) => lists::latency(args),
            Command::Producers(args) => producers::run(args),
            Command::Check(args) => check::run(args),
            Command::Drain(args) => drain::run(args),
            Command::Log(args) => log::run(args),
            Command::Demo(args) => demo::run(args),
            Command::Completions(args) => shell::completions(args),
            Command::Man(args) => shell::man(args),
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

#[cfg(test)]
mod tests;

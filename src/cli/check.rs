//! `corelay check`: one line and an exit code, as Nagios and everything like it reads them.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use corelay::base::ChannelId;
use corelay::client::Body;
use corelay::telemetry::view::Health;

use super::admin::AdminArgs;
use super::client::ServerArgs;
use super::exit::Failure;
use super::signals::block_on;
use super::text;
use crate::config::parse_duration;

/// Check a broker, and a channel of it, as monitoring wants it: one line, and an exit code
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Look at its admin endpoint too: host:port, tls://host:port or unix:/path
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Send an empty request to this channel, and want an answer
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<ChannelId>,
    /// An answer that takes longer is a warning
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warning: Duration,
    /// An answer that takes longer is critical; nothing is waited for longer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    critical: Duration,
}

const AFTER: &str = "\
Without --channel a PING is answered by the broker itself. With one, a provider has to answer a request with an empty \
body: an answer that is the provider's own error counts as one.

Examples:
  corelay check
  corelay check --server broker-1:9090 --channel orders --warning 50ms --critical 500ms
  corelay check --admin 127.0.0.1:9091

Exit codes:
    0  OK
    1  WARNING: slow, or something is short
    2  CRITICAL: no connection, no answer in time, draining or failing
    3  UNKNOWN: bad usage";

/// How bad it is; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

/// Bad usage, as monitoring is told of it.
pub(crate) const UNKNOWN: u8 = State::Unknown as u8;

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Ok => "OK",
            State::Warning => "WARNING",
            State::Critical => "CRITICAL",
            State::Unknown => "UNKNOWN",
        })
    }
}

/// What one look found.
#[derive(Debug, PartialEq)]
struct Finding {
    state: State,
    text: String,
    /// Label and seconds, for graphs.
    took: Option<(&'static str, Duration)>,
}

impl Finding {
    fn critical(text: impl Into<String>) -> Finding {
        Finding { state: State::Critical, text: text.into(), took: None }
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if args.warning > args.critical {
        return Err(Failure::new(UNKNOWN, "--warning is longer than --critical"));
    }
    let (state, line) = block_on(async { Ok(report(&args, &look(&args).await)) })?;
    writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::stdout(&error))?;
    if state == State::Ok { Ok(()) } else { Err(Failure { code: state as u8, text: None }) }
}

async fn look(args: &Args) -> Vec<Finding> {
    let mut findings = vec![server(args).await];
    if let Some(admin) = &args.admin {
        findings.push(health(&AdminArgs { admin: admin.clone(), tls: args.server.tls.clone() }).await);
    }
    findings
}

/// A PING, or a request with an answer.
async fn server(args: &Args) -> Finding {
    let began = Instant::now();
    let looked = async {
        let channel = args.channel.unwrap_or(ChannelId::NIL);
        let consumer = args.server.consumer(channel, "corelay check").await.map_err(said)?;
        if args.channel.is_none() {
            let trip = consumer.ping().await.map_err(|error| error.to_string())?;
            return Ok(("ping", trip, "answers"));
        }
        let began = Instant::now();
        let answer = consumer.request(Body::empty()).timeout(args.critical).send().await;
        let answered = match answer {
            Ok(response) => response.bytes().await.map(|_| "answered"),
            Err(error) => Err(error),
        };
        match answered {
            Ok(text) => Ok(("answer", began.elapsed(), text)),
            Err(error) if error.kind == corelay::client::ErrorKind::Application => {
                Ok(("answer", began.elapsed(), "answered with the provider's own error"))
            }
            Err(error) => Err(error.to_string()),
        }
    };
    match tokio::time::timeout(args.critical, looked).await {
        Err(_) => Finding::critical(format!("no answer within {}", text::time(began.elapsed()))),
        Ok(Err(text)) => Finding::critical(text),
        Ok(Ok((label, took, what))) => {
            let state = if took > args.warning { State::Warning } else { State::Ok };
            Finding { state, text: format!("{what} in {}", text::time(took)), took: Some((label, took)) }
        }
    }
}

/// What the broker says of itself.
async fn health(admin: &AdminArgs) -> Finding {
    match admin.get::<Health>("/healthz").await {
        Err(failure) => Finding::critical(said(failure)),
        Ok(health) => {
            let state = match health.status.as_str() {
                "ok" => State::Ok,
                "degraded" => State::Warning,
                _ => State::Critical,
            };
            let text = if health.reasons.is_empty() { "healthy".to_owned() } else { health.reasons.join("; ") };
            Finding { state, text, took: None }
        }
    }
}

/// The first line of what a command would have said on stderr.
fn said(failure: Failure) -> String {
    failure.text.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// The line, and how bad the worst finding is: `OK - answers in 0.2 ms | ping=0.000213s;1;5`.
fn report(args: &Args, findings: &[Finding]) -> (State, String) {
    let state = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Unknown);
    let texts: Vec<String> = findings.iter().map(|finding| finding.text.replace('|', "/")).collect();
    let limits = format!("{};{}", args.warning.as_secs_f64(), args.critical.as_secs_f64());
    let data = findings.iter().filter_map(|finding| finding.took);
    let data: String = data.map(|(label, took)| format!(" {label}={:.6}s;{limits}", took.as_secs_f64())).collect();
    let bar = if data.is_empty() { "" } else { " |" };
    (state, format!("{state} - {}{bar}{data}", texts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_counts_and_figures_are_for_graphs() {
        let args = clap::Parser::parse_from(["check", "--warning", "50ms", "--critical", "2s"]);
        let Wrapped { args } = args;
        let took = Some(("ping", Duration::from_micros(213)));
        let fine = Finding { state: State::Ok, text: "answers in 213 us".into(), took };
        let line = "OK - answers in 213 us | ping=0.000213s;0.05;2";
        assert_eq!(report(&args, &[fine]), (State::Ok, line.to_owned()));
        let short = Finding { state: State::Warning, text: "a|b".into(), took: None };
        let found = report(&args, &[short, Finding::critical("gone")]);
        assert_eq!(found, (State::Critical, "CRITICAL - a/b, gone".to_owned()));
    }

    #[derive(clap::Parser)]
    struct Wrapped {
        #[command(flatten)]
        args: Args,
    }
}

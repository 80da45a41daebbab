//! Exit codes: each way of failing has its own, so that scripts needn't read texts.

use corelay::client::{Error, ErrorKind};

/// The provider said no.
pub(crate) const APPLICATION: u8 = 1;
/// The admin endpoint said no.
pub(crate) const REFUSED: u8 = 1;
/// Arguments or configuration that can't be used; clap's own code, too.
pub(crate) const USAGE: u8 = 2;
const CONNECTION: u8 = 3;
const NO_PROVIDER: u8 = 4;
const DEADLINE: u8 = 5;
const PROVIDER_LOST: u8 = 6;
const OVERLOADED: u8 = 7;
const CANCELLED: u8 = 8;
const PROTOCOL: u8 = 9;
/// A local file, pipe or process failed.
pub(crate) const LOCAL: u8 = 10;
/// As a shell says of a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 141;

/// The codes, for `--help` of what talks to a broker.
pub(crate) const HELP: &str = "\
Exit codes:
    0  answered
    1  the provider's own error (its text is on stderr)
    2  bad usage: an argument, file name or header that can't be used
    3  no connection: unreachable, lost, or not allowed
    4  nobody serves the channel (and --wait was not given)
    5  the timeout passed
    6  the provider was lost before it had answered
    7  the broker is full or shutting down: try again later
    8  cancelled by someone else
    9  the protocol was broken, or the broker is at fault
   10  reading or writing failed here
  130  interrupted (SIGINT); 143: SIGTERM; the request was cancelled at the broker
  141  whoever read the output has gone; the request was cancelled at the broker";

/// The codes of what talks to the admin endpoint.
pub(crate) const HELP_ADMIN: &str = "\
Exit codes:
    0  done
    1  refused
    2  bad usage
    3  no connection to the admin endpoint
    9  what it said was not understood";

/// Why a command ends with something other than 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// For people; `None` to say nothing.
    pub(crate) text: Option<String>,
}

impl Failure {
    /// With this code and text.
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: Some(text.into()) }
    }

    /// Arguments that can't be used.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::new(USAGE, text)
    }

    /// Something on this machine failed.
    pub(crate) fn local(text: impl Into<String>) -> Failure {
        Failure::new(LOCAL, text)
    }

    /// Ended by a signal, which the user knows of.
    pub(crate) fn signal(number: i32) -> Failure {
        Failure { code: 128_u8.saturating_add(u8::try_from(number).unwrap_or(0)), text: None }
    }

    /// Nobody reads stdout any more: no reason for words.
    pub(crate) fn broken_pipe() -> Failure {
        Failure { code: BROKEN_PIPE, text: None }
    }

    /// Writing to stdout failed.
    pub(crate) fn stdout(error: &std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::broken_pipe(),
            _ => Failure::local(format!("cannot write to stdout: {error}")),
        }
    }

    /// A request's outcome.
    pub(crate) fn request(error: &Error) -> Failure {
        let text = match (error.kind, error.text()) {
            (ErrorKind::Application, text) if !text.is_empty() => text.to_owned(),
            (ErrorKind::NoProvider, _) => {
                "nobody serves this channel: start a provider (corelay reply), or wait for one \
                 with --wait"
                    .to_owned()
            }
            (ErrorKind::Deadline, _) => "the timeout passed; --timeout sets a longer one".to_owned(),
            (ErrorKind::Overloaded, text) => format!("{text}: try again later"),
            _ => error.to_string(),
        };
        Failure::new(code_of(error.kind), text)
    }
}

/// The exit code that tells `kind`.
pub(crate) fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Application => APPLICATION,
        ErrorKind::InvalidInput => USAGE,
        ErrorKind::Connection | ErrorKind::Closed | ErrorKind::Unauthorized => CONNECTION,
        ErrorKind::NoProvider => NO_PROVIDER,
        ErrorKind::Deadline => DEADLINE,
        ErrorKind::ProviderLost => PROVIDER_LOST,
        ErrorKind::Overloaded | ErrorKind::Draining => OVERLOADED,
        ErrorKind::Cancelled => CANCELLED,
        ErrorKind::Body => LOCAL,
        _ => PROTOCOL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_code_that_the_help_explains() {
        for kind in ErrorKind::ALL {
            let code = code_of(kind);
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))), "{kind}: {code}");
        }
    }

    #[test]
    fn signals_are_told_as_shells_tell_them() {
        assert_eq!((Failure::signal(2).code, Failure::signal(15).code), (130, 143));
    }
}

//! What is logged, and how it is written.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// The log's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// A level, or a filter such as `info,corelay::request=trace`; see [`parse_filter`].
    pub(crate) level: String,
    /// How each event is written to stderr.
    pub(crate) format: LogFormat,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A line of JSON.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("text or json".to_owned()),
        }
    }
}

const EXPECTED: &str =
    "error, warn, info, debug, trace, off, or a filter such as info,corelay::request=trace (target=level)";

/// Libraries whose events below `info` show passwords: async-nats the URLs of its servers, lapin the frames of its login.
const INDISCREET: [&str; 2] = ["async_nats", "lapin"];

/// Reads a filter: levels by target, with commas between. A lone word is a level: what tracing-subscriber would take
/// for a target, all of whose events are wanted, is a slip of the finger far more often. Of libraries that tell
/// passwords nothing below `info` is let through.
///
/// # Errors
/// What was expected.
pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let lone = |part: &&str| part.bytes().all(|byte| byte.is_ascii_alphabetic());
    let mut words = text.split(',').filter(lone);
    if !words.all(|word| LEVELS.contains(&word.to_ascii_lowercase().as_str())) {
        return Err(EXPECTED.to_owned());
    }
    // that is all levels to tracing-subscriber
    if text.split(',').any(|part| part.trim_end().ends_with('=')) {
        return Err(EXPECTED.to_owned());
    }
    let is_low = |word: &str| ["debug", "trace"].iter().any(|level| word.eq_ignore_ascii_case(level));
    let is_heard = |library: &str| text.split(',').any(|part| is_low(part) || part.contains(library));
    let caps = INDISCREET.iter().filter(|library| is_heard(library)).map(|library| format!(",{library}=info"));
    let capped = std::iter::once(text.to_owned()).chain(caps).collect::<String>();
    EnvFilter::try_new(capped).map_err(|error| format!("{EXPECTED}; {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_heard_of_what_tells_passwords() {
        let has =
            |filter: &str, cap: &str| parse_filter(filter).unwrap().to_string().split(',').any(|part| part == cap);
        for low in ["debug", "TRACE", "warn,async_nats=debug", "info,async_nats=trace"] {
            assert!(has(low, "async_nats=info"), "{low}");
            assert!(!has(low, "async_nats=debug") && !has(low, "async_nats=trace"), "{low}");
        }
        for high in ["warn", "info,corelay=debug"] {
            assert!(!has(high, "async_nats=info"), "{high}: none is made to say more");
        }
    }

    #[test]
    fn slips_are_refused() {
        for good in ["info", "WARN", "off", "info,corelay::request=trace", "warn,corelay=debug"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "corelay=loud", "info,corelay", "corelay=", "corelay= ,info"] {
            let error = parse_filter(bad).unwrap_err();
            assert!(error.starts_with("error, warn, info"), "{bad}: {error}");
        }
    }
}

//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;

use super::{Key, source, table};

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    File {
        /// The file, as it was named.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Env(String),
    /// `--set`.
    Set,
    /// Another flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("by default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Env(name) => f.write_str(name),
            Origin::Set => f.write_str("--set"),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the {what} {path}: {source}")]
    Read {
        /// What is in it.
        what: &'static str,
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{origin}: not TOML: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        message: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting {name}{}", suggestion(nearest))]
    Unknown {
        /// Where it was set.
        origin: Origin,
        /// Its name, as that source writes it.
        name: String,
        /// The most similar setting, likewise.
        nearest: Option<String>,
    },
    /// What `--set` was given is no assignment to a setting.
    #[error("--set {given}: expected section.key=value, such as limits.window=1MiB")]
    BadSet {
        /// What was given.
        given: String,
    },
    /// A secret where others see it.
    #[error(
        "--set {key}: the arguments of a process can be read by everybody on its machine: put {elsewhere}, or into the \
         variable {variable}"
    )]
    SecretInArgument {
        /// Which setting.
        key: String,
        /// The variable that sets it.
        variable: String,
        /// What to put where.
        elsewhere: &'static str,
    },
    /// The value can't be read, or can't work.
    #[error("{origin}: {key} = {value}: expected {expected}")]
    BadValue {
        /// Where it was set.
        origin: Origin,
        /// Which setting.
        key: String,
        /// What was given.
        value: String,
        /// What would do.
        expected: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    let hint = || "; corelay serve --check-config lists them all".to_owned();
    nearest.as_ref().map_or_else(hint, |name| format!("; did you mean {name}?"))
}

impl ConfigError {
    /// The error for a key that isn't in the table, with the nearest one that is.
    pub(crate) fn unknown(key: &Key, origin: &Origin) -> ConfigError {
        let (origin, nearest) = (origin.clone(), nearest(key));
        match &origin {
            Origin::Env(name) => {
                let (name, nearest) = (name.clone(), nearest.as_ref().map(source::variable));
                ConfigError::Unknown { origin, name, nearest }
            }
            _ => ConfigError::Unknown { origin, name: key.to_string(), nearest: nearest.map(|key| key.to_string()) },
        }
    }
}

/// How much alike two names must be for one to be suggested, from 0 to 1: two slips in a short word still are.
const ALIKE: f64 = 0.6;

/// The setting most like `key`, by its whole name, or by its last part alone (the right key in the wrong section).
fn nearest(key: &Key) -> Option<Key> {
    let alike = strsim::normalized_damerau_levenshtein;
    let plain = |key: &Key| format!("{}.{}", key.section, key.key);
    let score = |known: &Key| {
        let whole = alike(&plain(known), &plain(key));
        // a key outside of any section stands where a section's name would
        let last = if key.key.is_empty() { &key.section } else { &key.key };
        whole.max(0.9 * alike(&known.key, last))
    };
    let scored = table::names().map(|known| (score(&known), known));
    // of equals the first in the table
    let best = scored.filter(|(score, _)| *score >= ALIKE).min_by(|a, b| b.0.total_cmp(&a.0));
    best.map(|(_, known)| match (&known.entry, &key.entry) {
        (Some(_), Some(entry)) => Key { entry: Some(entry.clone()), ..known },
        _ => known,
    })
}

//! Configuration: a file, the environment, `--set` and flags in; plain options for each module out.
//!
//! ```text
//!   defaults ◄─ file (TOML) ◄─ CORELAY_SECTION_KEY ◄─ --set section.key=value ◄─ flags      the last one wins
//! ```
//!
//! Every source becomes a list of [`Assignment`]s: a key, texts, and where they come from. `table` says which keys
//! there are and what they set; reading, refusing, suggesting and showing all follow from it, so a setting is one
//! line there and nothing else.

mod auth;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(dead_code)] // with the feature it is `fuzz/`, which includes these files, that calls it
pub(crate) mod fuzzing;
mod log;
mod show;
mod slot;
mod source;
mod table;
mod units;

use std::collections::HashMap;
use std::path::PathBuf;

use corelay::broker::{BadOption, ServerOptions};
use corelay::forward::redact;
use corelay::telemetry::AdminOptions;
use corelay::tls::TlsOptions;

pub(crate) use error::{ConfigError, Origin};
pub(crate) use log::{LogFormat, LogOptions, parse_filter};
pub(crate) use units::{parse_duration, parse_size};

/// What all sources together say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The broker.
    pub(crate) server: ServerOptions,
    /// The admin endpoint.
    pub(crate) admin: AdminOptions,
    /// Who may do what, as it was written; `server.auth` is what comes of it.
    pub(crate) auth: auth::AuthConfig,
    /// What is logged.
    pub(crate) log: LogOptions,
    /// Where traces are exported to: a collector's `http://host:port`.
    pub(crate) otlp: Option<String>,
}

impl Config {
    /// The admin endpoint's options as they hold: without a certificate of its own it uses the broker's, and asks for
    /// the same ones.
    pub(crate) fn admin(&self) -> AdminOptions {
        let mut admin = self.admin.clone();
        if admin.tls.cert.is_none() && admin.tls.key.is_none() {
            let client_ca = admin.tls.client_ca.take().or_else(|| self.server.tls.client_ca.clone());
            admin.tls = TlsOptions { client_ca, ..self.server.tls.clone() };
        }
        admin
    }

    /// The settings that have another value than in `earlier`, by name.
    pub(crate) fn changed_since(&self, earlier: &Config) -> Vec<String> {
        show::differences(earlier, self)
    }
}

/// A setting's name: `section.key`, or `list.entry.key` for one of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    section: String,
    entry: Option<String>,
    key: String,
}

impl Key {
    /// Whether its value is a URL, which may have a password in it.
    fn is_url(&self) -> bool {
        matches!((self.section.as_str(), self.key.as_str()), ("producer", "url") | ("telemetry", "otlp"))
    }

    /// These values for people to read, without what is secret in them.
    fn readable(&self, values: &[String]) -> String {
        if auth::is_secret(self) || auth::is_hash(self) {
            "***".to_owned()
        } else if self.is_url() {
            values.iter().map(|url| redact(url)).collect::<Vec<_>>().join(",")
        } else {
            values.join(",")
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.entry {
            None if self.key.is_empty() => f.write_str(&self.section),
            None => write!(f, "{}.{}", self.section, self.key),
            Some(entry) => write!(f, "{}.{entry}.{}", self.section, self.key),
        }
    }
}

/// One setting from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    key: Key,
    /// Several for a list.
    values: Vec<String>,
    origin: Origin,
}

impl Assignment {
    /// Sets the setting.
    fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        let Assignment { key, values, origin } = self;
        let bad = |expected: String| ConfigError::BadValue {
            origin: origin.clone(),
            key: key.to_string(),
            value: key.readable(values),
            expected,
        };
        let slot = table::slot(config, key).map_err(|missing| match missing {
            table::Missing::Unknown => ConfigError::unknown(key, origin),
            table::Missing::BadEntry(expected) => bad(expected),
        })?;
        slot.map_or(Ok(()), |mut slot| slot.set(values).map_err(bad))
    }
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The file, if one is named.
    pub(crate) file: Option<PathBuf>,
    /// The environment.
    pub(crate) env: Vec<(String, String)>,
    /// `--set` arguments.
    pub(crate) set: Vec<String>,
    /// Flags: which, the `section.key` each sets, and its values.
    pub(crate) flags: Vec<(&'static str, &'static str, Vec<String>)>,
}

/// A valid configuration, and where each setting that isn't at its default comes from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The settings.
    pub(crate) config: Config,
    /// What works, but should be otherwise: for the log.
    pub(crate) warnings: Vec<String>,
    origins: HashMap<String, Origin>,
}

impl Loaded {
    /// Reads all sources, in order, and checks the outcome.
    ///
    /// # Errors
    /// The first source that can't be read, key that isn't known, or value that can't work, by name.
    pub(crate) fn from(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut loaded = Loaded { config: Config::default(), warnings: Vec::new(), origins: HashMap::new() };
        if let Some(path) = &sources.file {
            loaded.apply_all(source::file(path)?)?;
        }
        let known = table::entries_of(&loaded.config);
        loaded.apply_all(source::environment(&sources.env, &known)?)?;
        loaded.apply_all(source::set(&sources.set)?)?;
        loaded.apply_all(source::flags(&sources.flags))?;
        let more = auth::resolve(&mut loaded.config, &loaded.origins)?;
        loaded.warnings.extend(more);
        loaded.check()?;
        Ok(loaded)
    }

    fn apply_all(&mut self, assignments: Vec<Assignment>) -> Result<(), ConfigError> {
        self.warnings.extend(auth::warnings(&assignments));
        for assignment in assignments {
            assignment.apply(&mut self.config)?;
            self.origins.insert(assignment.key.to_string(), assignment.origin);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let told = |bad: BadOption| ConfigError::BadValue {
            origin: self.origins.get(&bad.key).cloned().unwrap_or(Origin::Default),
            key: bad.key,
            value: bad.value,
            expected: bad.expected,
        };
        self.config.server.validate().and_then(|()| self.config.admin().validate()).map_err(told)
    }

    /// The whole configuration in TOML, with where each setting that isn't at its default comes from.
    pub(crate) fn to_toml(&self) -> String {
        show::to_toml(&self.config, &self.origins)
    }
}

#[cfg(test)]
mod tests;

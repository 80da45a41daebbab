//! Who may do what: `[[auth.token]]` entries, those of a file of their own, and the files tokens are in.
//!
//! A token may stand in a file or in the environment, never in an argument, which every process of the machine can
//! read. It is hashed when it is read: nothing here keeps it, shows it, or says it in an error.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use corelay::auth::{Digest, Entry, Rule};

use super::{Assignment, Config, ConfigError, Key, Origin, source};

/// The list of entries, as it is named in the configuration.
pub(crate) const LIST: &str = "auth.token";
/// The same in a file of its own.
const LIST_IN_FILE: &str = "token";
/// The key whose value is a secret.
const SECRET: &str = "token";

/// `[auth]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthConfig {
    /// A file with more entries.
    pub(crate) file: Option<PathBuf>,
    /// The entries.
    pub(crate) tokens: Vec<TokenConfig>,
}

/// One of `[[auth.token]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenConfig {
    pub(crate) name: String,
    pub(crate) token: Option<Digest>,
    /// A file with the token, or its hash.
    pub(crate) file: Option<PathBuf>,
    pub(crate) identity: Option<String>,
    pub(crate) allow: Vec<Rule>,
    pub(crate) deny: Vec<Rule>,
}

impl TokenConfig {
    fn new(name: &str) -> TokenConfig {
        let (allow, deny) = (Vec::new(), Vec::new());
        TokenConfig { name: name.to_owned(), token: None, file: None, identity: None, allow, deny }
    }
}

/// The index of the entry with this name, made if there is none.
pub(crate) fn entry(config: &mut Config, name: &str) -> Result<usize, String> {
    if name.is_empty() || name.len() > 255 || name.contains(char::is_control) {
        return Err("a name of 1 to 255 bytes without control characters".to_owned());
    }
    let tokens = &mut config.auth.tokens;
    if let Some(index) = tokens.iter().position(|token| token.name == name) {
        return Ok(index);
    }
    tokens.push(TokenConfig::new(name));
    Ok(tokens.len() - 1)
}

/// Whether the value of this setting must not be seen.
pub(crate) fn is_secret(key: &Key) -> bool {
    key.section == LIST && key.key == SECRET
}

/// Whether it is the hash of one: who mistakes the two writes the secret there.
pub(crate) fn is_hash(key: &Key) -> bool {
    key.section == LIST && key.key == "token_sha256"
}

/// Shorter ones can be guessed from their hash: as many bytes as 64 random bits take in hexadecimal.
const SHORT: usize = 16;

/// What is to be said of the tokens among these assignments.
pub(crate) fn warnings(assignments: &[Assignment]) -> Vec<String> {
    let mut warnings = Vec::new();
    let written = |made: &&Assignment| is_secret(&made.key) && !made.values.iter().any(|v| v.starts_with("sha256:"));
    for made in assignments.iter().filter(written) {
        if made.values.iter().any(|value| value.len() < SHORT) {
            warnings.push(short(&made.key.to_string()));
        }
    }
    let in_files = assignments.iter().filter(written).filter_map(|made| match &made.origin {
        Origin::File { path, .. } => Some(Path::new(path)),
        _ => None,
    });
    warnings.extend(in_files.take(1).filter_map(open_to_others));
    warnings
}

fn short(what: &str) -> String {
    format!("{what} is short: a token of 32 random bytes is made by openssl rand -hex 32")
}

/// What to say of a file with secrets that others can read.
fn open_to_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let open = mode & 0o044 > 0;
    open.then(|| format!("{} holds tokens and has mode {mode:o}: others can read it (chmod 600)", path.display()))
}

/// Reads what is in other files, and gives the broker its entries. Says what is to be said of it.
///
/// # Errors
/// A file that can't be read, an entry that says two things.
pub(crate) fn resolve(config: &mut Config, origins: &HashMap<String, Origin>) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    let own = Resolving { origins, warnings: &mut warnings }.entries(&config.auth.tokens)?;
    let mut entries = own;
    if let Some(path) = &config.auth.file {
        let assignments = source::entries(path, LIST_IN_FILE, LIST)?;
        warnings.extend(self::warnings(&assignments));
        let mut more = Config::default();
        let mut origins = HashMap::new();
        for assignment in assignments {
            origins.insert(assignment.key.to_string(), assignment.origin.clone());
            assignment.apply(&mut more)?;
        }
        let more = Resolving { origins: &origins, warnings: &mut warnings }.entries(&more.auth.tokens)?;
        for entry in &more {
            if entries.iter().any(|other| other.name == entry.name) {
                return Err(bad(&origins, &entry.name, "name", &entry.name, "each name once in all"));
            }
        }
        entries.extend(more);
    }
    config.server.auth = entries;
    Ok(warnings)
}

fn bad(origins: &HashMap<String, Origin>, name: &str, key: &str, value: &str, expected: &str) -> ConfigError {
    let key = Key { section: LIST.into(), entry: Some(name.to_owned()), key: key.to_owned() }.to_string();
    let origin = origins.get(&key).cloned().unwrap_or(Origin::Default);
    ConfigError::BadValue { origin, key, value: value.to_owned(), expected: expected.to_owned() }
}

/// Turns what was written into what is asked.
struct Resolving<'a> {
    origins: &'a HashMap<String, Origin>,
    warnings: &'a mut Vec<String>,
}

impl Resolving<'_> {
    fn entries(&mut self, tokens: &[TokenConfig]) -> Result<Vec<Entry>, ConfigError> {
        tokens.iter().map(|token| self.entry(token)).collect()
    }

    fn entry(&mut self, from: &TokenConfig) -> Result<Entry, ConfigError> {
        let key = |key: &str| Key { section: LIST.into(), entry: Some(from.name.clone()), key: key.into() };
        let given: Vec<_> = ["token", "token_sha256", "token_file"]
            .into_iter()
            .filter(|name| self.origins.contains_key(&key(name).to_string()))
            .collect();
        if let [_, second, ..] = given[..] {
            return Err(bad(self.origins, &from.name, second, "***", "one of token, token_sha256 and token_file"));
        }
        let token = match &from.file {
            Some(path) => Some(self.token_in(&from.name, path)?),
            None => from.token,
        };
        Ok(Entry {
            name: from.name.clone(),
            token,
            identity: from.identity.clone(),
            allow: from.allow.clone(),
            deny: from.deny.clone(),
        })
    }

    /// The token in a file: one line.
    fn token_in(&mut self, name: &str, path: &Path) -> Result<Digest, ConfigError> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path);
        let text = text.map_err(|source| ConfigError::Read { what: "token file", path: shown.clone(), source })?;
        let token = text.trim_end_matches(['\r', '\n']);
        let wrong = |expected| bad(self.origins, name, "token_file", &shown, expected);
        if token.is_empty() || token.contains(char::is_control) {
            return Err(wrong("a file with one line: the token, or sha256: and its hash"));
        }
        let digest = Digest::of_written(token).map_err(|_| wrong("sha256: and 64 hexadecimal digits in it"))?;
        if !token.starts_with("sha256:") {
            self.warnings.extend((token.len() < SHORT).then(|| short(&format!("the token in {shown}"))));
            self.warnings.extend(open_to_others(path));
        }
        Ok(digest)
    }
}

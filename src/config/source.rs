//! The sources of settings: each becomes a list of assignments.

use std::fs;
use std::path::Path;

use corelay::forward::{producer_id, redact};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::table::{self, LISTS, List, SETTINGS};
use super::{Assignment, ConfigError, Key, Origin, auth};

/// What every variable of ours begins with.
const PREFIX: &str = "CORELAY_";

/// Variables that begin so and are no settings: the commands' own, those `corelay reply --exec` gives to commands, those
/// Kubernetes makes for a service called `corelay`, and those that steer this project's tests.
const NO_SETTINGS: [&str; 9] =
    ["LOG", "CONFIG", "SERVER", "ADMIN", "TOKEN", "TOKEN_FILE", "REQUEST_ID", "CHANNEL", "PORT"];
const NO_SETTINGS_PREFIXES: [&str; 6] = ["CLIENT_", "HEADER_", "SERVICE_", "PORT_", "SIM_", "TEST_"];

/// The variable that sets `key`.
pub(crate) fn variable(key: &Key) -> String {
    let entry = key.entry.as_ref().map_or(String::new(), |entry| format!("{}_", upper(entry)));
    format!("{PREFIX}{}_{entry}{}", upper(&key.section), upper(&key.key))
}

/// A name as it stands in a variable: upper case, and `_` for all that can't.
fn upper(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The assignments in the variables of the environment. `known` has the ids of entries there are already, as a
/// variable's name can't spell every id.
pub(crate) fn environment(
    env: &[(String, String)],
    known: &[(&'static str, Vec<String>)],
) -> Result<Vec<Assignment>, ConfigError> {
    let ours = env.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)));
    let settings = ours.filter(|(_, rest, _)| {
        !NO_SETTINGS.contains(rest) && !NO_SETTINGS_PREFIXES.iter().any(|prefix| rest.starts_with(prefix))
    });
    let mut all: Vec<Assignment> = producers(env, known).collect();
    let settings = settings
        .map(|(name, rest, value)| {
            let origin = Origin::Env(name.clone());
            let key = variable_key(name, known).ok_or_else(|| {
                let (section, key) = rest.split_once('_').unwrap_or((rest, ""));
                let key = Key { section: section.to_lowercase(), entry: None, key: key.to_lowercase() };
                ConfigError::unknown(&key, &origin)
            })?;
            Ok(Assignment { values: split(&key, value), key, origin })
        })
        .collect::<Result<Vec<_>, ConfigError>>()?;
    all.extend(settings);
    Ok(all)
}

/// `PRODUCER_CONSUMER_1=tcp://127.0.0.1:9000`: the id that the variable names, unless there is one that is written so in
/// capitals.
fn producers(env: &[(String, String)], known: &[(&'static str, Vec<String>)]) -> impl Iterator<Item = Assignment> {
    env.iter().filter_map(|(name, url)| {
        let named = producer_id(name).filter(|id| !id.is_empty())?;
        let ids = known.iter().filter(|(list, _)| *list == "producer").flat_map(|(_, ids)| ids);
        let same = ids.into_iter().find(|id| format!("PRODUCER_{}", upper(id)) == *name).cloned();
        let id = same.unwrap_or(named);
        let key = Key { section: "producer".into(), entry: Some(id), key: "url".into() };
        Some(Assignment { key, values: vec![url.clone()], origin: Origin::Env(name.clone()) })
    })
}

fn variable_key(name: &str, known: &[(&'static str, Vec<String>)]) -> Option<Key> {
    let plain = SETTINGS.iter().map(|s| Key { section: s.section.into(), entry: None, key: s.key.into() });
    plain.into_iter().find(|key| variable(key) == name).or_else(|| {
        let entry = |list: &List| entry_key(list, name, known);
        LISTS.iter().find_map(entry)
    })
}

/// `CORELAY_CHANNEL_ORDERS_WINDOW`: the entry is what is left between the list's name and a key of it.
fn entry_key(list: &List, name: &str, known: &[(&'static str, Vec<String>)]) -> Option<Key> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix(&upper(list.name))?.strip_prefix('_')?;
    let keys =
        list.settings.iter().filter_map(|(key, _)| Some((*key, rest.strip_suffix(&format!("_{}", upper(key)))?)));
    // of keys that end alike the longest is meant
    let (key, entry) = keys.max_by_key(|(key, _)| key.len()).filter(|(_, entry)| !entry.is_empty())?;
    let ids = known.iter().filter(|(name, _)| *name == list.name).flat_map(|(_, ids)| ids);
    let same = ids.into_iter().find(|id| upper(id) == entry).cloned();
    let uuid = || uuid::Uuid::try_parse(&entry.replace('_', "-")).ok().map(|id| id.to_string());
    let entry = same.or_else(uuid).unwrap_or_else(|| entry.to_lowercase());
    Some(Key { section: list.name.into(), entry: Some(entry), key: key.into() })
}

/// The assignments of `--set section.key=value`.
pub(crate) fn set(arguments: &[String]) -> Result<Vec<Assignment>, ConfigError> {
    let each = |argument: &String| {
        let malformed = || ConfigError::BadSet { given: argument.clone() };
        let (name, value) = argument.split_once('=').ok_or_else(malformed)?;
        let key = dotted(name.trim()).ok_or_else(malformed)?;
        let elsewhere = if auth::is_secret(&key) {
            Some("the token into a file (auth.token.NAME.token_file)")
        } else if key.is_url() && redact(value).contains("***") {
            Some("the URL into the file of --config")
        } else {
            None
        };
        if let Some(elsewhere) = elsewhere {
            return Err(ConfigError::SecretInArgument { variable: variable(&key), key: key.to_string(), elsewhere });
        }
        Ok(Assignment { values: split(&key, value.trim()), key, origin: Origin::Set })
    };
    arguments.iter().map(each).collect()
}

/// `section.key`, or `list.id.key`, whose id may have dots.
fn dotted(name: &str) -> Option<Key> {
    let of_list = |list: &List| name.strip_prefix(list.name)?.strip_prefix('.')?.rsplit_once('.');
    if let Some((list, (entry, key))) = LISTS.iter().find_map(|list| Some((list, of_list(list)?))) {
        return Some(Key { section: list.name.into(), entry: Some(entry.to_owned()), key: key.into() });
    }
    let (section, key) = name.split_once('.')?;
    Some(Key { section: section.into(), entry: None, key: key.into() })
}

/// The assignments of other flags.
pub(crate) fn flags(flags: &[(&'static str, &'static str, Vec<String>)]) -> Vec<Assignment> {
    let each = |(flag, name, values): &(&'static str, &'static str, Vec<String>)| {
        let key = dotted(name).expect("flags name a section and a key");
        Assignment { key, values: values.clone(), origin: Origin::Flag(flag) }
    };
    flags.iter().map(each).collect()
}

/// One text for several values: with commas between, where the setting is a list.
fn split(key: &Key, text: &str) -> Vec<String> {
    if table::is_list_of_values(key) {
        return text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    }
    vec![text.to_owned()]
}

/// The assignments in a TOML file.
pub(crate) fn file(path: &Path) -> Result<Vec<Assignment>, ConfigError> {
    let name = path.display().to_string();
    let what = "configuration file";
    let read = fs::read_to_string(path).map_err(|source| ConfigError::Read { what, path: name.clone(), source })?;
    text(&name, &read)
}

/// The assignments in the text of a file called `name`.
pub(crate) fn text(name: &str, text: &str) -> Result<Vec<Assignment>, ConfigError> {
    File { path: name.to_owned(), text }.assignments()
}

/// The assignments in a TOML file that has nothing but entries of one list, which are called `[[called]]` there.
pub(crate) fn entries(path: &Path, called: &str, list: &str) -> Result<Vec<Assignment>, ConfigError> {
    let name = path.display().to_string();
    let what = "file of tokens";
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { what, path: name.clone(), source })?;
    let file = File { path: name, text: &text };
    let list = table::list(list).expect("a list of the table");
    let mut out = Vec::new();
    for (section, value) in file.parse()?.get_ref() {
        let (found, at) = (section.get_ref().as_ref(), section.span().start);
        match value.get_ref().as_array() {
            Some(entries) if found == called => {
                entries.iter().try_for_each(|entry| file.entry(list, entry, &mut out))?;
            }
            _ => return Err(file.bad(at, found, "...", &format!("nothing but [[{called}]], one for each"))),
        }
    }
    Ok(out)
}

/// A file being read.
struct File<'a> {
    path: String,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, at: usize) -> Origin {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        Origin::File { path: self.path.clone(), line: 1 + before.iter().filter(|&&byte| byte == b'\n').count() }
    }

    fn bad(&self, at: usize, key: &str, value: &str, expected: &str) -> ConfigError {
        let (key, value, expected) = (key.into(), value.into(), expected.into());
        ConfigError::BadValue { origin: self.origin(at), key, value, expected }
    }

    fn parse(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| ConfigError::Syntax {
            origin: self.origin(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })
    }

    fn assignments(&self) -> Result<Vec<Assignment>, ConfigError> {
        let mut out = Vec::new();
        for (section, value) in self.parse()?.get_ref() {
            let (name, at) = (section.get_ref().as_ref(), section.span().start);
            match (table::list(name), value.get_ref()) {
                (Some(list), DeValue::Array(entries)) => {
                    entries.iter().try_for_each(|entry| self.entry(list, entry, &mut out))?;
                }
                (Some(_), _) => return Err(self.bad(at, name, "[...]", &format!("[[{name}]], one for each"))),
                (None, DeValue::Table(table)) => self.section(name, at, table, &mut out)?,
                (None, _) => {
                    let key = Key { section: name.into(), entry: None, key: String::new() };
                    return Err(ConfigError::unknown(&key, &self.origin(at)));
                }
            }
        }
        Ok(out)
    }

    fn section(
        &self,
        name: &str,
        at: usize,
        table: &DeTable<'_>,
        out: &mut Vec<Assignment>,
    ) -> Result<(), ConfigError> {
        // an empty section has no key to be refused by
        if table.is_empty() && !SETTINGS.iter().any(|setting| setting.section == name) {
            let key = Key { section: name.into(), entry: None, key: String::new() };
            return Err(ConfigError::unknown(&key, &self.origin(at)));
        }
        for (key, value) in table {
            let full = format!("{name}.{}", key.get_ref());
            match (table::list(&full), value.get_ref()) {
                (Some(list), DeValue::Array(entries)) => {
                    entries.iter().try_for_each(|entry| self.entry(list, entry, out))?;
                    continue;
                }
                (Some(_), _) => {
                    return Err(self.bad(key.span().start, &full, "...", &format!("[[{full}]], one for each")));
                }
                (None, _) => {}
            }
            let key_name = Key { section: name.into(), entry: None, key: key.get_ref().to_string() };
            out.push(self.assignment(key_name, key.span().start, value)?);
        }
        Ok(())
    }

    fn entry(&self, list: &List, entry: &Spanned<DeValue<'_>>, out: &mut Vec<Assignment>) -> Result<(), ConfigError> {
        let at = entry.span().start;
        let id = |table: &DeTable<'_>| Some(table.get(list.id)?.get_ref().as_str()?.to_owned());
        let found = entry.get_ref().as_table().and_then(|table| Some((table, id(table)?)));
        let Some((table, id)) = found else {
            return Err(self.bad(at, &format!("{}.{}", list.name, list.id), "nothing", "a text, in each entry"));
        };
        let earlier = |made: &Assignment| made.key.section == list.name && made.key.entry.as_ref() == Some(&id);
        if out.iter().any(earlier) {
            return Err(self.bad(at, &format!("{}.{}", list.name, list.id), &id, "each entry once"));
        }
        for (key, value) in table {
            let name = Key { section: list.name.into(), entry: Some(id.clone()), key: key.get_ref().to_string() };
            out.push(self.assignment(name, key.span().start, value)?);
        }
        Ok(())
    }

    fn assignment(&self, key: Key, at: usize, value: &Spanned<DeValue<'_>>) -> Result<Assignment, ConfigError> {
        let Some(values) = texts(value.get_ref()) else {
            return Err(self.bad(at, &key.to_string(), "{...}", "a plain value"));
        };
        Ok(Assignment { key, values, origin: self.origin(at) })
    }
}

/// A value as texts: several for an array; `None` for a table.
fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    Some(vec![match value {
        DeValue::String(text) => text.to_string(),
        // in whatever radix it was written
        DeValue::Integer(n) => i128::from_str_radix(n.as_str(), n.radix()).map_or(n.to_string(), |n| n.to_string()),
        DeValue::Float(n) => n.as_str().to_owned(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) => return items.iter().map(|item| texts(item.get_ref())?.pop()).collect(),
        DeValue::Table(_) => return None,
    }])
}

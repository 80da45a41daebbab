//! The effective configuration, as a file that would make it so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::slot::quoted;
use super::table::{LISTS, SETTINGS};
use super::{Config, Key, Origin};

/// See [`Loaded::to_toml`](super::Loaded::to_toml).
pub(crate) fn to_toml(config: &Config, origins: &HashMap<String, Origin>) -> String {
    // a slot is a place to write; a copy is written to, or would be
    let mut config = config.clone();
    let mut out = String::new();
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            out += &format!("{gap}[{}]\n", setting.section);
            section = setting.section;
        }
        let key = Key { section: section.into(), entry: None, key: setting.key.into() };
        out += &line(&key, (setting.slot)(&mut config).show(), origins);
    }
    for list in LISTS {
        for (index, id) in (list.ids)(&config).into_iter().enumerate() {
            out += &format!("\n[[{}]]\n{} = {}\n", list.name, list.id, quoted(&id));
            for (name, slot) in list.settings {
                let key = Key { section: list.name.into(), entry: Some(id.clone()), key: (*name).into() };
                out += &line(&key, slot(&mut config, index).show(), origins);
            }
        }
    }
    out
}

/// The settings that have another value in the one than in the other, by name.
pub(crate) fn differences(one: &Config, other: &Config) -> Vec<String> {
    let (one, other) = (compared(one), compared(other));
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|&name| one.get(name) != other.get(name)).cloned().collect()
}

/// Every setting's value by its name, secrets in URLs included: to be compared, never shown.
fn compared(config: &Config) -> BTreeMap<String, Option<String>> {
    let mut config = config.clone();
    let mut all = BTreeMap::new();
    for setting in SETTINGS {
        let key = Key { section: setting.section.into(), entry: None, key: setting.key.into() };
        all.insert(key.to_string(), (setting.slot)(&mut config).compared());
    }
    for list in LISTS {
        for (index, id) in (list.ids)(&config).into_iter().enumerate() {
            for (name, slot) in list.settings {
                let key = Key { section: list.name.into(), entry: Some(id.clone()), key: (*name).into() };
                all.insert(key.to_string(), slot(&mut config, index).compared());
            }
        }
    }
    all
}

fn line(key: &Key, value: Option<String>, origins: &HashMap<String, Origin>) -> String {
    let Some(value) = value else { return String::new() };
    let line = format!("{} = {value}", key.key);
    match origins.get(&key.to_string()) {
        // a break in a path or variable would end the comment
        Some(origin) => format!("{line:<40} # from {}\n", origin.to_string().replace(char::is_control, " ")),
        None => format!("{line}\n"),
    }
}

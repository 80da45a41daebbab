//! Every setting there is. One line here makes it readable from file, environment, `--set` and shown.

use corelay::base::ChannelId;
use corelay::broker::{ChannelOptions, ProducerOptions};

use super::slot::Slot;
use super::{Config, Key, auth};

/// A setting of a plain section.
pub(crate) struct Setting {
    /// `[section]`.
    pub(crate) section: &'static str,
    /// The key in it.
    pub(crate) key: &'static str,
    /// Where it lives.
    pub(crate) slot: fn(&mut Config) -> Slot<'_>,
}

const fn setting(section: &'static str, key: &'static str, slot: fn(&mut Config) -> Slot<'_>) -> Setting {
    Setting { section, key, slot }
}

/// The settings of plain sections, in the order they are shown.
pub(crate) static SETTINGS: &[Setting] = &[
    setting("server", "listen", |c| Slot::Addrs(&mut c.server.listen)),
    setting("server", "bind_timeout", |c| Slot::Time(&mut c.server.bind_timeout)),
    setting("server", "name", |c| Slot::Text(&mut c.server.name)),
    setting("server", "cores", |c| Slot::Cores(&mut c.server.cores)),
    setting("server", "pin", |c| Slot::Switch(&mut c.server.pin)),
    setting("server", "io", |c| Slot::Io(&mut c.server.io)),
    setting("server", "spin_us", |c| Slot::Micros(&mut c.server.spin)),
    setting("server", "insecure", |c| Slot::Switch(&mut c.server.insecure)),
    setting("auth", "file", |c| Slot::MaybePath(&mut c.auth.file)),
    setting("tls", "cert", |c| Slot::MaybePath(&mut c.server.tls.cert)),
    setting("tls", "key", |c| Slot::MaybePath(&mut c.server.tls.key)),
    setting("tls", "client_ca", |c| Slot::MaybePath(&mut c.server.tls.client_ca)),
    setting("tls", "tls12", |c| Slot::Switch(&mut c.server.tls.tls12)),
    setting("limits", "max_connections", |c| Slot::Count32(&mut c.server.limits.max_connections)),
    setting("limits", "max_connections_per_ip", |c| Slot::Count32(&mut c.server.limits.max_connections_per_ip)),
    setting("limits", "max_unauthenticated", |c| Slot::Count32(&mut c.server.limits.max_unauthenticated)),
    setting("limits", "max_unauthenticated_per_ip", |c| Slot::Count32(&mut c.server.limits.max_unauthenticated_per_ip)),
    setting("limits", "limit_loopback", |c| Slot::Switch(&mut c.server.limits.limit_loopback)),
    setting("limits", "handshake_timeout", |c| Slot::Time(&mut c.server.limits.handshake_timeout)),
    setting("limits", "max_frame", |c| Slot::Size32(&mut c.server.limits.max_frame)),
    setting("limits", "max_streams", |c| Slot::Count32(&mut c.server.limits.max_streams)),
    setting("limits", "window", |c| Slot::Size32(&mut c.server.limits.window)),
    setting("limits", "max_window", |c| Slot::Size32(&mut c.server.limits.max_window)),
    setting("limits", "frame_timeout", |c| Slot::Time(&mut c.server.limits.frame_timeout)),
    setting("limits", "write_timeout", |c| Slot::Time(&mut c.server.limits.write_timeout)),
    setting("limits", "keepalive", |c| Slot::Time(&mut c.server.limits.keepalive)),
    setting("limits", "default_timeout", |c| Slot::Time(&mut c.server.limits.default_timeout)),
    setting("limits", "max_timeout", |c| Slot::Time(&mut c.server.limits.max_timeout)),
    setting("limits", "cancel_grace", |c| Slot::Time(&mut c.server.limits.cancel_grace)),
    setting("limits", "queue_requests", |c| Slot::Count32(&mut c.server.limits.queue_requests)),
    setting("limits", "queue_bytes", |c| Slot::Size(&mut c.server.limits.queue_bytes)),
    setting("limits", "connection_buffer", |c| Slot::Size(&mut c.server.limits.connection_buffer)),
    setting("limits", "core_buffer", |c| Slot::Size(&mut c.server.limits.core_buffer)),
    setting("limits", "drain_timeout", |c| Slot::Time(&mut c.server.limits.drain_timeout)),
    setting("admin", "listen", |c| Slot::MaybeAddr(&mut c.admin.listen)),
    setting("admin", "insecure", |c| Slot::Switch(&mut c.admin.insecure)),
    setting("admin", "tls_cert", |c| Slot::MaybePath(&mut c.admin.tls.cert)),
    setting("admin", "tls_key", |c| Slot::MaybePath(&mut c.admin.tls.key)),
    setting("admin", "tls_client_ca", |c| Slot::MaybePath(&mut c.admin.tls.client_ca)),
    setting("log", "level", |c| Slot::Filter(&mut c.log.level)),
    setting("log", "format", |c| Slot::LogFormat(&mut c.log.format)),
    setting("telemetry", "channels", |c| Slot::Count(&mut c.server.telemetry_channels)),
    setting("telemetry", "slow_ms", |c| Slot::MaybeMillis(&mut c.server.slow)),
    setting("telemetry", "otlp", |c| Slot::MaybeUrl(&mut c.otlp)),
    setting("forward", "max_message", |c| Slot::Size(&mut c.server.forward.max_message)),
    setting("forward", "handover_bytes", |c| Slot::Size(&mut c.server.forward.handover_bytes)),
    setting("forward", "assembly_bytes", |c| Slot::Size(&mut c.server.forward.assembly_bytes)),
    setting("forward", "drain_timeout", |c| Slot::Time(&mut c.server.forward.drain_timeout)),
    setting("io", "buffers", |c| Slot::Count(&mut c.server.buffers)),
    setting("io", "buffer_size", |c| Slot::Size(&mut c.server.buffer_size)),
    setting("io", "ring_entries", |c| Slot::Count32(&mut c.server.ring_entries)),
];

/// A section that comes any number of times, `[[name]]`, each told apart by its id.
pub(crate) struct List {
    /// `[[name]]`.
    pub(crate) name: &'static str,
    /// The key that tells its entries apart.
    pub(crate) id: &'static str,
    /// The other keys of an entry, and where they live in the entry with an index.
    pub(crate) settings: &'static [(&'static str, EntrySlot)],
    /// The ids, in order.
    pub(crate) ids: fn(&Config) -> Vec<String>,
    /// The index of the entry with this id, made if there is none. Fails with what was expected.
    pub(crate) entry: fn(&mut Config, &str) -> Result<usize, String>,
}

type EntrySlot = fn(&mut Config, usize) -> Slot<'_>;

/// The lists, in the order they are shown.
pub(crate) static LISTS: &[List] = &[
    List {
        name: "channel",
        id: "id",
        settings: &[
            ("spread", |c, i| Slot::Count16(&mut c.server.channels[i].spread)),
            ("window", |c, i| Slot::MaybeSize32(&mut c.server.channels[i].window)),
            ("queue_requests", |c, i| Slot::MaybeCount32(&mut c.server.channels[i].queue_requests)),
            ("queue_bytes", |c, i| Slot::MaybeSize(&mut c.server.channels[i].queue_bytes)),
        ],
        ids: |c| c.server.channels.iter().map(|channel| channel.name.clone()).collect(),
        entry: channel_entry,
    },
    List {
        name: "producer",
        id: "id",
        settings: &[
            ("url", |c, i| Slot::Url(&mut c.server.producers[i].url)),
            ("channels", |c, i| Slot::Channels(&mut c.server.producers[i].channels)),
            ("what", |c, i| Slot::What(&mut c.server.producers[i].what)),
            ("queue_bytes", |c, i| Slot::Size(&mut c.server.producers[i].queue_bytes)),
            ("when_full", |c, i| Slot::WhenFull(&mut c.server.producers[i].when_full)),
            ("retries", |c, i| Slot::Count32(&mut c.server.producers[i].retries)),
            ("max_age", |c, i| Slot::Time(&mut c.server.producers[i].max_age)),
            ("dead_letter", |c, i| Slot::MaybePath(&mut c.server.producers[i].dead_letter)),
        ],
        ids: |c| c.server.producers.iter().map(|producer| producer.id.clone()).collect(),
        entry: producer_entry,
    },
    List {
        name: auth::LIST,
        id: "name",
        settings: &[
            // two ways to say one thing: it is shown as its hash
            ("token", |c, i| Slot::Token(&mut c.auth.tokens[i].token)),
            ("token_sha256", |c, i| Slot::TokenHash(&mut c.auth.tokens[i].token)),
            ("token_file", |c, i| Slot::MaybePath(&mut c.auth.tokens[i].file)),
            ("identity", |c, i| Slot::MaybeText(&mut c.auth.tokens[i].identity)),
            ("allow", |c, i| Slot::Rules(&mut c.auth.tokens[i].allow)),
            ("deny", |c, i| Slot::Rules(&mut c.auth.tokens[i].deny)),
        ],
        ids: |c| c.auth.tokens.iter().map(|token| token.name.clone()).collect(),
        entry: auth::entry,
    },
];

/// Whether a setting has any number of values: texts with commas between, where it isn't a TOML array.
pub(crate) fn is_list_of_values(key: &Key) -> bool {
    let key = (key.section.as_str(), key.key.as_str());
    matches!(key, ("server", "listen") | ("producer", "channels") | (auth::LIST, "allow" | "deny"))
}

fn producer_entry(config: &mut Config, id: &str) -> Result<usize, String> {
    let producers = &mut config.server.producers;
    if let Some(index) = producers.iter().position(|producer| producer.id == id) {
        return Ok(index);
    }
    producers.push(ProducerOptions::new(id, ""));
    Ok(producers.len() - 1)
}

fn channel_entry(config: &mut Config, name: &str) -> Result<usize, String> {
    let expected = |_| "a UUID or a name of 1 to 255 bytes without control characters".to_owned();
    let id: ChannelId = name.parse().map_err(expected)?;
    let channels = &mut config.server.channels;
    if let Some(index) = channels.iter().position(|channel| channel.id == id) {
        return Ok(index);
    }
    channels.push(ChannelOptions::new(id, name));
    Ok(channels.len() - 1)
}

/// Why a key has no slot.
#[derive(Debug)]
pub(crate) enum Missing {
    /// There is no such setting.
    Unknown,
    /// The entry can't be made; what was expected of its id.
    BadEntry(String),
}

/// Where the setting `key` lives; `None` for an entry's `id`, which is set by making the entry.
pub(crate) fn slot<'a>(config: &'a mut Config, key: &Key) -> Result<Option<Slot<'a>>, Missing> {
    let Some(entry) = &key.entry else {
        let found = SETTINGS.iter().find(|setting| setting.section == key.section && setting.key == key.key);
        return found.map(|setting| Some((setting.slot)(config))).ok_or(Missing::Unknown);
    };
    let list = list(&key.section).ok_or(Missing::Unknown)?;
    let found = list.settings.iter().find(|(name, _)| *name == key.key);
    if found.is_none() && key.key != list.id {
        return Err(Missing::Unknown);
    }
    let index = (list.entry)(config, entry).map_err(Missing::BadEntry)?;
    Ok(found.map(|(_, slot)| slot(config, index)))
}

/// The list with this name.
pub(crate) fn list(name: &str) -> Option<&'static List> {
    LISTS.iter().find(|list| list.name == name)
}

/// The names of all lists with the ids of their entries.
pub(crate) fn entries_of(config: &Config) -> Vec<(&'static str, Vec<String>)> {
    LISTS.iter().map(|list| (list.name, (list.ids)(config))).collect()
}

/// All names there are, entries' with `ID` in place of the id.
pub(crate) fn names() -> impl Iterator<Item = Key> {
    let plain = SETTINGS.iter().map(|s| Key { section: s.section.into(), entry: None, key: s.key.into() });
    let key = |list: &List, key: &str| Key { section: list.name.into(), entry: Some("ID".into()), key: key.into() };
    plain.chain(LISTS.iter().flat_map(move |list| list.settings.iter().map(move |(name, _)| key(list, name))))
}

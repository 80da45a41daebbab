//! `/connz`, `/channelz`, `/latencyz`: the lists, put together from all cores.

use std::collections::HashMap;

use super::cores;
use super::latency::Distribution;
use super::state::State;
use super::view::{Channel, ChannelLatency, Conn, Latencyz, Listing};
use crate::base::ChannelId;
use crate::broker::core::{ConnSnapshot, Meter};

/// Entries of a list where `?limit=` doesn't say.
const LIMIT: u64 = 100;
/// The most entries of a list.
const MAX_LIMIT: u64 = 10_000;

/// Which part of a list is wanted, and of what.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    offset: u64,
    limit: Option<u64>,
    /// Of this channel, by name or id.
    channel: Option<ChannelArg>,
    /// In this role.
    role: Option<String>,
}

/// A channel as people write it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelArg(pub(super) ChannelId);

impl<'de> serde::Deserialize<'de> for ChannelArg {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<ChannelArg, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map(ChannelArg).map_err(|bad| serde::de::Error::custom(format!("channel={text}: {bad}")))
    }
}

impl Wanted {
    fn listing<T>(&self) -> Listing<T> {
        let limit = self.limit.unwrap_or(LIMIT).min(MAX_LIMIT);
        Listing { total: 0, offset: self.offset, limit, items: Vec::new(), silent_cores: Vec::new() }
    }

    fn wants(&self, conn: &ConnSnapshot) -> bool {
        self.channel.is_none_or(|ChannelArg(id)| conn.channel == Some(id))
            && self.role.as_ref().is_none_or(|role| role == conn.role)
    }
}

pub(super) async fn connections(state: &State, wanted: &Wanted) -> Listing<Conn> {
    let mut list = wanted.listing();
    for core in 0..state.inspector.cores() {
        let asked = cores::connections(&state.inspector, core, |conn| {
            if wanted.wants(&conn) {
                if list.total >= list.offset && (list.items.len() as u64) < list.limit {
                    list.items.push(entry(state, core, conn));
                }
                list.total += 1;
            }
        });
        if asked.await.is_err() {
            list.silent_cores.push(core);
        }
    }
    list
}

fn entry(state: &State, core: u16, conn: ConnSnapshot) -> Conn {
    Conn {
        core,
        id: conn.id.pack(),
        role: conn.role.to_owned(),
        state: conn.state.to_owned(),
        peer: conn.info.peer,
        name: conn.info.name,
        user: conn.info.user.map(|user| user.to_string()),
        client: conn.info.client.to_string(),
        identity: conn.info.identity.as_deref().map(String::from),
        channel: conn.channel.map(|channel| channel.to_string()),
        channel_name: conn.channel.and_then(|channel| state.name_of(channel)),
        in_flight: u64::from(conn.in_flight),
        max_concurrent: u64::from(conn.max_concurrent),
        pending_bytes: conn.pending as u64,
        age_seconds: conn.age.as_secs_f64(),
        idle_seconds: conn.idle.as_secs_f64(),
    }
}

/// The channels with most in progress first.
pub(super) async fn channels(state: &State, wanted: &Wanted) -> Listing<Channel> {
    let mut list = wanted.listing();
    let mut rows: HashMap<Option<ChannelId>, (Channel, Distribution)> = HashMap::new();
    for core in 0..state.inspector.cores() {
        let here = cores::channels(&state.inspector, core, |channel| {
            let (row, _) = rows.entry(Some(channel.id)).or_default();
            row.cores.push(core);
            row.connections += u64::from(channel.connections);
            row.providers += u64::from(channel.providers);
            row.capacity += u64::from(channel.capacity);
            row.in_flight += u64::from(channel.in_use);
            row.queued += u64::from(channel.queued);
            row.queued_bytes += channel.queued_bytes as u64;
        });
        let mut silent = here.await.is_err();
        let meters = cores::meters(&state.inspector, core, |meter| {
            let (row, latency) = rows.entry(meter.channel).or_default();
            row.requests += meter.requests;
            row.errors += meter.failed;
            row.request_bytes += meter.request_bytes;
            row.response_bytes += meter.response_bytes;
            row.responses += meter.total.len();
            latency.add(&meter.total);
        });
        silent = silent || meters.await.is_err();
        if silent {
            list.silent_cores.push(core);
        }
    }
    rows.retain(|id, (row, _)| match id {
        None => wanted.channel.is_none() && row.requests > 0,
        Some(id) => wanted.channel.is_none_or(|ChannelArg(wanted)| wanted == *id),
    });
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(id, (row, _))| {
        let (in_progress, had) = (row.in_flight + row.queued, row.requests);
        (std::cmp::Reverse((in_progress, had, row.connections)), id.map(|id| *id.as_bytes()))
    });
    list.total = rows.len() as u64;
    let part = rows.into_iter().skip(list.offset as usize).take(list.limit as usize);
    list.items = part.map(|(id, (row, latency))| named(state, id, row, &latency)).collect();
    list
}

fn named(state: &State, id: Option<ChannelId>, row: Channel, latency: &Distribution) -> Channel {
    let name = id.and_then(|id| state.name_of(id));
    Channel { channel: label(id), name, latency: latency.summary(), ..row }
}

/// How a meter's channel is called.
pub(super) fn label(id: Option<ChannelId>) -> String {
    id.map_or_else(|| "other".to_owned(), |id| id.to_string())
}

/// How long the requests of one channel, or several, took.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) queue_wait: Distribution,
    pub(super) first_byte: Distribution,
    pub(super) total: Distribution,
}

impl Times {
    pub(super) fn add(&mut self, meter: &Meter) {
        self.requests += meter.requests;
        self.failed += meter.failed;
        self.request_bytes += meter.request_bytes;
        self.response_bytes += meter.response_bytes;
        self.queue_wait.add(&meter.queue_wait);
        self.first_byte.add(&meter.first_byte);
        self.total.add(&meter.total);
    }
}

/// The times of each channel that has a meter, by its label's order; and of all together.
pub(super) struct AllTimes {
    pub(super) all: Times,
    pub(super) each: Vec<(Option<ChannelId>, Times)>,
    pub(super) silent_cores: Vec<u16>,
}

impl AllTimes {
    pub(super) async fn of(state: &State) -> AllTimes {
        let mut each: HashMap<Option<ChannelId>, Times> = HashMap::new();
        let mut all = Times::default();
        let mut silent_cores = Vec::new();
        for core in 0..state.inspector.cores() {
            let asked = cores::meters(&state.inspector, core, |meter| {
                each.entry(meter.channel).or_default().add(&meter);
                all.add(&meter);
            });
            if asked.await.is_err() {
                silent_cores.push(core);
            }
        }
        let mut each: Vec<_> = each.into_iter().filter(|(id, times)| id.is_some() || times.requests > 0).collect();
        // the busiest first, `other` last
        each.sort_by_key(|(id, times)| (id.is_none(), std::cmp::Reverse(times.requests), id.map(|id| *id.as_bytes())));
        AllTimes { all, each, silent_cores }
    }
}

pub(super) async fn latency(state: &State, channel: Option<ChannelArg>) -> Latencyz {
    let times = AllTimes::of(state).await;
    let all = channel.is_none().then(|| channel_latency("all".to_owned(), None, &times.all));
    let each = times.each.iter().filter(|(id, _)| channel.is_none_or(|ChannelArg(wanted)| *id == Some(wanted)));
    let each = each.map(|(id, times)| channel_latency(label(*id), id.and_then(|id| state.name_of(id)), times));
    Latencyz { channels: all.into_iter().chain(each).collect(), silent_cores: times.silent_cores }
}

fn channel_latency(channel: String, name: Option<String>, times: &Times) -> ChannelLatency {
    ChannelLatency {
        channel,
        name,
        queue_wait: times.queue_wait.summary(),
        first_byte: times.first_byte.summary(),
        total: times.total.summary(),
        curve: times.total.curve(),
    }
}

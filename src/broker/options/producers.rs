//! Who messages are forwarded to, and how much may wait for them.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{BadOption, MAX_ROUTES};
use crate::base::ChannelId;
use crate::forward::{self, WhenFull};

/// Which half of an exchange a producer gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    /// What consumers send.
    #[default]
    Request,
    /// What providers answer.
    Response,
    /// Both.
    Both,
}

impl What {
    pub(in crate::broker) fn requests(self) -> bool {
        self != What::Response
    }

    pub(in crate::broker) fn responses(self) -> bool {
        self != What::Request
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Request => "request",
            What::Response => "response",
            What::Both => "both",
        })
    }
}

impl std::str::FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<What, String> {
        match text {
            "request" => Ok(What::Request),
            "response" => Ok(What::Response),
            "both" => Ok(What::Both),
            _ => Err("request, response or both".to_owned()),
        }
    }
}

/// A target's address. It may hold a password, so it is shown without: see [`redact`](forward::redact).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TargetUrl(pub String);

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&forward::redact(&self.0))
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A channel as it was written, and what that stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedChannel {
    /// Which channel.
    pub id: ChannelId,
    /// As it was written, a name or a UUID: for people.
    pub name: String,
}

impl std::str::FromStr for NamedChannel {
    type Err = String;

    fn from_str(name: &str) -> Result<NamedChannel, String> {
        let expected = |_| "a UUID or a name of 1 to 255 bytes without control characters".to_owned();
        Ok(NamedChannel { id: name.parse().map_err(expected)?, name: name.to_owned() })
    }
}

impl fmt::Display for NamedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// One producer: a target outside, and what is forwarded to it. Each core has its own connection to it and its own
/// queue before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Its name: 1 to 255 characters.
    pub id: String,
    /// Where to: see [`ClientFactory`](forward::ClientFactory) for the schemes.
    pub url: TargetUrl,
    /// From which channels. Default: all.
    pub channels: Vec<NamedChannel>,
    /// Requests, responses, or both. Default: requests.
    pub what: What,
    /// Bytes its queue holds on each core. Default 8 MiB.
    pub queue_bytes: usize,
    /// What happens to a message that finds no room. Default: the newest is dropped, and counted.
    pub when_full: WhenFull,
    /// Attempts after the first one. Default 10.
    pub retries: u32,
    /// How long a message may wait. Default 60 s.
    pub max_age: Duration,
    /// Where messages go that are given up: JSON lines, one file for all cores. Default: nowhere.
    pub dead_letter: Option<PathBuf>,
}

impl ProducerOptions {
    /// A producer that departs from nothing yet.
    #[must_use]
    pub fn new(id: impl Into<String>, url: impl Into<String>) -> ProducerOptions {
        let queue = forward::ProducerOptions::default();
        ProducerOptions {
            id: id.into(),
            url: TargetUrl(url.into()),
            channels: Vec::new(),
            what: What::default(),
            queue_bytes: queue.queue_bytes,
            when_full: queue.when_full,
            retries: queue.retries,
            max_age: queue.max_age,
            dead_letter: None,
        }
    }

    /// How its queue and retries are to be.
    pub(in crate::broker) fn queue(&self, max_message: usize) -> forward::ProducerOptions {
        forward::ProducerOptions {
            queue_bytes: self.queue_bytes,
            when_full: self.when_full,
            retries: self.retries,
            max_age: self.max_age,
            max_message,
            dead_letter: self.dead_letter.clone(),
            ..forward::ProducerOptions::default()
        }
    }

    /// Checks all but what only making its client can tell.
    fn validate(&self, max_message: usize) -> Result<(), BadOption> {
        if self.url.0.is_empty() {
            let expected = "where to forward to, such as tcp://127.0.0.1:9000".into();
            return Err(BadOption { key: format!("producer.{}.url", self.id), value: "nothing".into(), expected });
        }
        self.queue(max_message).validate().map_err(|bad| BadOption {
            key: format!("producer.{}", self.id),
            value: bad.to_string(),
            expected: "settings that fit together".into(),
        })
    }
}

/// All producers of a broker: each by itself, and that they can be together.
pub(in crate::broker) fn validate_all<'a>(
    producers: impl ExactSizeIterator<Item = &'a ProducerOptions>,
    max_message: usize,
) -> Result<(), BadOption> {
    let bad = |key: &str, value: String, expected: String| BadOption { key: key.into(), value, expected };
    if producers.len() > MAX_ROUTES {
        let count = producers.len().to_string();
        return Err(bad("producer", count, format!("at most {MAX_ROUTES}, those of on_message included")));
    }
    let mut ids = HashSet::new();
    for producer in producers {
        producer.validate(max_message)?;
        if !ids.insert(&producer.id) {
            return Err(bad("producer.id", producer.id.clone(), "each producer once".into()));
        }
    }
    Ok(())
}

/// What all producers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// A body larger than this is forwarded in parts, each but the last of this size, where the target can be told so;
    /// else it is skipped, and counted. Default 1 MiB.
    pub max_message: usize,
    /// Bytes that may be on their way from a core to the thread that forwards. What finds more there is dropped, and
    /// counted. Default 4 MiB.
    pub handover_bytes: usize,
    /// Bytes of messages whose end has not come that are held on each core. One that goes beyond is given up, and
    /// counted. Default 64 MiB.
    pub assembly_bytes: usize,
    /// How long what waits may still be delivered when the broker ends. Default 5 s.
    pub drain_timeout: Duration,
}

impl Default for ForwardOptions {
    fn default() -> ForwardOptions {
        ForwardOptions {
            max_message: 1 << 20,
            handover_bytes: 4 << 20,
            assembly_bytes: 64 << 20,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl ForwardOptions {
    pub(super) fn validate(&self) -> Result<(), BadOption> {
        let check = |ok: bool, key: &str, value: usize, expected: &str| {
            let bad =
                || BadOption { key: format!("forward.{key}"), value: value.to_string(), expected: expected.into() };
            if ok { Ok(()) } else { Err(bad()) }
        };
        let message = (1..=1 << 30).contains(&self.max_message);
        check(message, "max_message", self.max_message, "1 to 1073741824 (1GiB) bytes")?;
        check(
            self.handover_bytes > 0,
            "handover_bytes",
            self.handover_bytes,
            "at least 1 byte; 4194304 (4MiB) is usual",
        )?;
        let assembly = self.assembly_bytes >= self.max_message;
        check(assembly, "assembly_bytes", self.assembly_bytes, "at least forward.max_message")
    }
}

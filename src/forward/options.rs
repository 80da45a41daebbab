//! What a producer may hold, and when it gives up.

use std::path::PathBuf;
use std::time::Duration;

/// What a producer does with a message when its queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// The new message is dropped.
    #[default]
    DropNewest,
    /// The oldest ones waiting make room. One that is being sent is not taken back.
    DropOldest,
    /// Whoever brings messages is held back: [`Producer::forward`](super::Producer::forward) waits for room. An
    /// [`offer`](super::Producer::offer) is always taken, for what offers watches
    /// [`is_over`](super::Producer::is_over) and stops its own source.
    Block,
}

impl WhenFull {
    /// As configuration spells it: `drop_newest`, `drop_oldest` or `block`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WhenFull::DropNewest => "drop_newest",
            WhenFull::DropOldest => "drop_oldest",
            WhenFull::Block => "block",
        }
    }
}

impl std::str::FromStr for WhenFull {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<WhenFull, OptionsError> {
        match text {
            "drop_newest" => Ok(WhenFull::DropNewest),
            "drop_oldest" => Ok(WhenFull::DropOldest),
            "block" => Ok(WhenFull::Block),
            _ => Err(OptionsError::WhenFull(text.to_owned())),
        }
    }
}

/// Limits and habits of one producer.
///
/// ```
/// use std::time::Duration;
/// use corelay::forward::{ProducerOptions, WhenFull};
/// let options = ProducerOptions {
///     queue_bytes: 1 << 20,
///     max_message: 64 << 10,
///     when_full: WhenFull::DropOldest,
///     max_age: Duration::from_secs(5),
///     ..ProducerOptions::default()
/// };
/// assert!(options.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Bytes the queue holds, what is being sent included: bodies, headers, and 128 bytes a message
    /// ([`Message::cost`](super::Message::cost)). 8 MiB.
    pub queue_bytes: usize,
    /// What to do beyond that. [`WhenFull::DropNewest`].
    pub when_full: WhenFull,
    /// Attempts after the first one, for each message; 0: none. While the breaker is open no attempts are made, and
    /// none are counted. 10.
    pub retries: u32,
    /// How long a message may wait to be delivered; after that it is given up. 60 s.
    pub max_age: Duration,
    /// The largest body, or part of one, in bytes. 1 MiB.
    pub max_message: usize,
    /// Messages given to the client at once, at most. 256.
    pub batch_messages: usize,
    /// Bytes ([`Message::cost`](super::Message::cost)) given to the client at once; a single message may exceed
    /// it. 256 KiB.
    pub batch_bytes: usize,
    /// The wait before the first retry; it doubles with each failure in a row, less a random part of up to half of
    /// it. 100 ms.
    pub backoff_min: Duration,
    /// The longest wait before a retry. 30 s.
    pub backoff_max: Duration,
    /// Failures in a row that open the breaker. 5.
    pub breaker_failures: u32,
    /// A producer with nothing to send asks its client this often whether the target is there. 10 s.
    pub probe_interval: Duration,
    /// A file for messages that are given up: JSON lines, appended. See [`DropReason::is_kept`](super::DropReason::is_kept)
    /// for which. None.
    pub dead_letter: Option<PathBuf>,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            queue_bytes: 8 << 20,
            when_full: WhenFull::DropNewest,
            retries: 10,
            max_age: Duration::from_secs(60),
            max_message: 1 << 20,
            batch_messages: 256,
            batch_bytes: 256 << 10,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            breaker_failures: 5,
            probe_interval: Duration::from_secs(10),
            dead_letter: None,
        }
    }
}

/// Options that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Something that must be more than nothing.
    #[error("{0} is 0; expected more")]
    Zero(&'static str),
    /// A message as large as allowed would never find room.
    #[error("queue_bytes is {queue_bytes}, less than max_message ({max_message}) and its overhead; expected at least {}", max_message + OVERHEAD)]
    QueueBelowMessage {
        /// As given.
        queue_bytes: usize,
        /// As given.
        max_message: usize,
    },
    /// The longest wait is shorter than the first.
    #[error("backoff_max is {max:?}, less than backoff_min, {min:?}")]
    Backoff {
        /// As given.
        min: Duration,
        /// As given.
        max: Duration,
    },
    /// No such policy.
    #[error("when_full is {0:?}; expected drop_newest, drop_oldest or block")]
    WhenFull(String),
    /// Not an id.
    #[error("a producer's id is {0:?}; expected 1 to 255 characters, none of them a control character")]
    Id(String),
}

/// What a message costs beyond its body and headers.
pub(super) const OVERHEAD: usize = 128;

impl ProducerOptions {
    /// # Errors
    /// The first thing that contradicts itself.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let counts = [
            ("max_message", self.max_message as u64),
            ("batch_messages", self.batch_messages as u64),
            ("batch_bytes", self.batch_bytes as u64),
            ("breaker_failures", u64::from(self.breaker_failures)),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, value)| *value == 0) {
            return Err(OptionsError::Zero(name));
        }
        let times =
            [("max_age", self.max_age), ("backoff_min", self.backoff_min), ("probe_interval", self.probe_interval)];
        if let Some((name, _)) = times.into_iter().find(|(_, value)| value.is_zero()) {
            return Err(OptionsError::Zero(name));
        }
        if self.backoff_max < self.backoff_min {
            return Err(OptionsError::Backoff { min: self.backoff_min, max: self.backoff_max });
        }
        if self.queue_bytes < self.max_message.saturating_add(OVERHEAD) {
            return Err(OptionsError::QueueBelowMessage {
                queue_bytes: self.queue_bytes,
                max_message: self.max_message,
            });
        }
        Ok(())
    }
}

pub(super) fn validate_id(id: &str) -> Result<(), OptionsError> {
    if id.is_empty() || id.len() > 255 || id.chars().any(char::is_control) {
        return Err(OptionsError::Id(id.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_told_apart() {
        let bad = |change: fn(&mut ProducerOptions)| {
            let mut options = ProducerOptions::default();
            change(&mut options);
            options.validate().unwrap_err()
        };
        assert_eq!(bad(|o| o.max_message = 0), OptionsError::Zero("max_message"));
        assert_eq!(bad(|o| o.batch_messages = 0), OptionsError::Zero("batch_messages"));
        assert_eq!(bad(|o| o.batch_bytes = 0), OptionsError::Zero("batch_bytes"));
        assert_eq!(bad(|o| o.breaker_failures = 0), OptionsError::Zero("breaker_failures"));
        assert_eq!(bad(|o| o.max_age = Duration::ZERO), OptionsError::Zero("max_age"));
        assert_eq!(bad(|o| o.backoff_min = Duration::ZERO), OptionsError::Zero("backoff_min"));
        assert_eq!(bad(|o| o.probe_interval = Duration::ZERO), OptionsError::Zero("probe_interval"));
        assert!(matches!(bad(|o| o.backoff_max = Duration::from_millis(1)), OptionsError::Backoff { .. }));
        assert!(matches!(bad(|o| o.queue_bytes = 1 << 20), OptionsError::QueueBelowMessage { .. }));
        let exact = ProducerOptions { queue_bytes: (1 << 20) + OVERHEAD, ..ProducerOptions::default() };
        exact.validate().unwrap();
        assert_eq!(super::super::Message::from("").cost(), OVERHEAD);
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        for policy in [WhenFull::DropNewest, WhenFull::DropOldest, WhenFull::Block] {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        assert!("drop".parse::<WhenFull>().is_err());
    }

    #[test]
    fn ids_are_checked() {
        assert!(validate_id("log-aggregator").is_ok());
        for bad in ["", "a\nb", &"x".repeat(256)] {
            assert!(validate_id(bad).is_err());
        }
    }
}

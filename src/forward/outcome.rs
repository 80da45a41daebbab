//! What became of a message.

use super::SendError;

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue had no room for it, or it made room for a newer one.
    QueueFull,
    /// It waited longer than `max_age`.
    TooOld,
    /// The first attempt and all `retries` failed.
    RetriesSpent,
    /// It may have arrived, and the client never sends twice.
    InDoubt,
    /// The target said no.
    Rejected,
    /// Larger than `max_message`, or than the target takes.
    TooLarge,
    /// It came in parts, which the target can't take.
    Skipped,
    /// It came in parts, and never ended.
    Aborted,
    /// It came in parts, and one was missing.
    Incomplete,
    /// The producer was shut down first.
    Shutdown,
}

impl DropReason {
    /// All of them, in the order [`Dropped`](super::Dropped) counts them.
    pub const ALL: [DropReason; 10] = [
        DropReason::QueueFull,
        DropReason::TooOld,
        DropReason::RetriesSpent,
        DropReason::InDoubt,
        DropReason::Rejected,
        DropReason::TooLarge,
        DropReason::Skipped,
        DropReason::Aborted,
        DropReason::Incomplete,
        DropReason::Shutdown,
    ];

    /// As logs, metrics and dead letters spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::TooOld => "too_old",
            DropReason::RetriesSpent => "retries_spent",
            DropReason::InDoubt => "in_doubt",
            DropReason::Rejected => "rejected",
            DropReason::TooLarge => "too_large",
            DropReason::Skipped => "skipped",
            DropReason::Aborted => "aborted",
            DropReason::Incomplete => "incomplete",
            DropReason::Shutdown => "shutdown",
        }
    }

    /// Whether such a message goes to the dead letter file, where there is one. Not what a full queue turns away: that
    /// is load, which a disk would not bear either. Not what came in parts, whatever the reason: most of it has left,
    /// or never came.
    #[must_use]
    pub fn is_kept(self) -> bool {
        use DropReason::{InDoubt, Rejected, RetriesSpent, Shutdown, TooLarge, TooOld};
        matches!(self, TooOld | RetriesSpent | InDoubt | Rejected | TooLarge | Shutdown)
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a producer did not take a message from [`offer`](super::Producer::offer). It has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// It, and the message that this may be a part of, is given up.
    #[error("dropped: {0}")]
    Dropped(DropReason),
    /// A part of a message that was given up before, or whose beginning never came.
    #[error("dropped: a part of a message that is not being forwarded")]
    StrayPart,
}

/// A message was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// There is no such producer.
    #[error("there is no producer {0:?}")]
    UnknownProducer(String),
    /// It was not taken.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// It is given up.
    #[error("dropped: {reason}{}", because(error))]
    Dropped {
        /// Why.
        reason: DropReason,
        /// What the last attempt met, if there was one.
        error: Option<SendError>,
    },
    /// It is given up, and stands in the dead letter file.
    #[error("dropped to the dead letter file: {reason}{}", because(error))]
    DeadLettered {
        /// Why.
        reason: DropReason,
        /// What the last attempt met, if there was one.
        error: Option<SendError>,
    },
}

impl ForwardError {
    /// Why it was given up; `None` for an unknown producer and for a stray part.
    #[must_use]
    pub fn reason(&self) -> Option<DropReason> {
        match self {
            ForwardError::Dropped { reason, .. }
            | ForwardError::DeadLettered { reason, .. }
            | ForwardError::NotTaken(NotTaken::Dropped(reason)) => Some(*reason),
            ForwardError::UnknownProducer(_) | ForwardError::NotTaken(NotTaken::StrayPart) => None,
        }
    }
}

fn because(error: &Option<SendError>) -> String {
    error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_where_they_stand() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index, "{reason}");
        }
    }
}

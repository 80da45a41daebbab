//! Why a connection, or a request, ended.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;

use crate::protocol::{Code, Flags};

/// The error below this one.
pub(crate) type Source = Arc<dyn StdError + Send + Sync>;

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The broker, with this code.
    Peer(u16),
    /// This side, for something the broker did or did not do.
    Found(Code),
    /// The transport.
    Lost,
    /// The user of this side.
    Closed,
}

/// Why a connection ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) origin: Origin,
    pub(crate) text: Cow<'static, str>,
    pub(crate) source: Option<Source>,
}

impl End {
    pub(crate) fn new(origin: Origin, text: impl Into<Cow<'static, str>>) -> End {
        End { origin, text: text.into(), source: None }
    }

    pub(crate) fn found(code: Code, text: impl Into<Cow<'static, str>>) -> End {
        End::new(Origin::Found(code), text)
    }

    pub(crate) fn lost(text: &'static str, source: Option<Source>) -> End {
        End { source, ..End::new(Origin::Lost, text) }
    }

    pub(crate) fn closed() -> End {
        End::new(Origin::Closed, "closed by this side")
    }
}

/// What made a request fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The broker's ERROR, or to a provider its CANCEL, with this code.
    Peer(u16),
    /// This side, with this code: a deadline the broker did not keep, a broker that is leaving.
    Local(Code),
    /// The body to send could not be read.
    Body,
    /// The connection ended: see the session's [`End`].
    Connection,
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// STARTED where a provider may have begun.
    pub(crate) flags: Flags,
    pub(crate) text: Cow<'static, str>,
    pub(crate) source: Option<Source>,
}

impl Failure {
    pub(crate) fn new(cause: Cause, flags: Flags, text: impl Into<Cow<'static, str>>) -> Failure {
        Failure { cause, flags, text: text.into(), source: None }
    }

    /// The broker's ERROR on a stream.
    pub(crate) fn peer(code: u16, flags: Flags, text: String) -> Failure {
        Failure::new(Cause::Peer(code), flags, text)
    }

    /// The broker's CANCEL to a provider.
    pub(crate) fn cancelled(code: u16) -> Failure {
        Failure::new(Cause::Peer(code), Flags::STARTED, "nobody waits for the answer any more")
    }

    pub(crate) fn local(code: Code, text: &'static str) -> Failure {
        Failure::new(Cause::Local(code), Flags::NONE, text)
    }

    pub(crate) fn body(text: &'static str, source: Option<Source>) -> Failure {
        Failure { source, ..Failure::new(Cause::Body, Flags::NONE, text) }
    }

    pub(crate) fn connection(started: bool) -> Failure {
        Failure::new(Cause::Connection, Flags::STARTED.only_if(started), "")
    }
}

//! What happened: [`RawEvent`], [`GenericEvent`], [`Event`].

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The type a handler of all events registers for.
pub const ANY: &str = "*";

/// The longest event type, in bytes.
pub const MAX_TYPE: usize = 256;

/// An event type no event can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// It says nothing.
    #[error("the event type is empty")]
    Empty,
    /// More than [`MAX_TYPE`].
    #[error("the event type has {0} bytes; expected at most {MAX_TYPE}")]
    TooLong(usize),
    /// [`ANY`] stands for all types, not for one.
    #[error("the event type is \"*\", which stands for all types")]
    Reserved,
    /// It has control characters.
    #[error("the event type has a control character in it")]
    Control,
    /// It is no text.
    #[error("the event type is not UTF-8")]
    NotUtf8,
}

/// An event in memory: its type, and its data as JSON.
pub trait Event {
    /// For example `user.created`.
    fn event_type(&self) -> &str;

    /// The data as JSON.
    ///
    /// # Errors
    /// If it can't be put as JSON.
    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error>;
}

/// An event whose data has no type of its own.
///
/// ```
/// use corelay::toolkit::event_processor::{Event, GenericEvent};
/// use serde_json::json;
/// let event = GenericEvent::new("user.created", json!({ "user_id": "123" }));
/// assert_eq!(event.event_type(), "user.created");
/// assert_eq!(event.to_json().unwrap(), br#"{"user_id":"123"}"#);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenericEvent {
    /// For example `user.created`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Whatever belongs to it.
    pub data: serde_json::Value,
}

impl GenericEvent {
    /// An event of this type with this data.
    #[must_use]
    pub fn new(event_type: impl Into<String>, data: serde_json::Value) -> GenericEvent {
        GenericEvent { event_type: event_type.into(), data }
    }
}

impl Event for GenericEvent {
    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.data)
    }
}

/// An event as it came: a type and bytes nobody has looked at. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    event_type: Arc<str>,
    data: Bytes,
}

impl RawEvent {
    /// # Errors
    /// [`TypeError`] for a type no event can have.
    pub fn new(event_type: impl Into<Arc<str>>, data: impl Into<Bytes>) -> Result<RawEvent, TypeError> {
        let event_type = event_type.into();
        check(&event_type)?;
        Ok(RawEvent { event_type, data: data.into() })
    }

    /// For example `user.created`.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The data read as JSON.
    ///
    /// # Errors
    /// If it is no JSON, or not of this shape.
    ///
    /// ```
    /// use corelay::toolkit::event_processor::RawEvent;
    /// let event = RawEvent::new("point.drawn", "[3, 4]").unwrap();
    /// assert_eq!(event.decode::<(u32, u32)>().unwrap(), (3, 4));
    /// ```
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.data)
    }
}

fn check(event_type: &str) -> Result<(), TypeError> {
    match event_type {
        "" => Err(TypeError::Empty),
        ANY => Err(TypeError::Reserved),
        long if long.len() > MAX_TYPE => Err(TypeError::TooLong(long.len())),
        text if text.chars().any(char::is_control) => Err(TypeError::Control),
        _ => Ok(()),
    }
}

/// Checks the type a handler is for: one that events can have, or [`ANY`].
pub(super) fn check_handled(event_type: &str) -> Result<(), TypeError> {
    if event_type == ANY { Ok(()) } else { check(event_type) }
}

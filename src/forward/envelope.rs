//! A message with all that is known of it, as one line of JSON: `?envelope=json` of the clients that have it, and the
//! lines of dead letter files.
//!
//! ```json
//! {"id":"...","key":"...","channel":"...","kind":"request","headers":{"content-type":["text/plain"]},
//!  "time":"2026-11-21T14:04:06.123456789Z","body":"Hello!"}
//! ```
//!
//! | field | what |
//! |---|---|
//! | `id` | the request's id, as the requester chose it |
//! | `key` | unique for each message, and the same when it is sent again; all parts of one share it |
//! | `channel` | the UUID of the channel |
//! | `kind` | `request` or `response` |
//! | `headers` | the values of each key in their order; left out where there are none |
//! | `headers_base64` | as `headers`, those values that are not UTF-8 |
//! | `time` | when it was received, RFC 3339 |
//! | `sequence`, `last` | of a part: which one, and whether nothing follows |
//! | `aborted` | `true`: the message never ended. `sequence` says how many parts came before; there is no body |
//! | `body` or `body_base64` | the content, as text where it is UTF-8 |
//! | `reason` | of a dead letter: see [`DropReason::as_str`](super::DropReason::as_str) |

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Headers, Kind, Message, Part};
use crate::base::ChannelId;
use crate::protocol::encode_headers;

type Multimap<'a> = BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>;

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: Multimap<'a>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    headers_base64: Multimap<'a>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aborted: Option<bool>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
}

/// Text that is no envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope: {0}")]
pub struct BadEnvelope(String);

/// A message as JSON, without a line's end.
///
/// ```
/// use corelay::forward::{Message, envelope};
/// let message = Message::from("Hello!");
/// let line = envelope::encode(&message);
/// assert!(line.ends_with(br#""body":"Hello!"}"#));
/// assert_eq!(envelope::decode(&line)?, message);
/// # Ok::<(), envelope::BadEnvelope>(())
/// ```
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.body.len() + 320);
    write(message, None, &mut out);
    out
}

/// Appends a message as JSON.
pub(super) fn write(message: &Message, reason: Option<&str>, out: &mut Vec<u8>) {
    let (mut headers, mut headers_base64) = (Multimap::new(), Multimap::new());
    for (key, value) in message.headers.iter() {
        let key = String::from_utf8_lossy(key);
        match std::str::from_utf8(value) {
            Ok(text) => headers.entry(key).or_default().push(text.into()),
            Err(_) => headers_base64.entry(key).or_default().push(STANDARD.encode(value).into()),
        }
    }
    let (sequence, last, aborted) = match message.part {
        Part::Whole => (None, None, None),
        Part::Chunk { sequence, last } => (Some(sequence), Some(last), None),
        Part::Aborted { sequence } => (Some(sequence), None, Some(true)),
    };
    let text = std::str::from_utf8(&message.body).ok();
    let has_body = aborted.is_none();
    let envelope = Envelope {
        id: message.id.to_string().into(),
        key: message.key.to_string().into(),
        channel: message.channel.to_string().into(),
        kind: message.kind.as_str().into(),
        headers,
        headers_base64,
        time: rfc3339(message.time).into(),
        sequence,
        last,
        aborted,
        body: text.filter(|_| has_body).map(Cow::from),
        body_base64: (text.is_none() && has_body).then(|| STANDARD.encode(&message.body).into()),
        reason: reason.map(Cow::from),
    };
    if let Err(error) = serde_json::to_writer(&mut *out, &envelope) {
        unreachable!("strings and numbers are always JSON, and a vector takes all: {error}");
    }
}

/// A time as RFC 3339 has it, or the nearest that it can say: 1970 to 9999.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_nanos(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// A message from JSON; a dead letter's, too.
///
/// # Errors
/// It is not an envelope.
pub fn decode(json: &[u8]) -> Result<Message, BadEnvelope> {
    let bad = |what: &str, error: &dyn std::fmt::Display| BadEnvelope(format!("{what}: {error}"));
    let envelope: Envelope<'_> = serde_json::from_slice(json).map_err(|error| BadEnvelope(error.to_string()))?;
    let uuid = |what: &str, text: &str| Uuid::parse_str(text).map_err(|error| bad(what, &error));
    let part = match (envelope.aborted, envelope.sequence, envelope.last) {
        (Some(true), Some(sequence), None) => Part::Aborted { sequence },
        (None, Some(sequence), Some(last)) => Part::Chunk { sequence, last },
        (None, None, None) => Part::Whole,
        _ => return Err(BadEnvelope("sequence, last and aborted contradict each other".to_owned())),
    };
    let body = match (envelope.body, envelope.body_base64) {
        (Some(text), None) => Bytes::from(text.into_owned()),
        (None, Some(text)) => STANDARD.decode(&*text).map_err(|error| bad("body_base64", &error))?.into(),
        (None, None) if matches!(part, Part::Aborted { .. }) => Bytes::new(),
        _ => return Err(BadEnvelope("expected either body or body_base64".to_owned())),
    };
    let mut headers = Vec::new();
    for (key, values) in &envelope.headers {
        headers.extend(values.iter().map(|value| (key, value.as_bytes().to_vec())));
    }
    for (key, values) in &envelope.headers_base64 {
        for value in values {
            headers.push((key, STANDARD.decode(&**value).map_err(|error| bad("headers_base64", &error))?));
        }
    }
    let mut block = Vec::new();
    encode_headers(headers, &mut block).map_err(|error| bad("headers", &error))?;
    Ok(Message {
        id: uuid("id", &envelope.id)?,
        channel: ChannelId::from(uuid("channel", &envelope.channel)?),
        kind: match &*envelope.kind {
            "request" => Kind::Request,
            "response" => Kind::Response,
            other => return Err(BadEnvelope(format!("kind is {other:?}; expected request or response"))),
        },
        headers: Headers::from_block(Bytes::from(block).slice(2..)),
        time: humantime::parse_rfc3339(&envelope.time).map_err(|error| bad("time", &error))?,
        part,
        body,
        key: uuid("key", &envelope.key)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_message() -> impl Strategy<Value = Message> {
        let body = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "[a-z\\n\"\\\\]{0,50}".prop_map(String::into_bytes),
        ];
        let part = prop_oneof![
            Just(Part::Whole),
            (any::<u32>(), any::<bool>()).prop_map(|(sequence, last)| Part::Chunk { sequence, last }),
            any::<u32>().prop_map(|sequence| Part::Aborted { sequence }),
        ];
        let headers =
            proptest::collection::btree_map("[a-z-]{1,9}", proptest::collection::vec(any::<u8>(), 0..9), 0..4);
        (body, part, headers, any::<[u128; 3]>(), any::<bool>(), 0..4_000_000_000_u64, 0..1_000_000_000_u32).prop_map(
            |(body, part, headers, ids, request, secs, nanos)| {
                let mut block = Vec::new();
                encode_headers(headers, &mut block).unwrap();
                let aborted = matches!(part, Part::Aborted { .. });
                Message {
                    id: Uuid::from_u128(ids[0]),
                    channel: Uuid::from_u128(ids[1]).into(),
                    kind: if request { Kind::Request } else { Kind::Response },
                    headers: Headers::from_block(Bytes::from(block).slice(2..)),
                    time: SystemTime::UNIX_EPOCH + std::time::Duration::new(secs, nanos),
                    part,
                    body: if aborted { Bytes::new() } else { body.into() },
                    key: Uuid::from_u128(ids[2]),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_message_comes_back(message in any_message(), reason in proptest::option::of("[a-z_]{1,9}")) {
            let mut line = Vec::new();
            write(&message, reason.as_deref(), &mut line);
            prop_assert!(!line.contains(&b'\n'));
            let decoded = decode(&line).unwrap();
            // keys come back in another order than they went
            let sorted = |message: &Message| {
                let mut all: Vec<_> = message.headers.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                all.sort();
                all
            };
            prop_assert_eq!(sorted(&decoded), sorted(&message));
            prop_assert_eq!(Message { headers: Headers::default(), ..decoded }, Message { headers: Headers::default(), ..message });
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = decode(text.as_bytes());
        }
    }

    #[test]
    fn times_out_of_range_are_clamped() {
        for seconds in [-5_i64, 1 << 40] {
            let mut message = Message::from("x");
            let by = std::time::Duration::from_secs(seconds.unsigned_abs());
            message.time = if seconds < 0 { SystemTime::UNIX_EPOCH - by } else { SystemTime::UNIX_EPOCH + by };
            decode(&encode(&message)).unwrap();
        }
    }
}

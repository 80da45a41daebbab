//! Messages as columns.

use std::time::UNIX_EPOCH;

use tokio_postgres::types::{ToSql, Type};

use super::super::{Message, Part, headers};

/// A batch as one array a column, in the order of the statement's parameters.
#[derive(Debug, Default)]
pub(super) struct Rows<'a> {
    key: Vec<String>,
    part: Vec<i32>,
    state: Vec<&'static str>,
    request_id: Vec<String>,
    channel: Vec<String>,
    kind: Vec<&'static str>,
    /// Microseconds since 1970.
    received: Vec<i64>,
    headers: Vec<String>,
    body: Vec<&'a [u8]>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(messages: &'a [Message]) -> Rows<'a> {
        let mut rows = Rows::default();
        for message in messages {
            let (part, state) = match message.part {
                Part::Whole => (0, "whole"),
                Part::Chunk { sequence, last } => (sequence, if last { "last" } else { "chunk" }),
                Part::Aborted { sequence } => (sequence, "aborted"),
            };
            let since = message.time.duration_since(UNIX_EPOCH).unwrap_or_default();
            rows.key.push(message.key.to_string());
            rows.part.push(i32::try_from(part).unwrap_or(i32::MAX));
            rows.state.push(state);
            rows.request_id.push(message.id.to_string());
            rows.channel.push(message.channel.to_string());
            rows.kind.push(message.kind.as_str());
            rows.received.push(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
            rows.headers.push(headers::as_json(message.headers.iter()).to_string());
            rows.body.push(&message.body);
        }
        rows
    }

    pub(super) fn params(&self) -> [(&(dyn ToSql + Sync), Type); 9] {
        [
            (&self.key, Type::TEXT_ARRAY),
            (&self.part, Type::INT4_ARRAY),
            (&self.state, Type::TEXT_ARRAY),
            (&self.request_id, Type::TEXT_ARRAY),
            (&self.channel, Type::TEXT_ARRAY),
            (&self.kind, Type::TEXT_ARRAY),
            (&self.received, Type::INT8_ARRAY),
            (&self.headers, Type::TEXT_ARRAY),
            (&self.body, Type::BYTEA_ARRAY),
        ]
    }
}

//! A message as NATS carries it. Headers of NATS are text: a value that isn't goes in hexadecimal digits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use uuid::Uuid;

use super::super::{Message, hex};

const ID: &str = "Nats-Msg-Id";
const TIME: &str = "corelay-time-ms";
const KEY: &str = "corelay-key";
const KEY_HEX: &str = "corelay-key-hex";
const HEX: &str = "corelay-hex-";

/// For messages that came from other programs without an id: always the same for the same message.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f7c_1a3e_94d2_4c0b_8f51_27e8_0b6d_95a3);

pub(super) fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ID, message.id().to_string());
    headers.insert(TIME, message.timestamp_ms().to_string());
    if let Some(key) = message.key() {
        put(&mut headers, KEY, KEY_HEX, key);
    }
    for (name, value) in message.headers() {
        put(&mut headers, name, &format!("{HEX}{name}"), value);
    }
    headers
}

fn put(headers: &mut HeaderMap, plain: &str, hexed: &str, value: &Bytes) {
    match std::str::from_utf8(value) {
        Ok(text) if hex::is_plain(value) => headers.insert(plain, text),
        _ => headers.insert(hexed, hex::encode(value)),
    }
}

pub(super) fn message(topic: &str, received: &jetstream::Message) -> Message {
    let info = received.info().ok();
    let mut builder = Message::builder(topic).value(received.payload.clone());
    let mut id = info.as_ref().map(|info| Uuid::new_v5(&NAMESPACE, &info.stream_sequence.to_be_bytes()));
    let mut time = info.map(|info| SystemTime::from(info.published));
    for (name, values) in received.headers.iter().flat_map(HeaderMap::iter) {
        let Some(value) = values.first().map(|value| value.as_str()) else { continue };
        let name: &str = name.as_ref();
        match name {
            ID => id = value.parse().ok().or(id),
            TIME => time = value.parse().ok().map(|ms| UNIX_EPOCH + Duration::from_millis(ms)).or(time),
            KEY => builder = builder.key(Bytes::copy_from_slice(value.as_bytes())),
            KEY_HEX => builder = builder.key(hex::decode(value).unwrap_or_default()),
            _ => {
                builder = match name.strip_prefix(HEX) {
                    Some(name) => builder.header(name, hex::decode(value).unwrap_or_default()),
                    None => builder.header(name, Bytes::copy_from_slice(value.as_bytes())),
                }
            }
        }
    }
    let builder = match id {
        Some(id) => builder.id(id),
        None => builder,
    };
    match time {
        Some(time) => builder.timestamp(time),
        None => builder,
    }
    .received()
}

//! A message as AMQP carries it.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::super::Message;

/// AMQP's own timestamp counts seconds.
const TIME: &str = "corelay-time-ms";
const KEY: &str = "corelay-key";
/// How often a quorum queue has delivered it before.
const COUNT: &str = "x-delivery-count";
/// Stored on disk.
const PERSISTENT: u8 = 2;

pub(super) fn properties(message: &Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    let ms = message.timestamp_ms();
    headers.insert(TIME.into(), AMQPValue::LongLongInt(i64::try_from(ms).unwrap_or(i64::MAX)));
    if let Some(key) = message.key() {
        headers.insert(KEY.into(), AMQPValue::LongString(key.to_vec().into()));
    }
    for (name, value) in message.headers() {
        headers.insert(name.as_str().into(), AMQPValue::LongString(value.to_vec().into()));
    }
    BasicProperties::default()
        .with_message_id(message.id().to_string().into())
        .with_timestamp(ms / 1000)
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
}

/// How often it was delivered, this time included.
pub(super) fn attempt(delivery: &Delivery) -> u32 {
    let headers = delivery.properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get(COUNT)).and_then(number);
    let before = count.and_then(|count| u32::try_from(count).ok()).unwrap_or(u32::from(delivery.redelivered));
    before.saturating_add(1)
}

fn number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        _ => None,
    }
}

pub(super) fn message(topic: &str, delivery: &Delivery) -> Message {
    let properties = &delivery.properties;
    let mut builder = Message::builder(topic).value(delivery.data.clone());
    let mut ms = properties.timestamp().map(|seconds| seconds.saturating_mul(1000));
    for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
        let text = match value {
            AMQPValue::LongString(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            AMQPValue::ByteArray(bytes) => Some(Bytes::copy_from_slice(bytes.as_slice())),
            AMQPValue::ShortString(text) => Some(Bytes::copy_from_slice(text.as_str().as_bytes())),
            _ => None,
        };
        match (name.as_str(), text) {
            (TIME, _) => ms = number(value).and_then(|ms| u64::try_from(ms).ok()).or(ms),
            (KEY, Some(key)) => builder = builder.key(key),
            (name, Some(text)) => builder = builder.header(name, text),
            // numbers and the like of other programs have no form of their own here
            _ => {}
        }
    }
    if let Some(id) = properties.message_id().as_ref().map(ShortString::as_str).and_then(|id| id.parse().ok()) {
        builder = builder.id(id);
    }
    builder.timestamp(UNIX_EPOCH + Duration::from_millis(ms.unwrap_or(0))).received()
}

//! A message as Kafka carries it: key, value, time and headers as they are, the id in a header.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use uuid::Uuid;

use super::super::Message;

const ID: &str = "corelay-id";

/// For messages that came from other programs without an id: always the same for the same record.
const NAMESPACE: Uuid = Uuid::from_u128(0x9b41_0d6c_27f3_4e18_a6d0_53c9_7f82_1e4b);

pub(super) fn record<'a>(topic: &'a str, message: &'a Message) -> FutureRecord<'a, [u8], [u8]> {
    let id = message.id().to_string();
    let headers = OwnedHeaders::new_with_capacity(message.headers().len() + 1);
    let headers = headers.insert(Header { key: ID, value: Some(id.as_bytes()) });
    let put = |headers: OwnedHeaders, (name, value): (&String, &Bytes)| {
        headers.insert(Header { key: name, value: Some(&value[..]) })
    };
    let headers = message.headers().iter().fold(headers, put);
    let time = i64::try_from(message.timestamp_ms()).unwrap_or(i64::MAX);
    let record = FutureRecord::to(topic).payload(&message.value()[..]).timestamp(time).headers(headers);
    match message.key() {
        Some(key) => record.key(&key[..]),
        None => record,
    }
}

pub(super) fn message(topic: &str, record: &BorrowedMessage<'_>) -> Message {
    let copy = Bytes::copy_from_slice;
    let mut builder = Message::builder(topic).value(copy(record.payload().unwrap_or_default()));
    if let Some(key) = record.key() {
        builder = builder.key(copy(key));
    }
    let place = format!("{}/{}/{}", record.topic(), record.partition(), record.offset());
    let mut id = Uuid::new_v5(&NAMESPACE, place.as_bytes());
    for header in record.headers().iter().flat_map(|headers| headers.iter()) {
        let value = header.value.unwrap_or_default();
        match header.key {
            ID => id = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(id),
            name => builder = builder.header(name, copy(value)),
        }
    }
    let ms = record.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
    builder.id(id).timestamp(UNIX_EPOCH + Duration::from_millis(ms)).received()
}

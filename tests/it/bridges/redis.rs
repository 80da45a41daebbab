//! Redis.

use std::sync::Arc;
use std::time::Duration;

use corelay::forward::{Client, Promise, RedisClient, SendErrorKind};
use corelay::toolkit::message_broker::redis::{Options, Redis};
use corelay::toolkit::message_broker::{Broker, TopicOptions};
use tokio::task::spawn_blocking;

use super::rig::{
    Reader, arrives_whole_and_in_order, killing, last, nobody_there_is_said, number, numbered, slowness_is_bounded,
    survives, survives_behind_a_producer,
};
use crate::message_broker::system::soon;
use crate::servers::{free_port, redis, unique};

async fn connect(url: &str, prefix: &str) -> Broker {
    let options = Options { url: url.into(), prefix: prefix.into(), timeout: Duration::from_secs(5) };
    Broker::new(Redis::connect(options).await.unwrap())
}

/// A stream that is a topic of the toolkit's too, and somebody who reads it.
async fn stream(url: &str) -> (String, Broker, Reader) {
    let prefix = unique("p");
    let broker = connect(url, &prefix).await;
    broker.create_topic("orders", TopicOptions::default()).await.unwrap();
    let reader = Reader::join(&broker, "orders").await;
    (format!("{prefix}:topic:orders"), broker, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrives() {
    let Some((url, _)) = redis::shared().await else { return };
    let (key, broker, mut reader) = stream(&url).await;
    let client = RedisClient::new(&format!("{url}/{key}")).unwrap();
    assert_eq!(client.promise(), Promise::AtLeastOnce);
    arrives_whole_and_in_order(&client, &mut reader).await;
    client.close().await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_is_bounded_and_the_database_chosen() {
    let Some((url, _)) = redis::shared().await else { return };
    let (key, timeout) = (unique("bounded"), Duration::from_secs(5));
    let client = RedisClient::new(&format!("{url}/{key}?db=3&max_len=100")).unwrap();
    let messages: Vec<_> = (0..1000).map(numbered).collect();
    assert_eq!(soon("batch", client.send_batch(&messages)).await.delivered, 1000);
    let mut conn = ::redis::Client::open(format!("{url}/3")).unwrap().get_connection_with_timeout(timeout).unwrap();
    let length: u64 = ::redis::cmd("XLEN").arg(&key).query(&mut conn).unwrap();
    // a node of 100 entries more, at most
    assert!((100..=200).contains(&length), "{length}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_cannot_take_is_said() {
    let Some((url, _)) = redis::shared().await else { return };
    let (key, timeout) = (unique("string"), Duration::from_secs(5));
    let mut conn = ::redis::Client::open(url.as_str()).unwrap().get_connection_with_timeout(timeout).unwrap();
    let () = ::redis::cmd("SET").arg(&key).arg("no stream").query(&mut conn).unwrap();
    let client = RedisClient::new(&format!("{url}/{key}")).unwrap();
    let error = soon("answer", client.send(&numbered(1))).await.unwrap_err();
    assert_eq!((error.kind(), error.is_in_doubt()), (SendErrorKind::Rejected, false), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_from_the_start_and_killed_under_way() {
    let nobody = RedisClient::new(&format!("redis://:secret@127.0.0.1:{}/x", free_port())).unwrap();
    nobody_there_is_said(&nobody).await;

    let Some(server) = spawn_blocking(redis::private).await.unwrap() else { return };
    let url = redis::url(&server);
    let (key, _, _) = stream(&url).await;
    let client = RedisClient::new(&format!("{url}/{key}?timeout=2s")).unwrap();
    let mut outage = killing(server, redis::is_up);
    let books = survives(&client, 3, &mut outage).await;
    let prefix = key.split(':').next().unwrap();
    let mut reader = Reader::late(&connect(&url, prefix).await, "orders").await;
    books.check(Promise::AtLeastOnce, true, &reader.numbers_up_to(last(&books)).await);

    let key = unique("produced");
    let client = RedisClient::new(&format!("{url}/{key}?timeout=2s")).unwrap();
    let books = survives_behind_a_producer(Arc::new(client), &mut outage).await;
    let mut conn = ::redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
    let entries: Vec<(String, Vec<Vec<u8>>)> =
        ::redis::cmd("XRANGE").arg(&key).arg("-").arg("+").query(&mut conn).unwrap();
    // fields and values in turn
    let value = |fields: &[Vec<u8>]| number(&fields[fields.iter().position(|field| field == b"value").unwrap() + 1]);
    books.check(Promise::AtLeastOnce, true, &entries.iter().map(|(_, fields)| value(fields)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow() {
    let Some(server) = spawn_blocking(redis::private).await.unwrap() else { return };
    let url = redis::url(&server);
    let (key, broker, mut reader) = stream(&url).await;
    let client = RedisClient::new(&format!("{url}/{key}?timeout=500ms")).unwrap();
    let books = slowness_is_bounded(&client, || server.freeze(), || server.thaw()).await;
    books.check(Promise::AtLeastOnce, true, &reader.numbers_up_to(last(&books)).await);
    broker.close().await;
}

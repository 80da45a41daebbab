//! NATS, with JetStream and without.

use std::sync::Arc;

use corelay::forward::{Client, NatsClient, Promise, SendErrorKind};
use corelay::toolkit::message_broker::nats::{Nats, Options};
use corelay::toolkit::message_broker::{Broker, TopicOptions};
use tokio::task::spawn_blocking;

use super::rig::{
    Reader, arrives_whole_and_in_order, killing, last, nobody_there_is_said, numbered, slowness_is_bounded, survives,
    survives_behind_a_producer,
};
use crate::message_broker::system::soon;
use crate::servers::{Server, free_port, nats, unique};

async fn connect(url: &str) -> Broker {
    let options = Options { url: url.into(), prefix: String::new(), ..Options::default() };
    Broker::new(Nats::connect(options).await.unwrap())
}

/// A stream with the subject of its name, and somebody who reads it.
async fn stream(url: &str) -> (String, Broker, Reader) {
    let broker = connect(url).await;
    let subject = unique("orders.");
    broker.create_topic(&subject, TopicOptions::default()).await.unwrap();
    let reader = Reader::join(&broker, &subject).await;
    (subject, broker, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrives_with_an_acknowledgement() {
    let Some((url, _)) = nats::shared().await else { return };
    let (subject, broker, mut reader) = stream(&url).await;
    let client = NatsClient::new(&format!("{url}/{subject}?jetstream=true")).unwrap();
    arrives_whole_and_in_order(&client, &mut reader).await;
    client.close().await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrives_without_an_acknowledgement() {
    let Some((url, _)) = nats::shared().await else { return };
    // the stream listens as anybody does
    let (subject, broker, mut reader) = stream(&url).await;
    let client = NatsClient::new(&format!("{url}/{subject}")).unwrap();
    assert_eq!(client.promise(), Promise::AtMostOnce);
    arrives_whole_and_in_order(&client, &mut reader).await;
    client.close().await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_cannot_take_is_said() {
    let Some((url, _)) = nats::shared().await else { return };
    let nobody = NatsClient::new(&format!("{url}/{}?jetstream=true", unique("nobody."))).unwrap();
    let error = nobody.send(&numbered(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_in_doubt()), (SendErrorKind::Unavailable, false), "{error}");
    let (subject, broker, mut reader) = stream(&url).await;
    // the stream drops what it has seen before, whoever sent it
    for (first, acknowledged) in [(0, true), (10, false)] {
        let client = NatsClient::new(&format!("{url}/{subject}?jetstream={acknowledged}")).unwrap();
        let mut large = numbered(first + 1);
        large.body = vec![0; 2 << 20].into();
        let done = soon("batch", client.send_batch(&[numbered(first), large, numbered(first + 2)])).await;
        assert_eq!((done.delivered, done.error.unwrap().kind()), (1, SendErrorKind::TooLarge));
        soon("message", client.send(&numbered(first + 3))).await.unwrap();
        assert_eq!(reader.numbers_up_to(first + 3).await, [first, first + 3]);
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_from_the_start_and_killed_under_way() {
    let port = free_port();
    let nobody = NatsClient::new(&format!("nats://me:secret@127.0.0.1:{port}/x?jetstream=true")).unwrap();
    nobody_there_is_said(&nobody).await;

    let Some(server) = spawn_blocking(nats::private).await.unwrap() else { return };
    let url = nats::url(&server);
    let (subject, _, _) = stream(&url).await;
    let client = NatsClient::new(&format!("{url}/{subject}?jetstream=true&timeout=2s")).unwrap();
    let mut outage = killing(server, Server::listens);
    let mut books = survives(&client, 3, &mut outage).await;
    // its library sends the rest of a batch on the next connection, before what the last one lost is tried again
    books.reorders = true;
    let mut reader = Reader::late(&connect(&url).await, &subject).await;
    // the stream itself drops what comes twice
    books.check(Promise::AtLeastOnce, false, &reader.numbers_up_to(last(&books)).await);

    let client = NatsClient::new(&format!("{url}/{subject}?jetstream=true&timeout=2s")).unwrap();
    let mut books = survives_behind_a_producer(Arc::new(client), &mut outage).await;
    books.reorders = true;
    let mut reader = Reader::late(&connect(&url).await, &subject).await;
    let arrived: Vec<u32> =
        reader.numbers_up_to(last(&books)).await.into_iter().filter(|n| *n >= books.sent[0]).collect();
    books.check(Promise::AtLeastOnce, false, &arrived);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow() {
    let Some(server) = spawn_blocking(nats::private).await.unwrap() else { return };
    let url = nats::url(&server);
    let (subject, broker, mut reader) = stream(&url).await;
    let client = NatsClient::new(&format!("{url}/{subject}?jetstream=true&timeout=500ms")).unwrap();
    let books = slowness_is_bounded(&client, || server.freeze(), || server.thaw()).await;
    books.check(Promise::AtLeastOnce, false, &reader.numbers_up_to(last(&books)).await);
    broker.close().await;
}

//! Kafka: the mock cluster.

use std::sync::Arc;
use std::time::Duration;

use corelay::forward::{Client, KafkaClient, Promise, SendErrorKind};
use corelay::toolkit::message_broker::Broker;
use corelay::toolkit::message_broker::kafka::{Kafka, Options};

use super::rig::{
    Reader, arrives_whole_and_in_order, last, nobody_there_is_said, numbered, slowness_is_bounded, survives,
};
use crate::message_broker::system::soon;
use crate::servers::kafka::{self, Kafka as Cluster};
use crate::servers::{free_port, unique};

async fn connect(cluster: &Cluster) -> Broker {
    let (brokers, session_timeout) = (cluster.brokers.clone(), Duration::from_secs(5));
    let options = Options { brokers, prefix: String::new(), session_timeout, ..Options::default() };
    Broker::new(Kafka::connect(options).await.unwrap())
}

/// A topic of one partition, and somebody who reads it.
async fn topic(cluster: &Cluster) -> (String, Broker, Reader) {
    let topic = unique("orders.");
    cluster.create_topic(&topic, 1);
    let broker = connect(cluster).await;
    let reader = Reader::join(&broker, &topic).await;
    (topic, broker, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrives() {
    let cluster = kafka::shared().await;
    let (topic, broker, mut reader) = topic(cluster).await;
    let client = KafkaClient::new(&format!("kafka://{}/{topic}", cluster.brokers)).unwrap();
    assert_eq!(client.promise(), Promise::AtLeastOnce);
    arrives_whole_and_in_order(&client, &mut reader).await;
    client.close().await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_is_said() {
    let cluster = kafka::shared().await;
    let topic = unique("none");
    let client = KafkaClient::new(&format!("kafka://{}/{topic}", cluster.brokers)).unwrap();
    let error = soon("answer", client.send(&numbered(1))).await.unwrap_err();
    assert_eq!((error.kind(), error.is_in_doubt()), (SendErrorKind::Unavailable, false), "{error}");
    cluster.create_topic(&topic, 1);
    soon("message", client.send(&numbered(1))).await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_from_the_start_gone_under_way_and_slow() {
    let port = free_port();
    let nobody = KafkaClient::new(&format!("kafka://me:secret@127.0.0.1:{port}/x?timeout=500ms")).unwrap();
    nobody_there_is_said(&nobody).await;

    let cluster = Arc::new(Cluster::start());
    let topic = unique("orders.");
    cluster.create_topic(&topic, 1);
    let client = KafkaClient::new(&format!("kafka://{}/{topic}?timeout=5s", cluster.brokers)).unwrap();
    let outage = || {
        let cluster = cluster.clone();
        async move {
            // all connections are dropped when that returns
            cluster.go_down();
            cluster.come_up();
        }
    };
    let books = survives(&client, 3, outage).await;
    let broker = connect(&cluster).await;
    let mut reader = Reader::late(&broker, &topic).await;
    books.check(Promise::AtLeastOnce, true, &reader.numbers_up_to(last(&books)).await);

    let client = KafkaClient::new(&format!("kafka://{}/{topic}?timeout=500ms", cluster.brokers)).unwrap();
    let slow = || cluster.slow_down(Duration::from_secs(2));
    let books = slowness_is_bounded(&client, slow, || cluster.slow_down(Duration::ZERO)).await;
    books.check(Promise::AtLeastOnce, true, &reader.numbers_up_to(last(&books)).await);
    broker.close().await;
}

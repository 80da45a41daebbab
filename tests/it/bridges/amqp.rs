//! RabbitMQ: the one all tests share, behind a proxy where it has to go away.

use corelay::forward::{AmqpClient, Client, Promise, SendErrorKind};
use corelay::toolkit::message_broker::amqp::{Amqp, Options};
use corelay::toolkit::message_broker::{Broker, TopicOptions};

use super::rig::{
    Reader, arrives_whole_and_in_order, last, nobody_there_is_said, numbered, slowness_is_bounded, survives,
};
use crate::message_broker::system::soon;
use crate::servers::proxy::Proxy;
use crate::servers::{free_port, rabbitmq, unique};

/// The name of an exchange with a queue, its queue's name, and somebody who reads it.
async fn exchange(url: &str) -> (String, String, Broker, Reader) {
    let prefix = unique("p");
    let options = Options { url: url.into(), prefix: prefix.clone(), ..Options::default() };
    let broker = Broker::new(Amqp::connect(options).await.unwrap());
    broker.create_topic("orders", TopicOptions::default()).await.unwrap();
    let reader = Reader::join(&broker, "orders").await;
    (format!("{prefix}orders"), format!("{prefix}orders/g"), broker, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrives_by_an_exchange_and_by_a_queue() {
    let Some((url, _, _lease)) = rabbitmq::shared().await else { return };
    let (exchange, queue, broker, mut reader) = exchange(&url).await;
    for target in [format!("exchange={exchange}&key=new"), format!("queue={queue}")] {
        let client = AmqpClient::new(&format!("{url}?{target}")).unwrap();
        assert_eq!(client.promise(), Promise::AtLeastOnce);
        assert!(!client.address().contains("guest:"), "{}", client.address());
        arrives_whole_and_in_order(&client, &mut reader).await;
        client.close().await;
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_queue_takes_is_said() {
    let Some((url, _, _lease)) = rabbitmq::shared().await else { return };
    let options = Options { url: url.clone(), prefix: unique("p"), ..Options::default() };
    let exchange = format!("{}orders", options.prefix);
    let broker = Broker::new(Amqp::connect(options).await.unwrap());
    broker.create_topic("orders", TopicOptions::default()).await.unwrap();
    let send = async |target: &str| {
        let client = AmqpClient::new(&format!("{url}?{target}")).unwrap();
        let first = soon("answer", client.send(&numbered(1))).await;
        // a channel the server closed is made again
        assert_eq!(soon("answer", client.send(&numbered(1))).await, first);
        first.map_err(|error| (error.kind(), error.is_in_doubt()))
    };
    let unavailable = Err((SendErrorKind::Unavailable, false));
    assert_eq!(send(&format!("exchange={exchange}")).await, unavailable);
    assert_eq!(send(&format!("exchange={exchange}&mandatory=false")).await, Ok(()));
    assert_eq!(send(&format!("queue={}", unique("none"))).await, unavailable);
    assert_eq!(send(&format!("exchange={}", unique("none"))).await, unavailable);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_from_the_start_gone_under_way_and_slow() {
    let nobody = AmqpClient::new(&format!("amqp://me:secret@127.0.0.1:{}/x?queue=q", free_port())).unwrap();
    nobody_there_is_said(&nobody).await;

    let Some((url, _, _lease)) = rabbitmq::shared().await else { return };
    let (exchange, _, broker, mut reader) = exchange(&url).await;
    let server = url.split(['@', '/']).nth(3).unwrap().parse().unwrap();
    let proxy = Proxy::start(server).await;
    let through = url.replace(&server.to_string(), &format!("127.0.0.1:{}", proxy.port));
    let client = AmqpClient::new(&format!("{through}?exchange={exchange}&timeout=500ms")).unwrap();
    let outage = || {
        let proxy = proxy.clone();
        async move {
            // its connection is cut when that returns
            proxy.go_down().await;
            proxy.come_up().await;
        }
    };
    let books = survives(&client, 3, outage).await;
    books.check(Promise::AtLeastOnce, true, &reader.numbers_up_to(last(&books)).await);

    let client = AmqpClient::new(&format!("{through}?exchange={exchange}&timeout=500ms")).unwrap();
    let books = slowness_is_bounded(&client, || proxy.freeze(), || proxy.thaw()).await;
    books.check(Promise::AtLeastOnce, true, &reader.numbers_up_to(last(&books)).await);
    broker.close().await;
}

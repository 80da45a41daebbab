//! RabbitMQ: a durable queue, on the one node all tests share.

use std::net::SocketAddr;
use std::time::Duration;

use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::task::block_in_place;

use super::served::{Served, Service};
use super::{goes_wrong, number_of_whole};
use crate::message_broker::outage::WARM;
use crate::servers::rabbitmq::{self, Alone, Lease};
use crate::servers::unique;

/// The node, in the company of others or alone.
enum Node {
    Shared(String, #[allow(dead_code, reason = "held")] Lease),
    Alone(Alone),
}

struct Rabbit {
    node: Node,
    queue: String,
}

impl Rabbit {
    async fn shared() -> Option<Served<Rabbit>> {
        let (url, _, lease) = rabbitmq::shared().await?;
        Some(Rabbit::on(Node::Shared(url, lease)).await)
    }

    async fn alone() -> Option<Served<Rabbit>> {
        let rabbit = Rabbit::on(Node::Alone(rabbitmq::alone().await?)).await;
        // it saves that there is a queue some time after it has said so
        tokio::time::sleep(WARM).await;
        Some(rabbit)
    }

    async fn on(node: Node) -> Served<Rabbit> {
        let rabbit = Rabbit { node, queue: unique("books") };
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let (_connection, channel) = rabbit.channel().await;
        channel.queue_declare(rabbit.queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
        Served::new(rabbit).await
    }

    fn node_url(&self) -> String {
        match &self.node {
            Node::Shared(url, _) => url.clone(),
            Node::Alone(node) => node.url(),
        }
    }

    async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.node_url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    fn own(&mut self) -> &mut Alone {
        match &mut self.node {
            Node::Alone(node) => node,
            Node::Shared(..) => panic!("others use it"),
        }
    }
}

impl Service for Rabbit {
    const TWICE: bool = true;

    fn port(&self) -> u16 {
        let url = self.node_url();
        url.split(['@', '/']).nth(3).unwrap().parse::<SocketAddr>().unwrap().port()
    }

    fn url(&self, port: u16, timeout: Duration) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/%2f?queue={}&timeout={}s", self.queue, timeout.as_secs())
    }

    async fn kill(&mut self) {
        block_in_place(|| self.own().kill());
    }

    async fn restart(&mut self) {
        block_in_place(|| self.own().restart());
    }

    async fn arrived(&mut self) -> Vec<u32> {
        let (_connection, channel) = self.channel().await;
        let mut arrived = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = channel.basic_get(self.queue.as_str().into(), options).await.unwrap() {
            arrived.push(number_of_whole(&message.delivery.data));
        }
        arrived
    }
}

// it takes seconds to come back
goes_wrong!(Rabbit::shared(), Rabbit::alone(), 1);

//! RabbitMQ.

use corelay::toolkit::message_broker::amqp::{Amqp, Options};
use corelay::toolkit::message_broker::{Broker, ErrorKind};

use super::conformance::conformance;
use super::outage::{Victim, survives};
use super::system::System;
use crate::servers::rabbitmq;

fn over(url: String, prefix: String) -> System {
    System::new(move || {
        let options = Options { url: url.clone(), prefix: prefix.clone(), ..Options::default() };
        async { Broker::new(Amqp::connect(options).await.unwrap()) }
    })
}

async fn system() -> Option<System> {
    let (url, prefix, lease) = rabbitmq::shared().await?;
    Some(over(url, prefix).keeping(lease))
}

conformance!(system());

impl Victim for rabbitmq::Alone {
    fn go_and_come_back(&mut self) {
        self.kill();
        self.restart();
    }

    fn log(&self) -> String {
        rabbitmq::Alone::log(self)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let Some(node) = rabbitmq::alone().await else { return };
    survives(&over(node.url(), node.prefix.clone()), node, 2).await;
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let url = format!("amqp://127.0.0.1:{}", crate::servers::free_port());
    let error = Amqp::connect(Options { url, ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    let error = Amqp::connect(Options { url: "no url".into(), ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = Amqp::connect(Options { prefix: "ä".repeat(28), ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

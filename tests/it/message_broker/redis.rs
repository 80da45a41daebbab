//! Redis streams.

use std::time::Duration;

use corelay::toolkit::message_broker::redis::{Options, Redis};
use corelay::toolkit::message_broker::{Broker, Consume, ErrorKind, TopicOptions};
use tokio::task::spawn_blocking;

use super::conformance::conformance;
use super::outage::{Killed, survives};
use super::system::{System, consume, number, numbered, soon, until};
use crate::servers::{redis, unique};

fn over(url: String, prefix: String) -> System {
    System::new(move || {
        let options = Options { url: url.clone(), prefix: prefix.clone(), ..Options::default() };
        async { Broker::new(Redis::connect(options).await.unwrap()) }
    })
}

async fn system() -> Option<System> {
    let (url, prefix) = redis::shared().await?;
    Some(over(url, prefix))
}

conformance!(system());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let Some(server) = spawn_blocking(redis::private).await.unwrap() else { return };
    survives(&over(redis::url(&server), "t".into()), Killed(server, redis::is_up), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_trimmed_unhandled_is_counted() {
    let Some((url, prefix)) = redis::shared().await else { return };
    let (broker, topic) = (over(url.clone(), prefix.clone()).connect().await, unique("bounded."));
    broker.create_topic(&topic, TopicOptions { max_messages: Some(1), ..TopicOptions::default() }).await.unwrap();
    let quick = Consume { ack_timeout: Duration::from_secs(1), ..consume(&topic, "g") };
    let mut member = broker.consume(quick).await.unwrap();
    for n in 0..2 {
        soon("publish", broker.publish(numbered(&topic, n))).await.unwrap();
    }
    let (refused, late) =
        (soon("message", member.next()).await.unwrap(), soon("message", member.next()).await.unwrap());
    // as publishing does, which trims no less than 100 at a time
    let mut conn = ::redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut trim = ::redis::cmd("XTRIM");
    let trimmed: u64 =
        trim.arg(format!("{prefix}:topic:{topic}")).arg("MAXLEN").arg(0).query_async(&mut conn).await.unwrap();
    assert_eq!(trimmed, 2);
    refused.nack().await.unwrap();
    soon("publish", broker.publish(numbered(&topic, 2))).await.unwrap();
    let next = soon("message", member.next()).await.unwrap();
    assert_eq!(number(&next), 2, "neither of them comes again");
    next.ack().await.unwrap();
    // one is missed when it is refused, the other when its time is over
    let waiting = broker.clone();
    let wait = tokio::spawn(async move { member.next().await });
    until("the loss", || waiting.stats().lost == 2).await;
    wait.abort();
    drop(late);
    broker.close().await;
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let url = format!("redis://127.0.0.1:{}", crate::servers::free_port());
    let error = Redis::connect(Options { url, ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    let never = Options { timeout: Duration::ZERO, ..Options::default() };
    for wrong in [Options { url: "no url".into(), ..Options::default() }, never] {
        assert_eq!(Redis::connect(wrong).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

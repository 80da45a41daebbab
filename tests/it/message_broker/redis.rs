//! Redis streams.

use corelay::toolkit::message_broker::redis::{Options, Redis};
use corelay::toolkit::message_broker::{Broker, ErrorKind};
use tokio::task::spawn_blocking;

use super::conformance::conformance;
use super::outage::{Killed, survives};
use super::system::System;
use crate::servers::redis;

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

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let url = format!("redis://127.0.0.1:{}", crate::servers::free_port());
    let error = Redis::connect(Options { url, ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    let error = Redis::connect(Options { url: "no url".into(), ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

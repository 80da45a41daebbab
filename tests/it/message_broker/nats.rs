//! NATS JetStream.

use corelay::toolkit::message_broker::nats::{Nats, Options};
use corelay::toolkit::message_broker::{Broker, ErrorKind};
use tokio::task::spawn_blocking;

use super::conformance::conformance;
use super::outage::{Killed, survives};
use super::system::{System, soon};
use crate::servers::{Server, nats};

fn over(url: String, prefix: String) -> System {
    System::new(move || {
        let options = Options { url: url.clone(), prefix: prefix.clone(), ..Options::default() };
        async { Broker::new(Nats::connect(options).await.unwrap()) }
    })
}

async fn system() -> Option<System> {
    let (url, prefix) = nats::shared().await?;
    Some(over(url, prefix))
}

conformance!(system());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let Some(server) = spawn_blocking(nats::private).await.unwrap() else { return };
    survives(&over(nats::url(&server), "t".into()), Killed(server, Server::listens), 3).await;
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let url = format!("nats://127.0.0.1:{}", crate::servers::free_port());
    let error = Nats::connect(Options { url, ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    let error = Nats::connect(Options { url: "no url".into(), ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_login_of_the_url_is_used() {
    let cases = [
        ("authorization { user: me, password: \"p@ss:w/rd\" }", "me:p%40ss%3Aw%2Frd@", "me:p%40ss@"),
        ("authorization { token: \"s3cr/t\" }", "s3cr%2Ft@", ""),
    ];
    for (configuration, login, wrong) in cases {
        let Some(server) = spawn_blocking(move || nats::configured(configuration)).await.unwrap() else { return };
        let connect = |login: &str| {
            let url = nats::url(&server).replace("://", &format!("://{login}"));
            Nats::connect(Options { url, ..Options::default() })
        };
        let broker = Broker::new(soon("connection", connect(login)).await.unwrap());
        assert!(broker.health().await.is_good());
        broker.close().await;
        let error = soon("refusal", connect(wrong)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(!error.is_retryable());
    }
}

//! corelay's own channels.

use ::corelay::toolkit::message_broker::corelay::{Corelay, Options};
use ::corelay::toolkit::message_broker::{Broker, Options as BrokerOptions};

use tokio::task::spawn_blocking;

use super::conformance::conformance;
use super::outage::{Killed, survives};
use super::system::{PATIENCE, System};
use crate::servers::{corelay, unique};

fn over(addr: String) -> System {
    let prefix = unique("t");
    System::new(move || {
        let options = Options {
            addr: addr.clone(),
            prefix: prefix.clone(),
            groups: vec!["g".into()],
            timeout: PATIENCE,
            ..Options::default()
        };
        async { Broker::with_options(Corelay::connect(options).await.unwrap(), BrokerOptions { timeout: PATIENCE }) }
    })
}

async fn system() -> Option<System> {
    let server = spawn_blocking(corelay::private).await.unwrap();
    Some(over(server.addr().to_string()).keeping(server))
}

conformance!(system());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let server = spawn_blocking(corelay::private).await.unwrap();
    survives(&over(server.addr().to_string()), Killed(server, corelay::is_up), 3).await;
}

#[tokio::test]
async fn options_that_lead_nowhere_are_refused() {
    use ::corelay::toolkit::message_broker::ErrorKind;
    let nobody = Options { groups: Vec::new(), ..Options::default() };
    assert_eq!(Corelay::connect(nobody).await.unwrap_err().kind(), ErrorKind::Invalid);
    let addr = format!("127.0.0.1:{}", crate::servers::free_port());
    let error = Corelay::connect(Options { addr, ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
}

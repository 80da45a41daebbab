//! corelay's own channels.

use corelay::toolkit::message_broker::corelay::{Corelay, Options};
use corelay::toolkit::message_broker::{Broker, Options as BrokerOptions};

use super::conformance::conformance;
use super::system::{PATIENCE, System};
use crate::cli::run::Broker as Process;
use crate::servers::unique;

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
    let process = tokio::task::spawn_blocking(Process::start).await.unwrap();
    let addr = process.addr.clone();
    let system = over(addr);
    Some(system.keeping(process))
}

conformance!(system());

//! The embedded system.

use corelay::toolkit::message_broker::{Broker, Memory};

use super::conformance::conformance;
use super::system::System;

async fn system() -> Option<System> {
    let memory = Memory::default();
    Some(System::new(move || {
        let memory = memory.clone();
        async move { Broker::new(memory) }
    }))
}

conformance!(system());

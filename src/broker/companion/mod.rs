//! Forwarding, beside a core: a thread that owns the core's producers and reads what the core copied for them.
//!
//! ```text
//!   core's thread                        companion's thread (tokio-uring, or tokio)
//!   tap ─ batches ─► Outlet ══ ring ══► Intake ─► Assembly ─► Producer ─► client ─► target
//!                      ▲ spent batches, bytes read, whose queue is full ──┘
//! ```
//!
//! The core never waits for it: a full ring leaves batches in the outlet, bounded by what the core copies at most
//! ([`ForwardOptions::handover_bytes`](super::ForwardOptions)).

mod assembly;
mod local;
mod outlet;
mod thread;

use std::fmt;
use std::sync::Arc;

pub(super) use self::local::Local;
pub(super) use self::outlet::Outlet;
pub(super) use self::thread::Companion;

use self::thread::Cpus;
use super::core::Route;
use super::cpus;
use super::options::{ForwardOptions, NamedChannel, ProducerOptions, ServerOptions, What, validate_all};
use super::server::ServerError;
use crate::forward::{Client, ClientFactory, Message, Producer, WhenFull};

/// Makes a client for a core.
pub(super) type MakeClient = Arc<dyn Fn(u16) -> Result<Arc<dyn Client>, String> + Send + Sync>;
/// What processes messages in this program.
pub(super) type OnMessage = Arc<dyn Fn(&Message) + Send + Sync>;

/// A producer as it is to be on each core.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) options: ProducerOptions,
    pub(super) make: MakeClient,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The producers of the options, and a program's own.
///
/// # Errors
/// See [`validate_all`].
pub(super) fn plans(options: &ServerOptions, own: Vec<Plan>) -> Result<Vec<Plan>, ServerError> {
    let named = options.producers.iter().map(|producer| {
        let url = producer.url.0.clone();
        let make = move |_| ClientFactory::create(&url).map_err(|bad| bad.to_string());
        Plan { options: producer.clone(), make: Arc::new(make) }
    });
    let plans: Vec<Plan> = named.chain(own).collect();
    validate_all(plans.iter().map(|plan| &plan.options), options.forward.max_message)?;
    Ok(plans)
}

/// What each is to get.
pub(super) fn routes(plans: &[Plan]) -> Vec<Route> {
    let route = |plan: &Plan| {
        let ProducerOptions { channels, what, when_full, .. } = &plan.options;
        Route {
            channels: (!channels.is_empty()).then(|| channels.iter().map(|channel| channel.id).collect()),
            requests: what.requests(),
            responses: what.responses(),
            block: *when_full == WhenFull::Block,
        }
    };
    plans.iter().map(route).collect()
}

/// Starts a companion for each core, if there is anybody to forward to.
///
/// # Errors
/// See [`thread::start`].
pub(super) fn start_all(
    plans: &[Plan],
    options: &ForwardOptions,
    cores: &[usize],
) -> Result<(Vec<Option<Outlet>>, Vec<Companion>), ServerError> {
    if plans.is_empty() {
        return Ok((cores.iter().map(|_| None).collect(), Vec::new()));
    }
    let allowed = cpus::allowed();
    let start = |core| {
        let cpus = Cpus::of(core, &allowed, cores);
        thread::start(core as u16, plans, options, &cpus).map(|(outlet, companion)| (Some(outlet), companion))
    };
    let all: Vec<_> = (0..cores.len()).map(start).collect::<Result<_, _>>()?;
    Ok(all.into_iter().unzip())
}

/// A producer of one core, to be looked at from anywhere.
#[derive(Clone, Debug)]
pub struct CoreProducer {
    /// Which core's messages it forwards.
    pub core: u16,
    /// Its bit among the core's producers.
    pub(super) index: usize,
    /// As it was asked for.
    pub(super) plan: Arc<ProducerOptions>,
    /// It itself.
    pub producer: Producer,
}

impl CoreProducer {
    /// Its number among the producers of its core, the same on every core: its place in
    /// [`View::not_handed_over`](super::View::not_handed_over).
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Which half of an exchange it gets.
    #[must_use]
    pub fn what(&self) -> What {
        self.plan.what
    }

    /// The channels it gets messages from; none named: from all.
    #[must_use]
    pub fn channels(&self) -> &[NamedChannel] {
        &self.plan.channels
    }
}

//! What the pages are made from.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Extras;
use super::cores::{self, Silent};
use super::history::History;
use crate::base::ChannelId;
use crate::broker::{Inspector, ShardFigures};

/// What all requests to the admin endpoint share.
pub(super) struct State {
    pub(super) inspector: Inspector,
    pub(super) extras: Extras,
    pub(super) history: Mutex<History>,
    started: Instant,
    /// When each core was last heard of, in milliseconds since `started`.
    heard: Vec<AtomicU64>,
}

impl State {
    pub(super) fn new(inspector: Inspector, extras: Extras) -> State {
        let heard = (0..inspector.cores()).map(|_| AtomicU64::new(0)).collect();
        let history = Mutex::new(History::new(usize::from(inspector.cores())));
        State { inspector, extras, history, started: Instant::now(), heard }
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The figures of all cores.
    pub(super) async fn figures(&self) -> Vec<Result<ShardFigures, Silent>> {
        let all = cores::figures(&self.inspector).await;
        let now = self.uptime().as_millis() as u64;
        for (heard, _) in self.heard.iter().zip(&all).filter(|(_, figures)| figures.is_ok()) {
            heard.store(now, Ordering::Relaxed);
        }
        all
    }

    /// How long nothing has been heard of a core.
    pub(super) fn silence(&self, core: usize) -> Duration {
        let heard = Duration::from_millis(self.heard[core].load(Ordering::Relaxed));
        self.uptime().saturating_sub(heard)
    }

    /// The name a channel has in the configuration.
    pub(super) fn name_of(&self, channel: ChannelId) -> Option<String> {
        let channels = &self.inspector.options().channels;
        let found = channels.iter().find(|options| options.id == channel)?;
        // written as its id, it has no name
        (found.name != channel.to_string()).then(|| found.name.clone())
    }
}

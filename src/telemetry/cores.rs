//! Asking the cores, and waiting for their answers no longer than somebody waits for ours.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::broker::core::{ChannelSnapshot, ConnSnapshot, Meter, Page};
use crate::broker::{Inspector, ShardFigures, View};

/// A core answers in its next turn, and no turn lasts longer unless something is wrong. Below the second that
/// supervisors commonly wait for a probe.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);

/// Why a core gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Silent {
    /// Its thread is gone.
    #[error("has ended")]
    Ended,
    /// It is stuck in a turn, or starved of CPU time.
    #[error("gives no answer")]
    Late,
}

/// An answer under way.
pub(super) struct Answer<T>(oneshot::Receiver<T>);

impl<T> Answer<T> {
    pub(super) async fn get(self) -> Result<T, Silent> {
        match timeout(PATIENCE, self.0).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Silent::Ended),
            Err(_) => Err(Silent::Late),
        }
    }
}

/// Puts a question to one core.
pub(super) fn ask<T: Send + 'static>(
    inspector: &Inspector,
    core: u16,
    question: impl FnOnce(&View<'_>) -> T + Send + 'static,
) -> Answer<T> {
    let (sender, receiver) = oneshot::channel();
    inspector.ask(core, move |view| {
        let _ = sender.send(question(view));
    });
    Answer(receiver)
}

/// The figures of all cores, asked at once.
pub(super) async fn figures(inspector: &Inspector) -> Vec<Result<ShardFigures, Silent>> {
    let asked: Vec<_> = (0..inspector.cores()).map(|core| ask(inspector, core, |view| view.figures())).collect();
    let mut all = Vec::with_capacity(asked.len());
    for answer in asked {
        all.push(answer.get().await);
    }
    all
}

/// Everything a core has of something that comes in pages, each given to `take`.
async fn pages<T: Send + 'static>(
    inspector: &Inspector,
    core: u16,
    page: fn(&View<'_>, u32) -> Page<T>,
    mut take: impl FnMut(T),
) -> Result<(), Silent> {
    let mut from = 0;
    loop {
        let Page { items, next } = ask(inspector, core, move |view| page(view, from)).get().await?;
        items.into_iter().for_each(&mut take);
        match next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

/// A core's connections.
pub(super) async fn connections(
    inspector: &Inspector,
    core: u16,
    take: impl FnMut(ConnSnapshot),
) -> Result<(), Silent> {
    pages(inspector, core, |view, from| view.connections_from(from), take).await
}

/// A core's channels.
pub(super) async fn channels(
    inspector: &Inspector,
    core: u16,
    take: impl FnMut(ChannelSnapshot),
) -> Result<(), Silent> {
    pages(inspector, core, |view, from| view.channels_from(from), take).await
}

/// A core's meters.
pub(super) async fn meters(inspector: &Inspector, core: u16, take: impl FnMut(Meter)) -> Result<(), Silent> {
    pages(inspector, core, |view, from| view.meters_from(from), take).await
}

/// What a core's meters come to together.
pub(super) async fn meters_sum(inspector: &Inspector, core: u16) -> Result<Meter, Silent> {
    let mut sum = Meter::default();
    let mut from = 0;
    loop {
        let (part, next) = ask(inspector, core, move |view| view.meters_sum_from(from)).get().await?;
        sum.add(&part);
        match next {
            Some(next) => from = next,
            None => return Ok(sum),
        }
    }
}

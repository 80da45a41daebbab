//! How the broker is: whether to restart it, whether to send it requests, and what is short.

use std::time::Duration;

use super::cores::Silent;
use super::state::State;
use super::{producers, view};
use crate::broker::ShardFigures;

/// A core that has been silent for so long is stuck: no turn lasts that long, nor does a starved machine starve it so
/// long while the admin thread still runs.
const STUCK: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// A restart would help.
    pub(super) failing: Vec<String>,
    /// It serves, but something is short.
    pub(super) short: Vec<String>,
    /// It takes no new requests.
    pub(super) draining: bool,
}

impl Health {
    pub(super) async fn of(state: &State) -> Health {
        let mut health = Health { draining: state.inspector.is_draining(), ..Health::default() };
        let limits = &state.inspector.options().limits;
        let mut connections = 0;
        for (core, figures) in state.figures().await.iter().enumerate() {
            match figures {
                Ok(figures) => {
                    connections += figures.core.connections;
                    health.short.extend(short_of(core, figures, limits.core_buffer));
                }
                // at the end of a drain that is what is wanted
                Err(Silent::Ended) if health.draining => {}
                Err(Silent::Ended) => health.failing.push(format!("core {core} has ended")),
                Err(Silent::Late) => {
                    let silence = state.silence(core);
                    let reason = format!("core {core} has not answered for {:.1} s", silence.as_secs_f64());
                    if silence > STUCK { &mut health.failing } else { &mut health.short }.push(reason);
                }
            }
        }
        if connections >= limits.max_connections as usize {
            health.short.push(format!("{connections} connections are open (max_connections): more are refused"));
        }
        health.short.extend(producers::shut(&state.inspector));
        health
    }

    pub(super) fn is_live(&self) -> bool {
        self.failing.is_empty()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_live() && !self.draining
    }

    pub(super) fn view(&self) -> view::Health {
        let status = match self {
            _ if !self.is_live() => "failing",
            _ if self.draining => "draining",
            _ if !self.short.is_empty() => "degraded",
            _ => "ok",
        };
        let draining = self.draining.then(|| "draining: no new requests are taken".to_owned());
        let reasons = self.failing.iter().cloned().chain(draining).chain(self.short.iter().cloned());
        view::Health { status: status.to_owned(), reasons: reasons.collect() }
    }
}

fn short_of(core: usize, figures: &ShardFigures, core_buffer: usize) -> Option<String> {
    // the bound above which new requests get OVERLOADED
    (figures.core.held > core_buffer / 4 * 3).then(|| {
        let (held, of) = (figures.core.held >> 20, core_buffer >> 20);
        format!("core {core} holds {held} of {of} MiB (core_buffer): new requests get OVERLOADED")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first() {
        let mut health = Health::default();
        assert_eq!((health.view().status.as_str(), health.is_ready()), ("ok", true));
        health.short.push("a".into());
        assert_eq!((health.view().status.as_str(), health.is_ready()), ("degraded", true));
        health.draining = true;
        assert_eq!((health.view().status.as_str(), health.is_ready(), health.is_live()), ("draining", false, true));
        health.failing.push("b".into());
        assert_eq!((health.view().status.as_str(), health.is_live()), ("failing", false));
        assert_eq!(health.view().reasons, ["b", "draining: no new requests are taken", "a"]);
    }
}

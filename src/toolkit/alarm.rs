//! A timer that is set once for many.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer used for one thing after the other, most of which are over before it rings. It is only ever moved forward:
/// one that is set for an earlier thing is left where it is, and set again should it ring. Where all have the same time,
/// that is once in this time, however many there are; setting a timer and taking it back costs two locks and a clock.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Resolves at `at`; never without one.
    pub(super) async fn rings(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return std::future::pending().await };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            sleep.as_mut().await;
            if sleep.deadline() >= at {
                return;
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_for_each_at_its_own_time() {
        let begin = Instant::now();
        let at = |seconds: u64| Some(begin + Duration::from_secs(seconds));
        let mut alarm = Alarm::default();
        // set, left there, moved back, moved forward, passed already
        let given_up = tokio::time::timeout(Duration::from_secs(1), alarm.rings(at(10))).await;
        assert!(given_up.is_err());
        for (wanted, rings) in [(20, 20), (25, 25), (60, 60), (30, 60)] {
            alarm.rings(at(wanted)).await;
            assert_eq!(begin.elapsed().as_secs(), rings, "{wanted}");
        }
        assert!(tokio::time::timeout(Duration::from_secs(1), alarm.rings(at(500))).await.is_err());
        alarm.rings(at(100)).await;
        assert_eq!(begin.elapsed().as_secs(), 100, "an earlier one");
        assert!(tokio::time::timeout(Duration::from_secs(1_000_000), alarm.rings(None)).await.is_err());
    }
}

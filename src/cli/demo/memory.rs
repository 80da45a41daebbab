//! How much memory this process has resident.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corelay::reactor::sys;
use tokio::task::JoinHandle;

/// Resident bytes of this process, now; 0 where that can't be known.
pub(crate) fn resident() -> u64 {
    sys::resident() as u64
}

/// Watches resident memory until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Resident bytes when the watch began.
    pub(crate) before: u64,
    most: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins.
    pub(crate) fn start() -> Watch {
        let before = resident();
        let most = Arc::new(AtomicU64::new(before));
        let shared = Arc::clone(&most);
        let task = tokio::spawn(async move {
            // often enough to see a buffer that fills for a moment; a reading takes some 20 us
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            loop {
                ticks.tick().await;
                shared.fetch_max(resident(), Ordering::Relaxed);
            }
        });
        Watch { before, most, task }
    }

    /// The most resident bytes that were seen.
    pub(crate) fn most(&self) -> u64 {
        self.most.fetch_max(resident(), Ordering::Relaxed).max(resident())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

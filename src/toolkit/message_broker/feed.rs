//! A source fed by a task: reading is never cut off halfway, so that waiting for the next message can be.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::adapter::{Event, Source};
use super::{Error, ErrorKind};

/// Where the task puts messages.
pub(super) type Into = mpsc::Sender<Result<Event, Error>>;

/// Resolves when the task is to end.
pub(super) type Stop = oneshot::Receiver<()>;

/// The reading end.
pub(super) struct Feed {
    received: mpsc::Receiver<Result<Event, Error>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), Error>>>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

impl Feed {
    /// Runs `read`, which puts at most `in_flight` unsettled messages in at a time, until it is told to stop; what it
    /// does then is part of leaving.
    pub(super) fn start<F>(in_flight: usize, read: impl FnOnce(Into, Stop) -> F) -> Feed
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let (into, received) = mpsc::channel(in_flight);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(read(into, stopped));
        Feed { received, stop: Some(stop), task: Some(task) }
    }
}

#[async_trait]
impl Source for Feed {
    async fn next(&mut self) -> Result<Event, Error> {
        let ended = || Err(Error::new(ErrorKind::Connection, "the subscription ended"));
        self.received.recv().await.unwrap_or_else(ended)
    }

    async fn leave(mut self: Box<Self>) -> Result<(), Error> {
        self.stop.take();
        self.received.close();
        while let Some(left) = self.received.recv().await {
            if let Ok(Event::Message(received)) = left {
                received.settle.nack(Duration::ZERO).await?;
            }
        }
        match self.task.take() {
            Some(task) => task.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // the task ends by itself, as its stop is gone
        self.received.close();
        while let Ok(left) = self.received.try_recv() {
            if let Ok(Event::Message(received)) = left {
                received.settle.abandon();
            }
        }
    }
}

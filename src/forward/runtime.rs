//! The runtime that producers and their clients live on: tokio-uring where the kernel lets us, plain tokio elsewhere.
//!
//! Both are one thread: what is spawned there stays there, and need not be `Send`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Once;

use tokio::sync::mpsc;

/// Which runtime to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Io {
    /// tokio-uring if it can be had, found out by trying; else tokio, with one line in the log for the process.
    #[default]
    Auto,
    /// tokio-uring or nothing.
    Uring,
    /// Plain tokio.
    Tokio,
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static IS_URING: Cell<bool> = const { Cell::new(false) };
    static SPAWNER: RefCell<Option<mpsc::UnboundedSender<LocalFuture>>> = const { RefCell::new(None) };
}

/// Runs a future, and whatever it spawns, on this thread until the future is done; then the rest is dropped.
///
/// ```
/// use corelay::forward::runtime;
/// let sum = runtime::run(async { tokio::task::spawn_local(async { 1 + 1 }).await.unwrap() })?;
/// assert_eq!(sum, 2);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// No runtime could be made: out of file descriptors, say; or this thread is within one already.
pub fn run<F: Future>(future: F) -> io::Result<F::Output> {
    run_on(Io::Auto, future)
}

/// [`run`] on a runtime of choice.
///
/// # Errors
/// It could not be made.
pub fn run_on<F: Future>(on: Io, future: F) -> io::Result<F::Output> {
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(io::Error::other("a runtime within a runtime: this thread has one already"));
    }
    let uring = match on {
        Io::Tokio => None,
        Io::Uring => Some(start_uring()?),
        Io::Auto => start_uring().map_err(|error| tell_once(&error)).ok(),
    };
    match uring {
        Some(uring) => {
            let _here = Here::enter(true);
            let result = uring.block_on(with_spawner(future));
            drop(uring);
            Ok(result)
        }
        None => {
            let _here = Here::enter(false);
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            Ok(tokio.block_on(local.run_until(with_spawner(future))))
        }
    }
}

/// Probed by doing: the ring is made, and one operation goes through it.
fn start_uring() -> io::Result<tokio_uring::Runtime> {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
    runtime.block_on(tokio_uring::no_op())?;
    Ok(runtime)
}

fn tell_once(error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| tracing::warn!(%error, "no io_uring for forwarding: using epoll"));
}

/// Whether this thread is within [`run`] on tokio-uring, so that its sockets can be used here.
#[must_use]
pub fn is_uring() -> bool {
    IS_URING.get()
}

/// Starts a task that stays on this thread; from any task of [`run`], itself local or not.
///
/// # Errors
/// This thread is not within [`run`].
pub fn spawn_local(future: impl Future<Output = ()> + 'static) -> Result<(), NotHere> {
    SPAWNER.with_borrow(|spawner| {
        let spawner = spawner.as_ref().ok_or(NotHere)?;
        spawner.send(Box::pin(future)).map_err(|_| NotHere)
    })
}

/// This thread does not run a runtime of [`run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this thread is not within forward::runtime::run")]
pub struct NotHere;

/// The marks of this thread, taken back at the end.
struct Here;

impl Here {
    fn enter(is_uring: bool) -> Here {
        IS_URING.set(is_uring);
        Here
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        IS_URING.set(false);
        SPAWNER.set(None);
    }
}

/// `spawn_local` of tokio works in local tasks only, but a client is called from whatever task its runner is in.
async fn with_spawner<F: Future>(future: F) -> F::Output {
    let (sender, mut receiver) = mpsc::unbounded_channel::<LocalFuture>();
    SPAWNER.set(Some(sender));
    tokio::task::spawn_local(async move {
        while let Some(future) = receiver.recv().await {
            tokio::task::spawn_local(future);
        }
    });
    future.await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(io: Io) -> bool {
        let (is_uring, from_a_task) = run_on(io, async {
            let (done, answer) = tokio::sync::oneshot::channel();
            // a task that is not local
            tokio::spawn(async move {
                let not_send = std::rc::Rc::new(is_uring());
                spawn_local(async move {
                    let _ = done.send(*not_send);
                })
            })
            .await
            .unwrap()
            .unwrap();
            (is_uring(), answer.await.unwrap())
        })
        .unwrap();
        assert_eq!(is_uring, from_a_task);
        assert!(!super::is_uring());
        assert_eq!(spawn_local(async {}), Err(NotHere));
        assert!(run_on(io, async { run(async {}) }).unwrap().is_err(), "one within another");
        is_uring
    }

    #[test]
    fn local_tasks_start_from_any_task_on_either_runtime() {
        assert!(!uses(Io::Tokio));
        match start_uring() {
            Ok(runtime) => {
                drop(runtime);
                assert!(uses(Io::Uring));
                assert!(uses(Io::Auto));
            }
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "no io_uring: {error}");
                eprintln!("SKIPPED: no io_uring here: {error}");
                assert!(!uses(Io::Auto));
            }
        }
    }
}

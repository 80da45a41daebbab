//! The admin endpoint: what the broker does and how it is, by HTTP, for people, Prometheus and supervisors.
//!
//! ```text
//!   browser, corelay top, Prometheus ── HTTP ──► admin thread ── ask ──► cores, each in its turn
//! ```
//!
//! It runs on a thread of its own, off the cores, and shares nothing with them but the desks its questions are put on
//! (its [`Inspector`]). A core that doesn't answer is no reason not to answer: it is what a
//! supervisor wants to hear of.
//!
//! | path | what it says |
//! |---|---|
//! | `/` | the dashboard: one page, no outside assets |
//! | `/livez` | 200 while every core answers |
//! | `/readyz` | 200 while it takes requests: not while it drains |
//! | `/healthz` | both, and what is short, with reasons |
//! | `/metrics`, `/metrics/channels` | for Prometheus: of each core; of each channel |
//! | `/varz` | process and totals |
//! | `/connz`, `/channelz` | who is connected; what the channels do |
//! | `/producerz` | what becomes of messages forwarded to outside systems |
//! | `/latencyz` | percentiles of each channel; `?format=hgrm` for HdrHistogram's plotter |
//! | `/historyz` | the last five minutes, second by second |
//! | `/log`, `PUT /log` | what is logged; changes it |
//! | `POST /drain` | begins an orderly end |

mod cores;
mod dashboard;
mod guard;
mod health;
mod history;
mod latency;
mod lists;
mod log;
mod metrics;
mod options;
#[cfg(feature = "otel")]
pub mod otlp;
mod process;
mod producers;
mod prometheus;
mod routes;
mod serve;
mod state;
mod totals;
pub mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::watch;
use tracing::warn;

use crate::broker::{Inspector, ListenAddr, Listener, ServerError};

pub use self::log::LogFilter;
pub use self::options::AdminOptions;
use crate::tls::{Acceptor, TlsError};

/// Why there is no admin endpoint.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address can't be bound.
    #[error(transparent)]
    Listen(#[from] ServerError),
    /// An option that can't work.
    #[error(transparent)]
    Option(#[from] crate::broker::BadOption),
    /// Certificates or keys that can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its thread could not start.
    #[error("the admin thread can't start: {0}")]
    Thread(#[from] std::io::Error),
}

/// A bound address, on which nobody answers yet: so that one in use is told before a broker starts.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    tls: Option<Acceptor>,
}

/// What the admin endpoint shows besides the broker itself, where the process has it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Extras {
    /// Its log's filter: `/log`.
    pub log: Option<Arc<dyn LogFilter>>,
    /// What became of the spans it exports: in `/metrics`.
    pub exported: Option<Arc<Exported>>,
}

/// Spans that were exported, or could not be.
///
/// ```
/// let exported = corelay::telemetry::Exported::default();
/// assert_eq!((exported.sent(), exported.failed()), (0, 0));
/// ```
#[derive(Debug, Default)]
pub struct Exported {
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Exported {
    /// Spans the collector took.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Spans it did not take, or not in time.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    #[cfg(feature = "otel")]
    fn add(&self, spans: u64, taken: bool) {
        (if taken { &self.sent } else { &self.failed }).fetch_add(spans, Ordering::Relaxed);
    }
}

/// The running admin endpoint. Dropping it ends it.
///
/// ```
/// use corelay::telemetry::{Admin, AdminOptions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = corelay::Server::bind("127.0.0.1:0")?;
/// let options = AdminOptions { listen: Some("127.0.0.1:0".parse()?), ..AdminOptions::default() };
/// let admin = Admin::start(&options, server.inspector())?.expect("an address is given");
/// println!("admin on {}", admin.addr());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Admin {
    addr: ListenAddr,
    tls: Option<Acceptor>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Bound {
    /// Binds the address; `None` where none is set.
    ///
    /// # Errors
    /// [`AdminError`]: it is taken, would let strangers in, or has no certificate.
    pub fn new(options: &AdminOptions) -> Result<Option<Bound>, AdminError> {
        options.validate()?;
        let Some(addr) = &options.listen else { return Ok(None) };
        let listener = Listener::bind(addr, "--admin")?;
        let tls = addr.is_tls().then(|| Acceptor::new(&options.tls, &[b"http/1.1"])).transpose()?;
        Ok(Some(Bound { listener, tls }))
    }

    /// Answers there from now on.
    ///
    /// # Errors
    /// [`AdminError::Thread`].
    pub fn serve(self, inspector: Inspector) -> Result<Admin, AdminError> {
        self.serve_with(inspector, Extras::default())
    }

    /// As [`Bound::serve`], with what else the process has to show.
    ///
    /// # Errors
    /// [`AdminError::Thread`].
    pub fn serve_with(self, inspector: Inspector, extras: Extras) -> Result<Admin, AdminError> {
        let (stop, stopped) = watch::channel(false);
        let addr = self.listener.addr().clone();
        let sockets = serve::Sockets::new(self.listener)?;
        let (tls, acceptor) = (self.tls.clone(), self.tls);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("corelay-admin".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve::run(sockets, acceptor, inspector, extras, stopped)) {
                warn!(%error, "the admin endpoint ended");
            }
        })?;
        Ok(Admin { addr, tls, stop, thread: Some(thread) })
    }
}

impl Admin {
    /// Binds and serves; `None` where no address is set.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn start(options: &AdminOptions, inspector: Inspector) -> Result<Option<Admin>, AdminError> {
        Bound::new(options)?.map(|bound| bound.serve(inspector)).transpose()
    }

    /// Where it listens, with the port that was picked.
    #[must_use]
    pub fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// What it accepts TLS with, where it does: to be [reloaded](Acceptor::reload) when the files have changed.
    #[must_use]
    pub fn tls(&self) -> Option<Acceptor> {
        self.tls.clone()
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the admin thread panicked");
        }
        if let ListenAddr::Unix(path) = &self.addr {
            let _ = std::fs::remove_file(path);
        }
    }
}

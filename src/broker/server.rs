//! The broker as a whole: listeners, one thread a core, and their end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use tracing::{error, info, warn};
use uuid::Uuid;

use super::admission::Admission;
use super::builder::ServerBuilder;
use super::companion::{self, Companion, Outlet, Plan};
use super::core::{COPY_BELOW, Channel, Options, Route};
use super::cpus;
use super::inspect::{Desk, Inspector};
use super::listener::{Listener, SocketFiles};
use super::machine;
use super::mesh::Mesh;
use super::options::{BadOption, Io, ListenAddr, ServerOptions};
use super::reload::{Reloader, say_idle};
use super::shard::{Around, Control, PoolSize, Shard};
use super::tell::{SpanSink, Teller};
use crate::auth::{AccessList, Entry};
use crate::reactor::{self, Epoll, Reactor, Uring, Waker};
use crate::tls::{ALPN, Acceptor, TlsError};

/// Why a broker did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A listening address could not be bound.
    #[error("can't listen on {addr}: {source}; {hint}")]
    Bind {
        /// The address.
        addr: String,
        /// What to do.
        hint: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// An address that is none.
    #[error(transparent)]
    Value(#[from] super::options::BadValue),
    /// An option that can't work.
    #[error(transparent)]
    Option(#[from] super::options::BadOption),
    /// The CPUs asked for can't be had.
    #[error("{0}")]
    Cores(String),
    /// The worst case is more memory than there is.
    #[error("{0}")]
    Memory(String),
    /// Certificates or keys that can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No reactor could be made.
    #[error(transparent)]
    Reactor(#[from] reactor::SetupError),
    /// A producer could not be made.
    #[error("producer {id}: {text}")]
    Producer {
        /// Which.
        id: String,
        /// What is wrong with it, and what was expected.
        text: String,
    },
    /// A core's thread could not start or go on.
    #[error("core {core} stopped: {source}")]
    Core {
        /// Which.
        core: u16,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A running broker. Dropping it ends it at once; see [`Server::stop`] for an orderly end.
///
/// ```no_run
/// let server = corelay::Server::bind("127.0.0.1:0")?;
/// println!("listening on {}", server.addr());
/// server.stop()?;
/// # Ok::<(), corelay::broker::ServerError>(())
/// ```
#[derive(Debug)]
pub struct Server {
    addrs: Vec<ListenAddr>,
    stopper: Stopper,
    threads: Vec<JoinHandle<Result<(), ServerError>>>,
    companions: Vec<Companion>,
    inspector: Inspector,
    tls: Option<Acceptor>,
}

impl Server {
    /// A broker that does more than options can say: see [`ServerBuilder`].
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// A broker on one core with default options, for tests and embedding.
    ///
    /// # Errors
    /// [`ServerError`], as [`Server::start`]; also for an address that is none.
    pub fn bind(addr: &str) -> Result<Server, ServerError> {
        let listen = addr.parse()?;
        Server::start(ServerOptions {
            listen: vec![listen],
            cores: super::options::Cores::Count(1),
            pin: false,
            ..ServerOptions::default()
        })
    }

    /// Starts a broker. When it returns, its threads run and accept.
    ///
    /// # Errors
    /// [`ServerError`]: each says what to do.
    pub fn start(options: ServerOptions) -> Result<Server, ServerError> {
        Server::builder().options(options).start()
    }

    /// [`ServerBuilder::start`].
    pub(super) fn start_with(
        options: ServerOptions,
        own: Vec<Plan>,
        sink: Option<SpanSink>,
    ) -> Result<Server, ServerError> {
        options.validate()?;
        let plans = companion::plans(&options, own)?;
        let cpus = cpus::choose(&options.cores).map_err(ServerError::Cores)?;
        let tls = options.has_tls().then(|| Acceptor::new(&options.tls, &[ALPN])).transpose()?;
        let options = machine::fit(options, cpus.len())?;
        let until = Instant::now() + options.bind_timeout;
        let bind = |addr| Listener::bind_by(addr, "--listen", until);
        let listeners = options.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let files = Arc::new(SocketFiles::of(&listeners));
        let io = choose_io(&options)?;
        let access = options.access_list()?;
        say_idle(&access);
        let control = Arc::new(Control::default());
        let desks: Arc<[Desk]> = cpus.iter().map(|_| Desk::new()).collect();
        let (outlets, companions) = companion::start_all(&plans, &options.forward, &cpus)?;
        // each core accepts on a descriptor of its own; these ones go now, so that a drain closes the last
        let (routes, access) = (companion::routes(&plans), Arc::new(access));
        let cores = Cores { io, cpus: &cpus, tls: tls.as_ref(), routes, outlets, sink, access };
        let (wakers, threads) = spawn(&options, cores, &listeners, &control, &desks)?;
        let addrs: Vec<_> = listeners.into_iter().map(|listener| listener.addr).collect();
        info!(name = options.name, cores = cpus.len(), ?io, "started");
        let stopper = Stopper { control, wakers, files };
        let producers = companions.iter().flat_map(|companion| companion.producers.clone()).collect();
        let inspector = Inspector::new(desks, stopper.clone(), options, &addrs, io, &cpus, producers);
        Ok(Server { addrs, stopper, threads, companions, inspector, tls })
    }

    /// The first TCP address it listens on, with TLS or without, with the port that was picked.
    ///
    /// # Panics
    /// If it listens on Unix sockets only.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addrs.iter().find_map(ListenAddr::socket_addr).expect("the broker listens on TCP")
    }

    /// All addresses it listens on, as bound.
    #[must_use]
    pub fn addrs(&self) -> &[ListenAddr] {
        &self.addrs
    }

    /// Which reactor runs it: [`Io::Uring`] or [`Io::Epoll`].
    #[must_use]
    pub fn io(&self) -> Io {
        self.inspector.io()
    }

    /// Begins an orderly end and returns at once: listeners close, clients are told GOAWAY, what is in flight may
    /// finish within `drain_timeout`.
    pub fn drain(&self) {
        self.stopper.drain();
    }

    /// Ends it at once: connections are dropped.
    pub fn kill(&self) {
        self.stopper.kill();
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// [`ServerError::Core`] if a core stopped by a fault.
    pub fn join(mut self) -> Result<(), ServerError> {
        self.join_threads()
    }

    /// An orderly end: [`Server::drain`], then [`Server::join`].
    ///
    /// # Errors
    /// As [`Server::join`].
    pub fn stop(self) -> Result<(), ServerError> {
        self.drain();
        self.join()
    }

    /// Reads certificate, key and client CAs again: handshakes that begin from now on use them, connections that are
    /// open go on as they are. Without a TLS listener it does nothing.
    ///
    /// # Errors
    /// [`TlsError`], with the file and what to do; then the old ones stay in use.
    pub fn reload_tls(&self) -> Result<(), TlsError> {
        self.tls.as_ref().map_or(Ok(()), Acceptor::reload)
    }

    /// What its TLS listeners accept with, where there are any: to be [reloaded](Acceptor::reload) from elsewhere, such
    /// as a signal handler's thread.
    #[must_use]
    pub fn tls(&self) -> Option<Acceptor> {
        self.tls.clone()
    }

    /// A handle that ends the broker from elsewhere, such as a signal handler's thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Changes the running broker from elsewhere.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader::new(self.inspector.shared_options(), self.stopper.clone())
    }

    /// As [`Reloader::auth`].
    ///
    /// # Errors
    /// As there.
    pub fn reload_auth(&self, auth: Vec<Entry>) -> Result<(), BadOption> {
        self.reloader().auth(auth)
    }

    /// Looks into the running broker, from any thread: what its figures are, who is connected.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        self.inspector.clone()
    }

    fn join_threads(&mut self) -> Result<(), ServerError> {
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(ended);
        }
        // each ends after its core, when it has delivered what it can
        self.companions.drain(..).for_each(Companion::join);
        result
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.kill();
            if let Err(error) = self.join_threads() {
                warn!(%error, "the broker ended with a fault");
            }
        }
    }
}

/// Ends a [`Server`] from elsewhere.
#[derive(Clone, Debug)]
pub struct Stopper {
    control: Arc<Control>,
    wakers: Vec<Waker>,
    files: Arc<SocketFiles>,
}

impl Stopper {
    /// As [`Server::drain`].
    pub fn drain(&self) {
        self.files.remove();
        self.control.drain();
        self.wakers.iter().for_each(Waker::wake);
    }

    /// As [`Server::kill`].
    pub fn kill(&self) {
        self.files.remove();
        self.control.abort();
        self.wakers.iter().for_each(Waker::wake);
    }

    /// As [`Control::set_access`], on all cores.
    pub(super) fn set_access(&self, access: Arc<AccessList>) {
        self.control.set_access(access);
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Whether one of the two was called.
    pub(super) fn is_stopping(&self) -> bool {
        self.control.is_stopping()
    }

    /// Ends the sleep of one core, if it sleeps.
    pub(super) fn wake(&self, core: u16) {
        if let Some(waker) = self.wakers.get(usize::from(core)) {
            waker.wake();
        }
    }
}

/// Which reactor to use: tries io_uring where it is asked for or `auto`.
fn choose_io(options: &ServerOptions) -> Result<Io, ServerError> {
    match options.io {
        Io::Epoll => Ok(Io::Epoll),
        // the smallest there is: made and dropped, for what counts is whether the kernel lets us
        wanted => match Uring::new(&reactor::Options { buffers: 16, entries: 16, ..reactor::Options::default() }) {
            Ok(_) => Ok(Io::Uring),
            Err(error) if wanted == Io::Auto => {
                warn!("io_uring can't be used, epoll takes its place: {error}");
                Ok(Io::Epoll)
            }
            Err(error) => Err(error.into()),
        },
    }
}

/// What the cores' threads are made from, beside options.
struct Cores<'a> {
    io: Io,
    cpus: &'a [usize],
    tls: Option<&'a Acceptor>,
    routes: Vec<Route>,
    outlets: Vec<Option<Outlet>>,
    sink: Option<SpanSink>,
    access: Arc<AccessList>,
}

type Threads = (Vec<Waker>, Vec<JoinHandle<Result<(), ServerError>>>);

/// Starts one thread a core; returns when all of them accept.
fn spawn(
    options: &ServerOptions,
    cores: Cores<'_>,
    listeners: &[Listener],
    control: &Arc<Control>,
    desks: &Arc<[Desk]>,
) -> Result<Threads, ServerError> {
    let Cores { io, cpus, tls, routes, outlets, sink, access } = cores;
    let admission = Arc::new(Admission::new(&options.limits));
    let (server, secret) = (Uuid::new_v4(), random());
    let mut threads = Vec::new();
    let mut starts = Vec::new();
    for ((core, mesh), outlet) in Mesh::full(cpus.len()).into_iter().enumerate().zip(outlets) {
        let core_options = Options {
            core: core as u16,
            cores: cpus.len() as u16,
            server,
            seed: random(),
            secret,
            limits: options.limits.clone(),
            channels: options.channels.iter().map(channel).collect(),
            copy_below: COPY_BELOW,
            routes: routes.clone(),
            tap_bytes: options.forward.handover_bytes,
            access: Arc::clone(&access),
            meters: options.telemetry_channels,
        };
        let (waker_out, waker_in) = mpsc::channel();
        let (wakers_out, wakers_in) = mpsc::channel();
        let start = Start {
            core_options,
            io,
            reactor: reactor::Options {
                // validated to be at most 32,768 and 1 MiB
                buffers: options.buffers as u32,
                buffer_size: options.buffer_size as u32,
                entries: options.ring_entries,
                spin: options.spin,
            },
            cpu: options.pin.then_some(cpus[core]),
            listeners: listeners.iter().map(Listener::duplicate).collect::<Result<_, _>>().map_err(at(core))?,
            around: Around {
                mesh,
                control: Arc::clone(control),
                admission: Arc::clone(&admission),
                desks: Arc::clone(desks),
                teller: Teller::new(core as u16, options.slow, sink.clone()),
                tls: (tls.cloned(), listeners.iter().map(|listener| listener.addr.is_tls()).collect()),
                outlet,
            },
            waker: waker_out,
            wakers: wakers_in,
        };
        let name = format!("corelay-{core}");
        threads.push(std::thread::Builder::new().name(name).spawn(move || start.run()).map_err(at(core))?);
        starts.push((waker_in, wakers_out));
    }
    // every core's reactor is made on its own thread; when all are there, each learns how to wake the others
    let wakers: Option<Vec<Waker>> = starts.iter().map(|(waker, _)| waker.recv().ok()).collect();
    let Some(wakers) = wakers else {
        drop(starts);
        let failed = threads.into_iter().filter_map(|thread| thread.join().ok()).find_map(Result::err);
        return Err(failed.unwrap_or_else(|| ServerError::Cores("a core's thread ended at its start".to_owned())));
    };
    for (_, wakers_out) in &starts {
        let _ = wakers_out.send(wakers.clone());
    }
    Ok((wakers, threads))
}

fn at(core: usize) -> impl Fn(io::Error) -> ServerError {
    move |source| ServerError::Core { core: core as u16, source }
}

fn channel(options: &super::options::ChannelOptions) -> Channel {
    Channel {
        id: options.id,
        spread: options.spread,
        window: options.window,
        queue_requests: options.queue_requests,
        queue_bytes: options.queue_bytes,
    }
}

/// 64 bits from the kernel, by way of a version 4 UUID (122 random bits).
fn random() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low.rotate_left(32)
}

/// All one core's thread begins with.
struct Start {
    core_options: Options,
    io: Io,
    reactor: reactor::Options,
    cpu: Option<usize>,
    listeners: Vec<std::os::fd::OwnedFd>,
    around: Around,
    waker: mpsc::Sender<Waker>,
    wakers: mpsc::Receiver<Vec<Waker>>,
}

impl Start {
    fn run(self) -> Result<(), ServerError> {
        let core = self.core_options.core;
        if let Some(cpu) = self.cpu
            && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
        {
            warn!(core, cpu, "the thread could not be pinned");
        }
        // the pool is made, and touched, on the pinned thread: its memory is then this core's own (NUMA)
        let _abort = AbortOnPanic(core);
        match self.io {
            Io::Epoll => {
                let reactor = Epoll::new(&self.reactor).map_err(at(usize::from(core)))?;
                self.serve(reactor)
            }
            Io::Uring | Io::Auto => {
                let reactor = Uring::new(&self.reactor)?;
                self.serve(reactor)
            }
        }
    }

    fn serve<R: Reactor>(mut self, reactor: R) -> Result<(), ServerError>
    where
        R::Pool: PoolSize,
    {
        let core = self.core_options.core;
        let _ = self.waker.send(reactor.waker());
        let Ok(wakers) = self.wakers.recv() else { return Ok(()) };
        self.around.mesh.set_wakers(&wakers);
        if let Some(outlet) = &self.around.outlet {
            outlet.set_waker(reactor.waker());
        }
        let control = Arc::clone(&self.around.control);
        let desks = Arc::clone(&self.around.desks);
        let mut shard = Shard::new(reactor, self.core_options, self.around);
        let listening = self.listeners.into_iter().enumerate();
        let mut tagged = listening.map(|(tag, listener)| (tag as u32, listener));
        let ended = tagged.try_for_each(|(tag, listener)| shard.listen(listener, tag)).and_then(|()| shard.run());
        desks[usize::from(core)].close();
        ended.map_err(at(usize::from(core))).inspect_err(|error| {
            // the others would go on moving connections to a core that is gone
            error!(%error, "the broker ends");
            control.abort();
            control.leave();
            wakers.iter().for_each(Waker::wake);
        })
    }
}

/// Ends the process if the thread panics: a core whose state is known to be wrong serves nobody.
struct AbortOnPanic(u16);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("corelay: core {} found its state broken; the process ends", self.0);
            std::process::abort();
        }
    }
}

impl PoolSize for reactor::Pool {
    fn capacity(&self) -> usize {
        self.count() as usize
    }
    fn free(&self) -> usize {
        reactor::Pool::free(self) as usize
    }
}

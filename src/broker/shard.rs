//! One core: its reactor, its broker core and its end of the mesh, in one loop.
//!
//! ```text
//!   wait ─► events ─► mesh in ─► deadlines ─► actions, output ─► mesh out ─► end of turn ─┐
//!    ▲──────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::admission::{Admission, Counted};
use super::core::{Action, Core, Moved, Options, Output};
use super::inspect::{Desk, Turns, View};
use super::listener::Peer;
use super::mesh::{Item, Mesh};
use crate::auth::AccessList;
use crate::base::{ChannelId, Key, Leases, Piece, Time};
use crate::reactor::{Event, Reactor, Receive, Sock, sys};

/// A turn that begins so much later than it was due follows a pause of this process, not the silence of its peers.
const PAUSE: Duration = Duration::from_millis(250);
/// How often a core that sleeps with nothing due looks at the control word, should a wake-up ever fail.
const IDLE: Duration = Duration::from_secs(1);
/// How long before a full mesh ring is tried again.
const RETRY_RING: Duration = Duration::from_micros(50);

/// What all cores are asked to do.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// How far towards its end: one of the numbers below; and above these bits, how often the list of who may do what
    /// has changed. Together, so that a turn looks at one word.
    asked: AtomicU64,
    /// That list, as it is now.
    access: Mutex<Arc<AccessList>>,
    /// Cores whose connections have all ended. None leaves before all have: until then their links are served.
    drained: AtomicUsize,
}

impl Control {
    const DRAIN: u64 = 1;
    const ABORT: u64 = 2;
    /// The bits of the two.
    const ENDS: u64 = 3;
    const CHANGE: u64 = 4;

    pub(super) fn drain(&self) {
        self.asked.fetch_or(Control::DRAIN, Ordering::Release);
    }

    /// From the next turn of each core on this list says who may do what.
    pub(super) fn set_access(&self, access: Arc<AccessList>) {
        let mut current = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        *current = access;
        self.asked.fetch_add(Control::CHANGE, Ordering::Release);
    }

    fn access(&self) -> Arc<AccessList> {
        Arc::clone(&self.access.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A core ended by a fault: nobody waits for it.
    pub(super) fn leave(&self) {
        self.drained.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.asked.load(Ordering::Acquire) & Control::ENDS > 0
    }

    pub(super) fn abort(&self) {
        self.asked.fetch_or(Control::ABORT, Ordering::Release);
    }
}

/// One core's loop. Built and run on its own thread.
pub(super) struct Shard<R: Reactor> {
    reactor: R,
    core: Core,
    mesh: Mesh,
    control: Arc<Control>,
    admission: Arc<Admission>,
    desks: Arc<[Desk]>,
    turns: Turns,
    /// How the connections here are counted.
    counted: HashMap<u64, Counted>,
    refusals: Refusals,
    /// Receive buffers below which nothing stays leased.
    low: usize,
    obeyed: u64,
    now: Time,
    /// The last turn began late: peers' silence is judged only after one that read what was waiting.
    paused: bool,
    /// A send was begun whose end something waits for.
    awaits_sends: bool,
    said_drained: bool,
}

impl<R: Reactor> Shard<R>
where
    R::Pool: PoolSize,
{
    pub(super) fn new(
        reactor: R,
        options: Options,
        mesh: Mesh,
        control: Arc<Control>,
        admission: Arc<Admission>,
        desks: Arc<[Desk]>,
    ) -> Shard<R> {
        let now = sys::now();
        let low = reactor.pool().capacity() / 4;
        let core = Core::new(options, now);
        Shard {
            reactor,
            core,
            mesh,
            control,
            admission,
            desks,
            turns: Turns::new(),
            counted: HashMap::new(),
            refusals: Refusals::default(),
            low,
            obeyed: 0,
            now,
            paused: false,
            awaits_sends: false,
            said_drained: false,
        }
    }

    /// Starts accepting on this listener.
    pub(super) fn listen(&mut self, listener: OwnedFd, tag: u32) -> std::io::Result<()> {
        self.reactor.listen(listener, tag)
    }

    /// Runs until drained or aborted.
    pub(super) fn run(mut self) -> std::io::Result<()> {
        loop {
            let timeout = self.timeout();
            self.wait(timeout)?;
            self.events();
            let more = self.mesh_in();
            if !self.paused {
                self.core.advance(self.now);
            }
            self.obey();
            self.output();
            self.end_turn();
            self.answer();
            if self.all_drained() && !more {
                return self.finish();
            }
        }
    }

    /// Whether every core has drained; says so of this one, once.
    fn all_drained(&mut self) -> bool {
        if !self.core.is_drained() {
            return false;
        }
        if !self.said_drained {
            self.said_drained = true;
            self.control.drained.fetch_add(1, Ordering::AcqRel);
            self.mesh.wake_all();
        }
        self.control.drained.load(Ordering::Acquire) >= self.mesh.cores()
    }

    /// How long this turn may sleep.
    fn timeout(&mut self) -> Duration {
        let now = sys::now();
        self.turns.ended(self.now, now);
        if self.paused || self.awaits_sends || self.core.has_backlog() || self.desk().is_waiting() {
            return Duration::ZERO;
        }
        let due = self.core.next_deadline().map_or(IDLE, |at| (at - now).min(IDLE));
        let due = if self.mesh.is_congested() { due.min(RETRY_RING) } else { due };
        if due > Duration::ZERO && !self.mesh.prepare_sleep() {
            return Duration::ZERO;
        }
        due
    }

    fn wait(&mut self, timeout: Duration) -> std::io::Result<()> {
        let before = self.now;
        self.reactor.wait(Some(timeout))?;
        self.mesh.awake();
        self.now = sys::now();
        self.paused = !self.paused && self.now - before > timeout + PAUSE;
        Ok(())
    }

    fn events(&mut self) {
        while let Some(event) = self.reactor.next_event() {
            match event {
                Event::Received { user, piece } => {
                    self.core.received(self.now, Key::unpack(user), piece, self.reactor.pool());
                    self.reactor.pool().release(piece);
                }
                Event::Sent { user, batch, error } => {
                    self.core.sent(self.now, Key::unpack(user), batch, error.is_some());
                }
                Event::Writable { user } => self.core.writable(self.now, Key::unpack(user)),
                Event::ReceiveEnded { user, error } => {
                    if let Some(error) = error {
                        debug!(%error, "a connection failed");
                    }
                    self.core.lost(self.now, Key::unpack(user));
                }
                Event::Accepted { listener: _, fd } => self.accepted(fd),
                Event::AcceptFailed { listener, error } => {
                    warn!(listener, %error, "accepting pauses: raise the limit on open files (ulimit -n, LimitNOFILE=)");
                }
                Event::Closed { .. } => {}
            }
            self.act();
        }
    }

    fn accepted(&mut self, fd: OwnedFd) {
        let peer = Peer::of(&fd);
        let (counted, admitted) = self.admission.enter(peer.ip);
        let key = self.core.connected(self.now, peer.name);
        let sock = self.reactor.add(fd, key.pack());
        self.counted.insert(sock.0, counted);
        self.core.attach(key, sock.0);
        if let Err(why) = admitted {
            self.core.refuse(key, why);
        }
    }

    fn mesh_in(&mut self) -> bool {
        let (core, reactor, all, now) = (&mut self.core, &mut self.reactor, &mut self.counted, self.now);
        let more = self.mesh.drain(|from, item, homeward| match item {
            Item::Frames { kind, batch } => {
                batch.for_each_unsent(&NoPool, |bytes| core.link_received(now, from, kind, bytes));
                if let Some(batch) = homeward.take(batch) {
                    core.recycle(batch);
                }
            }
            Item::Spent(batch) => core.recycle(batch),
            Item::Conn { fd, counted, moved } => {
                let key = core.moved_in(now, &moved);
                let sock = reactor.add(fd, key.pack());
                all.insert(sock.0, counted);
                core.attach_moved(now, key, sock.0, &moved);
            }
        });
        self.act();
        more
    }

    fn obey(&mut self) {
        let asked = self.control.asked.load(Ordering::Acquire);
        if asked == self.obeyed {
            return;
        }
        let changed = asked ^ std::mem::replace(&mut self.obeyed, asked);
        if changed >= Control::CHANGE {
            self.core.set_access(self.now, self.control.access());
        }
        if changed & Control::ENDS == 0 {
            return;
        }
        // listeners first, so that a successor can bind
        self.reactor.stop_listening();
        if asked & Control::ABORT > 0 {
            self.core.abort(self.now);
        } else {
            self.core.drain(self.now);
        }
    }

    /// Does what the core asks for.
    fn act(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Receive(handle) => self.reactor.receive(Sock(handle), Receive::Stream),
                Action::ReceiveOnce(handle) => self.reactor.receive(Sock(handle), Receive::Once),
                Action::NotifyWritable(handle) => self.reactor.notify_writable(Sock(handle)),
                Action::ShutdownWrite(handle) => self.reactor.shutdown_write(Sock(handle)),
                Action::Close { handle, abort } => {
                    if let Some(counted) = self.counted.remove(&handle) {
                        self.admission.leave(counted);
                    }
                    self.reactor.close(Sock(handle), abort);
                }
                Action::Move { handle, core, moved } => self.move_out(handle, core, moved),
                Action::Welcomed(handle) => {
                    if let Some(counted) = self.counted.get_mut(&handle) {
                        self.admission.welcomed(counted);
                    }
                }
                Action::ReportUnauthorized { peer, channel, why } => {
                    self.refusals.report(self.now, &peer, &channel, &why);
                }
                Action::ReportShed { id, channel, bytes } => {
                    let request = uuid::Uuid::from_bytes(id);
                    warn!(%request, %channel, bytes, "request ended with OVERLOADED: core_buffer is full");
                }
            }
        }
    }

    fn move_out(&mut self, handle: u64, core: u16, moved: Moved) {
        let counted = self.counted.remove(&handle).expect("every connection is counted");
        match self.reactor.detach(Sock(handle)) {
            Some(fd) => self.mesh.send(core, Item::Conn { fd, counted, moved }),
            // nothing is in flight between two single receives: this is a fault, and must not leak the connection
            None => {
                warn!("a connection could not be moved to core {core}; it is closed");
                self.admission.leave(counted);
                self.reactor.close(Sock(handle), true);
            }
        }
    }

    fn output(&mut self) {
        self.act();
        while let Some(output) = self.core.next_output(self.reactor.pool()) {
            match output {
                Output::Socket { handle, batch } => self.reactor.send(Sock(handle), batch),
                Output::Link { core, kind, batch } => self.mesh.send(core, Item::Frames { kind, batch }),
            }
        }
        let (core, now) = (&mut self.core, self.now);
        self.mesh.flush(&mut self.reactor, |to, kind| core.link_sent(now, to, kind));
        self.act();
    }

    fn end_turn(&mut self) {
        let pool = self.reactor.pool();
        self.awaits_sends = self.core.end_turn(pool.free() < self.low, pool);
    }

    fn desk(&self) -> &Desk {
        &self.desks[usize::from(self.core.number())]
    }

    /// Answers a question to this core, if there is one.
    fn answer(&self) {
        if self.desk().is_waiting() {
            let pool = self.reactor.pool();
            let view = View { core: &self.core, turns: &self.turns, buffers: (pool.capacity(), pool.free()) };
            self.desk().answer(&view);
        }
    }

    /// All connections have ended: waits until the reactor has let go of them.
    fn finish(mut self) -> std::io::Result<()> {
        info!(core = self.core.number(), "stopped");
        self.output();
        self.reactor.wait(Some(Duration::ZERO))?;
        Ok(())
    }
}

/// Says in the log who was not let in: each at `debug`, at `warn` no more than one a second, for anybody can make as many
/// as he likes.
#[derive(Debug, Default)]
struct Refusals {
    said: Option<Time>,
    unsaid: u64,
}

impl Refusals {
    fn report(&mut self, now: Time, peer: &str, channel: &ChannelId, why: &str) {
        if self.said.is_some_and(|said| now - said < Duration::from_secs(1)) {
            self.unsaid += 1;
            return debug!(peer, %channel, "UNAUTHORIZED: {why}");
        }
        self.said = Some(now);
        match std::mem::take(&mut self.unsaid) {
            0 => warn!(peer, %channel, "UNAUTHORIZED: {why}"),
            more => warn!(peer, %channel, more, "UNAUTHORIZED: {why}; and so many others since the last one told"),
        }
    }
}

/// How full a pool is.
pub(super) trait PoolSize {
    /// Buffers in all.
    fn capacity(&self) -> usize;
    /// Buffers nobody leases.
    fn free(&self) -> usize;
}

/// Link batches hold no leases.
struct NoPool;

impl Leases for NoPool {
    fn bytes(&self, piece: Piece) -> &[u8] {
        unreachable!("{piece:?} in a batch for another core")
    }
    fn retain(&self, _: Piece) {}
    fn release(&self, _: Piece) {}
}

//! One core: its reactor, its broker core and its end of the mesh, in one loop.
//!
//! ```text
//!   wait ─► events ─► mesh in ─► deadlines ─► actions, output ─► mesh out ─► end of turn ─┐
//!    ▲──────────────────────────────────────────────────────────────────────────────────────┘
//! ```

mod tls;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::info;

use super::admission::{Admission, Counted};
use super::companion::Outlet;
use super::core::{Action, Core, Moved, Options, Output};
use super::inspect::{Desk, Turns, View};
use super::listener::Peer;
use super::mesh::{Item, Mesh};
use super::tell::Teller;
use crate::auth::AccessList;
use crate::base::{Key, Leases, NoLeases, Time};
use crate::reactor::{Event, Reactor, Receive, Sock, sys};
use crate::tls::Acceptor;

use self::tls::{Secure, TLS};

pub use self::tls::TlsFigures;

/// A turn that begins so much later than it was due follows a pause of this process, not the silence of its peers.
const PAUSE: Duration = Duration::from_millis(250);
/// Connections whose waiting bytes a turn reads at the least, where each has some: a reactor takes in some 256
/// completions, and the smallest number of receive buffers used in earnest is far above this.
const READ_A_TURN: usize = 64;
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

/// What a core is joined to.
pub(super) struct Around {
    pub(super) mesh: Mesh,
    pub(super) control: Arc<Control>,
    pub(super) admission: Arc<Admission>,
    pub(super) desks: Arc<[Desk]>,
    pub(super) teller: Teller,
    /// What TLS connections are accepted with, and which listeners are for them.
    pub(super) tls: (Option<Acceptor>, Vec<bool>),
    /// Where copies go, if there are producers.
    pub(super) outlet: Option<Outlet>,
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
    /// Where copies go, if there are producers.
    outlet: Option<Outlet>,
    teller: Teller,
    /// The connections with TLS.
    secure: Secure,
    /// How the connections here are counted; those refused are not.
    counted: HashMap<u64, Counted>,
    /// Receive buffers below which nothing stays leased.
    low: usize,
    obeyed: u64,
    now: Time,
    /// The process was paused: so many turns more may pass before all that was waiting has been read, and peers' silence
    /// is judged again.
    catching_up: Option<usize>,
    /// The last turn found something to do.
    busy: bool,
    /// A send was begun whose end something waits for.
    awaits_sends: bool,
    said_drained: bool,
}

impl<R: Reactor> Shard<R>
where
    R::Pool: PoolSize,
{
    pub(super) fn new(reactor: R, options: Options, around: Around) -> Shard<R> {
        let Around { mesh, control, admission, desks, teller, tls, outlet } = around;
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
            outlet,
            teller,
            secure: Secure::new(tls.0, tls.1),
            counted: HashMap::new(),
            low,
            obeyed: 0,
            now,
            catching_up: None,
            busy: false,
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
            let late = self.wait(timeout)?;
            if let Some(outlet) = &mut self.outlet {
                outlet.turn(&mut self.core);
            }
            // a signal ends a wait before it has looked at anything, and such a signal follows a pause
            self.busy = self.events() > 0 || late;
            self.tls_handshakes();
            let more = self.mesh_in();
            if self.catching_up.is_none() {
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
        let busy = self.core.has_backlog() || self.secure.is_busy();
        if self.catching_up.is_some() || self.awaits_sends || busy || self.desk().is_waiting() {
            return Duration::ZERO;
        }
        let due = self.core.next_deadline().map_or(IDLE, |at| (at - now).min(IDLE));
        let full = self.mesh.is_congested() || self.outlet.as_ref().is_some_and(Outlet::is_congested);
        let due = if full { due.min(RETRY_RING) } else { due };
        if self.outlet.as_ref().is_some_and(|outlet| outlet.has_news(&self.core)) {
            return Duration::ZERO;
        }
        if due > Duration::ZERO && !self.mesh.prepare_sleep() {
            return Duration::ZERO;
        }
        due
    }

    /// Whether it took much longer than it was to.
    fn wait(&mut self, timeout: Duration) -> std::io::Result<bool> {
        let before = self.now;
        self.reactor.wait(Some(timeout))?;
        self.mesh.awake();
        self.now = sys::now();
        let late = self.now - before > timeout + PAUSE;
        self.catching_up = match self.catching_up {
            None => late.then(|| 1 + self.core.connections().0 / READ_A_TURN),
            // nothing was waiting any more; or, on a core that is always busy, everybody has had a turn
            Some(left) => (self.busy && left > 0).then(|| left - 1),
        };
        Ok(late)
    }

    /// Passes on what happened; says how much that was.
    fn events(&mut self) -> usize {
        let mut events = 0;
        while let Some(event) = self.reactor.next_event() {
            events += 1;
            match event {
                Event::Received { user, piece } => {
                    if user & TLS == 0 {
                        self.core.received(self.now, Key::unpack(user), piece, self.reactor.pool());
                    } else {
                        self.tls_received(user, piece);
                    }
                    self.reactor.pool().release(piece);
                }
                Event::Sent { user, batch, error } if user & TLS != 0 => self.tls_sent(user, batch, error),
                Event::Sent { user, batch, error } => {
                    self.core.sent(self.now, Key::unpack(user), batch, error.is_some());
                }
                Event::Writable { user } if user & TLS != 0 => self.tls_writable(user),
                Event::Writable { user } => self.core.writable(self.now, Key::unpack(user)),
                Event::ReceiveEnded { user, error } => {
                    if let Some(error) = error {
                        self.teller.socket_failed(&error, self.now);
                    }
                    if user & TLS == 0 {
                        self.core.lost(self.now, Key::unpack(user));
                    } else {
                        self.tls_ended(user);
                    }
                }
                Event::Accepted { listener, fd } => self.accepted(listener, fd),
                Event::AcceptFailed { listener, error } => {
                    self.teller.accept_failed(listener, &error, self.now);
                }
                Event::Closed { .. } => {}
            }
            self.act();
        }
        events
    }

    fn accepted(&mut self, listener: u32, fd: OwnedFd) {
        let peer = Peer::of(&fd);
        let admitted = self.admission.enter(peer.ip);
        let key = self.core.connected(self.now, peer.name);
        let tls = self.tls_session(listener);
        let handle = self.secure.take_in(&mut self.reactor, fd, key, tls);
        self.core.attach(key, handle);
        match admitted {
            Ok(counted) => {
                self.counted.insert(handle, counted);
            }
            Err(why) => self.core.refuse(key, why),
        }
    }

    fn mesh_in(&mut self) -> bool {
        let (core, reactor, all, now) = (&mut self.core, &mut self.reactor, &mut self.counted, self.now);
        let secure = &mut self.secure;
        let more = self.mesh.drain(|from, item, homeward| match item {
            Item::Frames { kind, batch } => {
                // link batches hold no leases
                batch.for_each_unsent(&NoLeases, |bytes| core.link_received(now, from, kind, bytes));
                if let Some(batch) = homeward.take(batch) {
                    core.recycle(batch);
                }
            }
            Item::Spent(batch) => core.recycle(batch),
            Item::Conn { fd, counted, moved, tls } => {
                let key = core.moved_in(now, &moved);
                let handle = secure.take_in(reactor, fd, key, tls);
                all.insert(handle, counted);
                core.attach_moved(now, key, handle, &moved);
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
            if let Some(outlet) = &self.outlet {
                outlet.kill();
            }
        } else {
            self.core.drain(self.now);
        }
    }

    /// Does what the core asks for.
    fn act(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Receive(handle) if handle & TLS != 0 => self.tls_receive(handle, Receive::Stream),
                Action::ReceiveOnce(handle) if handle & TLS != 0 => self.tls_receive(handle, Receive::Once),
                Action::NotifyWritable(handle) if handle & TLS != 0 => self.tls_notify_writable(handle),
                Action::ShutdownWrite(handle) if handle & TLS != 0 => self.tls_shutdown_write(handle),
                Action::Receive(handle) => self.reactor.receive(Sock(handle), Receive::Stream),
                Action::ReceiveOnce(handle) => self.reactor.receive(Sock(handle), Receive::Once),
                Action::NotifyWritable(handle) => self.reactor.notify_writable(Sock(handle)),
                Action::ShutdownWrite(handle) => self.reactor.shutdown_write(Sock(handle)),
                Action::Close { handle, abort } => {
                    if let Some(counted) = self.counted.remove(&handle) {
                        self.admission.leave(counted);
                    }
                    if handle & TLS == 0 {
                        self.reactor.close(Sock(handle), abort);
                    } else {
                        self.tls_close(handle, abort);
                    }
                }
                Action::Move { handle, core, moved } if handle & TLS != 0 => self.tls_move_out(handle, core, moved),
                Action::Move { handle, core, moved } => self.move_out(handle, core, moved),
                Action::Welcomed(handle) => {
                    if let Some(counted) = self.counted.get_mut(&handle) {
                        self.admission.welcomed(counted);
                    }
                }
                Action::ReportUnauthorized { peer, channel, why } => {
                    self.teller.unauthorized(&peer, channel, &why, self.now);
                }
                Action::ReportShed { id, channel, bytes } => {
                    self.teller.shed(id, channel, bytes, self.now);
                }
                Action::Ended(ended) => self.teller.ended(*ended, self.now),
                Action::Expelled(expelled) => self.teller.expelled(&expelled, self.now),
            }
        }
    }

    fn move_out(&mut self, handle: u64, core: u16, moved: Moved) {
        let counted = self.counted.remove(&handle).expect("every connection that may move is counted");
        match self.reactor.detach(Sock(handle)) {
            Some(fd) => self.mesh.send(core, Item::Conn { fd, counted, moved, tls: None }),
            // nothing is in flight between two single receives: this is a fault, and must not leak the connection
            None => {
                self.teller.not_moved(core, self.now);
                self.admission.leave(counted);
                self.reactor.close(Sock(handle), true);
            }
        }
    }

    fn output(&mut self) {
        self.act();
        while let Some(output) = self.core.next_output(self.reactor.pool()) {
            match output {
                Output::Socket { handle, batch } if handle & TLS != 0 => self.tls_output(handle, batch),
                Output::Socket { handle, batch } => self.reactor.send(Sock(handle), batch),
                Output::Link { core, kind, batch } => self.mesh.send(core, Item::Frames { kind, batch }),
            }
        }
        self.tls_flush();
        let (core, now) = (&mut self.core, self.now);
        self.mesh.flush(&mut self.reactor, |to, kind| core.link_sent(now, to, kind));
        if let Some(outlet) = &mut self.outlet {
            outlet.hand_over(core, &mut self.reactor);
        }
        self.act();
    }

    fn end_turn(&mut self) {
        let pool = self.reactor.pool();
        if let Some(watch) = self.teller.turn(self.now) {
            self.core.watch(watch);
        }
        self.awaits_sends = self.core.end_turn(pool.free() < self.low, pool) | self.secure.take_awaits();
    }

    fn desk(&self) -> &Desk {
        &self.desks[usize::from(self.core.number())]
    }

    /// Answers a question to this core, if there is one.
    fn answer(&self) {
        if self.desk().is_waiting() {
            let pool = self.reactor.pool();
            let buffers = (pool.capacity(), pool.free());
            let (told, tls) = (self.teller.told(), self.secure.figures());
            let view = View { core: &self.core, turns: &self.turns, told, buffers, tls };
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

/// How full a pool is.
pub(super) trait PoolSize {
    /// Buffers in all.
    fn capacity(&self) -> usize;
    /// Buffers nobody leases.
    fn free(&self) -> usize;
}

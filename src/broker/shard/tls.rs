//! The TLS connections of one shard: between its reactor and its core, which know nothing of them.
//!
//! ```text
//!   reactor ── Received ──► Session ── bytes of records ──► core
//!           ◄── send ────── Session ◄── batch ───────────── core
//!           ─── Sent ─────► what has left of the batch ───► core
//! ```
//!
//! Such a connection goes by a key of the table here, with its top bit set, towards the reactor (`user`) and the core
//! (`handle`) alike: that bit is all that tells it from a plain one, which is what a plain one's request pays.
//!
//! A batch of the core is encrypted at once and given apart: its leases and buffers serve again, for what leaves is a
//! copy. What stays is its shell, which goes back to the core when the kernel has taken the ciphertext.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use super::{PoolSize, Shard};
use crate::base::{Batch, Key, Leases, Piece, Table, Time};
use crate::broker::core::{Core, Moved};
use crate::broker::mesh::Item;
use crate::broker::tell::Teller;
use crate::reactor::{Reactor, Receive, Sock};
use crate::tls::{Acceptor, Bench, News, Session};

/// Set in `user` and `handle` of TLS connections; keys leave this bit free.
pub(super) const TLS: u64 = 1 << 63;
/// Steps of handshakes in one turn, each some 100 us, with RSA keys a millisecond: who is connected already does not
/// wait behind a crowd that comes back.
const HANDSHAKES: usize = 8;

/// What became of the handshakes and sessions of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsFigures {
    /// Handshakes that succeeded.
    pub opened: u64,
    /// Of them, those that went on with an earlier session.
    pub resumed: u64,
    /// Handshakes that failed: bad or no certificate, no TLS at all, given up, timed out.
    pub failed: u64,
    /// Open sessions that failed: a record was not genuine.
    pub broken: u64,
    /// Open sessions whose connection ended without the peer having said so (close_notify).
    pub truncated: u64,
}

/// One shard's TLS connections.
pub(super) struct Secure {
    acceptor: Option<Acceptor>,
    /// Listeners that are TLS, by their tag.
    listeners: Vec<bool>,
    entries: Table<Entry>,
    /// Those that may have something to send.
    dirty: Vec<Key>,
    /// Those whose handshake has something to go on with, in turn.
    shaking: VecDeque<Key>,
    /// The end of a send is waited for, with more to send behind it.
    awaits: bool,
    bench: Bench,
    /// Bytes for the core that takes them in one piece.
    plain: Vec<u8>,
    figures: TlsFigures,
}

/// One connection.
struct Entry {
    session: Box<Session>,
    conn: Key,
    sock: Sock,
    /// The core asks for each receive (before HELLO is whole): it gets all there is at once, for with its answer the
    /// connection may move.
    once: bool,
    /// The shell of the core's batch that is out.
    batch: Option<Batch>,
    /// It is with the core, until the socket takes bytes again.
    lent: bool,
    /// Bytes of it that have left meanwhile.
    left: usize,
    /// The sending side is to be closed behind what waits.
    shut: bool,
    /// Stands in `dirty`.
    queued: bool,
    /// Stands in `shaking`.
    waiting: bool,
    failed: bool,
    /// To another core, when the reactor has let go of what is being sent.
    leaving: Option<(u16, Moved)>,
}

impl Secure {
    pub(super) fn new(acceptor: Option<Acceptor>, listeners: Vec<bool>) -> Secure {
        Secure {
            acceptor,
            listeners,
            entries: Table::new(),
            dirty: Vec::new(),
            shaking: VecDeque::new(),
            awaits: false,
            bench: Bench::default(),
            plain: Vec::new(),
            figures: TlsFigures::default(),
        }
    }

    pub(super) fn figures(&self) -> TlsFigures {
        self.figures
    }

    /// Whether handshakes wait for their turn.
    pub(super) fn is_busy(&self) -> bool {
        !self.shaking.is_empty()
    }

    /// Whether the end of a send must not be slept over.
    pub(super) fn take_awaits(&mut self) -> bool {
        std::mem::take(&mut self.awaits)
    }

    /// Gives a connection of either kind to the reactor; says its handle.
    pub(super) fn take_in(
        &mut self,
        reactor: &mut impl Reactor,
        fd: OwnedFd,
        conn: Key,
        tls: Option<Box<Session>>,
    ) -> u64 {
        let Some(session) = tls else { return reactor.add(fd, conn.pack()).0 };
        let entry = Entry {
            session,
            conn,
            sock: Sock(u64::MAX),
            once: false,
            batch: None,
            lent: false,
            left: 0,
            shut: false,
            queued: false,
            waiting: false,
            failed: false,
            leaving: None,
        };
        let key = self.entries.insert(entry);
        let handle = key.pack() | TLS;
        self.entries.get_mut(key).expect("just inserted").sock = reactor.add(fd, handle);
        self.touch(key);
        handle
    }

    fn get(&mut self, handle: u64) -> Option<&mut Entry> {
        self.entries.get_mut(Key::unpack(handle & !TLS))
    }

    /// The connection may have something to send at the end of the turn.
    fn touch(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(key)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.dirty.push(key);
        }
    }

    /// Gives a session its ciphertext, and the core what is in it. Says whether the core has to be told that the
    /// connection is lost, or else the socket to receive on, where the core waits for more and has had nothing.
    fn feed<L: Leases>(
        &mut self,
        core: &mut Core,
        teller: &mut Teller,
        now: Time,
        key: Key,
        bytes: &[u8],
        leases: &L,
    ) -> Fed {
        let Secure { entries, bench, plain, figures, .. } = self;
        let Some(entry) = entries.get_mut(key) else { return Fed::Taken };
        let (conn, once, was_open) = (entry.conn, entry.once, entry.session.is_open());
        let mut closed = false;
        plain.clear();
        let result = entry.session.receive(bytes, bench, |news| match news {
            News::Open { identity, resumed } => {
                figures.opened += 1;
                figures.resumed += u64::from(resumed);
                if let Some(identity) = identity {
                    core.identified(conn, identity);
                }
            }
            News::Bytes(bytes) if once => plain.extend_from_slice(bytes),
            News::Bytes(bytes) => core.received_bytes(now, conn, bytes, leases),
            News::Closed => closed = true,
        });
        let sock = entry.sock;
        if let Err(fault) = &result {
            entry.failed = true;
            *(if was_open { &mut figures.broken } else { &mut figures.failed }) += 1;
            teller.tls_fault(core.peer(conn), was_open, fault, now);
        }
        self.touch(key);
        if result.is_err() || closed {
            return Fed::Lost(conn);
        }
        if !once {
            return Fed::Taken;
        }
        if self.plain.is_empty() {
            return Fed::Nothing(sock);
        }
        core.received_bytes(now, conn, &self.plain, leases);
        Fed::Taken
    }
}

enum Fed {
    Taken,
    Nothing(Sock),
    Lost(Key),
}

impl<R: Reactor> Shard<R>
where
    R::Pool: PoolSize,
{
    /// A session for what was accepted on this listener, if it is one of TLS.
    pub(super) fn tls_session(&self, listener: u32) -> Option<Box<Session>> {
        let is_tls = self.secure.listeners.get(listener as usize).copied().unwrap_or(false);
        let acceptor = self.secure.acceptor.as_ref().filter(|_| is_tls)?;
        Some(Box::new(Session::new(acceptor.config()).expect("a configuration that was checked at its loading")))
    }

    pub(super) fn tls_received(&mut self, user: u64, piece: Piece) {
        let key = Key::unpack(user & !TLS);
        let Some(entry) = self.secure.entries.get_mut(key) else { return };
        let pool = self.reactor.pool();
        let bytes = pool.bytes(piece);
        if entry.session.is_open() {
            let fed = self.secure.feed(&mut self.core, &mut self.teller, self.now, key, bytes, pool);
            return self.fed(fed);
        }
        let held = entry.session.hold(bytes);
        if !std::mem::replace(&mut entry.waiting, true) {
            self.secure.shaking.push_back(key);
        }
        if let Err(fault) = held {
            let entry = self.secure.entries.get_mut(key).expect("looked up above");
            entry.failed = true;
            let conn = entry.conn;
            self.secure.figures.failed += 1;
            self.teller.tls_fault(self.core.peer(conn), false, &fault, self.now);
            self.core.lost(self.now, conn);
        }
    }

    /// Goes on with some of the handshakes that can.
    pub(super) fn tls_handshakes(&mut self) {
        for _ in 0..HANDSHAKES {
            let Some(key) = self.secure.shaking.pop_front() else { return };
            let Some(entry) = self.secure.entries.get_mut(key) else { continue };
            entry.waiting = false;
            if !entry.failed && entry.leaving.is_none() {
                let fed = self.secure.feed(&mut self.core, &mut self.teller, self.now, key, &[], self.reactor.pool());
                self.fed(fed);
                self.act();
            }
        }
    }

    fn fed(&mut self, fed: Fed) {
        match fed {
            Fed::Taken => {}
            Fed::Nothing(sock) => self.reactor.receive(sock, Receive::Once),
            Fed::Lost(conn) => self.core.lost(self.now, conn),
        }
    }

    pub(super) fn tls_sent(&mut self, user: u64, batch: Batch, error: Option<io::Error>) {
        let key = Key::unpack(user & !TLS);
        let Secure { entries, bench, .. } = &mut self.secure;
        // one that is closed: nobody waits for it
        let Some(entry) = entries.get_mut(key) else { return };
        let conn = entry.conn;
        entry.left += entry.session.returned(batch, bench);
        let blocked = entry.session.is_blocked();
        let back = match entry.batch.take() {
            Some(mut batch) => {
                batch.sent += std::mem::take(&mut entry.left);
                if batch.remaining() == 0 || blocked || error.is_some() {
                    entry.lent = batch.remaining() > 0;
                    Some(batch)
                } else {
                    entry.batch = Some(batch);
                    None
                }
            }
            None => None,
        };
        let leaving = entry.leaving.take();
        match back {
            Some(batch) => self.core.sent(self.now, conn, batch, error.is_some()),
            None if error.is_some() && leaving.is_none() => self.core.lost(self.now, conn),
            None if blocked => self.reactor.notify_writable(entry.sock),
            None => {}
        }
        self.secure.touch(key);
        if let Some((core, moved)) = leaving {
            self.tls_leave(key, core, moved);
        }
    }

    pub(super) fn tls_writable(&mut self, user: u64) {
        let Some(entry) = self.secure.get(user) else { return };
        entry.session.unblock();
        let conn = entry.conn;
        self.secure.touch(Key::unpack(user & !TLS));
        self.core.writable(self.now, conn);
    }

    pub(super) fn tls_ended(&mut self, user: u64) {
        let Some(entry) = self.secure.get(user) else { return };
        let (conn, truncated) = (entry.conn, entry.session.is_cut_short());
        self.secure.figures.truncated += u64::from(truncated);
        self.core.lost(self.now, conn);
    }

    pub(super) fn tls_receive(&mut self, handle: u64, how: Receive) {
        let Some(entry) = self.secure.get(handle) else { return };
        entry.once = how == Receive::Once;
        self.reactor.receive(entry.sock, how);
    }

    pub(super) fn tls_notify_writable(&mut self, handle: u64) {
        if let Some(entry) = self.secure.get(handle) {
            self.reactor.notify_writable(entry.sock);
        }
    }

    pub(super) fn tls_shutdown_write(&mut self, handle: u64) {
        let Some(entry) = self.secure.get(handle) else { return };
        entry.session.close_notify();
        entry.shut = true;
        self.secure.touch(Key::unpack(handle & !TLS));
    }

    pub(super) fn tls_close(&mut self, handle: u64, abort: bool) {
        let Some(mut entry) = self.secure.entries.remove(Key::unpack(handle & !TLS)) else { return };
        if !entry.session.is_open() && !entry.failed {
            self.secure.figures.failed += 1;
            self.teller.tls_given_up(self.now);
        }
        if !abort {
            entry.session.close_notify();
            // closing is behind it
            if let Some(batch) = entry.session.next_batch(&mut self.secure.bench) {
                self.reactor.send(entry.sock, batch);
            }
        }
        self.reactor.close(entry.sock, abort);
    }

    pub(super) fn tls_move_out(&mut self, handle: u64, core: u16, moved: Moved) {
        let key = Key::unpack(handle & !TLS);
        let Some(entry) = self.secure.entries.get_mut(key) else { return };
        if entry.session.is_sending() {
            entry.leaving = Some((core, moved));
            self.secure.awaits = true;
            return;
        }
        self.tls_leave(key, core, moved);
    }

    fn tls_leave(&mut self, key: Key, core: u16, moved: Moved) {
        let Some(mut entry) = self.secure.entries.remove(key) else { return };
        let counted = self.counted.remove(&(key.pack() | TLS)).expect("every connection that may move is counted");
        match self.reactor.detach(entry.sock) {
            Some(fd) => {
                // nothing tells the next core when there is room: it tries
                entry.session.unblock();
                self.mesh.send(core, Item::Conn { fd, counted, moved, tls: Some(entry.session) });
            }
            None => {
                self.teller.not_moved(core, self.now);
                self.admission.leave(counted);
                self.reactor.close(entry.sock, true);
            }
        }
    }

    /// A batch of the core is encrypted, or goes on where the socket was full.
    pub(super) fn tls_output(&mut self, handle: u64, mut batch: Batch) {
        let key = Key::unpack(handle & !TLS);
        let Secure { entries, bench, .. } = &mut self.secure;
        let Some(entry) = entries.get_mut(key) else { return self.core.recycle(batch) };
        let conn = entry.conn;
        if std::mem::take(&mut entry.lent) {
            batch.sent += std::mem::take(&mut entry.left);
            if batch.remaining() == 0 {
                return self.core.sent(self.now, conn, batch, false);
            }
            entry.batch = Some(batch);
            return self.secure.touch(key);
        }
        if !entry.session.is_open() {
            // it is refused, or out of time: before the handshake is over there is no way to say so but to close
            batch.sent = batch.total;
            return self.core.sent(self.now, conn, batch, false);
        }
        if let Err(fault) = entry.session.seal(&batch, self.reactor.pool(), bench) {
            self.teller.tls_fault(self.core.peer(conn), true, &fault, self.now);
            return self.core.sent(self.now, conn, batch, true);
        }
        let (control, total, sent) = (std::mem::take(&mut batch.control), batch.total, batch.sent);
        entry.batch = Some(Batch { control, staged: Vec::new(), segments: Vec::new(), total, sent });
        self.core.recycle(batch);
        self.secure.touch(key);
    }

    /// Sends what the sessions have to send.
    pub(super) fn tls_flush(&mut self) {
        let Secure { entries, bench, dirty, awaits, .. } = &mut self.secure;
        for key in dirty.drain(..) {
            let Some(entry) = entries.get_mut(key) else { continue };
            entry.queued = false;
            if entry.leaving.is_some() {
                continue;
            }
            let was_sending = entry.session.is_sending();
            match entry.session.next_batch(bench) {
                Some(batch) => self.reactor.send(entry.sock, batch),
                None if entry.shut && !entry.session.has_output() => {
                    entry.shut = false;
                    self.reactor.shutdown_write(entry.sock);
                }
                None => {}
            }
            *awaits |= (was_sending && entry.session.has_more()) || entry.shut;
        }
    }
}

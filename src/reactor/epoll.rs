//! Epoll (temporary).
use super::*;
use std::collections::VecDeque;

use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::io::Errno;
use slab::Slab;
#[derive(Debug)]
struct S {
    fd: OwnedFd,
    user: u64,
    read: bool,
    once: bool,
    write: bool,
    genr: u32,
    dead: bool,
}
/// E.
#[derive(Debug)]
pub struct Epoll {
    ep: OwnedFd,
    waker: Waker,
    pool: Pool,
    socks: Slab<S>,
    listeners: Vec<(OwnedFd, u32)>,
    events: VecDeque<Event>,
    genr: u32,
    stopped: bool,
}
const L: u64 = 1 << 63;
const W: u64 = 1 << 62;
#[allow(missing_docs)]
impl Epoll {
    pub fn new(o: &Options) -> io::Result<Epoll> {
        let ep = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| io::Error::from(e))?;
        let w = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|e| io::Error::from(e))?;
        epoll::add(&ep, &w, epoll::EventData::new_u64(W), epoll::EventFlags::IN).map_err(|e| io::Error::from(e))?;
        Ok(Epoll {
            ep,
            waker: Waker { fd: std::sync::Arc::new(w) },
            pool: Pool::new(o.buffers as usize, o.buffer_size as usize),
            socks: Slab::new(),
            listeners: vec![],
            events: VecDeque::new(),
            genr: 0,
            stopped: false,
        })
    }
    fn get(&mut self, s: Sock) -> Option<&mut S> {
        self.socks.get_mut((s.0 & 0xffff_ffff) as usize).filter(|x| x.genr == (s.0 >> 32) as u32)
    }
    fn arm(&mut self, idx: usize) {
        let s = &self.socks[idx];
        let mut f = epoll::EventFlags::empty();
        if s.read {
            f |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP
        }
        if s.write {
            f |= epoll::EventFlags::OUT
        }
        let _ = epoll::modify(&self.ep, &s.fd, epoll::EventData::new_u64(u64::from(s.genr) << 32 | idx as u64), f);
    }
}
impl Reactor for Epoll {
    type Pool = Pool;
    fn pool(&self) -> &Pool {
        &self.pool
    }
    fn listen(&mut self, fd: OwnedFd, tag: u32) -> io::Result<()> {
        epoll::add(&self.ep, &fd, epoll::EventData::new_u64(L | self.listeners.len() as u64), epoll::EventFlags::IN)?;
        self.listeners.push((fd, tag));
        Ok(())
    }
    fn stop_listening(&mut self) {
        self.listeners.clear();
        self.stopped = true
    }
    fn add(&mut self, fd: OwnedFd, user: u64) -> Sock {
        self.genr += 1;
        let genr = self.genr & 0x3fff_ffff;
        let idx = self.socks.insert(S { fd, user, read: false, once: false, write: false, genr, dead: false });
        let s = &self.socks[idx];
        let _ = epoll::add(
            &self.ep,
            &s.fd,
            epoll::EventData::new_u64(u64::from(genr) << 32 | idx as u64),
            epoll::EventFlags::empty(),
        );
        Sock(u64::from(genr) << 32 | idx as u64)
    }
    fn receive(&mut self, sock: Sock, how: Receive) {
        if let Some(s) = self.get(sock) {
            s.read = true;
            s.once = how == Receive::Once;
            self.arm((sock.0 & 0xffff_ffff) as usize)
        }
    }
    fn send(&mut self, sock: Sock, mut batch: Batch) {
        let Some(s) = self.socks.get((sock.0 & 0xffff_ffff) as usize) else { return };
        let mut error = None;
        while batch.remaining() > 0 {
            let mut v: Vec<io::IoSlice<'_>> = Vec::new();
            batch.for_each_unsent(&self.pool, |b| v.push(io::IoSlice::new(b)));
            match rustix::net::sendmsg(
                &s.fd,
                &v,
                &mut Default::default(),
                rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT,
            ) {
                Ok(n) => {
                    drop(v);
                    batch.sent += n
                }
                Err(Errno::AGAIN) => break,
                Err(e) => {
                    error = Some(e.into());
                    break;
                }
            }
        }
        self.events.push_back(Event::Sent { user: s.user, batch, error });
    }
    fn notify_writable(&mut self, sock: Sock) {
        if let Some(s) = self.get(sock) {
            s.write = true;
            self.arm((sock.0 & 0xffff_ffff) as usize)
        }
    }
    fn shutdown_write(&mut self, sock: Sock) {
        if let Some(s) = self.get(sock) {
            let _ = rustix::net::shutdown(&s.fd, rustix::net::Shutdown::Write);
        }
    }
    fn close(&mut self, sock: Sock, _abort: bool) {
        if self.get(sock).is_some() {
            let s = self.socks.remove((sock.0 & 0xffff_ffff) as usize);
            let mut keep = VecDeque::new();
            while let Some(e) = self.events.pop_front() {
                match e {
                    Event::Received { user, piece } if user == s.user => self.pool.release(piece),
                    Event::ReceiveEnded { user, .. } if user == s.user => {}
                    e => keep.push_back(e),
                }
            }
            self.events = keep;
            self.events.push_back(Event::Closed { user: s.user });
        }
    }
    fn detach(&mut self, sock: Sock) -> Option<OwnedFd> {
        self.get(sock)?;
        let s = self.socks.remove((sock.0 & 0xffff_ffff) as usize);
        let _ = epoll::delete(&self.ep, &s.fd);
        Some(s.fd)
    }
    fn wake(&mut self, o: &Waker) {
        o.wake()
    }
    fn waker(&self) -> Waker {
        self.waker.clone()
    }
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.events.is_empty() { timeout } else { Some(Duration::ZERO) };
        let mut buf = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 256];
        let ts = timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) });
        let n = match epoll::wait(&self.ep, &mut buf[..], ts.as_ref()) {
            Ok(n) => n,
            Err(Errno::INTR) => 0,
            Err(e) => return Err(e.into()),
        };
        for e in &buf[..n] {
            let d = e.data.u64();
            if d == W {
                let mut b = [0; 8];
                let _ = rustix::io::read(&self.waker.fd(), &mut b);
                continue;
            }
            if d & L != 0 {
                let Some((fd, tag)) = self.listeners.get((d & !L) as usize) else { continue };
                for _ in 0..64 {
                    match rustix::net::accept_with(
                        fd,
                        rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
                    ) {
                        Ok(c) => self.events.push_back(Event::Accepted { listener: *tag, fd: c }),
                        Err(_) => break,
                    }
                }
                continue;
            }
            let idx = (d & 0xffff_ffff) as usize;
            let Some(s) = self.socks.get_mut(idx) else { continue };
            if s.genr != (d >> 32) as u32 {
                continue;
            }
            let flags = e.flags;
            if s.write && flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::ERR | epoll::EventFlags::HUP) {
                s.write = false;
                let u = s.user;
                self.arm(idx);
                self.events.push_back(Event::Writable { user: u })
            }
            let s = &mut self.socks[idx];
            if s.read
                && flags.intersects(
                    epoll::EventFlags::IN | epoll::EventFlags::ERR | epoll::EventFlags::HUP | epoll::EventFlags::RDHUP,
                )
            {
                let Some(b) = self.pool.free.borrow_mut().pop() else { continue };
                match rustix::io::read(&s.fd, &mut self.pool.mem[b as usize][..]) {
                    Ok(n) if n > 0 => {
                        if s.once {
                            s.read = false;
                        }
                        let user = s.user;
                        let once = s.once;
                        let piece = self.pool.lease(b, n as u32);
                        if once {
                            self.arm(idx)
                        }
                        self.events.push_back(Event::Received { user, piece })
                    }
                    r => {
                        self.pool.free.borrow_mut().push(b);
                        match r {
                            Err(Errno::AGAIN) => {}
                            r => {
                                s.read = false;
                                let user = s.user;
                                self.arm(idx);
                                self.events.push_back(Event::ReceiveEnded { user, error: r.err().map(Into::into) })
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

use std::cell::{Cell, RefCell};

/// Pool.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Pool {
    pub(crate) mem: Vec<Box<[u8]>>,
    counts: Vec<Cell<u32>>,
    gens: Vec<Cell<u32>>,
    pub(crate) free: RefCell<Vec<u32>>,
}
#[allow(missing_docs)]
impl Pool {
    pub fn new(n: usize, size: usize) -> Pool {
        Pool {
            mem: (0..n).map(|_| vec![1u8; size].into_boxed_slice()).collect(),
            counts: vec![Cell::new(0); n],
            gens: vec![Cell::new(0); n],
            free: RefCell::new((0..n as u32).collect()),
        }
    }
    pub fn capacity(&self) -> usize {
        self.mem.len()
    }
    pub fn free(&self) -> usize {
        self.free.borrow().len()
    }
    pub(crate) fn lease(&mut self, buffer: u32, len: u32) -> Piece {
        let b = buffer as usize;
        self.counts[b].set(1);
        self.gens[b].set(self.gens[b].get() + 1);
        Piece { buffer, generation: self.gens[b].get(), offset: 0, len }
    }
}
impl Leases for Pool {
    fn bytes(&self, p: Piece) -> &[u8] {
        assert!(self.counts[p.buffer as usize].get() > 0 && self.gens[p.buffer as usize].get() == p.generation);
        &self.mem[p.buffer as usize][p.offset as usize..][..p.len as usize]
    }
    fn retain(&self, p: Piece) {
        let c = &self.counts[p.buffer as usize];
        assert!(c.get() > 0);
        c.set(c.get() + 1)
    }
    fn release(&self, p: Piece) {
        let c = &self.counts[p.buffer as usize];
        assert!(c.get() > 0);
        c.set(c.get() - 1);
        if c.get() == 0 {
            self.free.borrow_mut().push(p.buffer)
        }
    }
}

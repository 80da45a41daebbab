//! One load thread.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::conns::{ConsumerConn, ProviderConn, Slot, line, mark};
use super::{Conns, Driver, Mode, Orders, Recorder};
use crate::pump::{Completion, Net, Piece};
use crate::schedule::Schedule;
use crate::wire::{Broken, Consumer, Done, Outcome, Provider};

/// A send may become this late, in nanoseconds, before a turn is interrupted for it: what one turn received can be a
/// millisecond's work, and entering the kernel for each send that falls due meanwhile would halve the rate.
const OVERDUE: u64 = 20_000;
/// How often a thread that is done looks whether the others are, in nanoseconds.
const LOOK: u64 = 2_000_000;

/// One load thread's state. Made and run on that thread.
#[derive(Debug)]
pub struct Worker<C, P> {
    net: Net,
    orders: Orders,
    consumers: Vec<ConsumerConn<C>>,
    providers: Vec<ProviderConn<P>>,
    recorder: Recorder,
    random: fastrand::Rng,
    schedule: Option<Schedule>,
    dirty: Vec<u32>,
    done: Done,
    in_flight: u64,
    places: u64,
    /// The consumer whose turn it is.
    turn: usize,
    /// Until when there was no place for a request that was due.
    held_until: u64,
    begun: u64,
    sending: bool,
    left: bool,
    /// The time, as it was last read with a completion.
    clock: u64,
    complaints: Vec<String>,
}

impl<C: Consumer, P: Provider> Worker<C, P> {
    /// A thread's state, from its connections.
    ///
    /// # Errors
    /// If io_uring can't be had.
    pub fn new(conns: Conns<C, P>, orders: Orders, recorder: Recorder) -> io::Result<Worker<C, P>> {
        let (sockets, consumers, providers) = conns.into_parts();
        let schedule = match orders.mode {
            Mode::Open { rate, arrivals } => {
                Some(Schedule::new(rate, arrivals, orders.thread, orders.threads, orders.seed))
            }
            Mode::Closed => None,
        };
        let (places, lines) = (consumers.iter().map(|c| c.free.len() as u64).sum(), sockets.len());
        Ok(Worker {
            net: Net::new(sockets)?,
            random: fastrand::Rng::with_seed(orders.seed ^ 0x10ad ^ (orders.thread as u64) << 48),
            orders,
            consumers,
            providers,
            recorder,
            schedule,
            dirty: Vec::with_capacity(lines),
            done: Done::with_capacity(4096),
            in_flight: 0,
            places,
            turn: 0,
            held_until: 0,
            begun: 0,
            sending: true,
            left: false,
            clock: 0,
            complaints: Vec::new(),
        })
    }

    fn turns(&mut self) -> io::Result<()> {
        if self.schedule.is_none() {
            self.fill();
        }
        let mut give_up = u64::MAX;
        loop {
            let now = self.now();
            self.recorder.tick(now);
            if self.sending && self.is_over(now) {
                // what was due before the end is sent, late or not: leaving it out would flatter
                self.send_due(now);
                self.end_sending(now);
                give_up = now + self.orders.patience;
            }
            if !self.sending && (self.in_flight == 0 || now >= give_up) && self.leave() {
                return Ok(());
            }
            let until = match (self.sending, self.left) {
                (true, _) => self.send_due(now).min(self.orders.end),
                (false, false) => give_up,
                (false, true) => now + LOOK,
            };
            self.flush()?;
            self.wait(until.min(self.recorder.next()))?;
            while let Some(completion) = self.net.next_completion()? {
                self.complete(completion);
                self.keep_schedule()?;
            }
        }
    }

    /// Open loop: what fell due while a long turn's completions were worked off goes out before the rest of them.
    #[inline]
    fn keep_schedule(&mut self) -> io::Result<()> {
        let next = self.schedule.as_ref().map_or(u64::MAX, Schedule::next);
        if self.clock < next.saturating_add(OVERDUE) || self.clock >= self.orders.end || !self.sending {
            return Ok(());
        }
        let now = self.now();
        self.recorder.tick(now);
        self.send_due(now);
        self.flush()?;
        self.net.submit()?;
        // until the clock is read again there is nothing new to find
        self.clock = 0;
        Ok(())
    }

    /// This thread's requests are done. Whether all threads' are: until then its providers serve the others.
    fn leave(&mut self) -> bool {
        self.orders.leave(&mut self.left)
    }

    #[inline]
    fn now(&self) -> u64 {
        self.orders.epoch.elapsed().as_nanos() as u64
    }

    fn is_over(&self, now: u64) -> bool {
        now >= self.orders.end
            || self.orders.requests.is_some_and(|requests| self.begun >= requests && self.in_flight == 0)
            || self.orders.stop.load(Ordering::Relaxed)
            || self.all_ended()
    }

    fn all_ended(&self) -> bool {
        self.places == 0
    }

    fn end_sending(&mut self, now: u64) {
        self.sending = false;
        if let Some(schedule) = &self.schedule {
            let stopped = self.orders.requests.is_some() || self.orders.stop.load(Ordering::Relaxed);
            let end = if stopped { now } else { self.orders.end };
            self.recorder.counts().unsent += schedule.left_before(end);
        }
        self.recorder.end_at(now);
    }

    /// Whether one more may be begun.
    #[inline]
    fn may_begin(&self) -> bool {
        self.sending && self.orders.requests.is_none_or(|requests| self.begun < requests)
    }

    /// Closed loop: begins as many as there are places.
    fn fill(&mut self) {
        let now = self.now();
        for conn in 0..self.consumers.len() {
            while self.may_begin() {
                let Some(slot) = self.consumers[conn].free.pop() else { break };
                self.begin(conn, slot, now, now);
            }
        }
    }

    /// Open loop: begins what is due, on the consumers in turn. Returns when the next is due, or when to look again.
    fn send_due(&mut self, now: u64) -> u64 {
        loop {
            let Some(schedule) = &self.schedule else { return u64::MAX };
            let intended = schedule.next();
            if !self.may_begin() {
                return u64::MAX;
            }
            if intended > now || intended >= self.orders.end {
                return intended;
            }
            let Some((conn, slot)) = self.place() else {
                self.held_until = now;
                return u64::MAX;
            };
            self.begin(conn, slot, intended, now);
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
        }
    }

    /// A free place, on the next consumer that has one.
    fn place(&mut self) -> Option<(usize, u32)> {
        if self.in_flight >= self.places {
            return None;
        }
        for _ in 0..self.consumers.len() {
            let conn = self.turn;
            self.turn = if conn + 1 == self.consumers.len() { 0 } else { conn + 1 };
            let consumer = &mut self.consumers[conn];
            if let Some(slot) = consumer.free.pop() {
                return Some((conn, slot));
            }
        }
        None
    }

    #[inline]
    fn begin(&mut self, conn: usize, slot: u32, intended: u64, now: u64) {
        let size = self.orders.size.draw(&mut self.random);
        let consumer = &mut self.consumers[conn];
        consumer.slots[slot as usize] = Slot { intended, sent: now, size, busy: true };
        consumer.wire.request(slot, size, &mut consumer.line.out);
        mark(&mut consumer.line, conn as u32, &mut self.dirty);
        self.in_flight += 1;
        self.begun += u64::from(intended >= self.orders.warm);
        self.recorder.sent(intended, now, intended <= self.held_until);
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            let line = line(&mut self.consumers, &mut self.providers, conn);
            line.dirty = false;
            if !line.out.is_empty() && !self.net.is_sending(conn) {
                self.net.send(conn, &mut line.out)?;
            }
        }
        self.dirty = dirty;
        Ok(())
    }

    fn wait(&mut self, until: u64) -> io::Result<()> {
        let mut now = self.now();
        if self.orders.spin > 0 {
            let (began, stop) = (now, until.min(now.saturating_add(self.orders.spin)));
            while now < stop {
                self.net.wait(Some(Duration::ZERO))?;
                if self.net.has_completions() {
                    break;
                }
                now = self.now();
            }
            self.recorder.counts().spun += now - began;
            if self.net.has_completions() || now >= until {
                return Ok(());
            }
        }
        // without a deadline, the stop flag is looked at ten times a second
        let timeout = Duration::from_nanos(until.saturating_sub(now)).min(Duration::from_millis(100));
        self.net.wait(Some(timeout))
    }

    #[inline]
    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received { conn, piece } => {
                let result = match (conn as usize).checked_sub(self.consumers.len()) {
                    None => self.consumer_received(conn as usize, piece),
                    Some(provider) => self.provider_received(provider, conn, piece),
                };
                if let Err(broken) = result {
                    self.net.shutdown(conn);
                    self.ended(conn, broken.0);
                }
            }
            Completion::Sent { conn } => self.drained(conn),
            Completion::Ended { conn, error } => {
                let why = error.map_or_else(|| "closed by the other side".to_owned(), |error| error.to_string());
                self.ended(conn, why);
            }
        }
    }

    #[inline]
    fn consumer_received(&mut self, conn: usize, piece: Piece) -> Result<(), Broken> {
        let consumer = &mut self.consumers[conn];
        let received = consumer.wire.receive(self.net.bytes(piece), &mut consumer.line.out, &mut self.done);
        self.net.release(piece);
        mark(&mut consumer.line, conn as u32, &mut self.dirty);
        let now = self.orders.epoch.elapsed().as_nanos() as u64;
        self.clock = now;
        let mut done = std::mem::take(&mut self.done);
        for (slot, outcome) in done.drain(..) {
            self.request_ended(conn, slot, outcome, now);
        }
        self.done = done;
        received
    }

    #[inline]
    fn request_ended(&mut self, conn: usize, slot: u32, outcome: Outcome, now: u64) {
        let Slot { intended, sent, size, .. } = self.consumers[conn].slots[slot as usize];
        self.in_flight -= 1;
        self.recorder.ended(intended, sent, size, outcome, now);
        if self.schedule.is_none() && self.may_begin() {
            self.begin(conn, slot, now, now);
        } else {
            self.consumers[conn].slots[slot as usize].busy = false;
            self.consumers[conn].free.push(slot);
        }
    }

    #[inline]
    fn provider_received(&mut self, provider: usize, conn: u32, piece: Piece) -> Result<(), Broken> {
        let provider = &mut self.providers[provider];
        let received = provider.wire.receive(self.net.bytes(piece), &mut provider.line.out);
        self.net.release(piece);
        mark(&mut provider.line, conn, &mut self.dirty);
        if self.schedule.is_some() {
            self.clock = self.now();
        }
        received.map(|_| ())
    }

    /// A connection's send is done: streamed bodies go on.
    #[inline]
    fn drained(&mut self, conn: u32) {
        match (conn as usize).checked_sub(self.consumers.len()) {
            None => {
                let consumer = &mut self.consumers[conn as usize];
                consumer.wire.resume(&mut consumer.line.out);
            }
            Some(provider) => {
                let provider = &mut self.providers[provider];
                provider.wire.resume(&mut provider.line.out);
            }
        }
        let line = line(&mut self.consumers, &mut self.providers, conn);
        if !line.out.is_empty() {
            mark(line, conn, &mut self.dirty);
        }
    }

    #[cold]
    fn ended(&mut self, conn: u32, why: String) {
        let line = line(&mut self.consumers, &mut self.providers, conn);
        if std::mem::replace(&mut line.ended, true) {
            return;
        }
        line.out.clear();
        let is_consumer = (conn as usize) < self.consumers.len();
        if self.complaints.len() < 3 {
            let who = if is_consumer { "consumer" } else { "provider" };
            self.complaints.push(format!("a {who}'s connection ended: {why}"));
        }
        if is_consumer {
            let consumer = &mut self.consumers[conn as usize];
            let cut = consumer.slots.iter_mut().filter_map(|slot| std::mem::take(&mut slot.busy).then_some(())).count();
            self.places -= consumer.slots.len() as u64;
            consumer.free.clear();
            self.in_flight -= cut as u64;
            self.recorder.counts().cut += cut as u64;
        }
    }
}

impl<C: Consumer, P: Provider> Driver for Worker<C, P> {
    fn run(&mut self, epoch: Instant) -> io::Result<()> {
        self.orders.epoch = epoch;
        let result = self.turns();
        self.leave();
        self.recorder.counts().lost += self.in_flight;
        let now = self.now();
        self.recorder.finish(now);
        result
    }

    fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }
}

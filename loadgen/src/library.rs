//! The load through corelay's own client library (`--client tokio`): what a user's program could do at best.
//!
//! Each load thread is a runtime of its own; its consumers' requests and its providers' handlers are tasks on it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelay::base::ChannelId;
use corelay::client::{Body, Consumer, Error, ErrorKind, Options, Provider, Tls};
use corelay::protocol::Code;
use quanta::Clock;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;

use crate::dial::Frames;
use crate::engine::{Driver, Mode, Orders, Recorder};
use crate::measure::Measured;
use crate::pump::FILLER;
use crate::run::{Live, Make, Plan, RunError, execute_on};
use crate::schedule::Schedule;
use crate::size::Size;
use crate::wire::Outcome;

/// Handlers of a provider that wait for requests at a time.
const HANDLERS: u32 = 64;
/// Tasks that are run before the sockets are looked at again. With tokio's 61, a burst of answers is cut into looks that
/// find little; what is waited for comes all the same when nothing is left to run.
const EVENT_INTERVAL: u32 = 512;
/// tokio's timers count in milliseconds: what is due sooner is waited for by yielding.
const TIMER: Duration = Duration::from_millis(2);

/// Runs `plan` through the client library; what `frames` says of channels, window and token holds.
///
/// # Errors
/// [`RunError`].
pub fn execute(plan: &Plan, frames: &Frames, live: &mut Live, stop: &Arc<AtomicBool>) -> Result<Measured, RunError> {
    let threads = plan.threads.max(1);
    let make = |thread: usize| -> Make {
        let (plan, frames) = (plan.clone(), frames.clone());
        Box::new(move |orders, recorder| Ok(Box::new(Library::new(&plan, &frames, thread, orders, recorder)?)))
    };
    execute_on(plan, (0..threads).map(make).collect(), live, stop)
}

/// One load thread.
struct Library {
    runtime: LocalRuntime,
    consumers: Vec<Consumer>,
    providers: Vec<Provider>,
    slots: u32,
    shared: Rc<Shared>,
}

/// What its tasks share.
struct Shared {
    orders: Orders,
    /// When the run began, by this clock.
    epoch: Cell<u64>,
    /// The processor's time stamp counter, where that is steady: it is read for each answer, and the kernel's clock takes
    /// 3 % of the rate.
    clock: Clock,
    state: RefCell<State>,
    response: Size,
    timeout: Duration,
}

/// What a request is sent with.
struct Place {
    consumer: Consumer,
    shared: Rc<Shared>,
}

/// One request, and how many bytes its answer has. A macro: a future of its own would keep what its task has already,
/// and as it is a task in flight takes four cache lines.
macro_rules! exchange {
    ($place:ident, $size:ident) => {
        'exchange: {
            let mut response = match $place.consumer.send(body($size), $place.shared.timeout).await {
                Ok(response) => response,
                Err(error) => break 'exchange Err(error),
            };
            let mut got = 0;
            loop {
                match response.chunk().await {
                    Ok(Some(piece)) => got += piece.len() as u64,
                    Ok(None) => break Ok(got),
                    Err(error) => break Err(error),
                }
            }
        }
    };
}

struct State {
    recorder: Recorder,
    random: fastrand::Rng,
    begun: u64,
    in_flight: u64,
    over: bool,
    complaint: Option<String>,
}

impl Library {
    fn new(plan: &Plan, frames: &Frames, thread: usize, orders: Orders, recorder: Recorder) -> io::Result<Library> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().event_interval(EVENT_INTERVAL).build_local(LocalOptions::default())?;
        let mine = |number: &usize| number % plan.threads.max(1) == thread;
        let channel = |number: usize| -> ChannelId { frames.channels[number % frames.channels.len()] };
        let options = || {
            let options = Options::default().name("loadgen").window(frames.window);
            let tls = frames.tls_ca.iter().fold(Tls::default(), |tls, ca| tls.ca(ca));
            let options = options.tls(tls);
            if frames.token.is_empty() { options } else { options.token(frames.token.clone()) }
        };
        let scheme = if frames.tls_ca.is_some() { "tls://" } else { "" };
        let addr = format!("{scheme}{}", frames.addr);
        let connected = runtime.block_on(async {
            let (mut consumers, mut providers) = (Vec::new(), Vec::new());
            for number in (0..plan.providers).filter(mine) {
                let (addr, channel) = (addr.as_str(), channel(number));
                providers.push(Provider::connect_with(addr, channel, frames.max_concurrent, options()).await?);
            }
            for number in (0..plan.consumers).filter(mine) {
                consumers.push(Consumer::connect_with(addr.as_str(), channel(number), options()).await?);
            }
            Ok::<_, Error>((consumers, providers))
        });
        let (consumers, providers) = connected.map_err(io::Error::other)?;
        let random = fastrand::Rng::with_seed(orders.seed ^ (thread as u64) << 48);
        let shared = Shared {
            epoch: Cell::new(0),
            clock: Clock::new(),
            orders,
            state: RefCell::new(State { recorder, random, begun: 0, in_flight: 0, over: false, complaint: None }),
            response: frames.response.clone(),
            timeout: Duration::from_millis(frames.timeout_ms.into()),
        };
        let shared = Rc::new(shared);
        Ok(Library { runtime, consumers, providers, slots: frames.slots, shared })
    }

    fn start_providers(&self) {
        for provider in &self.providers {
            for _ in 0..HANDLERS {
                let (provider, shared) = (provider.clone(), Rc::clone(&self.shared));
                spawn_local(async move {
                    'requests: while let Some(mut request) = provider.receive().await {
                        loop {
                            match request.chunk().await {
                                Ok(Some(_)) => {}
                                Ok(None) => break,
                                // the consumer counts what goes wrong
                                Err(_) => continue 'requests,
                            }
                        }
                        let _ = request.respond(body(shared.draw_response())).await;
                    }
                });
            }
        }
    }

    /// Closed loop: a task for each place.
    fn start_closed(&self) {
        for consumer in &self.consumers {
            let place = Rc::new(Place { consumer: consumer.clone(), shared: Rc::clone(&self.shared) });
            for _ in 0..self.slots {
                let place = Rc::clone(&place);
                spawn_local(async move {
                    let mut now = place.shared.now();
                    while place.shared.may_begin() {
                        let size = place.shared.begin(now, now);
                        let result = exchange!(place, size);
                        now = place.shared.end(now, now, size, result);
                    }
                });
            }
        }
    }

    /// Open loop: a task that keeps the schedule, and one for each request.
    fn start_open(&self, mut schedule: Schedule) {
        let (consumers, shared) = (self.consumers.clone(), Rc::clone(&self.shared));
        let places = u64::from(self.slots) * consumers.len() as u64;
        spawn_local(async move {
            let mut turn = 0;
            let end = shared.orders.end;
            while shared.may_begin() && schedule.next() < end {
                let (intended, now) = (schedule.next(), shared.now());
                if intended > now || shared.state.borrow().in_flight >= places {
                    let left = Duration::from_nanos(intended.saturating_sub(now));
                    shared.pause(left).await;
                    continue;
                }
                schedule.advance();
                turn = (turn + 1) % consumers.len();
                let place = Place { consumer: consumers[turn].clone(), shared: Rc::clone(&shared) };
                spawn_local(async move {
                    let sent = place.shared.now();
                    let size = place.shared.begin(intended, sent);
                    let result = exchange!(place, size);
                    place.shared.end(intended, sent, size, result)
                });
            }
            shared.state.borrow_mut().recorder.counts().unsent += schedule.left_before(end);
        });
    }
}

impl Driver for Library {
    fn run(&mut self, epoch: Instant) -> io::Result<()> {
        self.shared.begins(epoch);
        self.runtime.block_on(async {
            self.start_providers();
            let orders = &self.shared.orders;
            match orders.mode {
                Mode::Closed => self.start_closed(),
                Mode::Open { rate, arrivals } => {
                    self.start_open(Schedule::new(rate, arrivals, orders.thread, orders.threads, orders.seed));
                }
            }
            self.shared.watch().await;
        });
        let now = self.shared.now();
        let mut state = self.shared.state.borrow_mut();
        state.recorder.counts().lost += state.in_flight;
        state.recorder.finish(now);
        Ok(())
    }

    fn complaints(&mut self) -> Vec<String> {
        self.shared.state.borrow_mut().complaint.take().into_iter().collect()
    }
}

impl Shared {
    /// The run began then.
    fn begins(&self, epoch: Instant) {
        let since = epoch.elapsed().as_nanos() as u64;
        self.epoch.set(self.time().wrapping_sub(since));
    }

    #[inline]
    fn now(&self) -> u64 {
        self.time().wrapping_sub(self.epoch.get())
    }

    /// What its clock shows, in ns.
    #[inline]
    fn time(&self) -> u64 {
        self.clock.delta_as_nanos(0, self.clock.raw())
    }

    fn may_begin(&self) -> bool {
        let state = self.state.borrow();
        !state.over && self.orders.requests.is_none_or(|requests| state.begun < requests)
    }

    /// Waits about this long: by the timer, or by letting the other tasks go first.
    async fn pause(&self, left: Duration) {
        if left > TIMER {
            tokio::time::sleep(left - TIMER).await;
            return;
        }
        let began = self.now();
        tokio::task::yield_now().await;
        let spun = self.now().saturating_sub(began);
        // a yield in which others worked is no waste: an empty one takes a microsecond
        self.state.borrow_mut().recorder.counts().spun += spun.min(1_000);
    }

    /// The size of a response.
    fn draw_response(&self) -> u64 {
        self.response.draw(&mut self.state.borrow_mut().random)
    }

    /// A request is about to be sent. Gives its size.
    fn begin(&self, intended: u64, sent: u64) -> u64 {
        let state = &mut *self.state.borrow_mut();
        state.in_flight += 1;
        state.begun += u64::from(intended >= self.orders.warm);
        state.recorder.sent(intended, sent, false);
        self.orders.size.draw(&mut state.random)
    }

    /// It has ended. Gives when.
    fn end(&self, intended: u64, sent: u64, size: u64, result: Result<u64, Error>) -> u64 {
        let now = self.now();
        let state = &mut *self.state.borrow_mut();
        state.in_flight -= 1;
        state.recorder.tick(now);
        let outcome = match result {
            Ok(bytes) => Outcome::Answered(bytes),
            Err(error) => {
                state.complaint.get_or_insert_with(|| format!("a request failed: {error}"));
                Outcome::Failed(code(error.kind))
            }
        };
        state.recorder.ended(intended, sent, size, outcome, now);
        now
    }

    /// Ends the run when it is over, and returns when all threads' requests are.
    async fn watch(&self) {
        let orders = &self.orders;
        let (mut left, mut give_up) = (false, u64::MAX);
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = self.now();
            self.state.borrow_mut().recorder.tick(now);
            let (over, idle, begun) = {
                let state = self.state.borrow();
                (state.over, state.in_flight == 0, state.begun)
            };
            let enough = orders.requests.is_some_and(|requests| begun >= requests && idle);
            if !over && (now >= orders.end || enough || orders.stop.load(Ordering::Relaxed)) {
                let mut state = self.state.borrow_mut();
                state.over = true;
                state.recorder.end_at(now);
                give_up = now + orders.patience;
            } else if over && (idle || now >= give_up) && orders.leave(&mut left) {
                return;
            }
        }
    }
}

fn body(size: u64) -> Body {
    match FILLER.get(..size as usize) {
        Some(bytes) => Body::from(bytes),
        None => Body::reader(tokio::io::repeat(b'x').take(size)),
    }
}

/// The code that failures of this kind are counted under.
fn code(kind: ErrorKind) -> u16 {
    let by_name = Code::ALL.into_iter().find(|code| code.name().eq_ignore_ascii_case(kind.name()));
    by_name.unwrap_or(if kind == ErrorKind::Connection { Code::Timeout } else { Code::Internal }).to_wire()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_under_their_codes() {
        assert_eq!(code(ErrorKind::NoProvider), Code::NoProvider.to_wire());
        assert_eq!(code(ErrorKind::Flood), Code::Flood.to_wire());
        assert_eq!(code(ErrorKind::Connection), Code::Timeout.to_wire());
        assert_eq!(code(ErrorKind::Body), Code::Internal.to_wire());
    }
}

//! The seeded simulation: random clients on random limits, every fault, replayable from one number.
//!
//! `CORELAY_SIM_SEEDS=n` runs that many seeds, `CORELAY_SIM_FIRST=n` begins at another than 0, and
//! `CORELAY_SIM_SEED=n` replays one with a trace of all events. See `docs/SIMULATION.md`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corelay::base::ChannelId;
use corelay::base::limits::Limits;
use corelay::broker::core::{Channel, Options, Route};
use corelay::protocol::{Flags, Role};

use crate::model::{Client, Habits, Shared};
use crate::rng::Rng;
use crate::world::{World, trace};

/// Seeds run when nobody says how many: as many as take five to ten seconds on two cores.
const SEEDS: u64 = 3000;

struct Run {
    world: World,
    clients: Vec<Client>,
    shared: Shared,
    rng: Rng,
    channels: Vec<ChannelId>,
    limits: Limits,
    steps: usize,
    drains: bool,
    reloads: bool,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn limits(rng: &mut Rng) -> Limits {
    let quick = rng.one_in(4);
    Limits {
        max_frame: rng.pick(&[20_000, 70_000, 1 << 20]),
        max_streams: rng.pick(&[1, 3, 20, 1000]),
        window: rng.pick(&[1, 5, 64, 1000, 5000, 40_000]),
        max_window: rng.pick(&[0, 0, 200, 7000, 100_000]),
        keepalive: if quick { ms(300) } else { Duration::from_secs(20) },
        frame_timeout: if quick { ms(500) } else { Duration::from_secs(10) },
        write_timeout: if quick { ms(800) } else { Duration::from_secs(30) },
        default_timeout: rng.pick(&[ms(100), ms(5000), ms(30_000)]),
        cancel_grace: rng.pick(&[ms(1), ms(50), ms(5000)]),
        queue_requests: rng.pick(&[0, 1, 5, 1000, 1000, 1000, 1000]),
        queue_bytes: rng.pick(&[10, 3000, 1 << 20, 1 << 20, 1 << 20]),
        connection_buffer: rng.pick(&[1, 300, 5000, 65_536]),
        core_buffer: rng.pick(&[10_000, 80_000, 80_000, 1 << 24, 1 << 24, 1 << 24, 1 << 24, 1 << 24, 1 << 24]),
        drain_timeout: rng.pick(&[ms(1), ms(200), ms(5000)]),
        ..Limits::default()
    }
}

/// Who is to get copies: nobody, in every other run.
fn routes(rng: &mut Rng, channels: &[ChannelId]) -> Vec<Route> {
    let n = rng.pick(&[0, 0, 0, 1, 2, 3]);
    let route = |rng: &mut Rng| Route {
        channels: rng.one_in(3).then(|| vec![channels[0]]),
        requests: !rng.one_in(4),
        responses: rng.one_in(2),
        block: rng.one_in(3),
    };
    (0..n).map(|_| route(rng)).collect()
}

impl Run {
    fn new(seed: u64, tracing: bool) -> Run {
        let mut rng = Rng::new(seed);
        let limits = limits(&mut rng);
        let cores = rng.pick(&[1, 1, 2, 2, 3]);
        let channels: Vec<ChannelId> = (0..rng.range(1, 2)).map(|i| ChannelId::named(&format!("ch{i}"))).collect();
        let mut of_their_own = Vec::new();
        for &id in channels.iter().filter(|_| cores > 1) {
            if !rng.one_in(3) {
                let spread = rng.range(2, usize::from(cores)) as u16;
                let window = rng.pick(&[None, None, Some(3), Some(7000)]);
                of_their_own.push(Channel { id, spread, window, queue_requests: None, queue_bytes: None });
            }
        }
        let routes = routes(&mut rng, &channels);
        let options = Options {
            core: 0,
            cores,
            server: uuid::Uuid::from_u128(9),
            seed: rng.next(),
            secret: rng.next(),
            limits: limits.clone(),
            channels: of_their_own,
            copy_below: rng.pick(&[1, 40, 2048]),
            routes,
            tap_bytes: rng.pick(&[0, 300, 20_000, 1 << 20]),
            access: Default::default(),
            meters: 1,
        };
        let smallest = options.channels.iter().filter_map(|channel| channel.window).min().unwrap_or(limits.window);
        let smallest = smallest.min(limits.window) as usize;
        let mut world = World::new(&options);
        world.tracing = tracing;
        world.ring_items = rng.pick(&[1, 3, 50]);
        world.item_bytes = rng.pick(&[7, 300, 65_536]);
        world.pressed = rng.one_in(5);
        let shared = Shared {
            max_body: rng.pick(&[100, 5000, 3 * limits.window as usize + 10, 60_000]).min(40 * smallest + 50),
            tainted: vec![false; channels.len()],
            default_timeout_ms: limits.default_timeout.as_millis() as u32,
            may_overload: true,
            hostility: rng.one_in(4),
            max_frame: limits.max_frame,
            max_window: limits.max_window,
            ..Shared::default()
        };
        let steps = rng.pick(&[200, 1000, 1000, 5000]);
        let steps = number("CORELAY_SIM_STEPS").map_or(steps, |steps| steps as usize);
        trace!(world, "{cores} cores, {steps} steps, {limits:?}");
        let drains = rng.one_in(5);
        let reloads = rng.one_in(3);
        Run { world, clients: Vec::new(), shared, rng, channels, limits, steps, drains, reloads }
    }

    fn join(&mut self) {
        let rng = &mut self.rng;
        let providers = self.clients.iter().filter(|client| !client.dead && client.role == Role::Provider).count();
        let provider = if providers == 0 { rng.one_in(2) } else { rng.one_in(3) };
        let role = if provider { Role::Provider } else { Role::Consumer };
        let max_concurrent = if provider { rng.pick(&[1, 1, 2, 5, 100]) } else { 0 };
        let window = rng.pick(&[0, 1, 10, 200, 3000, 100_000]);
        let habits = Habits {
            read: rng.pick(&[3, 100, 5000, 1 << 20]),
            laziness: rng.pick(&[1, 1, 3, 15]),
            stinginess: rng.pick(&[2, 3, 10]),
            chunk: rng.pick(&[1, 50, 1000, 15_000]),
            leaves: rng.one_in(2),
            hangs: rng.one_in(15),
            cancels: rng.one_in(2),
            sparse: rng.one_in(4),
            hostile: self.shared.hostility && rng.one_in(3),
        };
        let channel = rng.below(self.channels.len());
        let sock = self.world.connect(rng.below(self.world.shards.len()));
        self.world.socks[sock].room = self.rng.pick(&[50, 2000, 65_536, usize::MAX]);
        let index = self.clients.len();
        self.shared.dead.push(false);
        self.shared.guard.joins(role, &mut self.rng);
        let channel = (channel, self.channels[channel]);
        trace!(self.world, "client {index} connects as {role:?} on {}: {habits:?}", channel.0);
        self.clients.push(Client::new(index, sock, role, channel, window, max_concurrent, habits));
    }

    fn step(&mut self) {
        let shard = self.rng.below(self.world.shards.len());
        match self.rng.below(20) {
            0..=8 => {
                for _ in 0..self.rng.range(1, 6) {
                    let client = self.rng.below(self.clients.len());
                    self.clients[client].act(&mut self.world, &mut self.shared, &mut self.rng);
                }
            }
            9..=16 => self.broker_turn(shard),
            17 => {
                let most = self.rng.pick(&[0, 1, 1, 5]);
                self.world.pass(ms(self.rng.below(most + 1) as u64));
            }
            18 if self.rng.one_in(15) => self.jump(),
            18 => {
                let companion = &mut self.world.shards[shard].companion;
                companion.stalled = self.rng.one_in(3);
                companion.full = self.rng.next() & self.rng.next();
            }
            19 if self.rng.one_in(10) && self.clients.iter().filter(|client| !client.dead).count() < 9 => self.join(),
            _ => {
                self.world.doze(shard);
            }
        }
    }

    /// A core's turn, with some of what waits on its sockets.
    fn broker_turn(&mut self, shard: usize) {
        let all = self.rng.one_in(3);
        let piece = self.rng.pick(&[1, 16, 100, 3000, 65_536]);
        for sock in 0..self.world.socks.len() {
            if self.world.socks[sock].shard != shard || !all && !self.rng.one_in(3) {
                continue;
            }
            match self.rng.below(4) {
                0 | 1 => {
                    let n = self.rng.range(1, piece);
                    self.world.deliver(sock, n);
                }
                2 => {
                    let n = if self.rng.one_in(4) { self.rng.below(piece) } else { usize::MAX };
                    self.world.complete(sock, n);
                }
                _ => {
                    self.world.writable(sock);
                }
            }
        }
        let items = self.rng.range(1, 4);
        self.world.turn(shard, items);
        self.check_memory(shard);
    }

    fn check_memory(&self, shard: usize) {
        let held = self.world.shards[shard].core.held();
        // beside bodies, what is staged for each connection counts while it is being sent
        let staged = self.limits.connection_buffer + 2 * 65_536 + self.limits.max_streams as usize * 1100;
        let bound = self.limits.core_buffer + self.world.socks.len() * staged;
        assert!(held <= bound, "core {shard} holds {held} bytes, core_buffer is {}", self.limits.core_buffer);
    }

    /// On to what is due next; or, now and then, far beyond.
    fn jump(&mut self) {
        let far = self.world.now + ms(self.rng.below(3000) as u64);
        if let Some(at) = self.world.next_deadline()
            && at > self.world.now
        {
            self.world.now = at.min(far);
        }
    }

    fn play(&mut self) {
        if self.reloads {
            self.shared.guard.reload(&mut self.world, 0, &mut self.rng);
        }
        for _ in 0..self.rng.range(1, 7) {
            self.join();
        }
        let drain_at = if self.drains { self.rng.below(self.steps) } else { usize::MAX };
        for step in 0..self.steps {
            if step == drain_at {
                self.drain();
            }
            self.step();
            if self.reloads && self.rng.one_in(300) {
                let opened = self.shared.specs.len() as u64;
                self.shared.guard.reload(&mut self.world, opened, &mut self.rng);
            }
            if step % 4 == 0 {
                self.world.check();
            }
        }
        self.wind_up();
        self.leave();
    }

    fn drain(&mut self) {
        trace!(self.world, "drain");
        self.shared.drained = true;
        for shard in 0..self.world.shards.len() {
            let now = self.world.now;
            self.world.shards[shard].core.drain(now);
            self.world.wake(shard);
        }
    }

    /// Everybody ends what is open, and nothing but the clock stands still: whatever does not end now, hangs.
    fn wind_up(&mut self) {
        trace!(self.world, "winding up");
        self.shared.finishing = true;
        for shard in &mut self.world.shards {
            (shard.companion.stalled, shard.companion.full) = (false, 0);
        }
        for sock in &mut self.world.socks {
            sock.room = usize::MAX;
        }
        loop {
            let mut moved = self.world.settle(usize::MAX);
            for client in &mut self.clients {
                moved |= client.read(&mut self.world, &mut self.shared, usize::MAX);
            }
            for shard in 0..self.world.shards.len() {
                moved |= self.world.doze(shard);
            }
            if !moved {
                break;
            }
        }
        self.world.check_wakeups();
        let dead: Vec<bool> = self.clients.iter().map(|client| client.dead || client.hostile).collect();
        self.shared.guard.check_closed(&dead);
        for client in &self.clients {
            client.check_cancels(&self.shared, self.world.shards.len());
            client.check_flood();
        }
        for round in 0.. {
            assert!(round < 100_000, "the world does not come to rest");
            let mut moved = self.world.settle(usize::MAX);
            for client in 0..self.clients.len() {
                moved |= self.clients[client].wind_up(&mut self.world, &mut self.shared);
            }
            for shard in 0..self.world.shards.len() {
                moved |= self.world.doze(shard);
            }
            if !moved {
                break;
            }
        }
        self.world.check_wakeups();
        self.world.check();
        assert!(!self.shared.told_lost || self.shared.providers_lost > 0, "PROVIDER_LOST, but none was lost");
        if let Some(disorder) = &self.shared.disorder {
            let excused = self.world.shards.len() > 1 || self.shared.providers_lost + self.shared.providers_leaving > 0;
            assert!(excused, "{disorder}");
        }
        for (number, spec) in self.shared.specs.iter().enumerate() {
            let live = spec.seen_by.iter().filter(|&&provider| !self.shared.dead[provider]).count();
            assert!(live <= 1, "request {number} was delivered twice, and no provider was lost: {:?}", spec.seen_by);
        }
        self.check_outcomes();
    }

    /// With a provider at hand that answers everything, every request has its outcome now.
    fn check_outcomes(&self) {
        let serving = |channel| self.clients.iter().any(|client| client.serves() && client.channel == channel);
        for client in self.clients.iter().filter(|client| !client.dead && !client.hostile && client.welcome.is_some()) {
            for number in client.open_requests() {
                if client.role != Role::Consumer || number == u64::MAX {
                    continue;
                }
                let spec = &self.shared.specs[number as usize];
                let waits = spec.flags.has(Flags::WAIT) && !serving(spec.channel);
                let tainted = self.shared.tainted[spec.channel];
                assert!(waits || tainted, "{client}: request {number} hangs at the end: {spec:?}");
            }
        }
    }

    /// All leave; then nothing may be left behind.
    fn leave(&mut self) {
        for client in 0..self.clients.len() {
            self.clients[client].leave(&mut self.world, &mut self.shared, false);
        }
        for _ in 0..40 {
            self.world.settle(usize::MAX);
            self.world.check();
            self.world.pass(ms(500));
        }
        // answered one-way requests may still wait for a provider
        self.world.pass(Duration::from_secs(60));
        self.world.settle(usize::MAX);
        self.world.pass(Duration::from_secs(20));
        self.world.settle(usize::MAX);
        self.world.check_empty();
        for (number, spec) in self.shared.specs.iter().enumerate() {
            assert!(spec.outcome.is_some(), "request {number} never ended: {spec:?}");
        }
        let copies = self.world.shards.iter().flat_map(|shard| &shard.companion.whole);
        self.shared.check_copies(copies);
    }
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// How often what happened, to see that a run reaches what it is there for.
type Tally = std::collections::BTreeMap<String, u64>;

/// Runs one seed. `Err`: what was wrong.
fn run(seed: u64, tracing: bool) -> Result<Tally, String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(seed, tracing);
        run.play();
        let mut tally = Tally::default();
        for spec in &run.shared.specs {
            *tally.entry(format!("{:?}", spec.outcome.expect("checked at the end"))).or_default() += 1;
        }
        for shard in &run.world.shards {
            let counters = shard.core.counters();
            for (name, n) in [
                ("(retried)", counters.retried),
                ("(queued)", counters.queued),
                ("(to another core)", counters.passed_on),
                ("(shed)", counters.shed),
                ("(one-way lost)", counters.oneway_lost),
                ("(moved)", counters.connections_moved),
                ("(failed connections)", counters.connections_failed.iter().sum()),
            ] {
                *tally.entry(name.into()).or_default() += n;
            }
        }
        tally
    }));
    result.map_err(|_| LAST_PANIC.take())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn simulation() {
    if let Some(seed) = number("CORELAY_SIM_SEED") {
        let mut run = Run::new(seed, true);
        run.play();
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.set(info.to_string());
    }));
    let first = number("CORELAY_SIM_FIRST").unwrap_or(0);
    let end = first + number("CORELAY_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let failure = std::sync::Mutex::new(None::<(u64, String)>);
    let tally = std::sync::Mutex::new(Tally::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failure.lock().unwrap().is_some() {
                        return;
                    }
                    match run(seed, false) {
                        Ok(one) => {
                            let mut tally = tally.lock().unwrap();
                            one.into_iter().for_each(|(name, n)| *tally.entry(name).or_default() += n);
                        }
                        Err(why) => {
                            let mut failure = failure.lock().unwrap();
                            if failure.as_ref().is_none_or(|&(other, _)| seed < other) {
                                *failure = Some((seed, why));
                            }
                        }
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let seconds = begun.elapsed().as_secs_f64();
    let failure = failure.into_inner().unwrap();
    if let Some((seed, why)) = failure {
        eprintln!("seed {seed} failed after {seconds:.1} s: {why}");
        eprintln!(
            "replay: CORELAY_SIM_SEED={seed} cargo test -p corelay --no-default-features --features server --test sim simulation -- --nocapture"
        );
        panic!("seed {seed} failed: {why}");
    }
    let rate = (end - first) as f64 / seconds;
    eprintln!("{} seeds in {seconds:.1} s ({rate:.0}/s)", end - first);
    for (name, n) in tally.into_inner().unwrap() {
        eprintln!("{n:>10} {name}");
    }
}

//! `loadgen run`.

mod ramp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use corelay::base::ChannelId;

use super::{Failure, OutputArgs, parse_cpus, parse_duration};
use crate::dial::{Addr, Frames};
use crate::engine::Mode;
use crate::frames::DEFAULT_CHUNK;
use crate::measure::Measured;
use crate::proc::Target;
use crate::report::Report;
use crate::report::text::{count, micros};
use crate::run::{Live, Plan, execute};
use crate::schedule::Arrivals;
use crate::size::{Size, parse_bytes};

/// Requests one consumer may have open in an open loop, unless told otherwise: what a broker allows by default.
const OPEN_PLACES: u32 = 1024;

/// Puts load on a broker and reports what came of it.
///
/// An OPEN loop (--rate) sends on schedule whatever the answers do, as independent users would. A CLOSED loop
/// (--in-flight alone) sends the next request when one is answered: it measures capacity, and slows down with the
/// broker, so its latencies say little about what users would see.
///
/// Reading the table:
///   from intended send   what a user would have seen: a late send counts as waiting
///   from actual send     the uncorrected latency; far below the other, the load or the broker fell behind
///   schedule             how late sends were; WARNING says whose fault that was
///   load CPU             near 100 % the generator is what was measured: add --threads, or another CPU by --pin
///   broker               CPU for each request and memory, with --pid or --admin
#[derive(Clone, Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RunArgs {
    /// Where the broker listens: host:port or unix:/path
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub server: Addr,
    /// Requests a second, sent on schedule whatever the answers do (open loop)
    #[arg(long, value_name = "N", default_value_t = 1000.0, value_parser = positive, help_heading = "Load")]
    pub rate: f64,
    /// How they are spaced: even or poisson
    #[arg(long, default_value_t = Arrivals::Even, help_heading = "Load")]
    pub arrivals: Arrivals,
    /// Keeps N requests of each consumer in flight instead (closed loop); with --rate: at most N [open loop: 1024]
    #[arg(long, value_name = "N", help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: Option<u32>,
    /// Finds the highest rate whose p99 stays below MS milliseconds, from --rate on
    #[arg(long, value_name = "MS", value_parser = positive, help_heading = "Load")]
    pub ramp_p99: Option<f64>,
    /// Consumer connections
    #[arg(long, short, value_name = "N", default_value_t = 16, help_heading = "Load")]
    pub consumers: usize,
    /// Provider connections of our own; 0 for a service that is there already
    #[arg(long, short, value_name = "N", default_value_t = 4, help_heading = "Load")]
    pub providers: usize,
    /// Request body: bytes, uniform:A-B, exp:MEAN or choice:SIZE=WEIGHT,...
    #[arg(long, default_value = "64", help_heading = "Load")]
    pub size: Size,
    /// Answer body of our own providers, likewise
    #[arg(long, value_name = "SIZE", default_value = "64", help_heading = "Load")]
    pub response_size: Size,
    /// Streams bodies in pieces of at most this
    #[arg(long, value_name = "BYTES", value_parser = chunk, help_heading = "Load")]
    pub chunk: Option<u32>,
    /// Deals the connections out over so many channels
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub channels: usize,
    /// The channel, by name or UUID; with --channels its name is the beginning of theirs
    #[arg(long, value_name = "CHANNEL", default_value = "loadgen", help_heading = "Load")]
    pub channel: String,
    /// How long is measured
    #[arg(long, short, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Load")]
    pub duration: Duration,
    /// Ends when so many requests were answered, if that comes first
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub requests: Option<u64>,
    /// How long runs before it is measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, help_heading = "Load")]
    pub warmup: Duration,
    /// Timeout of each request, kept by the broker
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Load")]
    pub timeout: Duration,
    /// Body bytes each of our connections takes on a stream before it grants more
    #[arg(long, value_name = "BYTES", default_value = "256KiB", value_parser = bytes_u32, help_heading = "Load")]
    pub window: u32,
    /// Requests each of our providers holds at once
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = "Load")]
    pub max_concurrent: u32,
    /// Connects with TLS, and trusts this CA (PEM); with --client tokio
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    pub tls_ca: Option<PathBuf>,
    /// What drives the connections: raw (our own io_uring engine) or tokio (corelay's client library)
    #[arg(long, value_enum, default_value_t = Client::Raw, help_heading = "Load")]
    pub client: Client,
    /// Decides everything that is drawn
    #[arg(long, default_value_t = 1, help_heading = "Load")]
    pub seed: u64,
    /// Load threads
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Machine")]
    pub threads: usize,
    /// CPUs the load threads are bound to, such as 1 or 2-3
    #[arg(long, value_name = "LIST", value_parser = parse_cpus, help_heading = "Machine")]
    pub pin: Option<CpuList>,
    /// Microseconds a load thread looks for work before it sleeps: finer timing for more CPU
    #[arg(long, value_name = "US", default_value_t = 0, help_heading = "Machine")]
    pub spin_us: u64,
    /// The broker's process: its CPU per request and memory are reported
    #[arg(long, help_heading = "Machine")]
    pub pid: Option<u32>,
    /// The broker's admin address, host:port: likewise, for a broker on another machine
    #[arg(long, value_name = "ADDR", conflicts_with = "pid", value_parser = admin_addr, help_heading = "Machine")]
    pub admin: Option<SocketAddr>,
    /// What the run is called in reports, where several are compared [default: its load in words]
    #[arg(long, help_heading = "Reports")]
    pub name: Option<String>,
    /// Length of an interval of the report [default: a tenth of the duration, 100ms to 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Reports")]
    pub interval: Option<Duration>,
    /// Where the report goes.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether --rate was given.
    #[arg(skip)]
    pub rate_given: bool,
}

/// What drives the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// Our own engine on io_uring: cheap enough that the broker is what is measured.
    Raw,
    /// corelay's client library: what a user's program could do.
    Tokio,
}

/// A list of CPUs, as one value of a flag.
type CpuList = Vec<usize>;

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

fn admin_addr(text: &str) -> Result<SocketAddr, String> {
    crate::admin::parse(text).map_err(|error| error.to_string())
}

fn bytes_u32(text: &str) -> Result<u32, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    u32::try_from(bytes)
        .ok()
        .filter(|&bytes| bytes > 0 && bytes < 1 << 31)
        .ok_or_else(|| "expected 1 B to 2 GiB".to_owned())
}

fn chunk(text: &str) -> Result<u32, String> {
    bytes_u32(text).ok().filter(|&bytes| bytes <= 1 << 20).ok_or_else(|| "expected 1 B to 1 MiB".to_owned())
}

impl RunArgs {
    /// How requests are begun: a closed loop if only --in-flight was given.
    fn mode(&self) -> Mode {
        match self.in_flight {
            Some(_) if !self.rate_given && self.ramp_p99.is_none() => Mode::Closed,
            _ => Mode::Open { rate: self.rate, arrivals: self.arrivals },
        }
    }

    /// What the engine is told.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let tenth = (self.duration / 10).clamp(Duration::from_millis(100), Duration::from_secs(1));
        Plan {
            consumers: self.consumers,
            providers: self.providers,
            mode: self.mode(),
            size: self.size.clone(),
            duration: self.duration,
            warmup: self.warmup,
            // the broker ends every request at its timeout; a little more for the way
            patience: self.timeout + Duration::from_secs(1),
            interval: self.interval.unwrap_or(tenth).max(Duration::from_millis(10)),
            requests: self.requests,
            threads: self.threads.clamp(1, 256),
            pin: self.pin.clone().unwrap_or_default(),
            spin: Duration::from_micros(self.spin_us),
            seed: self.seed,
            broker: self.pid.map(Target::Pid).or(self.admin.map(Target::Admin)),
        }
    }

    fn dial(&self) -> Result<Frames, Failure> {
        let channels = match self.channels {
            0 | 1 => vec![self.channel.parse()?],
            n => (0..n).map(|n| format!("{}-{n}", self.channel).parse()).collect::<Result<Vec<ChannelId>, _>>()?,
        };
        if self.consumers == 0 {
            return Err("--consumers 0: somebody has to send".into());
        }
        if self.tls_ca.is_some() && self.client == Client::Raw {
            return Err("--tls-ca: with --client tokio alone, our own engine speaks no TLS".into());
        }
        if self.providers > 0 && self.providers < channels.len() {
            return Err(format!("{} channels need as many providers, at least", channels.len()).into());
        }
        Ok(Frames {
            addr: self.server.clone(),
            broker: true,
            channels,
            window: self.window,
            max_concurrent: self.max_concurrent.max(1),
            slots: self.in_flight.unwrap_or(OPEN_PLACES),
            chunk: self.chunk.unwrap_or(DEFAULT_CHUNK),
            timeout_ms: u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX),
            response: self.response_size.clone(),
            seed: self.seed,
            // never an argument: every process of the machine can read those
            token: std::env::var("CORELAY_TOKEN").unwrap_or_default().into(),
            tls_ca: self.tls_ca.clone(),
        })
    }

    fn name(&self, mode: Mode) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let load = match mode {
            Mode::Open { rate, .. } => format!("open loop, {}/s", count(rate)),
            Mode::Closed => format!("closed loop, {} in flight", self.in_flight.unwrap_or(1)),
        };
        let (consumers, providers, to) = (self.consumers, self.providers, &self.server);
        let (up, down) = (&self.size, &self.response_size);
        format!("{load}, {consumers} consumers, {providers} providers, {up} B up, {down} B down, to {to}")
    }

    fn options(&self) -> BTreeMap<String, String> {
        let mut options = vec![
            ("server", self.server.to_string()),
            ("consumers", self.consumers.to_string()),
            ("providers", self.providers.to_string()),
            ("size", self.size.to_string()),
            ("response-size", self.response_size.to_string()),
            ("channels", self.channels.to_string()),
            ("duration", format!("{:?}", self.duration)),
            ("warmup", format!("{:?}", self.warmup)),
            ("timeout", format!("{:?}", self.timeout)),
            ("threads", self.threads.to_string()),
            ("seed", self.seed.to_string()),
        ];
        match self.mode() {
            Mode::Open { rate, arrivals } => {
                options.extend([("rate", rate.to_string()), ("arrivals", arrivals.to_string())]);
            }
            Mode::Closed => options.push(("in-flight", self.in_flight.unwrap_or(1).to_string())),
        }
        options.push(("tls", self.tls_ca.is_some().to_string()));
        options.push(("client", format!("{:?}", self.client).to_lowercase()));
        options.extend(self.chunk.map(|chunk| ("chunk", chunk.to_string())));
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The command.
pub(super) fn run(args: &RunArgs, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    if let Some(bound) = args.ramp_p99 {
        return ramp::ramp(args, bound, stop);
    }
    let (report, measured) = once(args, stop)?;
    args.output.write(&report, &measured)
}

/// One run with these options.
fn once(args: &RunArgs, stop: &Arc<AtomicBool>) -> Result<(Report, Measured), Failure> {
    let plan = args.plan();
    let mut live = if args.output.quiet { Live::silent() } else { Live::new(plan.warmup + plan.duration) };
    let began = SystemTime::now() + plan.warmup;
    let mut dial = args.dial()?;
    let measured = match args.client {
        Client::Raw => execute(&plan, &mut dial, &mut live, stop)?,
        #[cfg(feature = "tokio")]
        Client::Tokio => crate::library::execute(&plan, &dial, &mut live, stop)?,
        #[cfg(not(feature = "tokio"))]
        Client::Tokio => return Err("--client tokio: built without the feature tokio".into()),
    };
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let report = Report::new(&args.name(plan.mode), args.options(), began, &measured);
    Ok((report, measured))
}

/// A step of a ramp, for people.
fn step(report: &Report, good: bool) -> String {
    let (rate, p99) = (count(report.rate), micros(report.latency.get("p99")));
    let own_fault = report.schedule.is_some_and(|schedule| schedule.p99 > 1000.0)
        || report.load_busy.iter().any(|&busy| busy > crate::report::SATURATED);
    let verdict = match (good, own_fault) {
        (true, _) => "good",
        (false, true) => "too much for the generator itself: add --threads, or --pin it to a CPU of its own",
        (false, false) => "too much",
    };
    format!("{rate:>10}/s answered  p99 {p99:>8}  errors {}  {verdict}", report.failed())
}

//! `loadgen compare` and `loadgen limit`, and the children they start in this program.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;

use super::output::{say, to_file};
use super::{Failure, parse_duration};
use crate::compare::result::{heading, medians};
use crate::compare::system::{Brokers, System, on_path};
use crate::compare::table::{Comparison, markdown, overview};
use crate::compare::work::{Layout, ONE_CORE, Work};
use crate::compare::{Options, compare};
use crate::pump::{Relay, RelayOptions};
use crate::report::Report;

/// How brokers are compared.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Which works: 1x1, 64x1, 16x64, 1000x1, 64k, open30k, stream1g, two-channels, spread, idle10k, churn
    /// [default: all that the brokers can do]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = Work::named)]
    work: Vec<Work>,
    /// How often each
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
    /// How long each run is measured
    #[arg(long, short, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// How long it runs before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// The CPU every broker is bound to
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    broker_cpu: usize,
    /// The CPU the load comes from
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    load_cpu: usize,
    /// The broker's second CPU at the works two-channels and spread, whose load runs on all other CPUs [default: one
    /// that nobody has yet, else the load's]
    #[arg(long, value_name = "CPU")]
    second_cpu: Option<usize>,
    /// Writes all rows and medians as JSON, for `loadgen report` too; `-` is standard output, in place of the tables
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the table of work, limit, corelay, NATS and ratios, as the README has it; `-` is standard output, in
    /// place of the others
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Writes each run's whole report into this directory, for `loadgen report`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Whom `compare` compares.
#[derive(Clone, Debug, Args)]
pub struct SystemArgs {
    /// Whom: limit, corelay, corelay-spin, corelay-epoll, nats, zmq [default: all that are there, but corelay-spin]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    systems: Vec<System>,
    /// The corelay binary [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    corelay: Option<PathBuf>,
    /// The nats-server binary [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    nats: Option<PathBuf>,
    /// Microseconds that corelay-spin looks for work before it sleeps
    #[arg(long, value_name = "US", default_value_t = 200)]
    spin_us: u64,
    #[arg(skip = System::CorelaySpin)]
    spins: System,
}

/// `loadgen limit`.
pub(super) fn limit(args: &CompareArgs, spin_us: u64, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let (systems, spins) = (vec![System::Limit], System::Limit);
    let systems = SystemArgs { systems, corelay: None, nats: None, spin_us, spins };
    run(args, &systems, stop)
}

/// `loadgen compare`.
pub(super) fn run(args: &CompareArgs, whom: &SystemArgs, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let options = options(args, whom)?;
    let date = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    // what goes to standard output alone is for a program or a page
    let piped =
        [&args.json, &args.markdown].iter().any(|file| file.as_ref().is_some_and(|path| path.as_os_str() == "-"));
    let tell = |text: &str| if piped { eprint!("{text}") } else { drop(say(text)) };
    if let Some(dir) = &args.keep {
        std::fs::create_dir_all(dir).map_err(|error| format!("can't make {}: {error}", dir.display()))?;
    }
    tell(&format!("{}\n{}\n", crate::proc::machine(), heading()));
    let mut kept = Ok(());
    let (rows, result) = compare(&options, stop, |row, report| {
        tell(&format!("{row}\n"));
        if let (Some(dir), Some(report), Ok(())) = (&args.keep, report, &kept) {
            kept = keep(&dir.join(format!("{}-{}-{}.json", row.work, row.system, row.round + 1)), report);
        }
    });
    kept?;
    let comparison = Comparison {
        machine: crate::proc::machine(),
        date,
        command: command(),
        versions: versions(&options),
        repeat: args.repeat,
        seconds: args.duration.as_secs_f64(),
        medians: medians(&rows),
        rows,
    };
    if let Some(path) = &args.json {
        to_file(path, |out| writeln!(out, "{}", serde_json::to_string_pretty(&comparison)?))?;
    }
    if let Some(path) = &args.markdown {
        to_file(path, |out| out.write_all(markdown(&comparison).as_bytes()))?;
    }
    tell(&format!("\n{}", overview(&comparison.medians)));
    Ok(result?)
}

fn keep(path: &Path, report: &Report) -> Result<(), Failure> {
    to_file(path, |out| writeln!(out, "{}", serde_json::to_string_pretty(report)?))
}

/// The command, as it was given; the program by its name alone.
fn command() -> String {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let quoted = args.map(|arg| {
        let plain = arg.chars().all(|c| c.is_ascii_alphanumeric() || "-_=.,:/+@%".contains(c));
        if plain && !arg.is_empty() { arg } else { format!("'{}'", arg.replace('\'', "'\\''")) }
    });
    std::iter::once(program).chain(quoted).collect::<Vec<_>>().join(" ")
}

fn versions(options: &Options) -> BTreeMap<String, String> {
    let told = |&system: &System| Some((system.to_string(), options.brokers.version(system)?));
    options.systems.iter().filter_map(told).collect()
}

fn options(args: &CompareArgs, whom: &SystemArgs) -> Result<Options, Failure> {
    let brokers = brokers(whom)?;
    let systems = systems(&whom.systems, &brokers)?;
    let cpus: Vec<_> = allowed_cpus()?;
    for (flag, cpu) in [
        ("--broker-cpu", Some(args.broker_cpu)),
        ("--load-cpu", Some(args.load_cpu)),
        ("--second-cpu", args.second_cpu),
    ] {
        if let Some(cpu) = cpu.filter(|cpu| !cpus.contains(cpu)) {
            return Err(format!("{flag} {cpu}: this process may use the CPUs {cpus:?}").into());
        }
    }
    let free = cpus.iter().copied().find(|cpu| ![args.broker_cpu, args.load_cpu].contains(cpu));
    let second = args.second_cpu.or(free).unwrap_or(args.load_cpu);
    let broker_cpus = [args.broker_cpu, second];
    Ok(Options {
        works: works(&args.work, &systems, broker_cpus)?,
        systems,
        repeat: args.repeat,
        duration: args.duration,
        warmup: args.warmup,
        broker_cpus,
        load_cpu: args.load_cpu,
        load_cpus: cpus.into_iter().filter(|cpu| !broker_cpus.contains(cpu)).collect(),
        brokers,
    })
}

fn brokers(whom: &SystemArgs) -> Result<Brokers, Failure> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name("corelay");
    Ok(Brokers {
        corelay: whom
            .corelay
            .clone()
            .or_else(|| beside.is_file().then(|| beside.clone()))
            .or_else(|| on_path("corelay"))
            .unwrap_or(beside),
        nats: whom.nats.clone().or_else(|| on_path("nats-server")),
        own,
        spins: whom.spins,
        spin_us: whom.spin_us,
    })
}

/// Those that were asked for; else those that are there.
fn systems(asked: &[System], brokers: &Brokers) -> Result<Vec<System>, Failure> {
    let usual: Vec<_> = System::ALL.into_iter().filter(|system| *system != System::CorelaySpin).collect();
    let all = if asked.is_empty() { &usual[..] } else { asked };
    let (there, missing): (Vec<_>, Vec<_>) = all.iter().copied().partition(|&system| brokers.has(system));
    for system in missing {
        let why = match system {
            System::Zmq => "built without the feature zmq".to_owned(),
            System::Nats => match &brokers.nats {
                Some(path) => format!("there is no {}", path.display()),
                None => "no nats-server on the PATH; name it by --nats".to_owned(),
            },
            _ => format!(
                "there is no {}; build it by `cargo build --release`, or name it by --corelay",
                brokers.corelay.display()
            ),
        };
        if !asked.is_empty() {
            return Err(format!("{system}: {why}").into());
        }
        eprintln!("left out: {system} ({why})");
    }
    Ok(there)
}

/// Those that were asked for, and what they are compared with; else all that one of the systems can do.
fn works(asked: &[Work], systems: &[System], broker_cpus: [usize; 2]) -> Result<Vec<Work>, Failure> {
    let two_cpus = broker_cpus[0] != broker_cpus[1];
    let can = |work: &Work| systems.iter().any(|system| system.can(work)) && (two_cpus || work.layout == Layout::One);
    if asked.is_empty() {
        return Ok(Work::all().into_iter().filter(can).collect());
    }
    if let Some(work) = asked.iter().find(|work| !can(work)) {
        let why =
            if two_cpus || work.layout == Layout::One { "none of these brokers does it" } else { "it takes two CPUs" };
        return Err(format!("--work {}: {why}", work.name).into());
    }
    let mut works = asked.to_vec();
    let two_cores = works.iter().any(|work| work.layout != Layout::One);
    if two_cores && works.iter().all(|work| work.name != ONE_CORE) {
        eprintln!("{ONE_CORE} is measured too: what two cores are compared with");
        works.insert(0, Work::named(ONE_CORE)?);
    }
    Ok(works)
}

fn allowed_cpus() -> Result<Vec<usize>, Failure> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// `loadgen child`: becomes another program, which ends when the one that started it does.
#[derive(Clone, Debug, Args)]
pub struct ChildArgs {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<std::ffi::OsString>,
}

/// `loadgen child`.
pub(super) fn child(args: &ChildArgs) -> Result<(), Failure> {
    end_with_parent()?;
    let program = &args.command[0];
    let error = std::process::Command::new(program).args(&args.command[1..]).exec();
    Err(format!("can't start {}: {error}", program.to_string_lossy()).into())
}

/// The limit's relay, as a process of its own.
#[derive(Clone, Debug, Args)]
pub struct PumpArgs {
    /// Where to accept connections
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// Microseconds it looks for work before it sleeps
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin_us: u64,
}

/// `loadgen pump`.
pub(super) fn pump(args: &PumpArgs, stop: &AtomicBool) -> Result<(), Failure> {
    end_with_parent()?;
    let listener = TcpListener::bind(args.listen)?;
    // what it accepts inherits it
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    rustix::net::listen(&listener, 4096)?;
    let addr = listener.local_addr()?;
    let options = RelayOptions { spin: Duration::from_micros(args.spin_us), ..RelayOptions::default() };
    let mut relay = Relay::new(listener, options)?;
    println!("listening on {addr}");
    relay.run(stop)?;
    Ok(())
}

/// `loadgen zmq-proxy`.
#[cfg(feature = "zmq")]
pub(super) fn zmq_proxy() -> Result<(), Failure> {
    end_with_parent()?;
    let context = zmq::Context::new();
    let bound = |kind| -> Result<(zmq::Socket, String), Failure> {
        let socket = context.socket(kind)?;
        socket.set_sndhwm(0)?;
        socket.set_rcvhwm(0)?;
        socket.bind("tcp://127.0.0.1:*")?;
        let at = socket.get_last_endpoint()?.unwrap_or_default();
        Ok((socket, at.trim_start_matches("tcp://").to_owned()))
    };
    let (front, front_at) = bound(zmq::ROUTER)?;
    let (back, back_at) = bound(zmq::DEALER)?;
    println!("listening on {front_at} {back_at}");
    zmq::proxy(&front, &back)?;
    Ok(())
}

/// A child of this program does not outlive it, however it ends.
fn end_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    Ok(())
}

//! `loadgen compare` and `loadgen limit`, and the children they start in this program.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::output::{say, to_file};
use super::{Failure, parse_duration};
use crate::compare::result::{heading, markdown, medians};
use crate::compare::system::{Brokers, System, on_path};
use crate::compare::work::Work;
use crate::compare::{Options, compare};
use crate::pump::{Relay, RelayOptions};

/// How brokers are compared.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Which works: 1x1, 64x1, 16x64, 1000x1, 64k, open30k, stream1g [default: all]
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
    /// Microseconds that limit and corelay look for work before they sleep
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin_us: u64,
    /// Writes all rows and medians as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Whom `compare` compares.
#[derive(Clone, Debug, Args)]
pub struct SystemArgs {
    /// Whom: limit, corelay, corelay-epoll, nats, zmq [default: all that are there]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    systems: Vec<System>,
    /// The corelay binary [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    corelay: Option<PathBuf>,
    /// The nats-server binary [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    nats: Option<PathBuf>,
}

/// `loadgen limit`.
pub(super) fn limit(args: &CompareArgs, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let systems = SystemArgs { systems: vec![System::Limit], corelay: None, nats: None };
    run(args, &systems, stop)
}

/// `loadgen compare`.
pub(super) fn run(args: &CompareArgs, whom: &SystemArgs, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let options = options(args, whom)?;
    say(&format!("{}\n{}\n", crate::proc::machine(), heading()))?;
    let rows = compare(&options, stop, |row| drop(say(&format!("{row}\n"))))?;
    let medians = medians(&rows);
    say(&format!("\n{}", markdown(&medians)))?;
    if let Some(path) = &args.json {
        let all = json!({ "machine": crate::proc::machine(), "rows": rows, "medians": medians });
        to_file(path, |out| writeln!(out, "{all:#}"))?;
    }
    Ok(())
}

fn options(args: &CompareArgs, whom: &SystemArgs) -> Result<Options, Failure> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name("corelay");
    let brokers = Brokers {
        corelay: whom.corelay.clone().unwrap_or(beside),
        nats: whom.nats.clone().or_else(|| on_path("nats-server")),
        own,
        spin_us: args.spin_us,
    };
    let asked = !whom.systems.is_empty();
    let systems = if asked { whom.systems.clone() } else { System::ALL.to_vec() };
    let (there, missing): (Vec<_>, Vec<_>) = systems.into_iter().partition(|&system| brokers.has(system));
    for system in &missing {
        let why = match system {
            System::Zmq => "built without the feature zmq",
            System::Nats => "no nats-server on the PATH; name it by --nats",
            _ => "no such file; name it by --corelay",
        };
        if asked {
            return Err(format!("{system}: {why}").into());
        }
        eprintln!("left out: {system} ({why})");
    }
    let works = if args.work.is_empty() { Work::all() } else { args.work.clone() };
    let (repeat, duration, warmup) = (args.repeat, args.duration, args.warmup);
    let (broker_cpu, load_cpu) = (args.broker_cpu, args.load_cpu);
    Ok(Options { systems: there, works, repeat, duration, warmup, broker_cpu, load_cpu, brokers })
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

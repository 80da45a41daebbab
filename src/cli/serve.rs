//! `corelay serve`: the broker.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use corelay::broker::{Inspector, ListenAddr, Server};
use corelay::telemetry::{Admin, Bound, Extras};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{info, warn};

use super::exit::Failure;
use super::heap;
use super::log::{Log, Writer, reload_log};
use super::notify;
use super::reload::{self, Reload, renews, waits_for_a_start};
use super::spans::Spans;
use crate::config::{Config, Loaded, Sources};

/// Run the broker
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Where to accept connections: host:port, tls://host:port or unix:/path, may be repeated; port 0 picks one
    /// [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Where to serve the admin endpoint (dashboard, metrics, health): host:port, tls://host:port or unix:/path, or
    /// off [default: off]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Let other machines in without asking for a token
    #[arg(long)]
    insecure: bool,
    /// Serve the admin endpoint to other machines too, without encryption or a check of who asks
    #[arg(long)]
    admin_insecure: bool,
    /// The certificate of tls:// addresses (PEM), followed by those that lead to its CA
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// CA certificates (PEM) of clients: each must then show a certificate (mutual TLS)
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// How many cores run the broker, or which: 4, or 0-3,6 [default: all that this process may use]
    #[arg(long, value_name = "N|LIST")]
    cores: Option<String>,
    /// How the kernel is asked: auto, uring or epoll [default: auto]
    #[arg(long, value_name = "KIND")]
    io: Option<String>,
    /// Microseconds a core looks for work before it sleeps: lower latency for more CPU time [default: 0]
    #[arg(long, value_name = "N")]
    spin_us: Option<String>,
    /// Don't bind threads to their cores
    #[arg(long)]
    no_pin: bool,
    /// How to log: text, or json, one object a line [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Read settings from this file (TOML)
    #[arg(long, value_name = "FILE", env = "CORELAY_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Change one setting, as in --set limits.window=1MiB or --set channel.orders.spread=2; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Check the settings, print them all with where they come from, and exit
    #[arg(long)]
    check_config: bool,
}

const AFTER: &str = "\
Settings come from --config, then the environment (CORELAY_SECTION_KEY, as in CORELAY_LIMITS_WINDOW), then --set, \
then the other flags; later ones win. --check-config prints every setting there is.

SIGTERM or SIGINT drains: nothing new is taken, what is in flight may finish within limits.drain_timeout. A second \
one ends at once. SIGHUP reads the settings again and takes up those that can change while it runs: who may do what, \
certificates, log.level.

An address that other machines can reach is refused unless it asks for certificates (--tls-client-ca), or there are \
[[auth.token]] entries in the settings: each has a name, a token (or token_sha256, or token_file), and allow and deny \
with rules such as consume:orders, publish:log.*, provide:resize.

Examples:
  corelay serve
  corelay serve --admin 127.0.0.1:9091
  corelay serve --listen 0.0.0.0:9090 --listen unix:/run/corelay.sock --cores 4 --config tokens.toml
  corelay serve --listen tls://0.0.0.0:9090 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem
  CORELAY_LIMITS_KEEPALIVE=5s corelay serve --config corelay.toml --check-config

Exit codes:
    0  ended in order after SIGTERM or SIGINT
    1  could not start (address in use, no io_uring, not enough memory), or a core failed
    2  bad usage or configuration
  130  ended at once by a second SIGINT; 143: by a second SIGTERM";

/// Could not start, or go on.
const FAILED: u8 = 1;

impl Args {
    /// Where the settings come from; `log` is the flag of all commands.
    fn sources(self, log: Option<String>) -> Sources {
        let text = |name: std::ffi::OsString| name.to_string_lossy().into_owned();
        let one = |value: Option<String>| value.map(|value| vec![value]);
        let flags = [
            ("--listen", "server.listen", (!self.listen.is_empty()).then_some(self.listen)),
            ("--admin", "admin.listen", one(self.admin)),
            ("--admin-insecure", "admin.insecure", self.admin_insecure.then(|| vec!["true".into()])),
            ("--insecure", "server.insecure", self.insecure.then(|| vec!["true".into()])),
            ("--tls-cert", "tls.cert", one(self.tls_cert)),
            ("--tls-key", "tls.key", one(self.tls_key)),
            ("--tls-client-ca", "tls.client_ca", one(self.tls_client_ca)),
            ("--cores", "server.cores", one(self.cores)),
            ("--io", "server.io", one(self.io)),
            ("--spin-us", "server.spin_us", one(self.spin_us)),
            ("--no-pin", "server.pin", self.no_pin.then(|| vec!["false".into()])),
            ("--log", "log.level", one(log)),
            ("--log-format", "log.format", one(self.log_format)),
        ];
        Sources {
            file: self.config,
            env: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            set: self.set,
            flags: flags.into_iter().filter_map(|(flag, key, values)| Some((flag, key, values?))).collect(),
        }
    }
}

pub(crate) fn run(args: Args, log: Option<String>) -> Result<(), Failure> {
    let check = args.check_config;
    let sources = args.sources(log);
    let loaded = Loaded::from(&sources).map_err(|error| Failure::usage(error.to_string()))?;
    let log = Log::start(&loaded.config.log, if check { Writer::Direct } else { Writer::Thread })?;
    loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
    if check {
        return print(&loaded.to_toml());
    }
    let ended = serve(loaded.config, sources, &log);
    log.finish();
    ended
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::stdout(&error))
}

fn serve(config: Config, sources: Sources, log: &Arc<Log>) -> Result<(), Failure> {
    // before the start, so that a signal during it is not lost
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]);
    let signals = signals.map_err(|error| Failure::new(FAILED, format!("cannot listen for signals: {error}")))?;
    let failed = |error: corelay::broker::ServerError| Failure::new(FAILED, error.to_string());
    let admin_listen = config.admin.listen.as_ref();
    if config.server.tls.is_set() && !config.server.has_tls() && !admin_listen.is_some_and(ListenAddr::is_tls) {
        warn!("tls.cert is set, but no address of server.listen begins with tls://: nothing is encrypted");
    }
    // an address in use is told before anything starts
    let admin = Bound::new(&config.admin()).map_err(|error| Failure::new(FAILED, error.to_string()))?;
    let (spans, sink) = Spans::start(&config)?;
    let running = config.clone();
    let server = Server::builder().options(config.server).spans(sink).start().map_err(failed)?;
    let inspector = server.inspector();
    let mut extras = Extras::default();
    extras.log = Some(log.clone());
    extras.exported = spans.exported();
    let admin = admin.map(|admin| admin.serve_with(inspector.clone(), extras)).transpose();
    let admin = admin.map_err(|error| Failure::new(FAILED, error.to_string()))?;
    let addrs = server.addrs().iter().map(|addr| format!("listening on {addr}\n"));
    // a supervisor that closed our stdout still wants its broker
    let admin_addr = admin.iter().map(|admin| format!("admin on {}\n", admin.addr()));
    if let Err(failure) = print(&addrs.chain(admin_addr).collect::<String>()) {
        warn!(text = failure.text, "stdout is closed");
    }
    notify::ready(&inspector);
    notify::supervise(inspector.clone());
    heap::watch(inspector.clone());
    let relog = log.clone();
    // what SIGHUP can change in a running broker: each part takes its own out of the new settings
    let reload = Reload::new(sources)
        .with("auth", reload::auth(server.reloader(), running.server.auth.clone()))
        .with("tls", renews(server.tls(), |config| config.server.tls.clone()))
        .with("admin.tls", renews(admin.as_ref().and_then(Admin::tls), |config| config.admin().tls))
        .with("log", Box::new(move |config| reload_log(&relog, config)))
        .with("settings", waits_for_a_start(running));
    let log = log.clone();
    thread::spawn(move || obey(signals, &inspector, &log, reload));
    let ended = server.join();
    spans.join();
    ended.map_err(failed)?;
    info!("ended in order");
    Ok(())
}

/// Drains at the first signal that asks for the end, ends the process at the second; reloads at SIGHUP.
fn obey(mut signals: Signals, inspector: &Inspector, log: &Log, mut reload: Reload) {
    let mut draining = false;
    for signal in signals.forever() {
        if signal == SIGHUP {
            // on its way to its end it is neither ready again, nor worth a change
            if !inspector.is_draining() {
                notify::reloading();
                reload.now();
                notify::reloaded();
            }
            continue;
        }
        if draining {
            warn!("ended at once by a second signal");
            log.finish();
            std::process::exit(128 + signal);
        }
        info!("draining; a second signal ends at once");
        draining = true;
        notify::stopping(inspector);
        inspector.stopper().drain();
    }
}

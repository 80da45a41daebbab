//! Real servers for tests, each on a free port of the loopback and in a directory of its own.
//!
//! One of a kind serves a whole test run ([`postgres::shared`] and the like); tests keep apart by a database or a
//! prefix of their own. A test that kills its server starts a private one.
//!
//! A server ends with the process that started it, however that ends: it is run by `setpriv --pdeathsig`, from a
//! thread that lives as long as the process.

#![allow(dead_code)] // what is used depends on the features

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, Once, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub mod corelay;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "kafka-tls")]
pub mod kafka_tls;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod proxy;
#[cfg(feature = "amqp")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;

/// A directory for a server. What earlier runs left, which could not clean up after the servers all tests share, goes.
fn directory() -> tempfile::TempDir {
    const PREFIX: &str = "corelay-it-";
    static CLEAN: Once = Once::new();
    CLEAN.call_once(|| {
        for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    });
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().unwrap()
}

/// How long a server may take to come up: RabbitMQ needs seconds even on an idle machine.
const START: Duration = Duration::from_secs(90);

/// Whether a missing program is an error: on CI everything has to be there.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// The first of `candidates` that exists: a path, or a name looked up in PATH. `None`, said loudly, where the test is
/// to be skipped.
pub fn find(what: &str, candidates: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let found = candidates.iter().find_map(|name| {
        let in_path = || dirs.iter().map(|dir| dir.join(name)).find(|full| full.is_file());
        if name.is_absolute() { name.is_file().then(|| name.clone()) } else { in_path() }
    });
    if found.is_none() {
        assert!(!is_ci(), "{what} is not installed, and CI=true");
        eprintln!("SKIPPED, NOTHING WAS TESTED: {what} is not installed");
    }
    found
}

/// A port below those the kernel gives to outgoing connections: one of these could take it while its server is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // runs side by side begin apart
        let offset = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 15_000 + (offset % 17_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A name no other test of this run has.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Starts a command in the thread whose end is the process's: what `--pdeathsig` watches is a thread.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = mpsc::channel();
    SPAWNER.lock().unwrap().send((command, answer)).expect("the spawner lives as long as the process");
    child.recv().expect("the spawner answers")
}

/// A running server, ended when dropped and with the process.
#[derive(Debug)]
pub struct Server {
    pub port: u16,
    dir: tempfile::TempDir,
    child: Child,
    line: Line,
}

/// How a server is started, so that it can be started again.
#[derive(Debug)]
struct Line {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// The user to run as when this is root, for servers that refuse to be.
    user: Option<&'static str>,
}

impl Line {
    /// By `setpriv`, which tells the kernel to kill it with its parent.
    fn start(&self, dir: &Path) -> io::Result<Child> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(as_user(self.user)).arg("--").arg(&self.program).args(&self.args);
        command.envs(self.env.iter().cloned()).current_dir(dir).stdin(Stdio::null());
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        spawn(command)
    }
}

/// The arguments of `setpriv` that change to `user`, when this is root.
fn as_user(user: Option<&str>) -> Vec<String> {
    match user {
        Some(user) if rustix::process::geteuid().is_root() => {
            ["--reuid", user, "--regid", user, "--clear-groups"].map(String::from).to_vec()
        }
        _ => Vec::new(),
    }
}

impl Server {
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends it without warning, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Stops it with all its connections open: it neither answers nor goes away.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        // a thread that runs goes on until the signal has come to its CPU
        let begin = Instant::now();
        while !self.is_stopped() {
            assert!(begin.elapsed() < Duration::from_secs(10), "does not stop");
            std::thread::yield_now();
        }
    }

    fn is_stopped(&self) -> bool {
        let mut threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten();
        threads.all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        })
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Starts it again on its port and data, until `is_up` says so.
    pub fn restart(&mut self, is_up: impl Fn(&Server) -> bool) {
        let begin = Instant::now();
        // what it says from now on is of its new life
        let _ = std::fs::rename(self.dir.path().join("log"), self.dir.path().join("log.before"));
        self.child = self.line.start(self.dir.path()).unwrap();
        while !is_up(self) {
            // right after a kill its files may still be held by its children
            if self.child.try_wait().unwrap().is_some() {
                self.child = self.line.start(self.dir.path()).unwrap();
            }
            self.wait_a_little(begin);
        }
    }

    /// The end of what it wrote.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn wait_a_little(&self, begin: Instant) {
        let program = self.line.program.display();
        assert!(begin.elapsed() < START, "{program} is not up after {START:?}:\n{}", self.log());
        std::thread::sleep(Duration::from_millis(10));
    }

    /// Whether its port takes connections.
    pub fn listens(&self) -> bool {
        TcpStream::connect(self.addr()).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a server; again on another port if somebody took the port meanwhile.
fn start(dir: tempfile::TempDir, line: impl Fn(u16, &Path) -> Line, is_up: impl Fn(&Server) -> bool) -> Server {
    let begin = Instant::now();
    let port = free_port();
    let first = line(port, dir.path());
    let child = first.start(dir.path()).expect("setpriv is part of every Linux system");
    let mut server = Server { port, dir, child, line: first };
    while !is_up(&server) {
        if server.child.try_wait().unwrap().is_some() {
            server.port = free_port();
            server.line = line(server.port, server.dir.path());
            server.child = server.line.start(server.dir.path()).unwrap();
        }
        server.wait_a_little(begin);
    }
    server
}

//! What systemd is told: a socket of the test's own stands for it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use super::run::{Broker, assert_code, corelay, finish};
use crate::wire::Wire;
use corelay::protocol::{Flags, FrameType};

/// Nothing takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Systemd {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Systemd {
    fn new() -> Systemd {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Systemd { dir, socket }
    }

    fn broker(&self, more: &[&str], watchdog: Option<Duration>) -> Broker {
        let mut command = corelay(&["serve", "--listen", "127.0.0.1:0", "--cores", "2", "--no-pin", "--log", "warn"]);
        command.args(more).env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        Broker::spawn(&mut command)
    }

    /// The next message with this line in it.
    fn told(&self, line: &str) -> Vec<String> {
        let mut buffer = [0; 4096];
        loop {
            let len = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{line} did not come: {error}"));
            let message = String::from_utf8(buffer[..len].to_vec()).unwrap();
            let lines: Vec<String> = message.lines().map(str::to_owned).collect();
            if lines.iter().any(|found| found == line) {
                return lines;
            }
        }
    }
}

#[test]
fn it_is_told_of_the_start_a_reload_and_the_end() {
    let systemd = Systemd::new();
    let mut broker = systemd.broker(&[], None);
    let ready = systemd.told("READY=1");
    assert!(ready.iter().any(|line| line.starts_with("STATUS=serving ") && line.contains(&broker.addr)), "{ready:?}");
    broker.process.signal(Signal::HUP);
    let reloading = systemd.told("RELOADING=1");
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    systemd.told("READY=1");
    broker.process.signal(Signal::TERM);
    let stopping = systemd.told("STOPPING=1");
    // drain_timeout and 10 s
    assert!(stopping.contains(&"EXTEND_TIMEOUT_USEC=30000000".to_owned()), "{stopping:?}");
    assert_eq!(broker.process.code(), Some(0));
}

#[test]
fn a_drain_that_the_admin_endpoint_began_is_told_too() {
    let systemd = Systemd::new();
    let admin = format!("unix:{}", systemd.dir.path().join("admin").display());
    let broker = systemd.broker(&["--admin", &admin], None);
    // a request in flight holds the drain up
    let mut provider = Wire::provider(broker.addr.parse().unwrap(), "orders", 1);
    let mut consumer = Wire::consumer(broker.addr.parse().unwrap(), "orders");
    consumer.request(1, 1, b"", Flags::NONE);
    provider.expect(FrameType::Request);
    assert_code(&finish(&mut corelay(&["drain", "--admin", &admin]), b""), 0);
    systemd.told("STOPPING=1");
}

#[test]
fn the_watchdog_is_fed_again_and_again() {
    let systemd = Systemd::new();
    let _broker = systemd.broker(&[], Some(Duration::from_millis(100)));
    systemd.told("READY=1");
    for _ in 0..3 {
        systemd.told("WATCHDOG=1");
    }
}

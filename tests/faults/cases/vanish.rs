//! Peers that are gone without saying so.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use corelay::protocol::{Code, Flags, FrameType};

use super::skip;
use crate::peers::CHANNEL;
use crate::run::{Process, eventually, without_settings};
use crate::site::Site;
use crate::wire::Wire;

/// Clients that read and write no more: an idle consumer, one in the middle of a header, a provider with a request.
struct Silent {
    peers: Vec<Wire>,
    /// Their requests are with the silent providers.
    waiting: Wire,
    requests: u32,
}

fn fall_silent(addr: SocketAddr, waiting: Wire, peers: usize) -> Silent {
    let mut silent = Silent { peers: Vec::new(), waiting, requests: 0 };
    for n in 0..peers {
        let mut peer = match n % 10 {
            0 => Wire::provider(addr, CHANNEL, 1),
            _ => Wire::consumer(addr, "silence"),
        };
        if n % 10 == 0 {
            silent.requests += 1;
            silent.waiting.request(silent.requests, n as u128, b"for nobody", Flags::NONE);
            peer.expect(FrameType::Request);
        } else if n % 3 == 0 {
            peer.write(&[0; 5]);
        }
        silent.peers.push(peer);
    }
    silent
}

pub fn silent_peers(site: &mut Site) -> String {
    let before = site.usage().descriptors;
    let waiting = Wire::consumer(site.addr, CHANNEL);
    let mut silent = fall_silent(site.addr, waiting, site.scale(100, 1000));
    let begin = Instant::now();
    for _ in 0..silent.requests {
        let error = silent.waiting.expect(FrameType::Error);
        assert_eq!((error.code, error.flags.has(Flags::STARTED)), (Some(Code::ProviderLost), true));
    }
    // all but the one that answers PINGs; it does so by reading
    eventually("the silent to be closed", || {
        silent.waiting.request(1, 1, b"", Flags::NONE);
        silent.waiting.expect_error(1, Code::NoProvider);
        site.usage().descriptors <= before + 1
    });
    let (peers, requests) = (silent.peers.len(), silent.requests);
    format!(
        "{peers} closed after {:.1?}, the {requests} requests given to them ended with PROVIDER_LOST",
        begin.elapsed()
    )
}

/// `unshare`, as the user that maps to root in it, with the loopback up.
pub fn launch_in_a_network_of_its_own(line: &[String], _: &Path) -> Option<Command> {
    let tried = Command::new("unshare").args(["--map-root-user", "--net", "ip", "link", "set", "lo", "up"]).output();
    match tried {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            skip(false, &format!("no network namespace can be made here: {text}"));
            return None;
        }
        Err(error) => {
            skip(true, &format!("unshare does not start ({error}); Debian has it in util-linux, and ip in iproute2"));
            return None;
        }
    }
    let mut command = Command::new("unshare");
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    command.args(["--map-root-user", "--net", "sh", "-c", script]).args(line);
    without_settings(&mut command);
    Some(command)
}

/// A command inside the broker's network.
fn inside(site: &Site) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &site.broker.id().to_string(), "--user", "--net", "--preserve-credentials", "--"]);
    command
}

const PEERS: &str = "CORELAY_TEST_PEERS";

/// The clients need to be in the broker's network: this test binary runs itself there, as these peers.
pub fn vanished_peers(site: &mut Site) -> String {
    let peers = site.scale(50, 500);
    let before = site.usage().descriptors;
    let mut command = inside(site);
    command.arg(std::env::current_exe().expect("this test")).args(["--exact", "cases::vanish::peers", "--nocapture"]);
    command.env(PEERS, format!("{} {peers}", site.addr)).stderr(Stdio::inherit());
    let mut process = Process::start(&mut command);
    let mut lines = BufReader::new(process.0.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let requests: Option<u32> = lines.find_map(|line| line.split_once("silent with requests: ")?.1.trim().parse().ok());
    let requests = requests.expect("the peers say when they are there");
    assert_eq!(site.usage().descriptors, before + peers + 1);
    let down = inside(site).args(["ip", "link", "set", "lo", "down"]).status().expect("nsenter");
    assert!(down.success(), "the loopback could not be taken down");
    let begin = Instant::now();
    eventually("the vanished to be closed", || site.usage().descriptors <= before);
    let took = begin.elapsed();
    drop(process);
    format!("all {peers} closed after {took:.1?}, with {requests} requests in flight on them")
}

/// Not a test of its own: the peers.
#[test]
fn peers() {
    let Ok(what) = std::env::var(PEERS) else { return };
    let (addr, peers) = what.split_once(' ').expect("address and number");
    let addr = addr.parse().expect("an address");
    let silent = fall_silent(addr, Wire::consumer(addr, CHANNEL), peers.parse().expect("a number"));
    println!("silent with requests: {}", silent.requests);
    std::io::stdout().flush().expect("the test reads it");
    // until it is ended
    loop {
        std::thread::park();
    }
}

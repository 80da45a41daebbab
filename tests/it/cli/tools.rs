use std::io::BufRead;

use rustix::process::Signal;

use super::run::{Broker, Process, assert_code, corelay, finish, text};

#[test]
fn ping_measures() {
    let broker = Broker::start();
    let output = finish(&mut broker.command(&["ping", "--count", "3", "--interval", "100ms"]), b"");
    assert_code(&output, 0);
    let said = text(&output.stdout);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with(&format!("PING {}: broker ", broker.addr)), "{said}");
    assert!(lines[1].starts_with("seq=1 time=") && lines[3].starts_with("seq=3 time="), "{said}");
    assert!(lines[5].starts_with("3 sent, 3 answered, time "), "{said}");
    assert!(lines[6].starts_with("round trip min/avg/max/p99 = "), "{said}");
}

#[test]
fn ping_sums_up_when_interrupted() {
    let broker = Broker::start();
    let mut ping = Process::start(&mut broker.command(&["ping"]));
    let mut lines = ping.stdout().lines().map(Result::unwrap);
    lines.find(|line| line.starts_with("seq=1 ")).expect("the first answer");
    ping.signal(Signal::INT);
    assert!(lines.any(|line| line.starts_with("round trip min/avg/max/p99")));
    assert_eq!(ping.code(), Some(0));
}

#[test]
fn demo_streams_checks_and_measures() {
    let output = finish(&mut corelay(&["demo", "--size", "20MiB", "--requests", "300"]), b"");
    assert_code(&output, 0);
    let said = text(&output.stdout);
    for part in
        ["One request of 20.0 MiB", "sent = at provider", "300 requests of 64 bytes", "p99.9", "through unchanged"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(said.lines().count() <= 24, "{said}");
}

#[test]
fn demo_takes_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), super::run::noise(100_000)).unwrap();
    let line = ["demo", file.path().to_str().unwrap(), "--requests", "1", "--io", "epoll", "--cores", "1"];
    let output = finish(&mut corelay(&line), b"");
    assert_code(&output, 0);
    assert!(text(&output.stdout).contains("on epoll"), "{}", text(&output.stdout));
    assert_code(&finish(&mut corelay(&["demo", "/no/such/file"]), b""), 2);
}

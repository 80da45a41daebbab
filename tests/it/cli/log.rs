//! The log: its format, changing its level while the broker runs, and what peers can make of it.

use std::io::{BufRead, Write};
use std::process::Stdio;

use rustix::process::Signal;

use super::run::{Process, assert_code, corelay, eventually, finish, text};
use crate::wire::Wire;
use corelay::protocol::{Code, Flags, FrameType, Header, encode_headers};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A broker whose log is read line by line.
struct Logging {
    process: Process,
    addr: std::net::SocketAddr,
    admin: String,
    log: std::io::Lines<std::io::BufReader<std::process::ChildStderr>>,
}

impl Logging {
    fn start(more: &[&str]) -> Logging {
        let mut command = corelay(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--cores", "1"]);
        let mut process = Process::start(command.args(["--no-pin"]).args(more).stderr(Stdio::piped()));
        let log = std::io::BufReader::new(process.0.stderr.take().unwrap()).lines();
        let mut lines = process.stdout().lines().map(Result::unwrap);
        let mut addr = |what: &str| lines.next().unwrap().strip_prefix(what).expect(what).to_owned();
        let (server, admin) = (addr("listening on "), addr("admin on "));
        Logging { process, addr: server.parse().unwrap(), admin, log }
    }

    /// The next line of the log with this in it.
    #[track_caller]
    fn line(&mut self, part: &str) -> String {
        self.log.by_ref().map(Result::unwrap).find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part}"))
    }

    fn log(&self, filter: &[&str]) -> std::process::Output {
        finish(corelay(&["log", "--admin", &self.admin]).args(filter), b"")
    }

    /// A traced request and its answer.
    fn request(&self) {
        let mut provider = Wire::provider(self.addr, "orders", 1);
        let mut consumer = Wire::consumer(self.addr, "orders");
        let mut payload = [7; 16].to_vec();
        encode_headers([("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))], &mut payload).unwrap();
        consumer.send(Header::new(FrameType::Request, 1).flags(Flags::END | Flags::HEADERS), &payload);
        let got = provider.expect(FrameType::Request);
        assert_eq!(got.payload, payload, "the header block goes through untouched");
        provider.respond(got.stream, b"");
        assert_eq!(consumer.next_past_credit().kind, FrameType::Response);
    }
}

#[test]
fn requests_are_told_of_with_their_trace_from_the_moment_that_is_asked_for() {
    let mut broker = Logging::start(&["--log-format", "json"]);
    broker.request();
    let changed = broker.log(&["info,corelay::request=trace"]);
    assert_code(&changed, 0);
    assert_eq!(text(&broker.log(&[]).stdout), "info,corelay::request=trace\n");
    // a core looks at the level in its next turn, and connecting takes it several
    broker.request();
    let line = broker.line("\"ended\"");
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["target"], "corelay::request", "{line}");
    assert_eq!(told["trace"], TRACE, "{line}");
    assert_eq!(told["request"], "07070707-0707-0707-0707-070707070707", "{line}");
    assert_eq!(told["outcome"], "answered", "{line}");
    // the first request came before the change: this one's end is the first that is told of
    assert_code(&broker.log(&["info"]), 0);
    broker.request();
    broker.process.signal(Signal::TERM);
    let rest: Vec<String> = broker.log.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("ended in order")), "{rest:#?}");
    assert!(!rest.iter().any(|line| line.contains("\"ended\"")), "{rest:#?}");
}

#[test]
fn a_filter_that_is_none_changes_nothing() {
    let broker = Logging::start(&["--log", "warn"]);
    assert_code(&broker.log(&["inof"]), 2);
    let put = "PUT /log HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\ninof";
    let mut socket = std::net::TcpStream::connect(&broker.admin).unwrap();
    socket.write_all(put.as_bytes()).unwrap();
    let answer = std::io::read_to_string(socket).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("expected error, warn"), "{answer}");
    assert_eq!(text(&broker.log(&[]).stdout), "warn\n");
}

#[test]
fn hangup_reads_the_level_anew() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut write = |text: &str| {
        file.as_file().set_len(0).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.path().to_str().unwrap().to_owned()
    };
    let path = write("[log]\nlevel = 'info'\n");
    let mut broker = Logging::start(&["--config", &path]);
    write("[log]\nlevel = 'inof'\n");
    broker.process.signal(Signal::HUP);
    let line = broker.line("not reloaded");
    assert!(line.contains("log.level = inof"), "{line}");
    assert_eq!(text(&broker.log(&[]).stdout), "info\n");
    write("[log]\nlevel = 'debug'\n");
    broker.process.signal(Signal::HUP);
    eventually("the new level", || text(&broker.log(&[]).stdout) == "debug\n");
}

#[test]
fn slow_requests_are_told_of() {
    let mut broker = Logging::start(&["--set", "telemetry.slow_ms=1"]);
    let mut provider = Wire::provider(broker.addr, "orders", 1);
    let mut consumer = Wire::consumer(broker.addr, "orders");
    consumer.request(1, 1, b"", Flags::NONE);
    let request = provider.expect(FrameType::Request);
    // the broker's clock is the machine's: no answer before the time that makes it slow
    let asked = std::time::Instant::now();
    while asked.elapsed() < std::time::Duration::from_millis(5) {
        std::thread::yield_now();
    }
    provider.respond(request.stream, b"");
    let line = broker.line("slow request");
    assert!(line.contains("outcome=answered") && line.contains("00000000-0000-0000-0000-000000000001"), "{line}");
}

/// A log collector that hangs must not hang the broker: its pipe holds 64 KiB, and each request makes some 200 bytes.
#[test]
fn a_log_that_nobody_reads_holds_up_no_request() {
    let broker = Logging::start(&["--log", "info,corelay::request=trace"]);
    let mut provider = Wire::provider(broker.addr, "orders", 1);
    let mut consumer = Wire::consumer(broker.addr, "orders");
    for n in 0..2000 {
        consumer.request(1, n, b"", Flags::NONE);
        let request = provider.expect(FrameType::Request);
        provider.respond(request.stream, b"");
        assert_eq!(consumer.next_past_credit().kind, FrameType::Response);
    }
}

#[test]
fn who_breaks_the_protocol_is_told_of_but_cannot_flood_the_log() {
    let mut broker = Logging::start(&[]);
    for _ in 0..30 {
        let mut consumer = Wire::consumer(broker.addr, "orders");
        consumer.send(Header::new(FrameType::Data, 7).flags(Flags::END), b"");
        consumer.expect_error(0, Code::Protocol);
    }
    broker.process.signal(Signal::TERM);
    let lines: Vec<String> = broker.log.by_ref().map_while(Result::ok).collect();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("connection ended")).collect();
    // ten in ten seconds; a slow machine may need a little more than one while
    assert!((10..30).contains(&told.len()), "{lines:#?}");
    assert!(told[0].contains("PROTOCOL") && told[0].contains("name=\"wire\""), "{}", told[0]);
}

//! What a broker shows of its producers, while one delivers, some can't, and one is given what it can't take.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use corelay::Server;
use corelay::base::ChannelId;
use corelay::broker::{Cores, ListenAddr, NamedChannel, ProducerOptions, ServerOptions, What};
use corelay::protocol::{Flags, FrameType};
use corelay::telemetry::view::{Health, Producer, Producerz};
use corelay::telemetry::{Admin, AdminOptions};

use crate::cli::run::{assert_code, corelay, eventually, finish, text};
use crate::wire::Wire;

const BODY: &[u8] = b"twelve bytes";
const MESSAGES: u64 = 3;
const SECRET: &str = "hunter2";

/// A broker on two cores that has forwarded some requests, as far as that can be done.
struct Busy {
    server: Server,
    admin: Admin,
    /// Closed ports, by what stands for them in a snapshot.
    ports: Vec<(u16, &'static str)>,
    dir: tempfile::TempDir,
    _listener: UdpSocket,
}

/// A port where nobody listens.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Busy {
    fn start() -> Busy {
        let dir = tempfile::tempdir().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_port = udp.local_addr().unwrap().port();
        let (tcp_port, http_port) = (closed(), closed());
        let lasting = |id: &str, url: String| ProducerOptions { retries: 1_000_000, ..ProducerOptions::new(id, url) };
        let orders: NamedChannel = "orders".parse().unwrap();
        let audit = lasting("audit", format!("file://{}/audit.jsonl?envelope=json", dir.path().display()));
        let producers = vec![
            ProducerOptions { channels: vec![orders], what: What::Both, ..audit },
            lasting("refusing", format!("tcp://127.0.0.1:{tcp_port}")),
            lasting("hook", format!("http://user:{SECRET}@127.0.0.1:{http_port}/hook")),
            lasting("short", format!("udp://127.0.0.1:{udp_port}?mtu=8")),
        ];
        let server = Server::start(ServerOptions {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            cores: Cores::Count(2),
            pin: false,
            buffers: 64,
            producers,
            ..ServerOptions::default()
        })
        .unwrap();
        let options = AdminOptions { listen: Some("127.0.0.1:0".parse().unwrap()), ..AdminOptions::default() };
        let admin = Admin::start(&options, server.inspector()).unwrap().expect("an address");
        let ports = vec![(tcp_port, "TCP"), (http_port, "HTTP"), (udp_port, "UDP")];
        let busy = Busy { server, admin, ports, dir, _listener: udp };
        busy.work();
        busy
    }

    fn work(&self) {
        let mut provider = Wire::provider(self.server.addr(), "orders", 8);
        let mut consumer = Wire::consumer(self.server.addr(), "orders");
        for stream in 1..=MESSAGES as u32 {
            consumer.request(stream, u128::from(stream), BODY, Flags::NONE);
            let request = provider.expect(FrameType::Request);
            provider.respond(request.stream, b"answer");
            assert_eq!(consumer.next_past_credit().kind, FrameType::Response);
        }
        eventually("all to be delivered or given up, and the breakers to open", || {
            // from then on `open`, and `half_open` for the moment of each try
            let is_shut = |id| self.producer(id).state != "closed";
            let short = &self.producer("short").counts;
            self.producer("audit").counts.forwarded == 2 * MESSAGES
                && short.dropped["too_large"] == MESSAGES
                && is_shut("refusing")
                && is_shut("hook")
        });
    }

    fn get(&self, path: &str) -> (u16, String) {
        let ListenAddr::Tcp(addr) = self.admin.addr() else { panic!("on TCP") };
        let mut socket = TcpStream::connect(addr).unwrap();
        socket
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn page(&self) -> Producerz {
        serde_json::from_str(&self.get("/producerz").1).unwrap()
    }

    fn producer(&self, id: &str) -> Producer {
        self.page().producers.into_iter().find(|producer| producer.id == id).unwrap()
    }

    fn command(&self) -> String {
        let output = finish(&mut corelay(&["producers", "--admin", &self.admin.addr().to_string()]), b"");
        assert_code(&output, 0);
        text(&output.stdout)
    }
}

/// A sample of a producer, its cores added up.
fn metric(page: &str, name: &str, producer: &str, more: &str) -> f64 {
    let producer = format!("producer=\"{producer}\"");
    let lines = page
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(&producer) && line.contains(more));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[test]
fn producers_are_shown_as_they_are() {
    let busy = Busy::start();
    let page = busy.page();
    assert!(page.silent_cores.is_empty());
    let ids: Vec<_> = page.producers.iter().map(|producer| producer.id.as_str()).collect();
    assert_eq!(ids, ["audit", "refusing", "hook", "short"]);
    for Producer { id, counts, per_core, .. } in &page.producers {
        let known = counts.forwarded + counts.dropped_total() + counts.dead_lettered + counts.queue_messages;
        assert_eq!(counts.accepted, known, "{id}: {counts:?}");
        assert_eq!(per_core.iter().map(|core| core.core).collect::<Vec<_>>(), [0, 1], "{id}");
        assert_eq!(per_core.iter().map(|core| core.counts.accepted).sum::<u64>(), counts.accepted, "{id}");
        assert_eq!(per_core.iter().map(|core| core.counts.latency.count).sum::<u64>(), counts.latency.count, "{id}");
        assert_eq!(counts.queue_limit, 2 * (8 << 20), "{id}");
        assert_eq!(counts.dropped["handover"], 0, "{id}");
    }
    let [audit, refusing, hook, short] = &page.producers[..] else { panic!("{page:#?}") };
    assert_eq!(
        (audit.protocol.as_str(), audit.promise.as_str(), audit.state.as_str()),
        ("file", "at_most_once", "closed")
    );
    assert_eq!((audit.what.as_str(), &audit.channels[..]), ("both", &["orders".to_owned()][..]));
    assert_eq!(audit.counts.forwarded_bytes, MESSAGES * (BODY.len() + b"answer".len()) as u64);
    assert_eq!((audit.counts.latency.count, audit.counts.last_error.as_ref()), (2 * MESSAGES, None));
    for down in [refusing, hook] {
        assert_eq!((down.counts.queue_messages, down.counts.forwarded), (MESSAGES, 0), "{down:#?}");
        assert!(down.counts.retried >= 1 && down.counts.queue_bytes > 0, "{down:#?}");
        let error = down.counts.last_error.as_ref().expect("it was refused");
        assert!(error.text.contains("refused") && error.age_seconds < 60.0, "{error:?}");
        // one core has the channel, the other nothing to send
        assert_eq!(down.per_core.iter().filter(|core| core.state != "closed").count(), 1, "{down:#?}");
    }
    assert_eq!((hook.promise.as_str(), hook.what.as_str(), hook.channels.len()), ("at_least_once", "request", 0));
    assert_eq!(
        (short.counts.dropped["too_large"], short.max_body, short.state.as_str()),
        (MESSAGES, Some(8), "closed")
    );
}

#[test]
fn prometheus_reads_of_producers() {
    let busy = Busy::start();
    let (_, page) = busy.get("/metrics");
    let bytes = (MESSAGES * (BODY.len() + b"answer".len()) as u64) as f64;
    for (name, producer, more, value) in [
        ("corelay_producer_accepted_total", "audit", "core=", 6.0),
        ("corelay_producer_forwarded_total", "audit", "", 6.0),
        ("corelay_producer_forwarded_bytes_total", "audit", "", bytes),
        ("corelay_producer_latency_seconds_count", "audit", "", 6.0),
        ("corelay_producer_latency_seconds_bucket", "audit", "le=\"+Inf\"", 6.0),
        ("corelay_producer_up", "audit", "", 2.0),
        ("corelay_producer_up", "refusing", "", 1.0),
        ("corelay_producer_queue_messages", "refusing", "", 3.0),
        ("corelay_producer_queue_limit_bytes", "refusing", "core=\"1\"", 8_388_608.0),
        ("corelay_producer_dropped_total", "short", "reason=\"too_large\"", 3.0),
        ("corelay_producer_dropped_total", "short", "", 3.0),
        ("corelay_producer_dead_lettered_total", "short", "", 0.0),
    ] {
        assert_eq!(metric(&page, name, producer, more), value, "{name} {producer} {more} in\n{page}");
    }
    assert!(metric(&page, "corelay_producer_retried_total", "refusing", "") >= 1.0);
    assert!(metric(&page, "corelay_producer_queue_bytes", "refusing", "") >= (MESSAGES * BODY.len() as u64) as f64);
    let handover = page.lines().filter(|line| line.contains("reason=\"handover\"")).count();
    assert_eq!(handover, 4 * 2, "a series for each producer and core");
    // what docs/FORWARDING.md says it costs
    let series = page.lines().filter(|line| line.contains("producer=\"audit\",core=\"0\"")).count();
    assert_eq!(series, 34, "{page}");
}

#[test]
fn a_target_that_is_down_degrades_and_no_page_tells_a_password() {
    let busy = Busy::start();
    let (status, body) = busy.get("/healthz");
    let health: Health = serde_json::from_str(&body).unwrap();
    assert_eq!((status, health.status.as_str()), (200, "degraded"), "{health:?}");
    let refusing = format!("producer refusing does not reach 127.0.0.1:{} from core ", busy.ports[0].0);
    let reasons = health.reasons.iter().filter(|reason| reason.replace("tcp://", "").starts_with(&refusing));
    assert_eq!(reasons.count(), 1, "{health:?}");
    assert_eq!(health.reasons.len(), 2, "{health:?}");
    let shown = busy.command();
    let debug = format!("{:?}", busy.server.inspector().producers());
    let pages = ["/producerz", "/metrics", "/healthz", "/varz", "/readyz"].map(|path| busy.get(path).1);
    for told in pages.iter().chain([&shown, &debug]) {
        assert!(!told.contains(SECRET), "{told}");
    }
    assert!(shown.contains("hook") && debug.contains("hook") && pages[0].contains("hook"));
}

/// The dashboard's own script, run by a browser without a window against a broker that is there.
#[test]
fn a_browser_draws_the_dashboard() {
    let busy = Busy::start();
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    // of the page's time: it asks once a second, and for each list every other time or less often
    browser.args(["--virtual-time-budget=5000", "--dump-dom"]);
    browser.arg(format!("--user-data-dir={}", profile.path().display())).arg(format!("http://{}/", busy.admin.addr()));
    let page = match browser.output() {
        Ok(output) => text(&output.stdout),
        // no part of a machine that builds and tests programs: CI may be without it
        Err(error) => return eprintln!("SKIPPED, NOTHING WAS TESTED: chromium does not start: {error}"),
    };
    for part in [
        r#"class="pill degraded""#,
        "producer refusing does not reach",
        &format!("process {}", std::process::id()),
        // its name is in no setting, so nobody here knows it
        &format!(">{}</td>", ChannelId::named("orders")),
        r#"<td class="n">3</td>"#,
        ">audit</td>",
        ">refusing</td>",
        "Connection refused",
        "too_large: 3",
        // charts, and a curve of what was answered
        r#"<path class="series""#,
    ] {
        assert!(page.contains(part), "{part} in\n{page}");
    }
    assert!(!page.contains(SECRET) && !page.contains("id=\"producers-all\" hidden"), "{page}");
}

/// Cells apart by two spaces, and what differs from run to run replaced.
fn normalised(busy: &Busy, shown: &str) -> String {
    let mut shown = shown.replace(&*busy.dir.path().to_string_lossy(), "/DIR").replace("half_open", "open");
    for (port, name) in &busy.ports {
        shown = shown.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{name}"));
    }
    let line = |line: &str| {
        if let Some((id, error)) = line.split_once(" s ago: ") {
            let (id, _) = id.split_once(": ").unwrap();
            return format!("{id}: N s ago: {error}\n");
        }
        let mut cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        if cells.len() == 15 && cells[0] != "PRODUCER" {
            cells[8] = if cells[8] == "0" { "0" } else { "SOME" };
            for time in [13, 14] {
                cells[time] = if cells[time] == "-" { "-" } else { "TIME" };
            }
        }
        cells.join("  ") + "\n"
    };
    shown.lines().map(line).collect()
}

#[test]
fn the_command_shows_them_in_a_table() {
    let busy = Busy::start();
    insta::assert_snapshot!("producers", normalised(&busy, &busy.command()));
    let addr = busy.admin.addr().to_string();
    let output = finish(&mut corelay(&["producers", "--json", "--admin", &addr]), b"");
    assert_code(&output, 0);
    let page: Producerz = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(page.producers.len(), 4);
}

//! What `packaging/` says, held against what the program does: flags, settings, metrics, system calls, times.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use corelay::Server;
use corelay::broker::{ListenAddr, ProducerOptions, ServerOptions};
use corelay::protocol::{Flags, FrameType};
use corelay::telemetry::{Admin, AdminOptions};
use serde_json::Value;

use crate::cli::run::{corelay, finish, text};
use crate::wire::Wire;

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn json(file: &str) -> Value {
    serde_json::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The value of a line `key=value` or `key: value`.
fn value<'a>(page: &'a str, key: &str) -> &'a str {
    let found = page.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(['=', ':']));
    found.unwrap_or_else(|| panic!("no {key}")).trim()
}

/// The effective settings with these arguments, from the program itself.
fn settings(args: &[String]) -> String {
    let example = path("corelay.toml").to_str().unwrap().to_owned();
    let args = args.iter().map(|arg| arg.replace("/etc/corelay/corelay.toml", &example));
    let output = finish(corelay(&[]).args(args).arg("--check-config"), b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn seconds(text: &str) -> u64 {
    let text = text.trim_matches('"');
    text.strip_suffix('s').unwrap_or(text).parse().unwrap_or_else(|_| panic!("{text} is no number of seconds"))
}

/// `["a", "b"]` as compose and Dockerfile have it.
fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Asserts that `corelay check` with these arguments gets as far as finding no broker, rather than fault them.
fn assert_checks(command: &[String]) {
    let at = command.iter().position(|word| word == "check").expect("corelay check");
    // a port where nobody can be: it takes a moment to be refused, whatever runs on this machine
    let args: Vec<_> = command[at..].iter().map(|arg| arg.replace(":9090", ":1").replace(":9091", ":1")).collect();
    let output = finish(corelay(&[]).args(&args), b"");
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_example_settings_are_settings_and_what_they_leave_out_is_default() {
    let example = path("corelay.toml").to_str().unwrap().to_owned();
    let ours = settings(&words(&format!("serve --config {example}")));
    let origin = |line: &&str| line.contains("# from");
    let set = ours.lines().filter(origin).count();
    let lines = read("corelay.toml");
    let written = lines.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
    assert_eq!(set, written, "{ours}");
    // all it sets but where it listens is what is in force without it: an example that drifts from the defaults misleads
    let defaults = settings(&words("serve"));
    let plain = |line: &str| line.split(" # ").next().unwrap().trim().to_owned();
    let differ: Vec<String> =
        ours.lines().map(plain).filter(|line| !defaults.lines().any(|other| plain(other) == *line)).collect();
    assert!(differ.iter().all(|line| line.starts_with("listen = ")), "{differ:#?}");
}

#[test]
fn the_unit_starts_the_broker_and_waits_for_its_drain() {
    let unit = read("systemd/corelay.service");
    let start = words(value(&unit, "ExecStart"));
    assert_eq!(start[0], "/usr/bin/corelay");
    let settings = settings(&start[1..]);
    let drain = seconds(value(&settings, "drain_timeout ").split('#').next().unwrap().trim());
    // clients may delay the end by 2 s; the rest is for a machine under load
    assert!(seconds(value(&unit, "TimeoutStopSec")) >= drain + 5, "SIGKILL would cut the drain short");
    assert_eq!(value(&unit, "Type"), "notify");
    assert!(value(&unit, "ExecReload").contains("HUP"));
    let filter: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(filter.iter().any(|line| !line.starts_with('~') && line.contains(call)), "{call}");
    }
    assert!(!filter.iter().any(|line| line.starts_with('~') && line.contains("@resources")), "threads are pinned");
    let files: u64 = value(&unit, "LimitNOFILE").parse().unwrap();
    assert!(files > 10_000 + 64, "max_connections would follow it down");
    // /proc/meminfo is read for the worst case
    assert!(!unit.lines().any(|line| line.starts_with("ProcSubset=pid")));
    // all else is read-only to it: file:// producers and dead letters have a place
    assert_eq!((value(&unit, "ProtectSystem"), value(&unit, "LogsDirectory")), ("strict", "corelay"));
    let user = value(&unit, "User");
    assert!(read("systemd/corelay.sysusers.conf").lines().any(|line| line.starts_with(&format!("u {user} "))));
    assert!(read("systemd/corelay.tmpfiles.conf").contains(&format!(" root {user} ")));
}

#[test]
fn the_container_starts_the_broker_and_waits_for_its_drain() {
    let compose = read("docker/compose.yml");
    let command = list(value(&compose, "command"));
    let settings = settings(&command);
    assert!(settings.lines().any(|line| line.starts_with("listen = [\"0.0.0.0:9090\"]")), "{settings}");
    let drain = seconds(value(&settings, "drain_timeout ").split('#').next().unwrap().trim());
    assert!(seconds(value(&compose, "stop_grace_period")) >= drain + 5);
    assert_checks(&list(value(&compose, "test")));
    assert!(compose.contains("seccomp:seccomp.json"));

    let dockerfile = read("docker/Dockerfile");
    // HEALTHCHECK's, and the image's own
    let commands: Vec<_> = dockerfile.lines().filter_map(|line| line.trim().strip_prefix("CMD ")).map(list).collect();
    let [health, start] = &commands[..] else { panic!("{commands:?}") };
    assert_checks(health);
    self::settings(start);
    assert!(dockerfile.contains(":nonroot"));
}

/// The calls the profile allows without looking at arguments.
fn allowed(profile: &Value) -> BTreeSet<String> {
    let rules = profile["syscalls"].as_array().expect("rules").iter();
    let plain = rules.filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none());
    let names = plain.flat_map(|rule| rule["names"].as_array().expect("names"));
    names.map(|name| name.as_str().expect("a name").to_owned()).collect()
}

#[test]
fn the_seccomp_profile_allows_io_uring_and_forbids_the_rest() {
    let profile = json("docker/seccomp.json");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let allowed = allowed(&profile);
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register", "execve", "futex", "sched_setaffinity"] {
        assert!(allowed.contains(call), "{call}");
    }
    for call in ["bpf", "clone", "keyctl", "mount", "ptrace", "reboot", "setns", "unshare", "userfaultfd"] {
        assert!(!allowed.contains(call), "{call}");
    }
}

/// Puts the profile in force for this process, as a container's runtime does: for the launcher in `fallback`.
pub fn confine() {
    let profile = json("docker/seccomp.json");
    let mut filter: Vec<Value> = allowed(&profile).iter().map(|call| serde_json::json!({ "syscall": call })).collect();
    let clone = profile["syscalls"].as_array().unwrap().iter().find(|rule| rule["names"][0] == "clone").unwrap();
    let mask = clone["args"][0]["value"].as_u64().unwrap();
    filter.push(serde_json::json!({
        "syscall": "clone",
        "args": [{ "index": 0, "type": "qword", "op": { "masked_eq": mask }, "val": 0 }]
    }));
    let errno = |n: u32| serde_json::json!({ "errno": n });
    let programs = serde_json::json!({
        "all": { "mismatch_action": errno(1), "match_action": "allow", "filter": filter },
        // of two that refuse, the one installed last says with which error
        "clone3": { "mismatch_action": "allow", "match_action": errno(38), "filter": [{ "syscall": "clone3" }] },
    });
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let programs = seccompiler::compile_from_json(programs.to_string().as_bytes(), arch).unwrap();
    for name in ["all", "clone3"] {
        seccompiler::apply_filter(&programs[name]).unwrap();
    }
}

/// Not in a container, but under the same filter.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_broker_serves_on_io_uring_under_the_profile() {
    let broker = crate::fallback::serve("profile", "--io auto --log info");
    let mut provider = Wire::provider(broker.addr, "orders", 1);
    let mut consumer = Wire::consumer(broker.addr, "orders");
    consumer.request(1, 1, b"question", Flags::NONE);
    let request = provider.expect(FrameType::Request);
    provider.respond(request.stream, b"answer");
    assert_eq!(consumer.next_past_credit().kind, FrameType::Response);
    drop((provider, consumer));
    let said = broker.stop();
    assert!(said.contains("started") && said.contains("ended in order"), "{said}");
    let here = Server::bind("127.0.0.1:0").unwrap();
    assert_eq!(said.contains("epoll takes its place"), here.io() == corelay::broker::Io::Epoll, "{said}");
}

/// Both pages of metrics of a broker that has had work.
fn pages() -> String {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let producers = vec![ProducerOptions::new("log", "tcp://127.0.0.1:1")];
    let options = ServerOptions { listen, pin: false, buffers: 64, producers, ..ServerOptions::default() };
    let server = Server::start(options).unwrap();
    let options = AdminOptions { listen: Some("127.0.0.1:0".parse().unwrap()), ..AdminOptions::default() };
    let admin = Admin::start(&options, server.inspector()).unwrap().expect("an address");
    let mut provider = Wire::provider(server.addr(), "orders", 1);
    let mut consumer = Wire::consumer(server.addr(), "orders");
    consumer.request(1, 1, b"question", Flags::NONE);
    let request = provider.expect(FrameType::Request);
    provider.respond(request.stream, b"answer");
    assert_eq!(consumer.next_past_credit().kind, FrameType::Response);
    let ListenAddr::Tcp(addr) = admin.addr() else { panic!("on TCP") };
    let page = |path: &str| {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    page("/metrics") + &page("/metrics/channels")
}

/// The labels with plain values that a query asks for: `code="SHED"`, or `code=~"A|B"`, which gives two.
fn labels(query: &str) -> Vec<String> {
    let matchers = query.split(['{', '}', ',']).filter_map(|part| part.split_once('='));
    let plain = matchers.filter_map(|(key, value)| {
        let value = value.trim_start_matches('~').strip_prefix('"')?.split('"').next()?;
        (!value.contains('$') && key.trim() != "job").then_some((key.trim(), value))
    });
    plain.flat_map(|(key, value)| value.split('|').map(move |value| format!("{key}=\"{value}\""))).collect()
}

/// The metrics in a query: words of ours that are no label's value.
fn in_query(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("corelay_") || word.starts_with("process_"))
}

fn queries(of: &Value, found: &mut Vec<String>) {
    match of {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().filter(|_| ["expr", "query", "definition"].contains(&key.as_str())) {
                    Some(query) => found.push(query.to_owned()),
                    None => queries(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_there_are() {
    let page = pages();
    let samples: Vec<&str> = page.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    let metrics: BTreeSet<&str> = samples.iter().map(|line| line.split(['{', ' ']).next().unwrap()).collect();
    let mut asked = Vec::new();
    queries(&json("grafana/corelay.json"), &mut asked);
    let panels = asked.len();
    assert!(panels > 30, "only {panels} queries in the dashboard");
    // everything behind `expr:`, up to the next key
    let alerts = read("prometheus/alerts.yml");
    let rules: Vec<&str> = alerts.split("expr:").skip(1).collect();
    assert_eq!(rules.len(), alerts.matches("- alert:").count());
    asked.extend(rules.iter().map(|rule| rule.split("labels:").next().unwrap().to_owned()));
    for query in &asked {
        for name in in_query(query) {
            assert!(metrics.contains(name), "{name} is no metric, in {query}");
        }
        for label in labels(query) {
            assert!(samples.iter().any(|line| line.contains(&label)), "no sample has {label}, in {query}");
        }
    }
    let names: BTreeSet<&str> = asked.iter().flat_map(|query| in_query(query)).collect();
    assert!(names.len() > 30, "only {names:?}");
}

#[test]
fn every_alert_is_explained() {
    let guide = std::fs::read_to_string(path("../docs/OPERATING.md")).unwrap();
    let alerts = read("prometheus/alerts.yml");
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(guide.contains(&format!("| {alert} |")), "docs/OPERATING.md doesn't say what {alert} means");
    }
}

use std::io::BufRead;
use std::process::{Command, Output};

use corelay::telemetry::view::{Channel, Listing, Varz};

use super::run::{Broker, Process, assert_code, corelay, eventually, finish, text};

/// A broker, and where its admin endpoint is.
struct Admin {
    broker: Process,
    server: String,
    admin: String,
}

impl Admin {
    fn start() -> Admin {
        let line = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--cores", "1", "--no-pin"];
        let mut broker = Process::start(corelay(&line).args(["--log", "warn"]));
        let mut lines = broker.stdout().lines().map(Result::unwrap);
        let mut addr = |what: &str| {
            let line = lines.next().unwrap();
            line.strip_prefix(what).unwrap_or_else(|| panic!("{what} in {line:?}")).to_owned()
        };
        let (server, admin) = (addr("listening on "), addr("admin on "));
        Admin { broker, server, admin }
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = corelay(line);
        command.env("CORELAY_SERVER", &self.server).env("CORELAY_ADMIN", &self.admin);
        command
    }

    fn run(&self, line: &[&str]) -> Output {
        finish(&mut self.command(line), b"")
    }

    /// A provider, once it is there.
    fn provider(&self, channel: &str) -> Process {
        let provider = Process::start(&mut self.command(&["reply", channel, "--echo"]));
        eventually("the provider", || {
            let list: Listing<Channel> = self.json(&["channels", "--channel", channel, "--json"]);
            list.items.iter().any(|channel| channel.providers == 1)
        });
        provider
    }

    fn json<T: serde::de::DeserializeOwned>(&self, line: &[&str]) -> T {
        let output = self.run(line);
        assert_code(&output, 0);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn what_a_broker_does_is_shown() {
    let broker = Admin::start();
    let shown = broker.run(&["channels"]);
    assert_code(&shown, 0);
    assert_eq!(text(&shown.stdout), "no channels\n");
    let _provider = broker.provider("orders");
    assert_code(&finish(&mut broker.command(&["request", "orders"]), b"question"), 0);
    for (line, parts) in [
        (
            &["channels", "--channel", "orders"][..],
            &["CHANNEL", "IN FLIGHT", "73b5cf50-6207-50e2-a85c-7f37b1c8e916"][..],
        ),
        (&["connections", "--role", "provider"], &["PEER", "127.0.0.1:", "provider", "open"]),
        (&["latency"], &["queue wait", "first byte", "total", "P99.9"]),
        (&["latency", "--hgrm"], &["1/(1-Percentile)", "Total count    =            1"]),
        (&["connections", "--json"], &["\"role\":\"provider\""]),
    ] {
        let shown = broker.run(line);
        assert_code(&shown, 0);
        let shown = text(&shown.stdout);
        for part in parts {
            assert!(shown.contains(part), "{part} in {line:?}:\n{shown}");
        }
    }
    // it is the broker that says no, and nobody is to doubt that it is one
    let none = broker.run(&["latency", "--hgrm", "--channel", "nobody"]);
    assert_code(&none, 1);
    let said = format!("corelay: admin endpoint {}: no request of that channel was timed\n", broker.admin);
    assert_eq!(text(&none.stderr), said);
}

#[test]
fn check_says_how_bad_it_is() {
    let broker = Admin::start();
    let _provider = broker.provider("orders");
    let check = |line: &[&str]| {
        let output = broker.run(&[&["check"], line].concat());
        (output.status.code().unwrap(), text(&output.stdout))
    };
    let admin = broker.admin.as_str();
    let (code, line) = check(&["--admin", admin, "--channel", "orders"]);
    assert!(code == 0 && line.starts_with("OK - answered in ") && line.contains(", healthy | answer=0."), "{line}");
    let (code, line) = check(&[]);
    assert!(code == 0 && line.starts_with("OK - answers in ") && line.contains(" | ping=0."), "{line}");
    let (code, line) = check(&["--warning", "0"]);
    assert!(code == 1 && line.starts_with("WARNING - answers in "), "{line}");
    let (code, line) = check(&["--channel", "nobody"]);
    assert!(code == 2 && line.starts_with("CRITICAL - no_provider"), "{line}");
    let (code, line) = check(&["--server", "127.0.0.1:1"]);
    assert!(code == 2 && line.starts_with("CRITICAL - ") && line.lines().count() == 1, "{line}");
    let (code, line) = check(&["--admin", "127.0.0.1:1"]);
    assert!(code == 2 && line.starts_with("CRITICAL - answers in "), "{line}");
    assert_eq!(check(&["--warning", "soon"]).0, 3);
    assert_eq!(check(&["--warning", "2s", "--critical", "1s"]).0, 3);
}

#[test]
fn drain_ends_it_in_order() {
    let mut broker = Admin::start();
    let refused = finish(corelay(&["drain"]).env_remove("CORELAY_ADMIN"), b"");
    assert_code(&refused, 2);
    assert_code(&broker.run(&["drain"]), 0);
    assert_eq!(broker.broker.code(), Some(0));
    let gone = broker.run(&["drain"]);
    assert_code(&gone, 3);
    assert!(text(&gone.stderr).contains("corelay serve --admin"), "{}", text(&gone.stderr));
}

#[test]
fn an_admin_endpoint_on_a_unix_socket_goes_with_its_broker() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin");
    let addr = format!("unix:{}", path.display());
    let mut broker = Broker::spawn(&mut corelay(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        &addr,
        "--cores",
        "1",
        "--no-pin",
        "--log",
        "warn",
    ]));
    let list: Listing<Channel> = {
        let output = finish(&mut corelay(&["channels", "--json", "--admin", &addr]), b"");
        assert_code(&output, 0);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(list.total, 0);
    assert_code(&finish(&mut corelay(&["drain", "--admin", &addr]), b""), 0);
    assert_eq!(broker.process.code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn an_admin_endpoint_that_cannot_be_had_is_told_before_anything_starts() {
    let broker = Admin::start();
    let taken = finish(&mut corelay(&["serve", "--listen", "127.0.0.1:0", "--admin", &broker.admin]), b"");
    assert_code(&taken, 1);
    assert!(text(&taken.stderr).contains("--admin") && taken.stdout.is_empty(), "{}", text(&taken.stderr));
    let open = finish(&mut corelay(&["serve", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"]), b"");
    assert_code(&open, 2);
    assert!(text(&open.stderr).contains("--admin-insecure"), "{}", text(&open.stderr));
}

#[test]
fn top_wants_a_terminal() {
    let broker = Admin::start();
    let output = broker.run(&["top"]);
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("corelay channels"), "{}", text(&output.stderr));
}

#[test]
fn shells_and_man_know_every_command() {
    for (line, part) in [
        (&["completions", "bash"][..], "complete -F"),
        (&["completions", "zsh"], "#compdef corelay"),
        (&["man"], ".TH"),
    ] {
        let output = finish(&mut corelay(line), b"");
        assert_code(&output, 0);
        let said = text(&output.stdout);
        assert!(said.contains(part), "{part} in {line:?}");
        for command in ["serve", "top", "check", "drain"] {
            assert!(said.contains(command), "{command} in {line:?}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    assert_code(&finish(corelay(&["man", "--dir"]).arg(dir.path()), b""), 0);
    assert!(dir.path().join("corelay-serve.1").is_file());
}

#[test]
fn the_load_generators_figures_are_there() {
    let broker = Admin::start();
    let socket = std::net::TcpStream::connect(&broker.admin).unwrap();
    let mut socket = std::io::BufReader::new(socket);
    let head = format!("GET /varz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", broker.admin);
    std::io::Write::write_all(socket.get_mut(), head.as_bytes()).unwrap();
    let body = std::io::Read::bytes(socket).map(Result::unwrap).collect::<Vec<u8>>();
    let body = text(&body).split_once("\r\n\r\n").unwrap().1.to_owned();
    let varz: Varz = serde_json::from_str(&body).unwrap();
    assert_eq!(varz.pid, broker.broker.0.id());
    assert!(varz.cpu_seconds > 0.0 && varz.resident_bytes > 1 << 20 && varz.requests == 0);
}

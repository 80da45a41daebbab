//! The `loadgen` command against a broker in this process: what is counted, not how fast it is.

use std::io::{Read, Write};
use std::process::Command;

use corelay::Server;
use loadgen::report::Report;

fn run(server: &Server, args: &[&str]) -> Report {
    let addr = server.addr().to_string();
    let fixed = ["run", "--server", &addr, "--warmup", "0", "--json", "-", "--quiet"];
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(fixed).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn all_answered(report: &Report) {
    assert_eq!(report.errors.len(), 0, "{:?} {:?}", report.errors, report.warnings);
    assert!(report.answered > 0);
    assert_eq!(report.answered, report.sent);
}

#[test]
fn a_closed_loop_is_answered_to_the_last() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let report = run(&server, &["--consumers", "3", "--in-flight", "5", "--providers", "2", "--duration", "0.3s"]);
    all_answered(&report);
    assert_eq!(report.uncorrected, None);
}

#[test]
fn an_open_loop_sends_what_its_schedule_says() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let report = run(&server, &["--rate", "500", "--duration", "0.3s", "--size", "uniform:0-2000"]);
    all_answered(&report);
    assert_eq!(report.sent, 150);
    assert!(report.uncorrected.is_some());
}

#[test]
fn bodies_above_the_window_are_streamed_both_ways() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let sizes = ["--size", "3MiB", "--response-size", "2MiB", "--window", "64KiB", "--chunk", "10000"];
    let load = ["--consumers", "2", "--in-flight", "2", "--requests", "8", "--duration", "20s", "--threads", "2"];
    let report = run(&server, &[&sizes[..], &load[..]].concat());
    all_answered(&report);
    assert_eq!(report.answered, 8);
    let ratio = report.bytes_per_s.0 / report.bytes_per_s.1;
    assert!((ratio - 1.5).abs() < 0.01, "{ratio}");
}

#[test]
fn failures_are_counted_by_their_code() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let report = run(&server, &["--rate", "100", "--providers", "0", "--duration", "0.1s"]);
    assert_eq!(report.errors.get("NO_PROVIDER"), Some(&10), "{:?}", report.errors);
    assert_eq!(report.answered, 0);
}

#[test]
fn channels_are_served_each_by_its_own() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let load = ["--channels", "3", "--consumers", "6", "--providers", "3", "--in-flight", "1", "--duration", "0.1s"];
    all_answered(&run(&server, &load));
}

#[test]
fn a_broker_is_watched_by_its_admin_address() {
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = admin.local_addr().unwrap().to_string();
    // three looks: whether it is there, when measuring begins, when it ends
    let served = std::thread::spawn(move || {
        for look in 0..3_u32 {
            let (mut stream, _) = admin.accept().unwrap();
            let mut asked = [0; 4096];
            let n = stream.read(&mut asked).unwrap();
            assert!(asked[..n].starts_with(b"GET /varz HTTP/1."));
            let (cpu, requests) = (f64::from(look) * 0.01, look * 1000);
            let body = format!(r#"{{"pid":7,"cpu_seconds":{cpu},"resident_bytes":1048576,"requests":{requests}}}"#);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let server = Server::bind("127.0.0.1:0").unwrap();
    let report = run(&server, &["--rate", "500", "--duration", "0.2s", "--admin", &addr]);
    served.join().unwrap();
    let broker = report.broker.unwrap();
    assert_eq!((broker.resident, broker.requests, broker.switches_per_s), (1 << 20, Some(1000), None));
    assert!((broker.cpu_us_per_request - 100.0).abs() < 2.0, "10 ms for 100 requests: {broker:?}");
    assert!(report.warnings.iter().any(|told| told.contains("900 of them not ours")), "{:?}", report.warnings);
}

#[cfg(feature = "tokio")]
#[test]
fn the_client_library_is_answered_to_the_last_too() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let small = ["--client", "tokio", "--duration", "0.3s", "--consumers", "2"];
    all_answered(&run(&server, &[&small[..], &["--in-flight", "4"]].concat()));
    let open = run(&server, &[&small[..], &["--rate", "300", "--threads", "2"]].concat());
    all_answered(&open);
    assert_eq!(open.sent, 90);
    let large = ["--in-flight", "2", "--requests", "4", "--size", "1MiB", "--duration", "20s"];
    assert_eq!(run(&server, &[&small[..], &large[..]].concat()).answered, 4);
}

#[test]
fn no_broker_is_told_with_its_address() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(["run", "--server", "127.0.0.1:1"]).output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("can't connect to 127.0.0.1:1"), "{told}");
}

//! `loadgen limit`: the relay in its own process, found, measured and ended.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_limit_is_measured_and_its_relay_ended() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("limit.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["limit", "--work", "1x1,64k", "--repeat", "1", "--duration", "0.2s", "--warmup", "0.05s"])
        .args(["--broker-cpu", &cpu, "--load-cpu", &cpu, "--json"])
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("| 1x1 | limit |") && told.contains("| 64k | limit |"), "{told}");
    let again =
        Command::new(env!("CARGO_BIN_EXE_loadgen")).args(["report", "--markdown", "-"]).arg(&json).output().unwrap();
    let table = String::from_utf8(again.stdout).unwrap();
    assert!(table.contains("\n| work | limit | corelay | NATS | corelay : limit | corelay : NATS |\n"), "{table}");
    assert!(table.contains("loadgen limit --work 1x1,64k --repeat 1"), "{table}");
    let all: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for row in all["rows"].as_array().unwrap() {
        assert_eq!(row["failed"], 0, "{row}");
        assert!(row["rate"].as_f64().unwrap() > 0.0 && row["cpu_us"].as_f64().unwrap() > 0.0, "{row}");
    }
}

#[test]
fn an_unknown_work_is_answered_with_those_there_are() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(["limit", "--work", "2x2"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("1x1, 64x1, 16x64"), "{told}");
}

#[test]
fn what_is_not_there_is_named_with_the_remedy() {
    let told = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("compare").args(args).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = told(&["--systems", "nats", "--nats", "/no/such/nats-server"]);
    assert_eq!(missing, "loadgen: nats: there is no /no/such/nats-server\n");
    assert!(told(&["--systems", "limit", "--work", "churn"]).contains("--work churn: none of these brokers does it"));
    assert!(told(&["--systems", "limit", "--load-cpu", "900"]).contains("--load-cpu 900: this process may use"));
    let dies = told(&["--systems", "corelay", "--corelay", "/bin/false", "--work", "1x1", "--broker-cpu", "0"]);
    assert!(
        dies.contains("/bin/false did not say where it listens: it ended") || dies.contains("--load-cpu"),
        "{dies}"
    );
}

#[test]
fn children_end_with_the_one_that_started_them() {
    use std::io::{BufRead, BufReader};
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap().to_string();
    let mut parent = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["limit", "--work", "1x1,64x1", "--repeat", "1", "--duration", "0.1s", "--warmup", "0"])
        .args(["--broker-cpu", &cpu, "--load-cpu", &cpu])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // the first row is told with the next child on its way
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("1x1 ")));
    let children = || std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.id())).unwrap_or_default();
    let child = loop {
        match children().split_whitespace().next() {
            Some(child) => break child.to_owned(),
            None => std::thread::yield_now(),
        }
    };
    parent.kill().unwrap();
    parent.wait().unwrap();
    let stat = format!("/proc/{child}/stat");
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !gone() {
        assert!(std::time::Instant::now() < until, "process {child} outlived its parent");
        std::thread::yield_now();
    }
}

#[test]
fn an_interrupt_ends_it_with_what_was_measured() {
    use std::io::{BufRead, BufReader, Read};
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["limit", "--work", "1x1,64x1", "--repeat", "50", "--duration", "0.1s", "--warmup", "0"])
        .args(["--broker-cpu", &cpu, "--load-cpu", &cpu])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(command.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("1x1 ")));
    rustix::process::kill_process(rustix::process::Pid::from_child(&command), rustix::process::Signal::INT).unwrap();
    assert!(lines.any(|line| line.unwrap().starts_with("| 1x1 | limit |")), "the medians of what there is");
    assert_eq!(command.wait().unwrap().code(), Some(130));
    let mut told = String::new();
    command.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.ends_with("loadgen: stopped early\n"), "{told}");
}

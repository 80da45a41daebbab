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

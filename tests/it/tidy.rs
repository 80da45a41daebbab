//! The rules the source tree keeps: who may import whom, where `unsafe` may stand, how large a file may grow.

use std::fs;
use std::path::{Path, PathBuf};

/// Room, and the rooms of this crate it may import. The drawing is in `docs/ARCHITECTURE.md`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("src/base", &["protocol"]),
    ("src/protocol", &["base"]),
    ("src/auth", &["base"]),
    ("src/broker/core", &["auth", "base", "protocol"]),
    ("src/client/session", &["base", "protocol"]),
    ("src/client", &["base", "protocol", "tls", "toolkit"]),
    ("src/toolkit/worker_pool", &[]),
    ("src/toolkit/event_processor", &[]),
    ("src/toolkit/testing", &[]),
    ("src/toolkit/connection_pool", &[]),
    ("src/toolkit/message_broker", &["client"]),
    ("src/forward", &["base", "protocol", "toolkit"]),
    ("src/reactor", &["base"]),
    ("src/tls", &["base"]),
    ("src/broker", &["auth", "base", "protocol", "reactor", "forward", "tls"]),
    ("src/telemetry", &["base", "protocol", "broker", "forward", "tls"]),
    ("src/config", &["auth", "base", "broker", "telemetry"]),
];

/// Part of the toolkit, and the other parts it may import: mostly none, so that each can be used alone.
const PARTS: &[(&str, &[&str])] = &[
    ("alarm", &[]),
    ("contain", &[]),
    ("worker_pool", &["alarm", "contain"]),
    ("event_processor", &["contain", "worker_pool"]),
    ("connection_pool", &["alarm"]),
    ("outcome", &[]),
    ("message_broker", &["contain", "outcome"]),
    ("testing", &["worker_pool", "event_processor", "connection_pool", "message_broker"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|ext| ext == "rs") {
                found.push(entry);
            }
        }
    }
    let file = root().join(format!("{dir}.rs"));
    found.extend(file.is_file().then_some(file));
    found.sort();
    found
}

/// Code lines only: comments, and what stands behind `#[cfg(test)]`, may say what they like.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms a file imports by `crate::room`.
fn imports(code: &str) -> Vec<&str> {
    let rooms = code.split("crate::").skip(1);
    rooms.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap()).collect()
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (room, allowed) in MAY_IMPORT {
        let own = room.trim_start_matches("src/").split('/').next().unwrap();
        for file in sources(room) {
            // the narrowest room a file is in judges it
            let inner =
                MAY_IMPORT.iter().any(|(other, _)| other.len() > room.len() && file.starts_with(root().join(other)));
            if inner {
                continue;
            }
            seen += 1;
            for import in imports(&code(&file)) {
                let inside = import == own && !room.ends_with("/core") && !room.ends_with("/session");
                if import.starts_with(char::is_lowercase) && !inside && !allowed.contains(&import) {
                    wrong.push(format!("{} imports crate::{import}", file.strip_prefix(root()).unwrap().display()));
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} files were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_toolkits_parts_are_leaves() {
    for (part, allowed) in PARTS {
        let files = sources(&format!("src/toolkit/{part}"));
        assert!(!files.is_empty(), "no {part}");
        for file in files.iter().filter(|file| !file.iter().any(|dir| dir == "tests" || dir == "tests.rs")) {
            let code = code(file);
            for import in code.split("crate::toolkit::").skip(1) {
                let other = import.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
                assert!(other == *part || allowed.contains(&other), "{} imports {other}", file.display());
            }
        }
    }
}

#[test]
fn the_core_knows_no_clock_no_socket_and_no_chance() {
    let words = [
        "std::time::Instant",
        "SystemTime",
        "std::net",
        "std::thread",
        "std::os",
        "tokio",
        "fastrand",
        "libc",
        "rustix",
    ];
    for room in ["src/auth", "src/broker/core", "src/client/session", "src/protocol", "src/base"] {
        // tests may roll dice; what they test may not
        for file in sources(room).iter().filter(|file| !file.iter().any(|part| part == "tests")) {
            let code = code(file);
            for word in words {
                assert!(!code.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

/// A step of the time of day must not be felt, so nobody on a request's way may know it.
#[test]
fn the_time_of_day_is_not_asked_for() {
    for room in ["src/base", "src/protocol", "src/broker", "src/reactor", "src/client"] {
        for file in sources(room) {
            // what leaves for outside systems, messages and spans, says when it was
            if file.starts_with(root().join("src/broker/companion")) || file.ends_with("broker/tell.rs") {
                continue;
            }
            let code = code(&file);
            for word in ["SystemTime::now", "ClockId::Realtime", "Utc::now"] {
                assert!(!code.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let allowed = ["src/reactor", "loadgen/src/pump", "tests/alloc"];
    for dir in ["src", "loadgen", "tests", "examples", "benches"] {
        for file in sources(dir) {
            let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            let is_allowed = allowed.iter().any(|room| name.starts_with(room)) || name == "tests/it/tidy.rs";
            let uses =
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| code(&file).contains(word));
            assert!(is_allowed || !uses, "{name} uses unsafe");
        }
    }
}

/// `fuzz/` is a workspace of its own, for nightly, and includes files of this one: nothing else tells that it still builds.
#[test]
fn the_fuzz_crate_has_what_the_files_it_includes_use() {
    let manifest = |path: &str| fs::read_to_string(root().join(path)).unwrap().parse::<toml::Table>().unwrap();
    let (ours, fuzz) = (manifest("Cargo.toml"), manifest("fuzz/Cargo.toml"));
    let fuzz = fuzz["dependencies"].as_table().unwrap();
    let known = ["dependencies", "dev-dependencies"].into_iter().flat_map(|kind| ours[kind].as_table().unwrap().keys());
    let missing: Vec<&String> = known.filter(|name| !fuzz.contains_key(*name)).collect();
    let single =
        ["tests/sim/companion", "tests/sim/pool", "tests/sim/world", "tests/it/pki", "loadgen/tests/fuzz/target"];
    let included = ["src/config", "tests/fuzz/targets"].into_iter().chain(single).flat_map(sources);
    for path in included.filter(|path| !path.ends_with("tests.rs")) {
        let code = code(&path);
        for name in &missing {
            let path_of = format!("{}::", name.replace('-', "_"));
            let uses = code.match_indices(&path_of).any(|(at, _)| {
                let before = code[..at].chars().next_back().unwrap_or(' ');
                !before.is_alphanumeric() && before != '_' && before != ':'
            });
            assert!(!uses, "{} uses {name}, which fuzz/Cargo.toml lacks", path.display());
        }
    }
}

#[test]
fn files_stay_readable() {
    for dir in ["src", "loadgen/src", "tests", "benches"] {
        for file in sources(dir) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 700, "{} has {lines} lines: is there a seam?", file.display());
        }
    }
}

//! Steps of the time of day. The broker's reading of it is faked by libfaketime, for it is everybody's clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use corelay::protocol::{Code, Flags, FrameType, Header};

use super::skip;
use crate::log::Log;
use crate::peers::{CHANNEL, echoes, echoing, text};
use crate::run::without_settings;
use crate::site::Site;
use crate::wire::Wire;

const PLACES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// Where the library reads the time of day.
fn time_file(dir: &Path) -> PathBuf {
    dir.join("time")
}

pub fn launch_with_a_false_clock(line: &[String], dir: &Path) -> Option<Command> {
    let Some(library) = PLACES.iter().find(|place| Path::new(place).exists()) else {
        skip(true, "libfaketime is not installed; Debian has it in the package libfaketime");
        return None;
    };
    fs::write(time_file(dir), "@2001-01-01 00:00:00\n").expect("a file");
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", time_file(dir));
    // read anew each time; CLOCK_MONOTONIC is the kernel's, as it is where somebody sets the clock
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    without_settings(&mut command);
    command.stderr(Stdio::piped());
    Some(command)
}

const YEARS: [&str; 5] = ["2035", "1999", "2026", "2100", "2002"];

/// While the clock steps, a long timeout must not pass, a short one must, and requests go on.
pub fn clock_steps(site: &mut Site) -> String {
    let provider = echoing(site.addr, 8);
    let log = Log::of(&mut site.broker);
    let started = log.find("started");
    assert!(started.contains("2001-01-01"), "the clock is not the false one: {started}");
    let mut consumer = Wire::consumer(site.addr, CHANNEL);
    let steps = site.scale(5, 50);
    for (n, year) in (0..).zip(YEARS.iter().cycle().take(steps)) {
        // nobody serves this channel: they wait
        let mut waiting = Wire::consumer(site.addr, "nobody");
        for (stream, ms) in [(1, 3_600_000), (2, 50)] {
            let header = Header::new(FrameType::Request, stream).flags(Flags::END | Flags::WAIT).arg(ms);
            waiting.send(header, &[1; 16]);
        }
        fs::write(time_file(site.dir.path()), format!("@{year}-06-15 12:00:00\n")).expect("a file");
        // that the step has arrived is seen where the time of day is read: in the log, which tells of each request's end
        echoes(&mut consumer, n, b"whenever");
        log.find(&format!("{year}-06-15"));
        let first = waiting.next().expect("the broker serves");
        assert_eq!((first.stream, first.code), (2, Some(Code::Deadline)), "{}", text(&first));
        waiting.send(Header::new(FrameType::Cancel, 1).code(Code::Cancelled), &[]);
        waiting.expect_error(1, Code::Cancelled);
    }
    drop(provider);
    format!("{steps} steps, to and fro: timeouts of 50 ms passed, those of an hour did not")
}

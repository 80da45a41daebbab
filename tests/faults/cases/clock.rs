//! Steps of the time of day. The broker's reading of it is faked by libfaketime, for it is everybody's clock.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use corelay::protocol::{Code, Flags, FrameType, Header};

use super::skip;
use crate::peers::{CHANNEL, echoing, text};
use crate::run::{corelay, without_settings};
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
    let log = site.broker.process.0.stderr.take().expect("piped");
    let mut log = BufReader::new(log).lines().map_while(Result::ok);
    let started = log.find(|line| line.contains("started")).expect("it has started");
    assert!(started.contains("2001-01-01"), "the clock is not the false one: {started}");
    let keep_reading = std::thread::spawn(move || log.collect::<Vec<_>>());

    let mut consumer = Wire::consumer(site.addr, CHANNEL);
    let mut rounds = 0_u32;
    for year in YEARS.iter().cycle().take(site.scale(5, 50)) {
        // nobody serves this channel: they wait
        let mut waiting = Wire::consumer(site.addr, "nobody");
        let wait = |wire: &mut Wire, stream, ms| {
            let header = Header::new(FrameType::Request, stream).flags(Flags::END | Flags::WAIT).arg(ms);
            wire.send(header, &[1; 16]);
        };
        wait(&mut waiting, 1, 3_600_000);
        wait(&mut waiting, 2, 50);
        fs::write(time_file(site.dir.path()), format!("@{year}-06-15 12:00:00\n")).expect("a file");
        crate::peers::echoes(&mut consumer, rounds.into(), b"whenever");
        let first = waiting.next().expect("the broker serves");
        assert_eq!((first.stream, first.code), (2, Some(Code::Deadline)), "{}", text(&first));
        waiting.send(Header::new(FrameType::Cancel, 1).code(Code::Cancelled), &[]);
        waiting.expect_error(1, Code::Cancelled);
        rounds += 1;
    }
    // what reads the time of day is the log: that the steps arrived is seen there
    let refused = corelay(&["request", CHANNEL, "/dev/null", "--server", &site.addr.to_string()]).output();
    assert!(refused.is_ok_and(|output| output.status.success()), "the command is served, too");
    drop((provider, keep_reading));
    format!("{rounds} steps: short timeouts passed, long ones did not")
}

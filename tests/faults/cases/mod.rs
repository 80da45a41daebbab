//! The faults: what is set, done and seen.

mod clock;
mod crowds;
mod limits;
mod pause;
mod restart;
mod vanish;

use std::path::Path;
use std::process::Command;

use corelay::broker::Io;

use crate::BOTH;
use crate::run::without_settings;
use crate::site::Site;

/// One fault.
pub struct Case {
    pub name: &'static str,
    /// For the table.
    pub what: &'static str,
    pub reactors: &'static [Io],
    /// More of the broker's command line, in the small form and the full one.
    small: &'static [&'static str],
    full: &'static [&'static str],
    /// Makes a command of the broker's command line; `None`, said aloud, where what it takes is not there.
    pub launch: fn(&[String], &Path) -> Option<Command>,
    /// Does it, asserts what is seen, lets go of all its connections, and says what was seen.
    pub fault: fn(&mut Site) -> String,
    /// Whether the broker ends with it, and the bystander loses what was in flight.
    pub ends_it: bool,
}

impl Case {
    pub fn settings(&self, full: bool) -> Vec<String> {
        let settings = if full { self.full } else { self.small };
        settings.iter().map(|&text| text.to_owned()).collect()
    }
}

/// As it is.
pub fn plain(line: &[String], _: &Path) -> Option<Command> {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    without_settings(&mut command);
    Some(command)
}

/// Says why a case is skipped. A program that is missing, CI has to see to.
pub fn skip(missing_program: bool, why: &str) {
    assert!(!missing_program || std::env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED, NOTHING WAS TESTED: {why}");
}

/// What most of them have.
const USUAL: Case = Case {
    name: "",
    what: "",
    reactors: BOTH,
    small: &[],
    full: &[],
    launch: plain,
    fault: |_| String::new(),
    ends_it: false,
};

pub static ALL: &[Case] = &[
    Case {
        name: "no_descriptors",
        what: "EMFILE: 1,000 clients connect to a broker that may open 128 files",
        small: &["--log", "warn"],
        full: &["--log", "warn"],
        launch: limits::launch_with_few_files,
        fault: limits::no_descriptors,
        ..USUAL
    },
    Case {
        name: "few_buffers",
        what: "ENOBUFS: 1,000 clients send and get 64 KiB each at once through 8 receive buffers of 4 KiB",
        small: &["--set", "io.buffers=8", "--set", "io.buffer_size=4096"],
        full: &["--set", "io.buffers=8", "--set", "io.buffer_size=4096"],
        fault: limits::few_buffers,
        ..USUAL
    },
    Case {
        name: "short_queue",
        what: "1,000 busy clients on a submission queue of 8 entries",
        reactors: &[Io::Uring],
        small: &["--set", "io.ring_entries=8"],
        full: &["--set", "io.ring_entries=8"],
        fault: limits::short_queue,
        ..USUAL
    },
    Case {
        name: "pause",
        what: "SIGSTOP for 10 s, longer than every timeout; 3,200 clients, most in the middle of something",
        small: pause::SETTINGS,
        full: pause::SETTINGS,
        fault: pause::pause,
        ..USUAL
    },
    Case {
        name: "clock_steps",
        what: "the time of day steps by years, to and fro, under running timeouts",
        small: &["--log", "info,corelay::request=trace"],
        full: &["--log", "info,corelay::request=trace"],
        launch: clock::launch_with_a_false_clock,
        fault: clock::clock_steps,
        ..USUAL
    },
    Case {
        name: "silent_peers",
        what: "1,000 clients stop reading and writing and never close",
        small: &["--set", "limits.keepalive=300ms"],
        full: &["--set", "limits.keepalive=1s"],
        fault: vanish::silent_peers,
        ..USUAL
    },
    Case {
        name: "vanished_peers",
        what: "500 clients are cut off without FIN or RST (their network goes down)",
        small: &["--set", "limits.keepalive=300ms"],
        full: &["--set", "limits.keepalive=1s"],
        launch: vanish::launch_in_a_network_of_its_own,
        fault: vanish::vanished_peers,
        ..USUAL
    },
    Case {
        name: "byte_by_byte",
        what: "1,000 clients write their requests one byte at a time, in turn",
        fault: crowds::byte_by_byte,
        ..USUAL
    },
    Case {
        name: "stalled_readers",
        what: "10,000 clients don't read their answers of 16 KiB; 64 receive buffers",
        small: &["--set", "io.buffers=64"],
        full: &["--set", "io.buffers=64", "--set", "limits.max_connections=12000"],
        fault: crowds::stalled_readers,
        ..USUAL
    },
    Case { name: "cancels", what: "100,000 requests, each cancelled at once", fault: crowds::cancels, ..USUAL },
    Case {
        name: "rubbish",
        what: "random bytes on 100,000 connections, before and after HELLO, ended by FIN or RST",
        fault: crowds::rubbish,
        ..USUAL
    },
    Case {
        name: "restart",
        what: "kill -9 and a new start on the same port; 10,000 clients of the library come back",
        full: &["--set", "limits.max_connections=12000"],
        fault: restart::restart,
        ends_it: true,
        ..USUAL
    },
];

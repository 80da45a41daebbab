//! Faults of peers, kernel and clock, made to happen to a real `corelay serve`, on both reactors.
//!
//! Each fault has a small form, a test that asserts outcomes and counts and never a latency, and a full one, which also
//! holds the broker to times, memory and CPU and prints a row of a table in Markdown. One command runs the full form
//! of all of them (some minutes; figures are of the machine it runs on):
//!
//! ```sh
//! cargo test --release --test faults -- --ignored --nocapture
//! CORELAY_TEST_FAULTS=pause,restart cargo test --release --test faults -- --ignored --nocapture    # these alone
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `site` | a broker, what it uses of the machine, and what must be as before when a fault is over |
//! | `bystander` | the load on another channel that no fault may harm |
//! | `peers`, `log` | clients of the channel at fault; what the broker says |
//! | `cases` | the faults |
//! | `report` | the table |

#![allow(unreachable_pub)] // one binary: what its modules share is public to each other

mod bystander;
mod cases;
mod log;
mod peers;
mod report;
#[allow(dead_code)] // shared with `tests/it`, which uses more of it
#[path = "../it/cli/run.rs"]
mod run;
mod site;
#[allow(dead_code)]
#[path = "../it/wire.rs"]
mod wire;

use corelay::broker::Io;

/// The small forms, one test for each fault and reactor.
macro_rules! small {
    ($($name:ident: $($io:ident)+;)+) => {$(
        mod $name {
            $(#[test]
            fn $io() {
                super::small(stringify!($name), stringify!($io));
            })+
        }
    )+};
}

small! {
    no_descriptors: uring epoll;
    few_buffers: uring epoll;
    short_queue: uring;
    pause: uring epoll;
    clock_steps: uring epoll;
    silent_peers: uring epoll;
    vanished_peers: uring epoll;
    byte_by_byte: uring epoll;
    stalled_readers: uring epoll;
    cancels: uring epoll;
    rubbish: uring epoll;
    restart: uring epoll;
}

fn small(name: &str, io: &str) {
    let case = cases::ALL.iter().find(|case| case.name == name).expect("a case of this name");
    if let Some(row) = site::run(case, io.parse().expect("a reactor"), false) {
        println!("{row:?}");
    }
}

/// All faults in their full form, one after the other, and the table.
#[test]
#[ignore = "takes minutes and judges times: see this file's head"]
fn full() {
    let only = std::env::var("CORELAY_TEST_FAULTS").unwrap_or_default();
    let chosen = |name: &str| only.is_empty() || only.split(',').any(|one| one == name);
    let mut table = report::Table::default();
    for case in cases::ALL.iter().filter(|case| chosen(case.name)) {
        for &io in case.reactors {
            eprintln!("== {} on {io}", case.name);
            table.add(case, io, || site::run(case, io, true));
        }
    }
    println!("\n{table}");
    assert!(table.failed.is_empty(), "failed: {}", table.failed.join(", "));
}

/// Both reactors.
const BOTH: &[Io] = &[Io::Uring, Io::Epoll];

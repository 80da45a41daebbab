//! The broker core alone: the clients' side of the world it runs in allocates nothing either, once it is warm.

use corelay::protocol::Flags;

use crate::common::requests::{Load, Requests};
use crate::counter::{Watch, this_thread};

/// Runs rounds of this load until some ten thousand requests are answered, none of which may allocate.
#[track_caller]
fn allocates_nothing(load: Load) {
    let mut requests = Requests::new(load);
    let rounds = 10_000_u64.div_ceil(load.requests());
    // buffers find their sizes, in whatever order they are handed out: the same in each run, for so are all choices
    (0..10 * rounds).for_each(|_| requests.round());
    let watch = Watch::thread(this_thread());
    (0..rounds).for_each(|_| requests.round());
    let (count, sizes) = watch.count();
    assert_eq!(count, 0, "allocations in {rounds} rounds of {load:?}; the first of {sizes:?} bytes");
}

#[test]
fn one_in_flight() {
    allocates_nothing(Load::small(1, 1));
}

#[test]
fn many_consumers() {
    allocates_nothing(Load::small(64, 1));
}

#[test]
fn pipelined() {
    allocates_nothing(Load::small(16, 64));
}

#[test]
fn one_way() {
    allocates_nothing(Load { flags: Flags::ONEWAY, ..Load::small(16, 64) });
}

#[test]
fn to_another_core() {
    let load = Load { cores: 2, ..Load::small(16, 64) };
    let mut requests = Requests::new(load);
    requests.round();
    assert!(requests.world.passed_on() > 0, "all requests stayed on their core");
    allocates_nothing(load);
}

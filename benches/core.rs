//! The request path of the broker core: bytes in, batches out, no kernel. One iteration is a round in which every
//! consumer sends all its requests, and the turns until all are answered.

mod common;

use common::requests::{Load, Requests};
use criterion::{Criterion, Throughput, criterion_group};

const PIPELINED: Load = Load::small(16, 64);

fn rounds(c: &mut Criterion) {
    let mut group = c.benchmark_group("core");
    for (name, load) in [
        ("64x1 of 64 bytes", Load::small(64, 1)),
        ("16x64 of 64 bytes", PIPELINED),
        // half of the requests go to the other core, by a link
        ("16x64 of 64 bytes, spread over two cores", Load { cores: 2, ..PIPELINED }),
        ("8x4 of 64 KiB, by reference", Load { body: 64 * 1024, ..Load::small(8, 4) }),
    ] {
        group.throughput(Throughput::Elements(load.requests()));
        group.bench_function(name, |b| {
            let mut requests = Requests::new(load);
            b.iter(|| requests.round());
        });
    }
    group.finish();
}

criterion_group!(benches, rounds);

/// With `CORELAY_BENCH_TURNS=N`, N rounds of 16x64 and nothing else: for `valgrind --tool=callgrind`, whose counts
/// don't depend on what else the machine does.
fn main() {
    match std::env::var("CORELAY_BENCH_TURNS").ok().and_then(|turns| turns.parse::<u32>().ok()) {
        Some(turns) => {
            let mut requests = Requests::new(PIPELINED);
            (0..turns).for_each(|_| requests.round());
        }
        None => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}

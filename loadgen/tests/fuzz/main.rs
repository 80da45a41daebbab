//! The load generator's decoder as a fuzz target on the stable toolchain; see the project's `docs/HARDENING.md`.

#![allow(unreachable_pub)] // shared with `fuzz/`

#[path = "../../../tests/fuzz/engine.rs"]
mod engine;
mod target;

#[test]
fn fuzz_loadgen() {
    engine::run("loadgen", target::loadgen);
}

//! The fuzz targets on the stable toolchain: their corpora and seeded mutations of them, short enough for every run of
//! the tests. See `docs/HARDENING.md` for how to run them for longer, and under a fuzzer.
//!
//! The targets of what the crate does not show stand beside it, and are run the same way: `client::session::fuzzing`,
//! `config::fuzzing`, and the load generator's in its own tests.

#![allow(unreachable_pub)] // shared with `fuzz/`

#[allow(dead_code)] // the simulation uses more of these
#[path = "../sim/companion.rs"]
mod companion;
mod engine;
#[allow(dead_code)] // the tests of TLS use more of it
#[path = "../it/pki.rs"]
mod pki;
#[allow(dead_code)]
#[path = "../sim/pool.rs"]
mod pool;
mod targets;
#[allow(dead_code, unused_imports)]
#[path = "../sim/world.rs"]
mod world;

#[test]
fn fuzz_frames() {
    engine::run("frames", targets::frames);
}

#[test]
fn fuzz_handshake() {
    engine::run("handshake", targets::handshake);
}

#[test]
fn fuzz_headers() {
    engine::run("headers", targets::headers);
}

#[test]
fn fuzz_broker() {
    engine::run("broker", targets::broker);
}

#[test]
fn fuzz_tls() {
    engine::run("tls", targets::tls);
}

//! The fuzz target of sessions on the stable toolchain.

#[path = "../../../../tests/fuzz/engine.rs"]
mod engine;

#[test]
fn fuzz_session() {
    engine::run("session", super::super::fuzzing::session);
}

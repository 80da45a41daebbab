//! The examples print what their first lines say they do.

use std::path::Path;
use std::process::Command;

fn prints_what_it_says(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("examples").join(format!("{name}.rs"))).unwrap();
    let said = source.lines().skip_while(|line| *line != "//! ```text").skip(1);
    let said = said.take_while(|line| *line != "//! ```").map(|line| line.trim_start_matches("//! "));
    let said = said.collect::<Vec<_>>().join("\n");
    assert!(!said.is_empty());

    let program = Path::new(env!("CARGO_BIN_EXE_corelay")).parent().unwrap().join("examples").join(name);
    if !program.is_file() {
        eprintln!("SKIPPED: no {}; `cargo build --examples` makes it", program.display());
        assert!(std::env::var_os("CI").is_none(), "the examples are not built");
        return;
    }
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), said, "as `cargo build --examples` last built it");
}

#[test]
fn job() {
    prints_what_it_says("job");
}

#[test]
fn user_created() {
    prints_what_it_says("user_created");
}

#[test]
fn forward_protocol() {
    prints_what_it_says("forward_protocol");
}

//! Runs a fuzz target without a fuzzer: its corpus, then mutations of it, each from a seed of its own.
//!
//! | variable | |
//! |---|---|
//! | `CORELAY_TEST_FUZZ_RUNS` | how many mutations (3,000) |
//! | `CORELAY_TEST_FUZZ_SECONDS` | mutations for so many seconds instead; a row of a table is printed |
//! | `CORELAY_TEST_FUZZ_SEED` | the first seed (0); with `CORELAY_TEST_FUZZ_RUNS=1` that one alone |
//!
//! A failure prints its seed and its input, which can become a file of the corpus.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::rng::Rng;

#[allow(dead_code)]
#[path = "../sim/rng.rs"]
mod rng;

/// An input grows no longer than this by mutations, in bytes.
const LONGEST: usize = 4096;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(format!("CORELAY_TEST_FUZZ_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("CORELAY_TEST_FUZZ_{name} = {text}: expected a number")))
}

/// Where the corpus of a target is.
fn corpus_of(target: &str) -> PathBuf {
    let ancestors = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let corpus = ancestors.map(|dir| dir.join("fuzz/corpus")).find(|dir| dir.is_dir());
    corpus.expect("the repository has a corpus").join(target)
}

/// Runs the target on its corpus and on mutations of it.
pub(crate) fn run(name: &str, target: fn(&[u8])) {
    let dir = corpus_of(name);
    let files = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    // in an order that is everywhere the same: a seed draws from it
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("a file")).collect();
    assert!(!corpus.is_empty(), "{} is empty", dir.display());
    for (file, input) in files.iter().zip(&corpus) {
        let _told = Tell(format!("{name}: {}", file.display()));
        target(input);
    }
    let first = number("SEED").unwrap_or(0);
    let runs = number("RUNS").unwrap_or(3000);
    let time = number("SECONDS").map(Duration::from_secs);
    let (begin, mut done) = (Instant::now(), 0);
    while time.map_or(done < runs, |time| begin.elapsed() < time) {
        let seed = first + done;
        let input = mutated(&mut Rng::new(seed), &corpus);
        let _told = Tell(format!("{name}: CORELAY_TEST_FUZZ_SEED={seed}, input {}", hex(&input)));
        target(&input);
        done += 1;
    }
    let took = begin.elapsed().as_secs_f64();
    println!("| {name} | {} | {done} | {took:.1} | {:.0} |", corpus.len(), done as f64 / took);
}

/// Says what was being run, if that panics.
struct Tell(String);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", self.0);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Numbers on which codecs stumble.
const EDGES: [u32; 12] = [0, 1, 2, 15, 16, 17, 255, 4096, 65_535, 1 << 20, i32::MAX as u32, u32::MAX];

fn mutated(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.pick(corpus);
    for _ in 0..rng.range(1, 6) {
        mutate(rng, &mut input, corpus);
    }
    input.truncate(LONGEST);
    input
}

fn mutate(rng: &mut Rng, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = rng.below(input.len());
    let len = rng.length(input.len() - at);
    match rng.below(9) {
        0 if !input.is_empty() => input[at] ^= 1 << rng.below(8),
        1 if !input.is_empty() => input[at] = rng.next() as u8,
        2 => {
            let edge = rng.pick(&EDGES).to_le_bytes();
            let n = rng.pick(&[1, 2, 4]).min(input.len() - at);
            input[at..at + n].copy_from_slice(&edge[..n]);
        }
        3 => drop(input.drain(at..at + len)),
        4 => {
            let copy = input[at..at + len].to_vec();
            let to = rng.range(0, input.len());
            input.splice(to..to, copy);
        }
        5 => {
            let new: Vec<u8> = (0..rng.range(1, 24)).map(|_| rng.next() as u8).collect();
            input.splice(at..at, new);
        }
        6 => {
            // the front of this one and the back of another
            let other = rng.pick(corpus);
            input.truncate(at);
            input.extend_from_slice(&other[rng.below(other.len())..]);
        }
        7 => input.truncate(at),
        _ => {
            let other = rng.pick(corpus);
            input.extend_from_slice(&other);
        }
    }
}

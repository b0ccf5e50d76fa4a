//! The fuzz targets over the seeds that are kept of them, and over mutations of these: always the same ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use changestream_core::random::Random;
use changestream_tests::fuzzing::{TARGETS, Target};

/// The seeds of a target by their path, in a fixed order.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target.name);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).unwrap()
}

/// Runs the target on each seed, and on as many mutations of each as it takes.
fn replay(name: &str) {
    let target = target(name);
    let seeds = corpus(&target);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let mut random = Random::new([11; 32]);
    for (path, seed) in &seeds {
        run(&target, path, seed);
        for _ in 0..target.mutations {
            let other = &seeds[random.below(seeds.len())].1;
            let mutated = mutated(seed, other, &mut random);
            run(&target, path, &mutated);
        }
    }
}

/// What fails is printed, so that it can be kept as a seed.
fn run(target: &Target, path: &Path, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    assert!(
        outcome.is_ok(),
        "{} fails on \"{}\", made of {}",
        target.name,
        input.escape_ascii(),
        path.display()
    );
}

/// Some bytes changed, taken out, put in, or brought in from another seed.
fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] = random.next_u64() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next_u64() as u8),
            _ => {
                let piece = other.get(random.below(other.len())..).unwrap_or_default();
                let piece = &piece[..random.below(piece.len() + 1)];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn each_target_has_a_test_here() {
    let here = include_str!("fuzz_corpus.rs");
    for target in TARGETS {
        let call = format!("replay(\"{}\")", target.name);
        assert!(here.contains(&call), "{}", target.name);
    }
}

#[test]
fn connections_survive_their_corpus() {
    replay("connection");
}

#[test]
fn replies_of_name_servers_survive_their_corpus() {
    replay("dns");
}

#[test]
fn events_survive_their_corpus() {
    replay("event");
}

#[test]
fn frames_survive_their_corpus() {
    replay("frames");
}

#[test]
fn topologies_survive_their_corpus() {
    replay("hello");
}

#[test]
fn simulated_deployments_survive_their_corpus() {
    replay("sim");
}

#[test]
fn streams_survive_their_corpus() {
    replay("stream");
}

#[test]
fn tokens_survive_their_corpus() {
    replay("token");
}

#[test]
fn connection_strings_survive_their_corpus() {
    replay("uri");
}

#[test]
fn messages_survive_their_corpus() {
    replay("wire");
}

#[test]
fn worlds_survive_their_corpus() {
    replay("world");
}

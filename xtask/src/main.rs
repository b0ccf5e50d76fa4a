//! The workspace's own chores, run by `cargo xtask NAME`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to its user"
)]

mod bench;
mod ci;
mod conformance;
mod deny;
mod fuzz;
mod mutants;
mod simulation;
mod soak;
mod tidy;
mod weight;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match names.as_slice() {
        ["ci"] => ci::run(&root()),
        ["tidy"] => tidy::run(&root()),
        ["conformance", rest @ ..] => conformance::run(&root(), rest),
        ["fuzz-smoke"] => fuzz::smoke(&root(), "10", fuzz::Manner::Searching),
        ["fuzz-smoke", seconds] => fuzz::smoke(&root(), seconds, fuzz::Manner::Searching),
        ["bench"] => bench::run(&root(), 5),
        ["bench", "--built"] => bench::run_built(&root(), 5),
        ["bench", "--built", rounds] => count(rounds).and_then(|rounds| bench::run_built(&root(), rounds)),
        ["bench", rounds] => count(rounds).and_then(|rounds| bench::run(&root(), rounds)),
        ["bench-smoke"] => bench::smoke(&root(), false),
        ["bench-smoke", "--accept"] => bench::smoke(&root(), true),
        ["mutants", rest @ ..] => mutants::run(&root(), rest),
        ["deny"] => deny::run(&root()),
        ["weight"] => weight::run(&root()),
        ["weight", "--count"] => weight::count(&root()),
        ["sim", rest @ ..] => simulation::run(&root(), rest),
        ["soak", rest @ ..] => soak::run(&root(), rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(format!("unknown task {:?}\n\n{USAGE}", names.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn count(rounds: &str) -> Result<usize, String> {
    rounds
        .parse()
        .map_err(|_| format!("{rounds:?} is no number of rounds\n\n{USAGE}"))
}

/// The workspace's folder, whatever folder the task was started in.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

const USAGE: &str = "cargo xtask ci      all that must be green: fmt, clippy, doc, tidy, test
cargo xtask tidy    the rules that no compiler checks
cargo xtask conformance  the specifications' own test files, as a table: [PART OF A NAME...] [--verbose] [--update-readme]
cargo xtask bench [--built] [ROUNDS]  the client beside its peers and bare loops; writes benches/results and the README's
                    figures; with --built it measures what an earlier run has built
cargo xtask bench-smoke [--accept]  instructions an event, against the committed figures; needs valgrind
cargo xtask sim     streams through storms of faults: [--seeds N] [--seed S] [--minutes M], or [--faults]: whether it
                    finds the mistakes that streams can be told to make
cargo xtask soak    many streams in one process for minutes, against a deployment full of faults in another:
                    [--minutes M] [--streams N] [--rate DOCUMENTS_A_SECOND] [--seed S]
cargo xtask deny    licences, sources and banned crates by cargo-deny, if it is installed
cargo xtask weight  crates, clean build and binary of minimal programs, beside the official driver's: [--count]
cargo xtask mutants  changes the core in a thousand places, one by one, to see that a test notices each, if cargo-mutants
                    is installed: hours; [--shard K/N] [--in-diff FILE] [--re REGEX]
cargo xtask fuzz-smoke [SECONDS]  each fuzz target for some seconds, if cargo-fuzz is installed";

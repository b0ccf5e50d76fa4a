//! Runs the simulation over a range of seeds, and says what was survived; or shows that it finds the mistakes that
//! streams can be told to make. `cargo xtask sim` starts it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use changestream_tests::simulation::{self, Report};

fn main() -> ExitCode {
    match Arguments::parse() {
        Some(arguments) if arguments.faults => find_faults(),
        Some(arguments) => run(&arguments),
        None => {
            eprintln!("usage: simulate [--seeds N] [--seed S] [--minutes M], or simulate --faults");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let mut total = Report::default();
    let mut runs = 0_u64;
    let mut failed = Vec::new();
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        if arguments.limit.is_some_and(|limit| started.elapsed() >= limit) || failed.len() == MOST_FAILURES {
            break;
        }
        match std::panic::catch_unwind(|| simulation::run(seed)) {
            Ok(report) => total.add(&report),
            Err(_) => {
                println!("seed {seed} failed; replay it: cargo xtask sim --seed {seed}");
                failed.push(seed);
            }
        }
        runs += 1;
        if runs.is_multiple_of(500) {
            println!("{runs} seeds in {:.1} s", started.elapsed().as_secs_f64());
        }
    }
    println!(
        "{runs} seeds from {} in {:.1} s: {total}",
        arguments.first,
        started.elapsed().as_secs_f64()
    );
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}; add them to tests/seeds.txt once they pass");
    ExitCode::FAILURE
}

/// Each deliberate mistake has to be found within [`ENOUGH`] seeds.
#[cfg(changestream_faults)]
fn find_faults() -> ExitCode {
    use changestream_core::faults::Fault;

    std::panic::set_hook(Box::new(|_| {}));
    let mut hidden = 0;
    for fault in Fault::ALL {
        Fault::switch_to(Some(fault));
        let found = (1..=ENOUGH).find(|seed| std::panic::catch_unwind(|| simulation::run(*seed)).is_err());
        match found {
            Some(seed) => println!("{fault:?}: found by seed {seed}"),
            None => {
                hidden += 1;
                println!("{fault:?}: NOT FOUND within {ENOUGH} seeds");
            }
        }
    }
    Fault::switch_to(None);
    if hidden == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(not(changestream_faults))]
fn find_faults() -> ExitCode {
    eprintln!("this build cannot make mistakes on purpose: run `cargo xtask sim --faults`");
    ExitCode::from(2)
}

struct Arguments {
    first: u64,
    seeds: u64,
    limit: Option<Duration>,
    faults: bool,
}

impl Arguments {
    /// `--seed S` alone runs that one seed; with `--seeds` it is the first one.
    fn parse() -> Option<Self> {
        let (mut first, mut seeds, mut minutes, mut faults) = (None, None, None, false);
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--faults" {
                faults = true;
                continue;
            }
            let value: u64 = words.next()?.parse().ok()?;
            match word.as_str() {
                "--seed" => first = Some(value),
                "--seeds" => seeds = Some(value),
                "--minutes" => minutes = Some(value),
                _ => return None,
            }
        }
        let one_or_many = match (first, minutes) {
            (Some(_), None) => 1,
            (None, None) => 1_000,
            (_, Some(_)) => u64::MAX,
        };
        Some(Self {
            first: first.unwrap_or(1),
            seeds: seeds.unwrap_or(one_or_many),
            limit: minutes.map(|minutes| Duration::from_secs(minutes * 60)),
            faults,
        })
    }
}

const MOST_FAILURES: usize = 10;
#[cfg(changestream_faults)]
const ENOUGH: u64 = 500;

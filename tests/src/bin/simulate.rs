//! Runs the simulation over a range of seeds, and says what was survived. `cargo xtask sim` starts it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use changestream_tests::simulation::{self, Report};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]
fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse() else {
        eprintln!("usage: simulate [--seeds N] [--seed S] [--minutes M]");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let mut total = Report::default();
    let mut runs = 0_u64;
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        if arguments.limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
        match std::panic::catch_unwind(|| simulation::run(seed)) {
            Ok(report) => total.add(&report),
            Err(_) => {
                println!("seed {seed} failed; replay it: cargo xtask sim --seed {seed}");
                return ExitCode::FAILURE;
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
    ExitCode::SUCCESS
}

struct Arguments {
    first: u64,
    seeds: u64,
    limit: Option<Duration>,
}

impl Arguments {
    /// `--seed S` alone runs that one seed; with `--seeds` it is the first one.
    fn parse() -> Option<Self> {
        let (mut first, mut seeds, mut minutes) = (None, None, None);
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
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
        })
    }
}

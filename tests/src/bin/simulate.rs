//! Runs the simulation over a range of seeds, and says what was survived; or shows that it finds the mistakes that
//! streams can be told to make. `cargo xtask sim` starts it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use changestream_tests::simulation::{self, Report, grouped};

fn main() -> ExitCode {
    match Arguments::parse() {
        Some(arguments) if arguments.faults => find_faults(),
        Some(arguments) => run(&arguments),
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// One seed after the other, on as many threads as asked for: seeds know nothing of each other.
fn run(arguments: &Arguments) -> ExitCode {
    let state = Mutex::new(State::new(arguments));
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while let Some(seed) = locked(&state, State::next) {
                    let outcome = std::panic::catch_unwind(|| simulation::run(seed)).ok();
                    locked(&state, |state| state.finished(seed, outcome.as_ref()));
                }
            });
        }
    });
    state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .conclude()
}

fn locked<T>(state: &Mutex<State>, act: impl FnOnce(&mut State) -> T) -> T {
    act(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
}

/// How far a run has got.
struct State {
    first: u64,
    next: u64,
    end: u64,
    limit: Option<Duration>,
    started: Instant,
    told: Instant,
    runs: u64,
    failed: Vec<u64>,
    total: Report,
}

impl State {
    fn new(arguments: &Arguments) -> Self {
        let now = Instant::now();
        Self {
            first: arguments.first,
            next: arguments.first,
            end: arguments.first.saturating_add(arguments.seeds),
            limit: arguments.limit,
            started: now,
            told: now,
            runs: 0,
            failed: Vec::new(),
            total: Report::default(),
        }
    }

    fn next(&mut self) -> Option<u64> {
        let late = self.limit.is_some_and(|limit| self.started.elapsed() >= limit);
        if late || self.next == self.end || self.failed.len() >= MOST_FAILURES {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    fn finished(&mut self, seed: u64, outcome: Option<&Report>) {
        self.runs += 1;
        match outcome {
            Some(report) => self.total.add(report),
            None => {
                println!("seed {seed} failed; replay it: cargo xtask sim --seed {seed}");
                self.failed.push(seed);
            }
        }
        if self.told.elapsed() >= BETWEEN_WORDS {
            self.told = Instant::now();
            self.tell();
        }
    }

    /// A line on how far it is, for whoever waits.
    fn tell(&self) {
        let elapsed = self.started.elapsed().as_secs_f64();
        let pace = self.runs as f64 / elapsed;
        let (goal, left) = match self.limit {
            None => {
                let left = (self.end - self.first - self.runs) as f64 / pace;
                (format!(" of {}", grouped(self.end - self.first)), left)
            }
            Some(limit) => (String::new(), limit.as_secs_f64() - elapsed),
        };
        println!(
            "{}{goal} seeds, {pace:.1} a second; {} faults, {} events, {} resumes; failed: {:?}; about {:.0} min left",
            grouped(self.runs),
            grouped(self.total.fault_count()),
            grouped(self.total.delivered),
            grouped(self.total.resumes),
            self.failed,
            left / 60.0
        );
    }

    fn conclude(self) -> ExitCode {
        let elapsed = self.started.elapsed().as_secs_f64();
        println!(
            "{} seeds from {} in {elapsed:.1} s, {:.1} a second, {} failed",
            grouped(self.runs),
            self.first,
            self.runs as f64 / elapsed,
            self.failed.len()
        );
        print!("{}", self.total);
        let expected = simulation::OFTEN_MET.into_iter().chain(simulation::SELDOM_MET);
        let missing: Vec<_> = expected
            .filter(|kind| !self.total.met.contains_key(kind))
            .collect();
        let is_calm = self.runs >= MANY && !missing.is_empty();
        if is_calm {
            println!("a storm that never has {missing:?} shows too little");
        }
        if self.failed.is_empty() {
            return if is_calm {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
        println!(
            "failed: {:?}; add them to tests/seeds.txt once they pass",
            self.failed
        );
        ExitCode::FAILURE
    }
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
    jobs: u64,
    faults: bool,
}

impl Arguments {
    /// `--seed S` alone runs that one seed; with `--seeds` it is the first one.
    fn parse() -> Option<Self> {
        let (mut first, mut seeds, mut minutes, mut jobs, mut faults) = (None, None, None, None, false);
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
                "--jobs" => jobs = Some(value),
                _ => return None,
            }
        }
        let one_or_many = match (first, minutes) {
            (Some(_), None) => 1,
            (None, None) => 1_000,
            (_, Some(_)) => u64::MAX,
        };
        let processors = || thread::available_parallelism().map_or(1, |number| number.get() as u64);
        Some(Self {
            first: first.unwrap_or(1),
            seeds: seeds.unwrap_or(one_or_many),
            limit: minutes.map(|minutes| Duration::from_secs(minutes * 60)),
            jobs: jobs.unwrap_or_else(processors).max(1),
            faults,
        })
    }
}

const USAGE: &str = "usage: simulate [--seeds N] [--seed S] [--minutes M] [--jobs J], or simulate --faults

--seeds N    so many seeds (1,000 if nothing else is said)
--seed S     this seed, or with --seeds from this one on
--minutes M  for so long
--jobs J     so many at once (as many as there are processors)
--faults     whether the simulation finds the mistakes that streams can be told to make";
const MOST_FAILURES: usize = 10;
/// So many seeds meet everything.
const MANY: u64 = 1_000;
const BETWEEN_WORDS: Duration = Duration::from_secs(15);
#[cfg(changestream_faults)]
const ENOUGH: u64 = 500;

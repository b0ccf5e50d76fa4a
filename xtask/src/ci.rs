//! All that must be green before a change is merged, in one command.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{bench, conformance, deny, fuzz, simulation, tidy, weight};

/// Runs every step in order, tells how long each took, and stops at the first that fails.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let started = Instant::now();
    for (index, step) in STEPS.iter().enumerate() {
        let place = format!("[{}/{}]", index + 1, STEPS.len());
        println!("ci {place} {}: {}", step.name, step.shown());
        let begun = Instant::now();
        step.run(root)
            .map_err(|why| format!("ci {place} FAILED at {}: {why}", step.name))?;
        println!("ci {place} {} ok in {}", step.name, seconds(begun.elapsed()));
    }
    println!(
        "ci: all {} steps ok in {}",
        STEPS.len(),
        seconds(started.elapsed())
    );
    Ok(())
}

struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// A cargo command, and an environment variable for it.
    Cargo(&'static [&'static str], Option<(&'static str, &'static str)>),
    Tidy,
    Conformance,
    Weight,
    Deny,
    BenchSmoke,
    Simulation,
    Fuzz,
}

impl Step {
    fn shown(&self) -> String {
        match &self.work {
            Work::Cargo(arguments, Some((name, value))) => {
                format!("{name}={value:?} cargo {}", arguments.join(" "))
            }
            Work::Cargo(arguments, None) => format!("cargo {}", arguments.join(" ")),
            Work::Tidy => "cargo xtask tidy".to_owned(),
            Work::Conformance => "the table in the README beside that of the tests".to_owned(),
            Work::Deny => "cargo xtask deny".to_owned(),
            Work::BenchSmoke => "cargo xtask bench-smoke".to_owned(),
            Work::Weight => "cargo xtask weight --count".to_owned(),
            Work::Fuzz => format!("each fuzz target for {FUZZ_SECONDS} s, always with the same inputs"),
            Work::Simulation => "2,000 seeds, and each deliberate mistake".to_owned(),
        }
    }

    fn run(&self, root: &Path) -> Result<(), String> {
        let (arguments, variable) = match &self.work {
            Work::Cargo(arguments, variable) => (arguments, variable),
            Work::Tidy => return tidy::run(root),
            Work::Conformance => return conformance::check(root),
            Work::Deny => return deny::run(root),
            Work::BenchSmoke => return bench::smoke(root, false),
            Work::Weight => return weight::count(root),
            Work::Simulation => return simulation::check(root),
            Work::Fuzz => return fuzz::smoke(root, FUZZ_SECONDS, fuzz::Manner::Checking),
        };
        let mut command = Command::new(tidy::cargo());
        command.args(*arguments).current_dir(root);
        if let Some((name, value)) = variable {
            command.env(name, value);
        }
        let status = command
            .status()
            .map_err(|e| format!("cannot run `{}`: {e}", self.shown()))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`{}` ended with {status}", self.shown()))
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Of each target, in CI.
const FUZZ_SECONDS: &str = "2";

/// The cheapest first. `test` is the test command of the README.
const STEPS: [Step; 13] = [
    Step {
        name: "fmt",
        work: Work::Cargo(&["fmt", "--all", "--check"], None),
    },
    Step {
        name: "tidy",
        work: Work::Tidy,
    },
    Step {
        name: "deny",
        work: Work::Deny,
    },
    Step {
        name: "weight",
        work: Work::Weight,
    },
    Step {
        name: "clippy",
        work: Work::Cargo(
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
            None,
        ),
    },
    // Tests turn features on, and a build of the workspace has them in every crate.
    Step {
        name: "clippy without features",
        work: Work::Cargo(
            &[
                "clippy",
                "-p",
                "changestream-tokio",
                "-p",
                "changestream-sim",
                "--",
                "-D",
                "warnings",
            ],
            None,
        ),
    },
    Step {
        name: "doc",
        work: Work::Cargo(
            &["doc", "--workspace", "--no-deps"],
            Some(("RUSTDOCFLAGS", "-D warnings")),
        ),
    },
    // In the workspace's build it has every feature that anyone asks for.
    Step {
        name: "driver without TLS",
        work: Work::Cargo(&["test", "-p", "changestream-driver"], None),
    },
    Step {
        name: "simulation",
        work: Work::Simulation,
    },
    Step {
        name: "fuzz",
        work: Work::Fuzz,
    },
    Step {
        name: "test",
        work: Work::Cargo(&["test", "--workspace"], None),
    },
    Step {
        name: "conformance",
        work: Work::Conformance,
    },
    // A release build of a client: the longest, so the last.
    Step {
        name: "instructions an event",
        work: Work::BenchSmoke,
    },
];

//! Official drivers and this client send the same commands: each scenario of `tests/drivers/commands.json` is lived
//! through by either, at a simulated deployment of its own, and what arrived there is compared, command by command and
//! field by field. Differences stand in `tests/drivers/differences.txt`, each with the reason why it may be.
//!
//! `CHANGESTREAM_PYTHON` names a Python that has PyMongo, `CHANGESTREAM_NODE_DRIVER` the folder in which the npm package
//! `mongodb` is installed, as `.ci/run` does it; without them the tests say so and are skipped.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod differences;
mod living;
mod ours;
mod scenario;
mod shown;
mod theirs;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use differences::Explained;
use living::Lived;
use ours::Ours;
use scenario::Scenario;
use theirs::Theirs;

#[test]
fn pymongo_sends_the_same_commands() {
    let Some(python) = found("CHANGESTREAM_PYTHON", "Python with PyMongo") else {
        return;
    };
    compare("pymongo", || {
        let mut command = Command::new(&python);
        command.arg("-B").arg(drivers().join("pymongo/run_steps.py"));
        command
    });
}

#[test]
fn the_npm_driver_sends_the_same_commands() {
    let Some(folder) = found("CHANGESTREAM_NODE_DRIVER", "folder with the npm driver") else {
        return;
    };
    compare("npm", || {
        let mut command = Command::new("node");
        command.arg(drivers().join("node/run_steps.mjs"));
        command.env("NODE_DRIVER_FOLDER", &folder);
        command
    });
}

/// What the variable names; none, said on one line, where it is not set.
fn found(variable: &str, what: &str) -> Option<OsString> {
    let value = std::env::var_os(variable);
    if value.is_none() {
        eprintln!("skipped: {variable} names no {what}; .ci/run installs one");
    }
    value
}

/// The folder of the drivers' scripts.
fn drivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers")
}

/// Every scenario, and all of its differences at once.
fn compare(driver: &str, script: impl Fn() -> Command) {
    let mut explained = Explained::read(&drivers().join("differences.txt"), driver);
    let mut faults = Vec::new();
    for scenario in scenario::all(&drivers().join("commands.json")) {
        for version in &scenario.versions {
            let place = format!("{} {version}", scenario.name);
            let both = live(&scenario, version, |uri| Box::new(Theirs::start(script(), uri)))
                .and_then(|theirs| Ok((theirs, live(&scenario, version, |uri| Box::new(Ours::new(uri)))?)));
            match both {
                Ok((theirs, ours)) => {
                    for difference in differences::between(&theirs, &ours) {
                        if !explained.explains(&scenario.name, &difference) {
                            faults.push(format!("{place}\t{difference}"));
                        }
                    }
                }
                Err(reason) => faults.push(format!("{place}: {reason}")),
            }
        }
    }
    faults.extend(explained.unused());
    assert!(faults.is_empty(), "{driver}:\n{}", faults.join("\n"));
}

fn live(
    scenario: &Scenario,
    version: &str,
    client: impl FnOnce(&str) -> Box<dyn living::Client>,
) -> Result<Lived, String> {
    living::live(scenario, version, client)
}

//! The simulation: built for speed, and run.

use std::path::Path;
use std::process::Command;

use crate::tidy;

/// Runs it with these arguments. `--faults` needs a build that can make mistakes, which lies in a folder of its own.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    if arguments.contains(&"--faults") {
        return run_faulty(root, arguments);
    }
    started(&mut cargo(root), arguments)
}

/// What CI runs, in one build: enough seeds with no deliberate mistake, and then whether each mistake is found.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    run_faulty(root, &["--seeds", "2000"])?;
    run_faulty(root, &["--faults"])
}

fn run_faulty(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut command = cargo(root);
    command
        .args(["--target-dir", "target/faults"])
        .env("RUSTFLAGS", format!("{flags} --cfg changestream_faults").trim());
    started(&mut command, arguments)
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(tidy::cargo());
    command.args(["run", "--quiet", "--profile", "simulation"]);
    command.args(["--package", "changestream-tests", "--bin", "simulate"]);
    command.current_dir(root);
    command
}

fn started(command: &mut Command, arguments: &[&str]) -> Result<(), String> {
    let status = command
        .arg("--")
        .args(arguments)
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err("the simulation failed: see above".to_owned())
}

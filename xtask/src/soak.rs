//! The soak: built for speed, and run.

use std::path::Path;
use std::process::Command;

use crate::tidy;

pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let status = Command::new(tidy::cargo())
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "changestream-soak",
            "--",
        ])
        .args(arguments)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err("the soak failed: see above".to_owned())
}

//! Each fuzz target for some seconds: that they build, and find nothing at once.

use std::path::Path;
use std::process::Command;

use crate::tidy;

/// How the targets are built and how they choose their inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Optimized, and with other inputs each time.
    Searching,
    /// Built in a third of the time, and with the same inputs each time: for a landing, which no luck shall decide upon.
    Checking,
}

/// Runs every target for this many seconds, if cargo-fuzz is there; else says that it does not.
pub(crate) fn smoke(root: &Path, seconds: &str, manner: Manner) -> Result<(), String> {
    if seconds.parse::<u32>().is_err() {
        return Err(format!("fuzz-smoke takes a number of seconds, not {seconds:?}"));
    }
    if !tidy::has_subcommand("fuzz") {
        println!("fuzz-smoke: skipped, since cargo-fuzz is not installed (cargo install cargo-fuzz)");
        return Ok(());
    }
    for target in targets(root)? {
        println!("fuzz-smoke: {target} for {seconds} s");
        let limit = format!("-max_total_time={seconds}");
        // What the run finds stays out of the committed corpus: the last folder is only read.
        let found = format!("target/fuzz-smoke/{target}");
        let folder = root.join("fuzz").join(&found);
        if manner == Manner::Checking {
            // What an earlier run has found would be a start of its own.
            let _ = std::fs::remove_dir_all(&folder);
        }
        std::fs::create_dir_all(&folder).map_err(|error| format!("{found}: {error}"))?;
        let corpus = format!("corpus/{target}");
        let status = Command::new(tidy::cargo())
            .args(["fuzz", "run", "--sanitizer", "none"])
            .args((manner == Manner::Checking).then_some("--dev"))
            .args([&target, &found, &corpus, "--", &limit])
            .args(["-max_len=1024", "-timeout=20", "-verbosity=0"])
            .args((manner == Manner::Checking).then_some("-seed=1"))
            // libFuzzer's instrumentation is behind a flag that stable toolchains refuse otherwise.
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(root.join("fuzz"))
            .status()
            .map_err(|error| format!("cargo does not start: {error}"))?;
        if !status.success() {
            return Err(format!(
                "fuzz-smoke: {target} failed; the input is in fuzz/artifacts/{target}"
            ));
        }
    }
    Ok(())
}

/// One for each file in `fuzz/fuzz_targets`.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

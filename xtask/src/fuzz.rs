//! Each fuzz target for some seconds: that they build, and find nothing at once.

use std::path::Path;
use std::process::Command;

use crate::tidy;

/// Runs every target for this many seconds, if cargo-fuzz is there; else says that it does not.
pub(crate) fn smoke(root: &Path, seconds: &str) -> Result<(), String> {
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
        std::fs::create_dir_all(root.join("fuzz").join(&found))
            .map_err(|error| format!("{found}: {error}"))?;
        let corpus = format!("corpus/{target}");
        let status = Command::new(tidy::cargo())
            .args(["fuzz", "run", "--sanitizer", "none", &target, &found, &corpus])
            .args(["--", &limit, "-max_len=1024", "-timeout=20", "-verbosity=0"])
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

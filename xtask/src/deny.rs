//! What may be in the dependency trees, as `deny.toml` says, judged by cargo-deny.

use std::path::Path;
use std::process::Command;

use crate::tidy;

/// Licences, sources and banned crates. Advisories are left to a scheduled run, since their database is fetched anew
/// each time: a change is not to fail for what happened elsewhere.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    if !tidy::has_subcommand("deny") {
        println!("deny: skipped, since cargo-deny is not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    let status = Command::new(tidy::cargo())
        .args(["deny", "--all-features", "--log-level", "error"])
        .args(["check", "licenses", "bans", "sources"])
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err("deny: see above, and deny.toml".to_owned())
}

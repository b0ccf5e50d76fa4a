//! Rules that no compiler checks: the pure crates stay pure, files stay small, the repository stays portable.

mod dependencies;
mod layout;
mod manifests;
mod portability;
mod purity;
mod source;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Checks every rule and prints each breach; an error if there is one.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let files = tracked_files(root)?;
    let mut breaches = Vec::new();
    breaches.extend(layout::check(&files));
    breaches.extend(purity::check(&files));
    breaches.extend(manifests::check(&files));
    breaches.extend(portability::check(&files));
    for name in purity::PURE_CRATES {
        breaches.extend(dependencies::check(root, &files, name)?);
    }
    if breaches.is_empty() {
        println!("tidy: {} files, every rule holds", files.len());
        return Ok(());
    }
    for breach in &breaches {
        println!("tidy: {breach}");
    }
    Err(format!("tidy: {} breaches", breaches.len()))
}

/// The cargo that runs this program, or the one on the path.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Whether that cargo has this subcommand.
pub(crate) fn has_subcommand(name: &str) -> bool {
    Command::new(cargo())
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A file of the repository: its path from the root with forward slashes, and its text (empty if it is not text).
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// A rule that does not hold somewhere.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    path: String,
    /// 1 is the first; 0 means the file as a whole.
    line: usize,
    message: String,
}

impl Breach {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// What git tracks, and what it would if it were added now.
fn tracked_files(root: &Path) -> Result<Vec<File>, String> {
    let listed = output(
        Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root),
    )?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        // A file that is deleted but not yet staged is listed too: it is gone.
        let Ok(bytes) = std::fs::read(root.join(path)) else {
            continue;
        };
        files.push(File {
            path: path.to_owned(),
            text: String::from_utf8(bytes).unwrap_or_default(),
        });
    }
    Ok(files)
}

/// What a command prints; an error, with what it complains of, if it fails.
fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|e| format!("tidy: cannot run {shown}: {e}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("tidy: {shown} ended with {}: {complaint}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("tidy: {shown} printed no UTF-8"))
}

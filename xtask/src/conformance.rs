//! The specifications' own test files, and the table of them in the README.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tidy;

/// Runs the cases over what `CHANGESTREAM_SPECS` names and prints the table. With `--update-readme` the README shows it
/// from then on; other arguments are the program's own.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let updates = arguments.contains(&UPDATE);
    let arguments: Vec<&str> = arguments
        .iter()
        .copied()
        .filter(|argument| *argument != UPDATE)
        .collect();
    let table = table(root, &arguments)?;
    if !updates {
        return Ok(());
    }
    let path = root.join(README);
    let readme = std::fs::read_to_string(&path).map_err(|error| format!("{README}: {error}"))?;
    std::fs::write(&path, with_table(&readme, &table)?).map_err(|error| format!("{README}: {error}"))
}

/// Fails if the README shows another table than the last run of all cases, which the tests have made.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let Ok(table) = std::fs::read_to_string(root.join(target).join("tmp/conformance.txt")) else {
        println!("no conformance files here: the README's table is not compared");
        return Ok(());
    };
    let readme = std::fs::read_to_string(root.join(README)).map_err(|error| format!("{README}: {error}"))?;
    if with_table(&readme, &table)? == readme {
        return Ok(());
    }
    Err(format!(
        "the table in {README} is stale: run `cargo xtask conformance {UPDATE}`"
    ))
}

/// What the program prints, which is shown too.
fn table(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tidy::cargo())
        .args(["test", "--quiet", "--package", "changestream-tests"])
        .args(["--test", "conformance", "--"])
        .args(arguments)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{table}");
    if output.status.success() {
        return Ok(table);
    }
    Err("the conformance cases failed: see above".to_owned())
}

fn with_table(readme: &str, table: &str) -> Result<String, String> {
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| format!("{README} has no {BEGIN} and {END}"))?;
    Ok(format!("{before}{BEGIN}\n```text\n{table}```\n{END}{after}"))
}

const README: &str = "README.md";
const UPDATE: &str = "--update-readme";
const BEGIN: &str = "<!-- conformance -->";
const END: &str = "<!-- end of conformance -->";

//! Mutation testing of the core, by cargo-mutants: what no test notices has to be known to do no harm.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::tidy;

/// Runs cargo-mutants as `.cargo/mutants.toml` says, with these further arguments (such as `--shard 1/20`, `--in-diff FILE`
/// or `--re batch.rs`), and holds what it missed against the list.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    if !tidy::has_subcommand("mutants") {
        return Err(
            "mutants: cargo-mutants is not installed (cargo install --locked cargo-mutants)".to_owned(),
        );
    }
    let mut listed = read(root, SURVIVORS).map(|text| survivors(&text))?;
    let status = Command::new(tidy::cargo())
        .args(["mutants", "--output", "target", "--colors=never"])
        .args(arguments)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    // 2 and 3 are mutants that were missed or that took too long; with anything else there is no outcome.
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        return Err("mutants: cargo-mutants failed; see above".to_owned());
    }
    let of = |outcome: &str| read(root, &format!("target/mutants.out/{outcome}.txt"));
    let (caught, timeout, missed) = (of("caught")?, of("timeout")?, of("missed")?);
    let caught = caught.lines().count() + timeout.lines().count();
    let viable = caught + missed.lines().count();
    println!("mutants: {caught} of {viable} viable mutants caught");
    let unknown = unlisted(&missed, &mut listed);
    if arguments.is_empty() {
        for mutant in listed.iter().filter(|(_, left)| **left > 0) {
            println!("mutants: listed and no longer there, or caught: {}", mutant.0);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    for mutant in &unknown {
        println!("mutants: not caught: {mutant}");
    }
    Err(format!(
        "mutants: {} that no test catches and {SURVIVORS} does not list: write a test, or say there why it does no harm",
        unknown.len()
    ))
}

/// Which mutants survive, and why that does no harm: `# reason` before a group, then a mutant a line, without its place.
const SURVIVORS: &str = "tests/mutants/survivors.txt";

fn read(root: &Path, path: &str) -> Result<String, String> {
    std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))
}

/// How many mutants of each name are listed: several places of a function may be changed alike.
fn survivors(text: &str) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if !line.is_empty() && !line.starts_with('#') {
            *count.entry(line.to_owned()).or_default() += 1;
        }
    }
    count
}

/// Those that were missed and are not listed, as they were told. The others are taken off the list.
fn unlisted(missed: &str, listed: &mut BTreeMap<String, usize>) -> Vec<String> {
    let is_unlisted = |told: &&str| match listed.get_mut(&without_place(told)) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        Some(_) | None => true,
    };
    missed.lines().filter(is_unlisted).map(str::to_owned).collect()
}

/// `crates/changestream-core/src/FILE:LINE:COLUMN: WHAT` is listed as `FILE: WHAT`: lines move.
fn without_place(told: &str) -> String {
    let short = told.split_once("/src/").map_or(told, |(_, rest)| rest);
    let mut parts = short.splitn(4, ':');
    match (parts.next(), parts.nth(2)) {
        (Some(file), Some(what)) => format!("{file}:{what}"),
        (_, _) => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{survivors, unlisted};

    #[test]
    fn a_mutant_is_listed_wherever_its_lines_have_moved_to_and_as_often_as_it_is_there() {
        let listed =
            "# Harmless.\nstream/a.rs: replace + with * in f\n\nstream/a.rs: replace + with * in f\n";
        let told = |lines: &[u32]| -> String {
            lines
                .iter()
                .map(|line| {
                    format!("crates/changestream-core/src/stream/a.rs:{line}:9: replace + with * in f\n")
                })
                .collect()
        };
        assert_eq!(unlisted(&told(&[3, 70]), &mut survivors(listed)), [""; 0]);
        assert_eq!(
            unlisted(&told(&[3, 4, 5]), &mut survivors(listed)),
            ["crates/changestream-core/src/stream/a.rs:5:9: replace + with * in f"]
        );
        let other = "crates/changestream-core/src/wire/a.rs:3:9: replace T::f -> X<A::B> with ()";
        assert_eq!(unlisted(other, &mut survivors(listed)), [other]);
        let mut generic = survivors("wire/a.rs: replace T::f -> X<A::B> with ()");
        assert_eq!(unlisted(other, &mut generic), [""; 0]);
        assert_eq!(generic.values().sum::<usize>(), 0);
    }
}

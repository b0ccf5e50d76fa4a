//! What a pure crate links is a list that somebody read: `xtask/allowed/CRATE.txt`, a crate name a line.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{Breach, File, cargo, output};

/// Compares the whole tree that `name` links, with every feature, to its list. They must be equal: what is not
/// needed any more leaves the list.
pub(super) fn check(root: &Path, files: &[File], name: &str) -> Result<Vec<Breach>, String> {
    let tree = tree(root, name)?;
    let path = list_path(name);
    let Some(list) = files.iter().find(|file| file.path == path) else {
        return Ok(vec![Breach::new(
            &path,
            0,
            "is missing: it lists what the crate may link",
        )]);
    };
    Ok(compare(&path, &list.text, &linked(&tree, name)))
}

/// One target for all machines, so that the answer is the same everywhere; offline where the crates are there.
fn tree(root: &Path, name: &str) -> Result<String, String> {
    let ask = |offline: &[&str]| {
        output(
            Command::new(cargo())
                .args([
                    "tree",
                    "--package",
                    name,
                    "--edges",
                    "normal,no-proc-macro",
                    "--all-features",
                ])
                .args([
                    "--target",
                    "x86_64-unknown-linux-gnu",
                    "--prefix",
                    "none",
                    "--format",
                    "{p}",
                ])
                .args(offline)
                .current_dir(root),
        )
    };
    ask(&["--offline"]).or_else(|_| ask(&[]))
}

/// The names in a tree printed flat, `name v1.2.3 (…)` a line, but for the crate itself.
pub(super) fn linked(tree: &str, own: &str) -> BTreeSet<String> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != own)
        .map(str::to_owned)
        .collect()
}

pub(super) fn compare(path: &str, list: &str, linked: &BTreeSet<String>) -> Vec<Breach> {
    let mut allowed = BTreeSet::new();
    let mut breaches = Vec::new();
    for (index, line) in list.lines().enumerate() {
        let (name, reason) = line.split_once('#').unwrap_or((line, ""));
        let name = name.trim();
        if name.is_empty() {
            continue;
        }
        if reason.trim().is_empty() {
            breaches.push(Breach::new(
                path,
                index + 1,
                format!("`{name}` has no reason: say after a # what it is for"),
            ));
        }
        if !linked.contains(name) {
            breaches.push(Breach::new(
                path,
                index + 1,
                format!("`{name}` is not linked any more: take it off the list"),
            ));
        }
        allowed.insert(name.to_owned());
    }
    for name in linked.difference(&allowed) {
        breaches.push(Breach::new(
            path,
            0,
            format!("`{name}` is linked but not allowed: is it pure and needed? Then add `{name}  # why`"),
        ));
    }
    breaches
}

fn list_path(name: &str) -> String {
    format!("xtask/allowed/{name}.txt")
}

//! Every crate inherits the workspace's lints, and the oldest supported Rust stands in one place.

use super::{Breach, File};

pub(super) fn check(files: &[File]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        if name == "Cargo.toml" && has_table(&file.text, "[package]") && !inherits_lints(&file.text) {
            breaches.push(Breach::new(
                &file.path,
                0,
                "does not inherit the workspace's lints: add [lints] workspace = true",
            ));
        }
        breaches.extend(oldest_rust(file, name));
    }
    let stated = files
        .iter()
        .find(|file| file.path == "Cargo.toml")
        .and_then(|file| values(&file.text, "rust-version").next());
    match stated {
        None => breaches.push(Breach::new(
            "Cargo.toml",
            0,
            "states no rust-version in [workspace.package]",
        )),
        Some((_, version)) => breaches.extend(readme_agrees(files, version.trim_matches('"'))),
    }
    breaches
}

/// The version stands in the root manifest; everything else takes it from there.
fn oldest_rust(file: &File, name: &str) -> Vec<Breach> {
    let keys: &[&str] = match name {
        "Cargo.toml" if file.path == "Cargo.toml" => return Vec::new(),
        "Cargo.toml" => &["rust-version"],
        "clippy.toml" | ".clippy.toml" => &["msrv"],
        "rust-toolchain.toml" | "rust-toolchain" => &["channel"],
        _ => return Vec::new(),
    };
    keys.iter()
        .flat_map(|key| values(&file.text, key).map(move |(line, _)| (line, key)))
        .map(|(line, key)| {
            let message = format!("`{key}`: the oldest supported Rust stands in the root Cargo.toml alone");
            Breach::new(&file.path, line, message)
        })
        .collect()
}

/// A README may name the version for its readers, but no other.
fn readme_agrees(files: &[File], version: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("README.md")) {
        for (index, line) in file.text.lines().enumerate() {
            let told = line.split("Rust 1.").skip(1).map(|rest| {
                let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
                format!("1.{minor}")
            });
            for told in told.filter(|told| told != version) {
                let message = format!("speaks of Rust {told}, the root Cargo.toml of {version}");
                breaches.push(Breach::new(&file.path, index + 1, message));
            }
        }
    }
    breaches
}

/// The line numbers and values of a key that is assigned one of its own (`key.workspace = true` is none).
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    text.lines().enumerate().filter_map(move |(index, line)| {
        let value = line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')?;
        Some((index + 1, value.trim()))
    })
}

fn has_table(text: &str, table: &str) -> bool {
    text.lines().any(|line| line.trim() == table)
}

fn inherits_lints(text: &str) -> bool {
    text.lines()
        .skip_while(|line| line.trim() != "[lints]")
        .skip(1)
        .take_while(|line| !line.trim().starts_with('['))
        .any(|line| line.replace(' ', "") == "workspace=true")
}

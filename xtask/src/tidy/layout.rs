//! Rooms stay small, nothing is left half done, and the papers are there.

use super::source::{self, Source};
use super::{Breach, File};

pub(super) fn check(files: &[File]) -> Vec<Breach> {
    let mut breaches = papers(files);
    for file in files.iter().filter(|file| file.is_rust()) {
        breaches.extend(length(file));
        breaches.extend(unfinished(file));
    }
    for (path, _) in LONG_FILES {
        if !files.iter().any(|file| file.path == *path) {
            breaches.push(Breach::new(
                path,
                0,
                "is excepted from the length rule but is not there: take it off the list",
            ));
        }
    }
    breaches
}

fn papers(files: &[File]) -> Vec<Breach> {
    PAPERS
        .iter()
        .filter(|paper| {
            !files
                .iter()
                .any(|file| file.path == **paper && !file.text.trim().is_empty())
        })
        .map(|paper| Breach::new(paper, 0, "is missing or empty"))
        .collect()
}

fn length(file: &File) -> Option<Breach> {
    if file.path.contains("/tests/") || file.path.ends_with("/tests.rs") {
        return None;
    }
    let lines = lines_without_tests(&file.text);
    let excepted = LONG_FILES.iter().any(|(path, _)| *path == file.path);
    match (lines > MAX_LINES, excepted) {
        (true, false) => Some(format!(
            "{lines} lines without tests, {MAX_LINES} are the most: split it by ideas"
        )),
        (false, true) => Some(format!(
            "{lines} lines need no exception from the length rule: take it off the list"
        )),
        (true, true) | (false, false) => None,
    }
    .map(|message| Breach::new(&file.path, 0, message))
}

/// Lines before the test module at the file's end, or all.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| matches!(pair, [attribute, item] if *attribute == "#[cfg(test)]" && item.starts_with("mod ") && item.ends_with('{')))
        .unwrap_or(lines.len())
}

fn unfinished(file: &File) -> Vec<Breach> {
    let source = Source::new(&file.text);
    let calls = source::find(&source.code, &["todo!", "unimplemented!"]);
    let notes = source::find(&source.comments, &["FIXME", "XXX", "TODO"]);
    calls
        .into_iter()
        .chain(notes)
        .map(|(line, word)| {
            Breach::new(
                &file.path,
                line,
                format!("`{word}`: finish it, or say in an issue what is left"),
            )
        })
        .collect()
}

const MAX_LINES: usize = 600;

/// Files that may be longer, each with its reason: data, or generated.
const LONG_FILES: &[(&str, &str)] = &[];

const PAPERS: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];

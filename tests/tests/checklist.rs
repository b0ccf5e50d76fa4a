//! CHECKLIST.md and the tests agree: no line names a test that is not there, and no checklist test is without a line.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The functions with `#[test]` in the files of a folder, and in its folders, whose names begin so.
fn tests_in(folder: &Path, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tests_in(&path, prefix));
        } else if path.file_name().unwrap().to_str().unwrap().starts_with(prefix) {
            let text = fs::read_to_string(path).unwrap();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let tests = lines.windows(2).filter(|pair| pair[0] == "#[test]");
            let names = tests.filter_map(|pair| pair[1].strip_prefix("fn ")?.split('(').next());
            found.extend(names.map(str::to_owned));
        }
    }
    found
}

/// What stands between backticks and looks like the name of a test.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.matches('_').count() > 2)
}

#[test]
fn the_checklist_names_every_test_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = tests_in(&root.join("tests"), "checklist_");
    let core = tests_in(&root.join("../crates/changestream-core/tests"), "");
    let elsewhere = tests_in(&root.join("tests"), "");
    let text = fs::read_to_string(root.join("CHECKLIST.md")).unwrap();
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Line"))
        .collect();
    assert!(lines.len() > 100);
    let listed: BTreeSet<String> = lines.iter().copied().flat_map(named).map(str::to_owned).collect();
    let unknown: Vec<_> = listed
        .iter()
        .filter(|name| !elsewhere.contains(*name) && !core.contains(*name))
        .collect();
    let unlisted: Vec<_> = here.difference(&listed).collect();
    assert!(
        unknown.is_empty(),
        "CHECKLIST.md names {unknown:?}, which no file has"
    );
    assert!(unlisted.is_empty(), "CHECKLIST.md does not name {unlisted:?}");
    for line in lines {
        assert!(
            named(line).next().is_some() || line.contains("| no: "),
            "neither test nor reason: {line}"
        );
    }
}

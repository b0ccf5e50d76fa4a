//! How two runs differ, and why they may.

use std::collections::BTreeSet;
use std::path::Path;

use crate::living::Lived;
use crate::shown::Shown;

/// All differences, each once: what was seen, which commands came in which order, and what is in them.
pub(crate) fn between(theirs: &Lived, ours: &Lived) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if theirs.answers != ours.answers {
        found.insert(format!(
            "saw {}; ours {}",
            theirs.answers.join(", "),
            ours.answers.join(", ")
        ));
    }
    let (their_names, our_names) = (names(&theirs.commands), names(&ours.commands));
    if their_names != our_names {
        found.insert(format!("sends {their_names}; ours {our_names}"));
    }
    for name in ["aggregate", "getMore", "killCursors"] {
        let of = |lived: &'_ Lived| -> Vec<Shown> {
            let commands = lived.commands.iter().filter(|command| command.name == name);
            commands.cloned().collect()
        };
        for (theirs, ours) in of(theirs).iter().zip(&of(ours)) {
            compare(theirs, ours, &mut found);
        }
    }
    found
}

fn names(commands: &[Shown]) -> String {
    let names: Vec<&str> = commands.iter().map(|command| command.name.as_str()).collect();
    names.join(" ")
}

fn compare(theirs: &Shown, ours: &Shown, found: &mut BTreeSet<String>) {
    let paths: BTreeSet<&String> = theirs.fields.keys().chain(ours.fields.keys()).collect();
    for path in paths {
        let (theirs_is, ours_is) = (theirs.fields.get(path), ours.fields.get(path));
        if theirs_is != ours_is {
            let shown = |value: Option<&String>| value.map_or("absent", String::as_str).to_owned();
            found.insert(format!(
                "{}.{path}: {}; ours {}",
                theirs.name,
                shown(theirs_is),
                shown(ours_is)
            ));
        }
    }
}

/// The differences of a driver that have a reason.
///
/// Lines of the file: `= reason`, and below it the differences that it holds for, each as the driver, a tab, the scenario
/// (`*`: any), a tab, and the difference. Below `~ reason` stands what comes and goes. Empty lines and lines that begin with `#` say nothing.
#[derive(Debug)]
pub(crate) struct Explained(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    scenario: String,
    difference: String,
    /// Whether it is found now and then only.
    is_optional: bool,
    is_used: bool,
}

impl Explained {
    /// Those of this driver.
    pub(crate) fn read(path: &Path, driver: &str) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut is_optional = None;
        let mut entries = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            if line.starts_with("= ") || line.starts_with("~ ") {
                is_optional = Some(line.starts_with('~'));
                continue;
            }
            let parts: Vec<&str> = line.split('\t').collect();
            let [of, scenario, difference] = parts.as_slice() else {
                panic!("{}: no driver, scenario and difference: {line:?}", path.display());
            };
            let Some(is_optional) = is_optional else {
                panic!("{}: no reason above {line:?}", path.display());
            };
            if *of == driver {
                entries.push(Entry {
                    scenario: (*scenario).to_owned(),
                    difference: (*difference).to_owned(),
                    is_optional,
                    is_used: false,
                });
            }
        }
        Self(entries)
    }

    /// Whether this difference has a reason.
    pub(crate) fn explains(&mut self, scenario: &str, difference: &str) -> bool {
        let fits = |entry: &&mut Entry| {
            (entry.scenario == "*" || entry.scenario == scenario) && entry.difference == difference
        };
        match self.0.iter_mut().find(fits) {
            Some(entry) => {
                entry.is_used = true;
                true
            }
            None => false,
        }
    }

    /// What explains nothing.
    pub(crate) fn unused(&self) -> Vec<String> {
        let unused = self.0.iter().filter(|entry| !entry.is_used && !entry.is_optional);
        unused
            .map(|entry| {
                format!(
                    "explained, but not found: {}\t{}",
                    entry.scenario, entry.difference
                )
            })
            .collect()
    }
}

//! Runs a folder of conformance files, and holds the list of what does not run to account.

use std::collections::BTreeMap;
use std::path::Path;

use changestream_tests::specs;
use serde_json::Value;

/// Runs each JSON file below `folder` (of the conformance data), subfolders included.
///
/// Fails if a file fails that `not_run` does not name, if one passes that it names, if it names one that is not there,
/// if a file that the list of cases calls applicable was not run, and if fewer than `at_least` files were run.
pub(crate) fn run_suite(
    folder: &str,
    at_least: usize,
    not_run: &[(&str, &str)],
    run: impl Fn(&str, &Value) -> Result<(), String>,
) {
    let Some(root) = specs() else {
        return;
    };
    let mut files = BTreeMap::new();
    collect(&root, &root.join(folder), &mut files);
    let mut complaints = Vec::new();
    let mut ran = 0;
    for (name, file) in &files {
        let listed = not_run.iter().find(|(listed, _)| listed == name);
        match (run(name, file), listed) {
            (Ok(()), None) => ran += 1,
            (Err(_), Some(_)) => {}
            (Err(reason), None) => complaints.push(format!("{name}: {reason}")),
            (Ok(()), Some((_, reason))) => {
                complaints.push(format!("{name} passes, but is listed as not run: {reason}"));
            }
        }
    }
    for (name, _) in not_run.iter().filter(|(name, _)| name.starts_with(folder)) {
        if !files.contains_key(*name) {
            complaints.push(format!("{name} is listed as not run, but is not there"));
        }
    }
    for name in applicable_cases(&root, folder) {
        if !files.contains_key(&name) {
            complaints.push(format!("{name} is applicable, but was not run"));
        }
    }
    if ran < at_least {
        complaints.push(format!("only {ran} files passed, fewer than {at_least}"));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Value>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            files.insert(name.to_owned(), serde_json::from_str(&text).unwrap());
        }
    }
}

/// The files with cases of status `yes` or `opt`.
fn applicable_cases(root: &Path, folder: &str) -> Vec<String> {
    let prefix = format!("{folder}/");
    let Ok(cases) = std::fs::read_to_string(root.join("CASES.tsv")) else {
        return Vec::new();
    };
    cases
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let name = fields.next()?.to_owned();
            let status = fields.nth(1)?;
            let wanted = name.starts_with(&prefix) && (status == "yes" || status == "opt");
            wanted.then_some(name)
        })
        .collect()
}

/// The fields that a file expects. A field that is absent asserts nothing; one that nobody asked about is an error.
#[allow(dead_code, reason = "not each test that includes this module uses it")]
pub(crate) struct Expected {
    fields: serde_json::Map<String, Value>,
    complaints: Vec<String>,
}

#[allow(dead_code, reason = "not each test that includes this module uses it")]
impl Expected {
    pub(crate) fn new(fields: &Value) -> Self {
        Self {
            fields: fields.as_object().unwrap().clone(),
            complaints: Vec::new(),
        }
    }

    pub(crate) fn value(&mut self, name: &str, found: Value) {
        if let Some(expected) = self.fields.remove(name)
            && expected != found
        {
            self.complaints
                .push(format!("expected {name} {expected}, not {found}"));
        }
    }

    /// The field, null if it is absent, for the caller to judge.
    pub(crate) fn take(&mut self, name: &str) -> Value {
        self.fields.remove(name).unwrap_or(Value::Null)
    }

    pub(crate) fn finish(self) -> Result<(), String> {
        let mut complaints = self.complaints;
        for name in self.fields.keys() {
            complaints.push(format!("the test does not look at {name}"));
        }
        if complaints.is_empty() {
            return Ok(());
        }
        Err(complaints.join("; "))
    }
}

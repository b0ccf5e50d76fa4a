//! The cases that lie in a folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::format::Format;

/// A file with cases.
#[derive(Debug)]
pub(crate) struct SpecFile {
    /// The path below the data's folder, with slashes.
    pub(crate) name: String,
    pub(crate) content: Value,
    /// None if it is none that is known.
    pub(crate) format: Option<Format>,
}

impl SpecFile {
    /// The suite that the file belongs to: its folder without `tests`, at most two names deep.
    pub(crate) fn suite(&self) -> String {
        let mut names: Vec<&str> = self.name.split('/').filter(|name| *name != "tests").collect();
        names.pop();
        names.truncate(2);
        if names.is_empty() {
            return "(no folder)".to_owned();
        }
        names.join("/")
    }
}

/// One case of a file.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) file: Arc<SpecFile>,
    /// Its position in the file.
    pub(crate) index: usize,
    pub(crate) description: String,
}

impl Case {
    /// The name that a person finds it by.
    pub(crate) fn name(&self) -> String {
        format!("{}: {}", self.file.name, self.description)
    }
}

/// All cases of all JSON files below the folder, in order; only those whose name holds one of the parts, if there are
/// any.
pub(crate) fn find(root: &Path, parts: &[&str]) -> Vec<Case> {
    let mut files = BTreeMap::new();
    collect(root, root, &mut files);
    let mut cases = Vec::new();
    for (name, content) in files {
        let format = Format::of(&content);
        let stem = name.rsplit('/').next().unwrap_or(&name).trim_end_matches(".json");
        let descriptions = match format {
            Some(format) => format.descriptions(&content, stem),
            None => vec![stem.to_owned()],
        };
        let file = Arc::new(SpecFile {
            name,
            content,
            format,
        });
        cases.extend(
            descriptions
                .into_iter()
                .enumerate()
                .map(|(index, description)| Case {
                    file: Arc::clone(&file),
                    index,
                    description,
                }),
        );
    }
    cases.retain(|case| parts.is_empty() || parts.iter().any(|part| case.name().contains(part)));
    cases
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Value>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let names: Vec<_> = path.strip_prefix(root).unwrap().iter().collect();
            let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // What is no JSON has no format either.
            files.insert(names.join("/"), serde_json::from_str(&text).unwrap_or_default());
        }
    }
}

//! The cases that lie in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::format::Format;

/// A file with cases.
#[derive(Debug)]
pub(crate) struct SpecFile {
    /// The path below the data's folder, with slashes.
    pub(crate) name: String,
    pub(crate) content: Value,
    /// What it is a file of, or that it cannot be read.
    pub(crate) format: Recognized,
}

/// What is made of a file before any of its cases is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recognized {
    /// It has cases of this format.
    As(Format),
    /// It is JSON of no format that is known.
    Foreign,
    /// It cannot be read as JSON at all, and why.
    Broken(String),
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
/// any. A file that cannot be read, is no JSON, or has no cases where its format has some, is one case of its own.
pub(crate) fn find(root: &Path, parts: &[&str]) -> Vec<Case> {
    let mut files = BTreeMap::new();
    collect(root, root, &mut Vec::new(), &mut files);
    let mut cases = Vec::new();
    for (name, content) in files {
        let stem = name.rsplit('/').next().unwrap_or(&name).trim_end_matches(".json");
        let (content, format) = match content {
            Ok(content) => match Format::of(&content) {
                Some(format) => (content, Recognized::As(format)),
                None => (content, Recognized::Foreign),
            },
            Err(reason) => (Value::Null, Recognized::Broken(reason)),
        };
        let descriptions = match &format {
            Recognized::As(format) => format.descriptions(&content, stem),
            Recognized::Foreign | Recognized::Broken(_) => Vec::new(),
        };
        // Of that format there are files about nothing but text.
        let may_be_empty = format == Recognized::As(Format::BsonCorpus);
        let descriptions = match descriptions.is_empty() && !may_be_empty {
            true => vec![stem.to_owned()],
            false => descriptions,
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

/// What lies in a folder, by its path below the root. `above` are the folders that it lies in, since links may lead back
/// to them.
fn collect(root: &Path, folder: &Path, above: &mut Vec<PathBuf>, files: &mut Files) {
    let here = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    if above.contains(&here) {
        return;
    }
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) => {
            files.insert(name_below(root, folder), Err(error.to_string()));
            return;
        }
    };
    above.push(here);
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, above, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.insert(name_below(root, &path), read(&path));
        }
    }
    above.pop();
}

fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Some editors begin files with it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))
}

fn name_below(root: &Path, path: &Path) -> String {
    let names: Vec<_> = path.strip_prefix(root).unwrap_or(path).iter().collect();
    let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    names.join("/")
}

type Files = BTreeMap<String, Result<Value, String>>;

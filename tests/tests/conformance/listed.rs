//! The list of what does not run.

use std::collections::BTreeMap;

use crate::case::Case;

/// The cases that do not run or do not pass, each with its reason.
///
/// Lines of `not_run.txt`: `= reason`, and below it the cases that it holds for, each as its file, a tab, and its
/// description. Empty lines and lines that begin with `#` say nothing.
#[derive(Debug)]
pub(crate) struct Listed(BTreeMap<(&'static str, &'static str), &'static str>);

impl Listed {
    /// Reads the list.
    pub(crate) fn read() -> Result<Self, String> {
        let mut reason = None;
        let mut cases = BTreeMap::new();
        for (number, line) in LIST.lines().enumerate() {
            let fault = |what: &str| format!("not_run.txt, line {}: {what}: {line:?}", number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(text) = line.strip_prefix("= ") {
                reason = Some(text);
                continue;
            }
            let case = line
                .split_once('\t')
                .ok_or_else(|| fault("no tab between file and description"))?;
            let reason = reason.ok_or_else(|| fault("no reason above it"))?;
            if cases.insert(case, reason).is_some() {
                return Err(fault("is there twice"));
            }
        }
        Ok(Self(cases))
    }

    /// Why this case does not run, if it is listed.
    pub(crate) fn reason(&self, case: &Case) -> Option<&'static str> {
        self.0
            .get(&(case.file.name.as_str(), case.description.as_str()))
            .copied()
    }

    /// The same by the file's own name, wherever it lies.
    pub(crate) fn reason_elsewhere(&self, case: &Case) -> Option<&'static str> {
        let last = |path: &str| path.rsplit('/').next().map(str::to_owned);
        let name = last(&case.file.name);
        let mut found = self.0.iter().filter(|((file, description), _)| {
            *description == case.description.as_str() && last(file) == name
        });
        found.next().map(|(_, reason)| *reason)
    }

    /// What is listed, but is none of these cases.
    pub(crate) fn not_among(&self, cases: &[Case]) -> Vec<String> {
        self.0
            .keys()
            .filter(|(file, description)| {
                !cases
                    .iter()
                    .any(|case| case.file.name == *file && case.description == *description)
            })
            .map(|(file, description)| {
                format!("{file}: {description}: is listed as not run, but is not there")
            })
            .collect()
    }
}

const LIST: &str = include_str!("not_run.txt");

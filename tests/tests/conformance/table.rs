//! The table of what ran.

use std::collections::BTreeMap;
use std::fmt;

use crate::case::Case;
use crate::judgement::Judgement;

/// Counts by suite.
#[derive(Debug, Default)]
pub(crate) struct Table {
    suites: BTreeMap<String, Row>,
}

#[derive(Debug, Default)]
struct Row {
    passed: usize,
    failed: usize,
    /// How many for each reason.
    skipped: BTreeMap<String, usize>,
}

impl Row {
    fn skipped(&self) -> usize {
        self.skipped.values().sum()
    }

    fn cases(&self) -> usize {
        self.passed + self.failed + self.skipped()
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cases, passed, failed, skipped) = (self.cases(), self.passed, self.failed, self.skipped());
        writeln!(f, "{name:<46} {cases:>5} {passed:>6} {failed:>6} {skipped:>7}")
    }
}

impl Table {
    pub(crate) fn add(&mut self, case: &Case, judgement: &Judgement) {
        let row = match judgement {
            Judgement::NotOurs => return,
            Judgement::Passed | Judgement::Failed(_) | Judgement::Skipped(..) => {
                self.suites.entry(case.file.suite()).or_default()
            }
        };
        match judgement {
            Judgement::Passed => row.passed += 1,
            Judgement::Failed(_) => row.failed += 1,
            Judgement::Skipped(reason, _) => *row.skipped.entry(reason.clone()).or_default() += 1,
            Judgement::NotOurs => {}
        }
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> usize {
        self.suites.values().map(|row| row.failed).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<46} {:>5} {:>6} {:>6} {:>7}",
            "suite", "cases", "passed", "failed", "skipped"
        )?;
        let mut total = Row::default();
        for (name, row) in &self.suites {
            row.write(name, f)?;
            for (reason, number) in &row.skipped {
                writeln!(f, "  {number} skipped: {reason}")?;
                *total.skipped.entry(reason.clone()).or_default() += number;
            }
            total.passed += row.passed;
            total.failed += row.failed;
        }
        total.write("total", f)
    }
}

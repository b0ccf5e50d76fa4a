//! What is made of a case's outcome: whether it may fail, and whether it may be skipped.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use crate::case::{Case, Recognized};
use crate::listed::Listed;

/// What running a case came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All that it asserts holds.
    Passed,
    /// Something does not, and what.
    Failed(String),
    /// It was not run, and why.
    Skipped(String),
    /// It was run and does not pass, for it needs what there is not, and what came of it.
    Beyond(String, String),
}

impl From<Result<(), String>> for Verdict {
    fn from(outcome: Result<(), String>) -> Self {
        match outcome {
            Ok(()) => Self::Passed,
            Err(reason) => Self::Failed(reason),
        }
    }
}

/// What counts of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It counts as passed.
    Passed,
    /// As failed, and why.
    Failed(String),
    /// As skipped, and why; of one that was run, what came of it besides.
    Skipped(String, Option<String>),
    /// The data's own list says that it is none of a change-stream client's.
    NotOurs,
}

impl Judgement {
    /// Says a failure on the standard error; what is skipped too, if `verbose`.
    pub(crate) fn tell(&self, case: &Case, verbose: bool) {
        match self {
            Self::Failed(reason) => eprintln!("FAILED {}: {reason}", case.name()),
            Self::Skipped(reason, found) if verbose => {
                let found = found.as_deref().unwrap_or("not run");
                eprintln!("skipped {}: {reason} ({found})", case.name());
            }
            Self::Passed | Self::Skipped(..) | Self::NotOurs => {}
        }
    }
}

/// Knows which cases apply, and which do not run for a known reason.
#[derive(Debug)]
pub(crate) struct Judge {
    /// The status of each case, by file and position; empty where the data has no list.
    statuses: BTreeMap<(String, usize), String>,
    listed: Listed,
}

impl Judge {
    /// Reads `CASES.tsv` beside the data, if there is one, and our own list of what does not run.
    pub(crate) fn new(root: &Path) -> Result<Self, String> {
        let cases = std::fs::read_to_string(root.join("CASES.tsv")).unwrap_or_default();
        let statuses = cases
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                let index = fields.get(1)?.parse().ok()?;
                let status = (*fields.get(2)?).to_owned();
                Some((((*fields.first()?).to_owned(), index), status))
            })
            .collect();
        Ok(Self {
            statuses,
            listed: Listed::read()?,
        })
    }

    /// Runs the cases, some at a time: over sockets most of the time is spent waiting.
    pub(crate) fn run(&self, cases: &[Case]) -> Vec<Judgement> {
        // A panic is told with its case, once.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let next = AtomicUsize::new(0);
        let judged = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = cases.get(index) else {
                            return;
                        };
                        let judgement = self.judge(case);
                        judged.lock().unwrap().insert(index, judgement);
                    }
                });
            }
        });
        std::panic::set_hook(hook);
        judged.into_inner().unwrap().into_values().collect()
    }

    fn judge(&self, case: &Case) -> Judgement {
        let status = self.statuses.get(&(case.file.name.clone(), case.index));
        if status.is_some_and(|status| status == "no") {
            return Judgement::NotOurs;
        }
        let begun = std::time::Instant::now();
        let verdict = run(case);
        if begun.elapsed() > SLOW {
            eprintln!("took {:.1} s: {}", begun.elapsed().as_secs_f64(), case.name());
        }
        // Files from elsewhere may lie otherwise, or be of a version in which more of them passes.
        let is_foreign = self.statuses.is_empty();
        let listed = match self.listed.reason(case) {
            None if is_foreign => self.listed.reason_elsewhere(case),
            listed => listed,
        };
        match (verdict, listed) {
            (Verdict::Passed, Some(_)) if is_foreign => Judgement::Passed,
            (Verdict::Passed, None) => Judgement::Passed,
            (Verdict::Passed, Some(reason)) => {
                Judgement::Failed(format!("passes, but is listed as not run: {reason}"))
            }
            (Verdict::Failed(found) | Verdict::Skipped(found) | Verdict::Beyond(_, found), Some(reason)) => {
                Judgement::Skipped(reason.to_owned(), Some(found))
            }
            (Verdict::Failed(reason), None) => Judgement::Failed(reason),
            (Verdict::Skipped(reason), None) if status.is_some() => {
                Judgement::Failed(format!("applies and is not listed, but was skipped: {reason}"))
            }
            (Verdict::Beyond(reason, found), None) if status.is_some() => {
                Judgement::Failed(format!("{found} (applies and is not listed: {reason})"))
            }
            (Verdict::Skipped(reason), None) => Judgement::Skipped(reason, None),
            (Verdict::Beyond(reason, found), None) => Judgement::Skipped(reason, Some(found)),
        }
    }

    /// What is listed as not run, or as a case, and is not there. Nothing where the data has no list of its own.
    pub(crate) fn unused_entries(&self, cases: &[Case]) -> Vec<String> {
        if self.statuses.is_empty() {
            return Vec::new();
        }
        let mut faults = self.listed.not_among(cases);
        let missing = self.statuses.iter().filter(|((file, index), status)| {
            *status != "no"
                && !cases
                    .iter()
                    .any(|case| case.file.name == *file && case.index == *index)
        });
        faults.extend(missing.map(|((file, index), _)| format!("{file}: the case {index} was not found")));
        faults
    }
}

/// Runs a case on a thread of its own; one that never ends is left behind.
fn run(case: &Case) -> Verdict {
    let format = match &case.file.format {
        Recognized::As(format) => *format,
        Recognized::Foreign => return Verdict::Skipped("the file has no known format".to_owned()),
        Recognized::Broken(reason) => return Verdict::Failed(reason.clone()),
    };
    let (done, outcome) = mpsc::channel();
    let running = case.clone();
    thread::spawn(move || {
        let verdict = catch_unwind(AssertUnwindSafe(|| format.run(&running)));
        let verdict = verdict.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Verdict::Failed(format!("panics: {}", text.unwrap_or("without a text")))
        });
        // Nobody may be waiting any more.
        let _told = done.send(verdict);
    });
    outcome
        .recv_timeout(LIMIT)
        .unwrap_or_else(|_| Verdict::Failed(format!("is not done within {LIMIT:?}")))
}

/// How many cases run at the same time.
const AT_ONCE: usize = 4;

/// A case that takes longer than this on its own is told of.
const SLOW: std::time::Duration = std::time::Duration::from_secs(10);

/// No case takes this long, on any machine.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

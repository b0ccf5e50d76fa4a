//! The differences that remain, and why they may.

/// One difference between a recorded reply and ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Difference {
    pub(crate) scenario: String,
    pub(crate) command: String,
    /// Where in the reply; empty for the reply itself.
    pub(crate) path: String,
    pub(crate) what: String,
}

/// What explains differences: all that it says has to fit.
struct Explained {
    /// The scenarios, by the beginning of their names.
    scenario: &'static str,
    command: &'static str,
    path: &'static str,
    /// The beginning of what is different.
    what: &'static str,
    /// Why that is harmless, or cannot be otherwise.
    why: &'static str,
}

pub(crate) const COUNT: usize = EXPLAINED.len();

const EXPLAINED: &[Explained] = &[
    Explained {
        scenario: "cluster-scope",
        command: "getMore",
        path: "cursor.nextBatch",
        what: "length: recorded",
        why: "one dropDatabase writes both drop and dropDatabase; the recorded server happened to commit them one by one",
    },
    Explained {
        scenario: "step-down",
        command: "ismaster",
        path: "",
        what: "fields: recorded [topologyVersion hosts setName setVersion ismaster secondary me lastWrite",
        why: "the recorded members hear of the new term before they hear, by a heartbeat, whose it is; ours hear both at once",
    },
    Explained {
        scenario: "cluster-scope",
        command: "getMore",
        path: "cursor.postBatchResumeToken._data",
        what: "value: recorded",
        why: "the same: the batch that ends with drop or dropDatabase ends with another event",
    },
];

/// What is wrong: differences that nothing explains, and explanations of nothing.
pub(crate) fn judge(found: &[Difference]) -> Vec<String> {
    let mut found = found.to_vec();
    found.sort();
    found.dedup();
    let unexplained = found
        .iter()
        .filter(|difference| !EXPLAINED.iter().any(|e| e.fits(difference)))
        .map(|d| format!("{}, {}, {:?}: {}", d.scenario, d.command, d.path, d.what));
    let idle = EXPLAINED
        .iter()
        .filter(|e| !found.iter().any(|difference| e.fits(difference)))
        .map(|e| {
            format!(
                "explains nothing: {}, {}, {:?}: {} ({})",
                e.scenario, e.command, e.path, e.what, e.why
            )
        });
    unexplained.chain(idle).collect()
}

impl Explained {
    fn fits(&self, d: &Difference) -> bool {
        d.scenario.starts_with(self.scenario)
            && d.command == self.command
            && d.path == self.path
            && d.what.starts_with(self.what)
    }
}

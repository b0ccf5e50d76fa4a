//! Why a test does not pass.

use crate::judgement::Verdict;

/// Why a test does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something that it asserts does not hold, or it makes no sense.
    Failed(String),
    /// Something that it asserts does not hold, for it needs what a change-stream client does not have: what that is, and
    /// what does not hold.
    Beyond(&'static str, String),
    /// It asks for what a change-stream client, the runner or the simulated deployment does not have.
    Unsupported(String),
}

impl Fault {
    /// The same fault, told where it happened.
    pub(super) fn at(self, place: &str) -> Self {
        match self {
            Self::Failed(reason) => Self::Failed(format!("{place}: {reason}")),
            Self::Beyond(beyond, reason) => Self::Beyond(beyond, format!("{place}: {reason}")),
            Self::Unsupported(reason) => Self::Unsupported(reason),
        }
    }

    /// The same fault, if it is a failure for that reason.
    pub(super) fn beyond(self, beyond: Option<&'static str>) -> Self {
        match (self, beyond) {
            (Self::Failed(reason), Some(beyond)) => Self::Beyond(beyond, reason),
            (fault, _) => fault,
        }
    }
}

impl From<Fault> for Verdict {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Failed(reason) => Self::Failed(reason),
            Fault::Beyond(beyond, reason) => Self::Beyond(beyond.to_owned(), reason),
            Fault::Unsupported(reason) => Self::Skipped(reason),
        }
    }
}

pub(super) fn failed(reason: impl Into<String>) -> Fault {
    Fault::Failed(reason.into())
}

pub(super) fn unsupported(reason: impl Into<String>) -> Fault {
    Fault::Unsupported(reason.into())
}

/// How the reasons begin of what the runner has never heard of: a newer test's, or a mistake.
pub(super) const UNKNOWN: &str = "the runner does not know";

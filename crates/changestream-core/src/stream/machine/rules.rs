//! What the user decided.

use std::time::Duration;

use crate::options::ResumePolicy;
use crate::stream::Avoid;
use crate::{ReadPreference, ServerError};

/// What the user decided.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) prefetch_batches: usize,
    pub(super) prefetch_bytes: usize,
    pub(super) exhaust: bool,
    pub(super) resume_policy: ResumePolicy,
    pub(super) retries: Retries,
    pub(super) ends_session: bool,
    pub(super) read_preference: ReadPreference,
    pub(super) max_await: Duration,
    pub(super) patience: Patience,
}

/// How long replies may take beyond what the server was told to wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For an aggregate that starts now: the server has nothing to read before it answers.
    pub open: Duration,
    /// For an aggregate that starts in the past: the server may have much of its log to read.
    pub scan: Duration,
    /// For a getMore, on top of its await time.
    pub get_more: Duration,
}

/// Which failures of a command are answered by sending it again, before anything is said of them.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Whether aggregates are retryable reads, and commands are tried again at all (`retryReads`).
    pub reads: bool,
    /// How often a command is tried again that an overloaded server refused (`maxAdaptiveRetries`).
    pub overloads: u32,
    /// Whether another server is preferred for that (`enableOverloadRetargeting`).
    pub retargets: bool,
}

impl Retries {
    /// Where a server is avoided that has just failed, or refused because it is overloaded.
    ///
    /// "In a sharded cluster, the server on which the operation failed MUST be provided to the server selection mechanism as
    /// a deprioritized server" (Retryable Reads specification, "Selecting the server for retry"). Any server that is
    /// overloaded, where that is asked for.
    pub(crate) fn avoid(self, overloaded: bool) -> Avoid {
        if overloaded && self.retargets {
            Avoid::Always
        } else {
            Avoid::AmongMongos
        }
    }

    /// Whether a getMore that was refused so, and was sent again this often, is sent once more.
    pub(super) fn allow(self, error: &ServerError, retries: u32) -> bool {
        self.reads && retries < self.overloads && error.is_overload()
    }
}

//! The time that a command has: `timeoutMS` (Client Side Operations Timeout specification).

use std::time::{Duration, Instant};

use crate::stream::server_share;

/// What there is of time for one command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Budget {
    /// `timeoutMS` is not set: nothing says how long all of it may take.
    Unset,
    /// It is set to no limit.
    Unlimited,
    /// That long, until then.
    Limited { limit: Duration, until: Instant },
}

impl Budget {
    /// From now on.
    pub(super) fn new(timeout: Option<Duration>, now: Instant) -> Self {
        match timeout {
            None => Self::Unset,
            Some(limit) if limit.is_zero() => Self::Unlimited,
            Some(limit) => match now.checked_add(limit) {
                Some(until) => Self::Limited { limit, until },
                None => Self::Unlimited,
            },
        }
    }

    /// Whether `timeoutMS` is set, be it to no limit.
    pub(super) fn is_set(self) -> bool {
        match self {
            Self::Unset => false,
            Self::Unlimited | Self::Limited { .. } => true,
        }
    }

    pub(super) fn limit(self) -> Option<Duration> {
        match self {
            Self::Unset | Self::Unlimited => None,
            Self::Limited { limit, .. } => Some(limit),
        }
    }

    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Unset | Self::Unlimited => None,
            Self::Limited { until, .. } => Some(until),
        }
    }

    /// Whether it lasts at least until then.
    pub(super) fn lasts_until(self, at: Instant) -> bool {
        self.until().is_none_or(|until| at <= until)
    }

    pub(super) fn is_over(self, now: Instant) -> bool {
        self.until().is_some_and(|until| until <= now)
    }

    /// How long a server that far away may take; `Ok(None)` is any time, an error too little to ask.
    pub(super) fn share(self, now: Instant, min_round_trip: Duration) -> Result<Option<Duration>, ()> {
        let Some(until) = self.until() else {
            return Ok(None);
        };
        let left = until.saturating_duration_since(now);
        server_share(left, min_round_trip).map(Some).ok_or(())
    }
}

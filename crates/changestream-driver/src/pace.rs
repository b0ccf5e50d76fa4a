//! How soon a consumer comes back.

use std::time::{Duration, Instant};

/// Whether what is to be sent may wait until the consumer comes back for the next event.
///
/// Sending takes longer than the rest of handing an event over, and wakes the peer. A consumer that takes its time shall
/// not keep the server waiting, so for him the getMore that fetches ahead leaves first. Where events come one by one and
/// are awaited, nothing is fetched ahead by it, and the event has waited for nothing.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    handed_over: Option<Instant>,
    is_prompt: bool,
}

impl Pace {
    /// The last event that can be had is handed over.
    pub(crate) fn hand_over(&mut self, now: Instant) {
        self.handed_over = Some(now);
    }

    /// The consumer has come back.
    pub(crate) fn come_back(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(then) = self.handed_over.take() {
            self.is_prompt = now().saturating_duration_since(then) < PROMPT;
        }
    }

    /// Whether he came back at once the last time.
    pub(crate) fn is_prompt(&self) -> bool {
        self.is_prompt
    }
}

/// Less than the round trip that a server would be kept waiting for.
const PROMPT: Duration = Duration::from_micros(50);

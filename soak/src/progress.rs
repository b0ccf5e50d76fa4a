//! How far the deployment's process is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::process;

#[derive(Debug, Default)]
pub(crate) struct Progress {
    stopped: AtomicBool,
    written: AtomicU64,
    faults: Mutex<BTreeMap<&'static str, u64>>,
}

impl Progress {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Waits; false if it is time to stop.
    pub(crate) fn goes_on_after(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while !self.stopped.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(LOOK));
        }
        false
    }

    pub(crate) fn wrote(&self, documents: u64) {
        self.written.fetch_add(documents, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, kind: &'static str) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults.entry(kind).or_default() += 1;
    }

    /// Processor seconds, documents written, and faults by kind.
    pub(crate) fn line(&self) -> String {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let kinds: Vec<String> = faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        let written = self.written.load(Ordering::Relaxed);
        format!("{:.1} {written} {}", process::cpu(), kinds.join(", "))
    }
}

/// How soon a stop is seen.
const LOOK: Duration = Duration::from_millis(100);

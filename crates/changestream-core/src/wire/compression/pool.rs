//! What codecs work with, used again.

use std::sync::{Mutex, PoisonError};

/// The working memory of a codec: hundreds of kilobytes, which take longer to set up than a small message to inflate. None
/// of it belongs to a connection, so that a thousand of them take no more than one; and what was in it before changes
/// nothing about what comes out.
pub(super) struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Does some work with one of them, or one that is made for it; none if none can be made.
    pub(super) fn with<R>(
        &self,
        make: impl FnOnce() -> Option<T>,
        work: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut tool = kept.or_else(make)?;
        let result = work(&mut tool);
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(tool);
        }
        Some(result)
    }
}

/// More are seldom at work at the same moment.
const MOST_IDLE: usize = 4;

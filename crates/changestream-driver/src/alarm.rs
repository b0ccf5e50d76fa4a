//! The machine's deadline, and the timer that wakes for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use changestream_core::client::Deadline;

use crate::Runtime;

/// Judges the machine's deadline by the clock. The timer only wakes: one that is past its time may still be pending,
/// as tokio's is when its task has used up its share.
pub(crate) struct Alarm<R: Runtime> {
    at: Option<Instant>,
    timer: Option<(Instant, R::Timer)>,
    /// Bytes read since the deadline was found to be over.
    read_since: usize,
}

impl<R: Runtime> Alarm<R> {
    pub(crate) fn new() -> Self {
        Self {
            at: None,
            timer: None,
            read_since: 0,
        }
    }

    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(crate) fn set(&mut self, deadline: Option<Deadline>) {
        self.at = deadline.map(|deadline| deadline.at);
    }

    /// Whether the deadline is over, now that so many bytes have been read; `None` when no socket had anything more.
    ///
    /// What the sockets held when the deadline passed counts as in time, and so it has to be read first. A peer that
    /// never stops sending shall not put the deadline off for ever: after more than a socket can have held, it is over.
    pub(crate) fn is_due(&mut self, runtime: &R, read: Option<usize>) -> bool {
        if self.at.is_none_or(|at| runtime.now() < at) {
            self.read_since = 0;
            return false;
        }
        let Some(len) = read else {
            self.read_since = 0;
            return true;
        };
        self.read_since = self.read_since.saturating_add(len.max(LEAST_READ));
        if self.read_since < MOST_HELD {
            return false;
        }
        self.read_since = 0;
        true
    }

    /// Registers for the deadline. Ready when it should be judged again.
    ///
    /// A timer that is set for earlier stays so. The deadline moves with every reply, and moving a timer each time costs
    /// more than being woken once in vain.
    pub(crate) fn poll(&mut self, runtime: &R, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            self.timer = None;
            return Poll::Pending;
        };
        let (set, timer) = self.timer.get_or_insert_with(|| (at, runtime.sleep_until(at)));
        if at < *set {
            *set = at;
            runtime.reset(timer, at);
        }
        ready!(Pin::new(timer).poll(cx));
        self.timer = None;
        Poll::Ready(())
    }
}

/// More than the receive buffers of an operating system hold for one connection (Linux: `tcp_rmem`, 6 MiB by default).
const MOST_HELD: usize = 64 << 20;

/// What one read counts at least, so that a peer that sends byte by byte comes to an end as well.
const LEAST_READ: usize = 1 << 10;

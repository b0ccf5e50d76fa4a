//! The machine's deadline, and the timer that wakes for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use changestream_core::client::{Deadline, DeadlineReason};

use crate::Runtime;

/// Judges the machine's deadline by the clock. The timer only wakes: one that is past its time may still be pending,
/// as tokio's is when its task has used up its share.
pub(crate) struct Alarm<R: Runtime> {
    deadline: Option<Deadline>,
    timer: Option<(Instant, R::Timer)>,
    /// Bytes read since the deadline was found to be over.
    read_since: usize,
    /// The deadline that was found to be over with nothing to read, and when that is looked at once more.
    second_look: Option<(Instant, Instant)>,
}

impl<R: Runtime> Alarm<R> {
    pub(crate) fn new() -> Self {
        Self {
            deadline: None,
            timer: None,
            read_since: 0,
            second_look: None,
        }
    }

    /// When it wants to be looked at.
    pub(crate) fn at(&self) -> Option<Instant> {
        let at = self.deadline?.at;
        Some(match self.second_look {
            Some((of, again)) if of == at => again,
            Some(_) | None => at,
        })
    }

    pub(crate) fn set(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
    }

    /// Whether the deadline is over, now that so many bytes have been read; `None` when no socket had anything more.
    ///
    /// What the sockets held when the deadline passed counts as in time, and so it has to be read first. A runtime may
    /// say that a socket has nothing because it has not asked the operating system since it said so last, as tokio does
    /// for a task that has just come back from long work. So what is over is looked at twice, and the runtime has its turn
    /// in between. A peer that never stops sending shall not put the deadline off for ever: after more than a socket can
    /// have held, it is over.
    pub(crate) fn is_due(&mut self, runtime: &R, read: Option<usize>) -> bool {
        let now = runtime.now();
        let Some(Deadline { at, reason }) = self.deadline.filter(|deadline| deadline.at <= now) else {
            self.read_since = 0;
            return false;
        };
        let Some(len) = read else {
            self.read_since = 0;
            return !may_be_in_a_socket(reason) || self.was_looked_at(at, now);
        };
        self.read_since = self.read_since.saturating_add(len.max(LEAST_READ));
        if self.read_since < MOST_HELD {
            return false;
        }
        self.read_since = 0;
        true
    }

    fn was_looked_at(&mut self, at: Instant, now: Instant) -> bool {
        let (_, again) = self
            .second_look
            .filter(|(of, _)| *of == at)
            .unwrap_or((at, now + BETWEEN_LOOKS));
        let is_second = now >= again;
        self.second_look = (!is_second).then_some((at, again));
        is_second
    }

    /// Registers for the deadline. Ready when it should be judged again.
    ///
    /// A timer that is set for earlier stays so. The deadline moves with every reply, and moving a timer each time costs
    /// more than being woken once in vain.
    pub(crate) fn poll(&mut self, runtime: &R, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at() else {
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

/// Whether something is to come by then that may be in a socket already.
fn may_be_in_a_socket(awaited: DeadlineReason) -> bool {
    !matches!(
        awaited,
        DeadlineReason::Scan | DeadlineReason::ResumeBackoff | DeadlineReason::Close
    )
}

/// As long as the shortest sleep of a runtime's timers, in which it looks at the sockets.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// More than the receive buffers of an operating system hold for one connection (Linux: `tcp_rmem`, 6 MiB by default).
const MOST_HELD: usize = 64 << 20;

/// What one read counts at least, so that a peer that sends byte by byte comes to an end as well.
const LEAST_READ: usize = 1 << 10;

//! A change stream that blocks.

use std::fmt;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use changestream_driver::{ChangeEvent, Error, ErrorKind, ResumeToken, StreamStats, Update};

use crate::reactor::{Canceller, Handle, Reactor};

type Inner = changestream_driver::ChangeStream<Reactor>;

/// A change stream: an iterator of events, which blocks until the next one is there.
///
/// It works only inside its methods: there is no thread behind it. What the server sends meanwhile waits in the socket.
///
/// # The end
/// A stream ends when what it watches is gone (an invalidate event), when it is closed, or by an error that it cannot
/// resume from. As an iterator it then yields that error once, and from then on nothing; [`try_next`](Self::try_next)
/// says so each time.
///
/// Dropping it closes its sockets at once, and leaves it to the server to forget the cursor in time; prefer
/// [`close`](Self::close).
///
/// # Time
/// With `timeoutMS` (of the connection string, or [`Watch::timeout`](crate::Watch)) each call that waits for events has that
/// long, resumes included. When it is over the call ends with an error whose [`is_timeout`](Error::is_timeout) is true, and
/// the stream is alive: either call again, and the stream resumes and goes on, or close it and open one with more time.
/// Prefer the latter if no event has come yet. What was fetched ahead is never lost by it.
#[must_use = "a change stream does nothing unless it is used"]
pub struct ChangeStream {
    inner: Inner,
    reactor: Handle,
}

impl ChangeStream {
    pub(crate) fn new(inner: Inner) -> Self {
        let reactor = inner.runtime().handle();
        Self { inner, reactor }
    }

    /// Blocks until the server has opened the stream's cursor. The other methods do so too where it is needed.
    ///
    /// # Errors
    /// What made it impossible, such as wrong credentials, no server within `serverSelectionTimeoutMS`, or a token that
    /// the server does not know.
    pub fn opened(&mut self) -> Result<(), Error> {
        self.block(None, Inner::poll_opened)
            .unwrap_or_else(|cut| Err(self.error(cut)))
    }

    /// The next event that at most one round trip to the server brings. None if there was no change within
    /// `max_await_time` (then store the [resume token](Self::resume_token), which has moved on), or when the invalidate
    /// event has been the last.
    ///
    /// # Errors
    /// The stream has ended, by this error; by [`ErrorKind::Closed`] if it came to its own end or was cancelled. Said at
    /// each call: go on while [`is_alive`](Self::is_alive).
    pub fn try_next(&mut self) -> Result<Option<ChangeEvent>, Error> {
        self.block(None, Inner::poll_try_next)
            .unwrap_or_else(|cut| Err(self.error(cut)))
    }

    /// The next event, if it comes within this time; else none, and none is lost.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Option<ChangeEvent>, Error> {
        let until = Instant::now().checked_add(limit);
        match self.block(until, Inner::poll_next_or_end) {
            Ok(result) => result,
            Err(Cut::Limit) => Ok(None),
            Err(cut) => Err(self.error(cut)),
        }
    }

    /// Whatever the stream has to tell next: a change, that it was idle, that it resumes or has resumed, that it was
    /// invalidated; none after the end, or when it was cancelled.
    ///
    /// # Errors
    /// The stream could not resume, or the server refused for good. The stream has ended then.
    pub fn next_update(&mut self) -> Option<Result<Update, Error>> {
        self.block(None, Inner::poll_update).unwrap_or_else(failed)
    }

    /// The next event, and all that can be had behind it without a word to the server; none after the end, or when the
    /// stream was cancelled. Never empty.
    ///
    /// # Errors
    /// As [`next_update`](Self::next_update).
    pub fn next_batch(&mut self) -> Option<Result<Vec<ChangeEvent>, Error>> {
        self.block(None, Inner::poll_batch).unwrap_or_else(failed)
    }

    /// Ends the stream properly, within `timeoutMS`, or five seconds where it is not set, also after it was cancelled: the
    /// server forgets the cursor. Gives the final resume token.
    ///
    /// # Errors
    /// The stream had ended by an error that nobody has been told of yet. What goes wrong while closing is none: the
    /// server forgets the cursor by itself in time.
    pub fn close(&mut self) -> Result<Option<ResumeToken>, Error> {
        self.close_within(self.inner.close_limit())
    }

    /// As [`close`](Self::close), with another limit.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_within(&mut self, limit: Duration) -> Result<Option<ResumeToken>, Error> {
        self.block_on(|stream, cx| stream.poll_close(cx, limit), None, false)
            .unwrap_or_else(|cut| Err(self.error(cut)))
    }

    /// What ends a blocked call from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller::new(self.reactor.clone())
    }

    /// Where the stream stands: after the last event that was handed over, or further on if the server has told so
    /// since. A new stream goes on from it with `resume_after`, or `start_after`. None if there is none yet.
    pub fn resume_token(&self) -> Option<&ResumeToken> {
        self.inner.resume_token()
    }

    /// Whether the server has opened the cursor at least once.
    pub fn is_open(&self) -> bool {
        self.inner.is_open()
    }

    /// Whether events may still come.
    pub fn is_alive(&self) -> bool {
        self.inner.is_alive() && !self.reactor.is_cancelled()
    }

    /// Whether an event can be had without a word to the server.
    pub fn has_buffered(&self) -> bool {
        self.inner.has_buffered()
    }

    /// What the stream has done so far, and how far it lags behind.
    pub fn stats(&self) -> StreamStats {
        self.inner.stats()
    }

    fn block<T>(
        &mut self,
        limit: Option<Instant>,
        poll: impl FnMut(&mut Inner, &mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Cut> {
        self.block_on(poll, limit, true)
    }

    /// Polls until it is ready, and between polls waits for the sockets and the stream's deadline.
    fn block_on<T>(
        &mut self,
        mut poll: impl FnMut(&mut Inner, &mut Context<'_>) -> Poll<T>,
        limit: Option<Instant>,
        cancellable: bool,
    ) -> Result<T, Cut> {
        self.inner.begin();
        self.reactor.look_anew();
        let waker = self.reactor.waker();
        let mut cx = Context::from_waker(&waker);
        loop {
            if cancellable && self.reactor.is_cancelled() {
                return Err(Cut::Cancelled);
            }
            if let Poll::Ready(value) = poll(&mut self.inner, &mut cx) {
                return Ok(value);
            }
            if limit.is_some_and(|at| Instant::now() >= at) {
                return Err(Cut::Limit);
            }
            if !self.reactor.was_woken() {
                let until = [self.inner.deadline(), limit].into_iter().flatten().min();
                self.reactor.wait(until).map_err(|error| {
                    Cut::Failed(Error::system(format!("cannot wait for sockets: {error}")))
                })?;
            }
        }
    }

    fn error(&self, cut: Cut) -> Error {
        match cut {
            Cut::Failed(error) => error,
            Cut::Cancelled | Cut::Limit => Error::new(ErrorKind::Closed),
        }
        .with_resume_token(self.resume_token().cloned())
    }
}

impl Iterator for ChangeStream {
    type Item = Result<ChangeEvent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.reactor.is_cancelled()
            && let Some(event) = self.inner.take_ready()
        {
            return Some(Ok(event));
        }
        self.block(None, Inner::poll_event).unwrap_or_else(failed)
    }
}

impl fmt::Debug for ChangeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Why a call ended before the stream had an answer.
enum Cut {
    Cancelled,
    Limit,
    Failed(Error),
}

/// What an iteration yields when it is cut: the failure, or nothing more.
fn failed<T>(cut: Cut) -> Option<Result<T, Error>> {
    match cut {
        Cut::Failed(error) => Some(Err(error)),
        Cut::Cancelled | Cut::Limit => None,
    }
}

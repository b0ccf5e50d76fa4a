//! A change stream.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use changestream_core::client::{ClientMachine, Demand, Snapshot, Update};
use changestream_core::stream::StreamStats;
use changestream_core::{ChangeEvent, Error, ErrorKind, ResumeToken};
use futures_core::Stream;

use crate::Runtime;
use crate::credentials::Providers;
use crate::dns::DnsServers;
use crate::driver::Driver;
use crate::monitor::Monitor;
use crate::security::Security;

/// A change stream, open or about to open.
///
/// It follows the changes through elections, lost connections and restarts of servers, without losing or repeating one,
/// and works only while it is polled: there is no task and no thread behind it.
///
/// # Cancel safety
/// Every method can be dropped at any await point: no event is lost, none is repeated, and the stream goes on with the
/// next call, whichever it is. [`resume_token`](Self::resume_token) and the other plain methods can be called at any
/// time.
///
/// # The end
/// A stream ends when what it watches is gone (an invalidate event), when it is closed, or by an error that it cannot
/// resume from. As a [`Stream`] it then yields that error once, and from then on nothing; [`try_next`](Self::try_next)
/// says so each time.
///
/// Dropping it closes its sockets at once, and leaves it to the server to forget the cursor in time; prefer
/// [`close`](Self::close).
///
/// # Time
/// With `timeoutMS` (of the connection string, or [`Watch::timeout`](crate::Watch::timeout)) each call that waits for events
/// has that long, resumes included. When it is over the call ends with an error whose
/// [`is_timeout`](Error::is_timeout) is true, and the stream is alive: either call again, and the stream resumes and goes
/// on, or close it and open one with more time. Prefer the latter if no event has come yet: the server may need longer
/// than this to read its log up to where the stream starts. What was fetched ahead is never lost by it.
///
/// A call lasts from the first poll of its future. For the [`Stream`] it lasts from the first poll to the item, whatever
/// becomes of the futures in between.
#[must_use = "a change stream does nothing unless it is polled"]
pub struct ChangeStream<R: Runtime> {
    driver: Driver<R>,
    /// What the streams of a client have learned of the deployment.
    knowledge: Knowledge,
    phase: Phase,
    /// Whether a call has begun, and not ended.
    called: bool,
    /// Whether the consumer has been told of the error that ended the stream.
    told: bool,
}

/// What the streams of one client share.
pub(crate) type Knowledge = Arc<Mutex<Snapshot>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    Closing,
}

impl<R: Runtime> ChangeStream<R> {
    pub(crate) fn new(
        runtime: R,
        machine: ClientMachine,
        security: Security,
        servers: DnsServers,
        providers: Providers,
        monitor: Monitor,
        knowledge: Knowledge,
    ) -> Self {
        Self {
            driver: Driver::new(runtime, machine, security, servers, providers, monitor),
            knowledge,
            phase: Phase::Opening,
            called: false,
            told: false,
        }
    }

    /// Waits until the server has opened the stream's cursor. The other methods do so too where it is needed.
    ///
    /// # Errors
    /// What made it impossible, such as wrong credentials, no server within `serverSelectionTimeoutMS`, or a token that
    /// the server does not know.
    pub fn opened(&mut self) -> impl Future<Output = Result<(), Error>> {
        self.call(Self::poll_opened)
    }

    /// The next event, however long it takes; none after the end.
    ///
    /// # Errors
    /// The stream could not resume, or the server refused for good. The stream has ended then.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is awaited, as that of every stream"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<ChangeEvent, Error>>> {
        self.call(Self::poll_event)
    }

    /// The next event that at most one round trip to the server brings. None if there was no change within
    /// `max_await_time` (then store the [resume token](Self::resume_token), which has moved on), or when the invalidate
    /// event has been the last.
    ///
    /// # Errors
    /// The stream has ended, by this error; by [`ErrorKind::Closed`] if it came to its own end. Said at each call:
    /// go on while [`is_alive`](Self::is_alive).
    pub fn try_next(&mut self) -> impl Future<Output = Result<Option<ChangeEvent>, Error>> {
        self.call(Self::poll_try_next)
    }

    /// Whatever the stream has to tell next: a change, that it was idle, that it resumes or has resumed, that it was
    /// invalidated; none after the end.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_update(&mut self) -> impl Future<Output = Option<Result<Update, Error>>> {
        self.call(Self::poll_update)
    }

    /// The next event, however long it takes, and all that can be had behind it without a word to the server; none after
    /// the end. Never empty.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_batch(&mut self) -> impl Future<Output = Option<Result<Vec<ChangeEvent>, Error>>> {
        self.call(Self::poll_batch)
    }

    /// Ends the stream properly, within `timeoutMS`, or five seconds where it is not set: the server forgets the cursor.
    /// Gives the final resume token.
    ///
    /// # Errors
    /// The stream had ended by an error that nobody has been told of yet. What goes wrong while closing is none: the
    /// server forgets the cursor by itself in time.
    pub fn close(&mut self) -> impl Future<Output = Result<Option<ResumeToken>, Error>> {
        self.close_within(self.close_limit())
    }

    /// As [`close`](Self::close), with another limit. The limit of the first call holds if there are several.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_within(
        &mut self,
        limit: Duration,
    ) -> impl Future<Output = Result<Option<ResumeToken>, Error>> {
        poll_fn(move |cx| self.poll_close(cx, limit))
    }

    /// Where the stream stands: after the last event that was handed over, or further on if the server has told so
    /// since. A new stream goes on from it with `resume_after`, or `start_after`. None if there is none yet.
    pub fn resume_token(&self) -> Option<&ResumeToken> {
        self.driver.machine().resume_token()
    }

    /// Whether the server has opened the cursor at least once.
    pub fn is_open(&self) -> bool {
        self.driver.machine().is_open()
    }

    /// Whether events may still come.
    pub fn is_alive(&self) -> bool {
        self.driver.end().is_none() && self.driver.machine().is_alive()
    }

    /// Whether an event can be had without a word to the server.
    pub fn has_buffered(&self) -> bool {
        self.driver.machine().has_buffered()
    }

    /// What the stream has done so far, and how far it lags behind.
    pub fn stats(&self) -> StreamStats {
        self.driver.machine().stats()
    }

    /// The executor's part.
    pub fn runtime(&self) -> &R {
        self.driver.runtime()
    }
}

/// The same, for those who poll by hand: adapters, and futures of one's own.
impl<R: Runtime> ChangeStream<R> {
    /// A call begins: `timeoutMS` counts from now. Without this, it counts from the first poll after the last one was
    /// ready.
    pub fn begin(&mut self) {
        self.called = true;
        self.driver.begin();
    }

    /// How long [`close`](Self::close) may take.
    pub fn close_limit(&self) -> Duration {
        self.driver.machine().close_limit()
    }

    /// Polls for what [`opened`](Self::opened) waits for.
    pub fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.ensure_called();
        ready!(self.driver.poll_open(cx));
        self.called = false;
        if self.is_open() {
            self.note_open();
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(self.ended()))
    }

    /// Polls for what [`next`](Self::next) waits for.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ChangeEvent, Error>>> {
        let event = loop {
            match ready!(self.poll_any(cx)) {
                Some(Ok(Update::Change(event))) => break Some(Ok(event)),
                Some(Ok(_)) => {}
                Some(Err(error)) => break Some(Err(error)),
                None => break None,
            }
        };
        self.called = false;
        Poll::Ready(event)
    }

    /// Polls for what [`try_next`](Self::try_next) waits for.
    pub fn poll_try_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ChangeEvent>, Error>> {
        self.poll_or_end(cx, Demand::TryNext)
    }

    /// Polls for the next event, however long it takes, and tells the end as [`try_next`](Self::try_next) does.
    pub fn poll_next_or_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ChangeEvent>, Error>> {
        self.poll_or_end(cx, Demand::Next)
    }

    /// Polls for what [`next_update`](Self::next_update) waits for.
    pub fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update, Error>>> {
        let update = ready!(self.poll_any(cx));
        self.called = false;
        Poll::Ready(update)
    }

    /// Polls for what [`next_batch`](Self::next_batch) waits for.
    pub fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<ChangeEvent>, Error>>> {
        let first = match ready!(self.poll_event(cx)) {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        let mut batch = vec![first];
        while self.has_buffered() {
            match self.driver.poll_update(cx, Demand::Next) {
                Poll::Ready(Some(Update::Change(event))) => batch.push(event),
                Poll::Ready(Some(other)) => {
                    self.driver.put_back(other);
                    break;
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(batch)))
    }

    /// Polls for what [`close_within`](Self::close_within) waits for.
    pub fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Result<Option<ResumeToken>, Error>> {
        if self.phase != Phase::Closing {
            self.learn();
            self.phase = Phase::Closing;
            let now = self.driver.runtime().now();
            self.driver
                .close(now.checked_add(limit).unwrap_or(now + LONGEST_CLOSE));
        }
        ready!(self.driver.poll_end(cx));
        match self.untold() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(Ok(self.resume_token().cloned())),
        }
    }

    /// When the stream wants to be polled again though no socket has woken it. For adapters whose
    /// [timers](Runtime::Timer) do nothing, because they wait for sockets and time in one call.
    pub fn deadline(&self) -> Option<Instant> {
        self.driver.deadline()
    }

    fn poll_or_end(
        &mut self,
        cx: &mut Context<'_>,
        demand: Demand,
    ) -> Poll<Result<Option<ChangeEvent>, Error>> {
        let result = loop {
            match ready!(self.poll_demand(cx, demand)) {
                Some(Update::Change(event)) => break Ok(Some(event)),
                Some(Update::Invalidated { .. }) => break Ok(None),
                Some(Update::Idle(_)) if demand == Demand::TryNext => break Ok(None),
                Some(Update::TimedOut(error)) => break Err(error),
                Some(_) => {}
                None => break Err(self.ended()),
            }
        };
        self.called = false;
        Poll::Ready(result)
    }

    /// The next update, within the call that is going on.
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update, Error>>> {
        Poll::Ready(match ready!(self.poll_demand(cx, Demand::Next)) {
            Some(Update::TimedOut(error)) => Some(Err(error)),
            Some(update) => Some(Ok(update)),
            None => self.untold().map(Err),
        })
    }

    /// A call as a future: it begins with the first poll.
    fn call<T>(
        &mut self,
        mut poll: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> impl Future<Output = T> {
        let mut begun = false;
        poll_fn(move |cx| {
            if !std::mem::replace(&mut begun, true) {
                self.begin();
            }
            poll(self, cx)
        })
    }

    fn ensure_called(&mut self) {
        if !self.called {
            self.begin();
        }
    }

    fn poll_demand(&mut self, cx: &mut Context<'_>, demand: Demand) -> Poll<Option<Update>> {
        self.ensure_called();
        let update = self.driver.poll_update(cx, demand);
        self.note_open();
        if matches!(update, Poll::Ready(Some(Update::Resumed { .. }))) {
            self.learn();
        }
        update
    }

    fn note_open(&mut self) {
        if self.phase == Phase::Opening && self.is_open() {
            self.phase = Phase::Open;
            self.learn();
        }
    }

    /// Shares what the stream has learned of the deployment with those that are opened after it.
    fn learn(&self) {
        if self.is_open() {
            let snapshot = self.driver.machine().snapshot();
            self.knowledge
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .merge(snapshot);
        }
    }

    /// The error that ended the stream, if it was one and nobody has been told.
    fn untold(&mut self) -> Option<Error> {
        let error = self.driver.end()?.as_ref().err()?.clone();
        (!std::mem::replace(&mut self.told, true)).then_some(error)
    }

    /// Why nothing comes any more.
    fn ended(&mut self) -> Error {
        self.told = true;
        match self.driver.end() {
            Some(Err(error)) => error.clone(),
            Some(Ok(())) | None => {
                Error::new(ErrorKind::Closed).with_resume_token(self.resume_token().cloned())
            }
        }
    }
}

impl<R: Runtime> Stream for ChangeStream<R> {
    type Item = Result<ChangeEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl<R: Runtime> std::fmt::Debug for ChangeStream<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeStream")
            .field("is_open", &self.is_open())
            .field("is_alive", &self.is_alive())
            .field("has_buffered", &self.has_buffered())
            .field("resume_token", &self.resume_token())
            .finish_non_exhaustive()
    }
}

/// A longer limit than time itself is cut to this.
const LONGEST_CLOSE: Duration = Duration::from_secs(365 * 24 * 3600);

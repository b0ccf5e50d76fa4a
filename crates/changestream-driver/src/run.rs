//! Commands of the user's own, and the connections that they leave behind for the next ones.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bson::Document;
use changestream_core::{Error, RunCommand};

use crate::Runtime;
use crate::driver::Driver;
use crate::stream::Knowledge;

/// Drivers that have nothing to do, each with its connections and its session.
pub(crate) struct Pool<R: Runtime>(Mutex<Vec<Driver<R>>>);

impl<R: Runtime> Pool<R> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The one used last: its connections and its session are the most likely to be good still.
    pub(crate) fn take(&self) -> Option<Driver<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, driver: Driver<R>) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(driver);
        }
    }
}

/// A command that is being run: a future of the reply.
///
/// Dropping it gives the command up, and closes its connection: whether the server runs it is not known then.
///
/// # Panics
/// When it is polled again after it was ready.
#[must_use = "a command does not run unless it is awaited"]
pub struct Running<R: Runtime>(State<R>);

enum State<R: Runtime> {
    /// It could not even be started.
    Refused(Error),
    /// Not sent yet.
    New(Box<RunCommand>, Work<R>),
    Sent(Work<R>),
    Done,
}

struct Work<R: Runtime> {
    driver: Driver<R>,
    pool: Arc<Pool<R>>,
    knowledge: Knowledge,
}

impl<R: Runtime> Running<R> {
    pub(crate) fn new(
        command: RunCommand,
        driver: Driver<R>,
        pool: Arc<Pool<R>>,
        knowledge: Knowledge,
    ) -> Self {
        let work = Work {
            driver,
            pool,
            knowledge,
        };
        Self(State::New(Box::new(command), work))
    }

    pub(crate) fn refused(error: Error) -> Self {
        Self(State::Refused(error))
    }

    /// The sockets and timers that it runs on; none if it is not to run, or has run.
    pub fn runtime(&self) -> Option<&R> {
        self.driver().map(Driver::runtime)
    }

    /// When it wants to be polled again though no socket has woken it. For adapters whose
    /// [timers](Runtime::Timer) do nothing, because they wait for sockets and time in one call.
    pub fn deadline(&self) -> Option<Instant> {
        self.driver().and_then(Driver::deadline)
    }

    fn driver(&self) -> Option<&Driver<R>> {
        match &self.0 {
            State::New(_, work) | State::Sent(work) => Some(&work.driver),
            State::Refused(_) | State::Done => None,
        }
    }
}

impl<R: Runtime> Work<R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Document, Error>> {
        let reply = ready!(self.driver.poll_reply(cx));
        let snapshot = self.driver.machine().snapshot();
        let mut knowledge = self.knowledge.lock().unwrap_or_else(PoisonError::into_inner);
        knowledge.merge(snapshot);
        Poll::Ready(reply.and_then(|reply| reply.to_document()))
    }
}

impl<R: Runtime> Future for Running<R> {
    type Output = Result<Document, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut work = match std::mem::replace(&mut self.0, State::Done) {
            State::Refused(error) => return Poll::Ready(Err(error)),
            State::New(command, mut work) => {
                let known = work.knowledge.lock();
                let known = known.unwrap_or_else(PoisonError::into_inner).clone();
                work.driver.run(cx, *command, known);
                work
            }
            State::Sent(work) => work,
            State::Done => panic!("a future is not polled after it was ready"),
        };
        match work.poll(cx) {
            Poll::Ready(result) => {
                work.driver.rest();
                work.pool.put(work.driver);
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.0 = State::Sent(work);
                Poll::Pending
            }
        }
    }
}

impl<R: Runtime> std::fmt::Debug for Running<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// How many drivers are kept that have nothing to do. Commands run at once are seldom more.
const MOST_IDLE: usize = 8;

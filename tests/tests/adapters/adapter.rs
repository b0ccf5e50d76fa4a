//! What the scenarios ask of an adapter, so that each of them is written once.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bson::Document;
use changestream_driver::{
    ChangeEvent, ChangeStream, Error, Mode, ResumeToken, Runtime, StreamStats, Update, Watch,
};

/// An adapter under test.
pub trait Adapter: 'static {
    /// What its clients are made of.
    type Mode: Mode<Stream = Self::Stream> + Clone + Default;
    type Stream: Follow;
    /// The name that servers log.
    const PLATFORM: &'static str;

    async fn open(watch: Watch<Self::Mode>) -> Result<Self::Stream, Error>;

    async fn run(running: <Self::Mode as Mode>::Running) -> Result<Document, Error>;

    fn block_on<T>(future: impl Future<Output = T>) -> T;
}

/// A stream of any adapter. That of the blocking one is never pending.
pub trait Follow {
    async fn next(&mut self) -> Option<Result<ChangeEvent, Error>>;
    async fn try_next(&mut self) -> Result<Option<ChangeEvent>, Error>;
    async fn next_update(&mut self) -> Option<Result<Update, Error>>;
    async fn next_batch(&mut self) -> Option<Result<Vec<ChangeEvent>, Error>>;
    async fn close(&mut self) -> Result<Option<ResumeToken>, Error>;

    /// The next events by calls that are given up whenever they would wait; `look` is called at each such point.
    async fn next_by_giving_up(&mut self, look: &mut dyn FnMut(&Self)) -> Vec<ChangeEvent>;

    fn resume_token(&self) -> Option<&ResumeToken>;
    fn is_alive(&self) -> bool;
    fn stats(&self) -> StreamStats;
}

impl<R: Runtime> Follow for ChangeStream<R> {
    async fn next(&mut self) -> Option<Result<ChangeEvent, Error>> {
        self.next().await
    }

    async fn try_next(&mut self) -> Result<Option<ChangeEvent>, Error> {
        self.try_next().await
    }

    async fn next_update(&mut self) -> Option<Result<Update, Error>> {
        self.next_update().await
    }

    async fn next_batch(&mut self) -> Option<Result<Vec<ChangeEvent>, Error>> {
        self.next_batch().await
    }

    async fn close(&mut self) -> Result<Option<ResumeToken>, Error> {
        self.close().await
    }

    /// Each poll is that of a new future, which is dropped when it is pending, and of another method than the last.
    async fn next_by_giving_up(&mut self, look: &mut dyn FnMut(&Self)) -> Vec<ChangeEvent> {
        let mut turn = 0;
        poll_fn(|cx| {
            loop {
                turn += 1;
                match poll_some_method(self, turn, cx) {
                    Poll::Ready(events) if events.is_empty() => {}
                    Poll::Ready(events) => return Poll::Ready(events),
                    Poll::Pending => {
                        look(self);
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    fn resume_token(&self) -> Option<&ResumeToken> {
        self.resume_token()
    }

    fn is_alive(&self) -> bool {
        self.is_alive()
    }

    fn stats(&self) -> StreamStats {
        self.stats()
    }
}

fn poll_some_method<R: Runtime>(
    stream: &mut ChangeStream<R>,
    turn: u32,
    cx: &mut Context<'_>,
) -> Poll<Vec<ChangeEvent>> {
    match turn % 4 {
        0 => pin!(stream.next())
            .poll(cx)
            .map(|event| vec![event.unwrap().unwrap()]),
        1 => pin!(stream.try_next())
            .poll(cx)
            .map(|event| event.unwrap().into_iter().collect()),
        2 => pin!(stream.next_batch())
            .poll(cx)
            .map(|batch| batch.unwrap().unwrap()),
        _ => pin!(stream.next_update())
            .poll(cx)
            .map(|update| match update.unwrap().unwrap() {
                Update::Change(event) => vec![event],
                _ => Vec::new(),
            }),
    }
}

impl Follow for changestream_blocking::ChangeStream {
    async fn next(&mut self) -> Option<Result<ChangeEvent, Error>> {
        Iterator::next(self)
    }

    async fn try_next(&mut self) -> Result<Option<ChangeEvent>, Error> {
        self.try_next()
    }

    async fn next_update(&mut self) -> Option<Result<Update, Error>> {
        self.next_update()
    }

    async fn next_batch(&mut self) -> Option<Result<Vec<ChangeEvent>, Error>> {
        self.next_batch()
    }

    async fn close(&mut self) -> Result<Option<ResumeToken>, Error> {
        self.close()
    }

    /// A wait that blocks is given up by its limit.
    async fn next_by_giving_up(&mut self, look: &mut dyn FnMut(&Self)) -> Vec<ChangeEvent> {
        loop {
            if let Some(event) = self.next_timeout(Duration::from_millis(1)).unwrap() {
                return vec![event];
            }
            look(self);
        }
    }

    fn resume_token(&self) -> Option<&ResumeToken> {
        self.resume_token()
    }

    fn is_alive(&self) -> bool {
        self.is_alive()
    }

    fn stats(&self) -> StreamStats {
        self.stats()
    }
}

/// Runs a scenario, which fails when it takes too long.
pub fn bounded(scenario: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel::<()>();
    let running = thread::spawn(move || {
        let _done = done;
        scenario();
    });
    // Nothing is ever sent: the channel ends when the scenario does, by a panic too.
    if finished.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("not done within {LIMIT:?}");
    }
    if let Err(panic) = running.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Ten times what the longest takes, and less than a default that steps in where something was missed, such as the no-op
/// that a primary writes every ten seconds.
const LIMIT: Duration = Duration::from_secs(8);

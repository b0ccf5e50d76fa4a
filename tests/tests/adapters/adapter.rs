//! What the scenarios ask of an adapter, so that each of them is written once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use bson::Document;
use changestream_driver::{
    ChangeEvent, ChangeStream, Error, ErrorKind, Mode, ResumeToken, Runtime, StreamStats, Update, Watch,
};
use futures_core::Stream;

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

    /// Waits for the cursor. None if the call was given up: see [`call`](Self::call).
    async fn opened(&mut self, patience: Patience, waits: &mut dyn FnMut()) -> Option<Result<(), Error>>;

    /// A call for events, of another method each turn, which is given up when the patience is at its end. `waits` is told
    /// of each time that it waits.
    async fn call(&mut self, turn: usize, patience: Patience, waits: &mut dyn FnMut()) -> Call;

    /// As [`close`](Self::close). None if the call was given up: see [`call`](Self::call).
    async fn closed(
        &mut self,
        patience: Patience,
        waits: &mut dyn FnMut(),
    ) -> Option<Result<Option<ResumeToken>, Error>>;

    fn has_buffered(&self) -> bool;
    fn resume_token(&self) -> Option<&ResumeToken>;
    fn is_alive(&self) -> bool;
    fn stats(&self) -> StreamStats;
}

/// How often a call may wait before it is given up.
#[derive(Clone, Copy)]
pub struct Patience {
    pub times: usize,
    /// Whether it goes on at once then. Else it does when the task is woken, by what the dropped future has left behind.
    pub then_at_once: bool,
}

/// What became of a call for events.
pub enum Call {
    Events(Vec<ChangeEvent>),
    /// Something else was told, or there was nothing to tell.
    Nothing,
    GivenUp,
    /// The stream has come to its own end.
    Ended,
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

    async fn opened(&mut self, patience: Patience, waits: &mut dyn FnMut()) -> Option<Result<(), Error>> {
        patient(self.opened(), patience, waits).await
    }

    async fn call(&mut self, turn: usize, patience: Patience, waits: &mut dyn FnMut()) -> Call {
        let done = match turn % 5 {
            0 => patient(self.next(), patience, waits).await.map(one_or_end),
            1 => patient(self.try_next(), patience, waits).await.map(try_or_end),
            2 => patient(self.next_batch(), patience, waits)
                .await
                .map(|batch| batch.map_or(Call::Ended, |batch| Call::Events(batch.unwrap()))),
            3 => patient(self.next_update(), patience, waits).await.map(|update| {
                match update.transpose().unwrap() {
                    Some(Update::Change(event)) => Call::Events(vec![event]),
                    Some(_) => Call::Nothing,
                    None => Call::Ended,
                }
            }),
            _ => {
                let as_stream = poll_fn(|cx| Pin::new(&mut *self).poll_next(cx));
                patient(as_stream, patience, waits).await.map(one_or_end)
            }
        };
        done.unwrap_or(Call::GivenUp)
    }

    async fn closed(
        &mut self,
        patience: Patience,
        waits: &mut dyn FnMut(),
    ) -> Option<Result<Option<ResumeToken>, Error>> {
        patient(self.close(), patience, waits).await
    }

    fn has_buffered(&self) -> bool {
        self.has_buffered()
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

/// Waits for a future, or drops it: none then.
async fn patient<T>(
    future: impl Future<Output = T>,
    patience: Patience,
    waits: &mut dyn FnMut(),
) -> Option<T> {
    let mut running = Some(Box::pin(future));
    let mut left = patience.times;
    poll_fn(move |cx| {
        let Some(future) = &mut running else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        waits();
        match left.checked_sub(1) {
            Some(fewer) => left = fewer,
            None => {
                running = None;
                if patience.then_at_once {
                    return Poll::Ready(None);
                }
            }
        }
        Poll::Pending
    })
    .await
}

fn one_or_end(event: Option<Result<ChangeEvent, Error>>) -> Call {
    event.map_or(Call::Ended, |event| Call::Events(vec![event.unwrap()]))
}

fn try_or_end(event: Result<Option<ChangeEvent>, Error>) -> Call {
    match event {
        Ok(Some(event)) => Call::Events(vec![event]),
        Ok(None) => Call::Nothing,
        Err(error) if matches!(error.kind(), ErrorKind::Closed) => Call::Ended,
        Err(error) => panic!("{error}"),
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

    async fn opened(&mut self, _: Patience, _: &mut dyn FnMut()) -> Option<Result<(), Error>> {
        Some(self.opened())
    }

    /// A wait that blocks is given up by its limit; with no patience that is after the first look at the sockets.
    async fn call(&mut self, turn: usize, patience: Patience, waits: &mut dyn FnMut()) -> Call {
        if turn.is_multiple_of(3) {
            return try_or_end(self.try_next());
        }
        let limit = WAIT * u32::try_from(patience.times).unwrap();
        match try_or_end(self.next_timeout(limit)) {
            Call::Nothing => {
                waits();
                Call::GivenUp
            }
            call => call,
        }
    }

    async fn closed(
        &mut self,
        _: Patience,
        _: &mut dyn FnMut(),
    ) -> Option<Result<Option<ResumeToken>, Error>> {
        Some(self.close())
    }

    fn has_buffered(&self) -> bool {
        self.has_buffered()
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
    bounded_by(LIMIT, scenario);
}

pub fn bounded_by(limit: Duration, scenario: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel::<()>();
    let running = thread::spawn(move || {
        let _done = done;
        scenario();
    });
    // Nothing is ever sent: the channel ends when the scenario does, by a panic too.
    if finished.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("not done within {limit:?}");
    }
    if let Err(panic) = running.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Ten times what the longest takes, and less than a default that steps in where something was missed, such as the no-op
/// that a primary writes every ten seconds.
const LIMIT: Duration = Duration::from_secs(8);

/// What a blocking call gets for each time that it may wait: about as long as a reply takes.
const WAIT: Duration = Duration::from_micros(200);

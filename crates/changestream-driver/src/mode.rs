//! How the streams of a client are opened and used: awaited or blocking.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use changestream_core::Error;

use crate::{ChangeStream, Running, Runtime};

/// What an adapter makes of a stream, so that [`Client`](crate::Client) and [`Watch`](crate::Watch) are the same in all.
///
/// Each [`Runtime`] is a mode: its streams are awaited. An adapter that has no futures in its face, as that for blocking
/// use, implements this for a type of its own.
pub trait Mode: Sized {
    /// Sockets and timers of one stream.
    type Runtime: Runtime;

    /// A stream.
    type Stream;

    /// What opening a stream gives: a result, or a future of one.
    type Opening;

    /// What running a command gives: its reply, or a future of it.
    type Running;

    /// The name under which servers log it, such as `tokio`.
    fn platform(&self) -> &str;

    /// Makes the runtime of one stream.
    ///
    /// # Errors
    /// The operating system refuses what it needs.
    fn runtime(&self) -> io::Result<Self::Runtime>;

    /// Wraps a stream.
    fn stream(stream: ChangeStream<Self::Runtime>) -> Self::Stream;

    /// Opens the stream, unless it could not even be made.
    fn open(stream: Result<Self::Stream, Error>) -> Self::Opening;

    /// Runs a command.
    fn run(command: Running<Self::Runtime>) -> Self::Running;
}

impl<R: Runtime + Clone> Mode for R {
    type Runtime = R;
    type Stream = ChangeStream<R>;
    type Opening = Opening<R>;
    type Running = Running<R>;

    fn platform(&self) -> &str {
        R::NAME
    }

    fn runtime(&self) -> io::Result<R> {
        Ok(self.clone())
    }

    fn stream(stream: ChangeStream<R>) -> ChangeStream<R> {
        stream
    }

    fn open(stream: Result<ChangeStream<R>, Error>) -> Opening<R> {
        Opening(Some(stream))
    }

    fn run(command: Running<R>) -> Running<R> {
        command
    }
}

/// A stream on its way to be open. Dropping it gives the stream up.
///
/// # Panics
/// When it is polled again after it was ready.
#[must_use = "futures do nothing unless they are awaited"]
#[derive(Debug)]
pub struct Opening<R: Runtime>(Option<Result<ChangeStream<R>, Error>>);

impl<R: Runtime> Future for Opening<R> {
    type Output = Result<ChangeStream<R>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stream = self
            .0
            .take()
            .expect("a future is not polled after it was ready")?;
        match stream.poll_opened(cx) {
            Poll::Ready(result) => Poll::Ready(result.map(|()| stream)),
            Poll::Pending => {
                self.0 = Some(Ok(stream));
                Poll::Pending
            }
        }
    }
}

//! Sockets that take and give a few bytes at a time, and make whoever polls them wait in between.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use changestream_driver::{Endpoint, Runtime};
use futures_io::{AsyncRead, AsyncWrite};

use crate::examples::std_threads::Threads;

#[derive(Clone, Default)]
pub struct Chopped(Threads);

impl Runtime for Chopped {
    type Connection = Socket;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;
    type Lookup = <Threads as Runtime>::Lookup;
    type Timer = <Threads as Runtime>::Timer;

    fn lookup(&self, host: &str, port: u16) -> Self::Lookup {
        self.0.lookup(host, port)
    }

    fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
        let connect = self.0.connect(endpoint);
        Box::pin(async move {
            Ok(Socket {
                inner: connect.await?,
                reads: 0,
                writes: 0,
            })
        })
    }

    fn sleep_until(&self, at: Instant) -> Self::Timer {
        self.0.sleep_until(at)
    }
}

pub struct Socket {
    inner: <Threads as Runtime>::Connection,
    reads: usize,
    writes: usize,
}

/// The size of the next piece; none when it is time to wait.
fn piece(turn: &mut usize, cx: &Context<'_>) -> Poll<usize> {
    *turn += 1;
    if turn.is_multiple_of(3) {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(SIZES[*turn % SIZES.len()])
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let len = ready!(piece(&mut self.reads, cx)).min(into.len());
        Pin::new(&mut self.inner).poll_read(cx, &mut into[..len])
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let len = ready!(piece(&mut self.writes, cx)).min(bytes.len());
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..len])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[], |slice| &**slice))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Of lengths without a common measure with those of records.
const SIZES: [usize; 7] = [1, 31, 5, 211, 2, 97, 17];

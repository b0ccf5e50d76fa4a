//! Non-blocking sockets.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use changestream_driver::{Endpoint, configure_tcp};
use futures_io::{AsyncRead, AsyncWrite};
use mio::net::TcpStream;

use crate::reactor::{Handle, pending_if_blocked};

/// An open connection, which wakes its stream when it gets ready.
pub struct Socket {
    source: Source,
    reactor: Handle,
    /// It was read empty after that many reports of the reactor.
    emptied: Option<u64>,
}

enum Source {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

impl Socket {
    fn tcp(reactor: &Handle, address: SocketAddr) -> io::Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        reactor.register(&mut socket)?;
        Ok(Self {
            source: Source::Tcp(socket),
            reactor: reactor.clone(),
            emptied: None,
        })
    }

    #[cfg(unix)]
    fn unix(reactor: &Handle, path: &std::path::Path) -> io::Result<Self> {
        let mut socket = mio::net::UnixStream::connect(path)?;
        reactor.register(&mut socket)?;
        Ok(Self {
            source: Source::Unix(socket),
            reactor: reactor.clone(),
            emptied: None,
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Tcp(socket) => socket.read(buffer),
            #[cfg(unix)]
            Source::Unix(socket) => socket.read(buffer),
        }
    }

    /// Notes what a read has told of the socket. One that gave less than there was room for has left nothing behind, and
    /// what comes later is reported; a read that could only fail is spared. Where sockets report otherwise it is not.
    fn note(&mut self, read: usize, room: usize) {
        let reports_anew = cfg!(any(target_os = "linux", target_os = "android"));
        let is_emptied = (1..room).contains(&read) && reports_anew && !self.reactor.is_parting();
        self.emptied = is_emptied.then(|| self.reactor.reports());
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.source {
            Source::Tcp(socket) => socket.write_vectored(slices),
            #[cfg(unix)]
            Source::Unix(socket) => socket.write_vectored(slices),
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        match &self.source {
            Source::Tcp(socket) => socket.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Source::Unix(socket) => socket.shutdown(Shutdown::Write),
        }
    }

    /// Whether the connection is there: refused, not yet, or open and ready for use.
    fn poll_connected(&self) -> Poll<io::Result<()>> {
        let connected = match &self.source {
            Source::Tcp(socket) => match socket.take_error()? {
                Some(error) => Err(error),
                None => socket.peer_addr().and_then(|_| configure_tcp(socket)),
            },
            #[cfg(unix)]
            Source::Unix(socket) => socket.take_error()?.map_or(Ok(()), Err),
        };
        match connected {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Pending,
            result => Poll::Ready(result),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.emptied == Some(self.reactor.reports()) {
            return Poll::Pending;
        }
        let result = uninterrupted(|| self.read(buffer));
        self.note(result.as_ref().map_or(0, |read| *read), buffer.len());
        pending_if_blocked(result)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pending_if_blocked(uninterrupted(|| self.write(slices)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        match &mut self.source {
            Source::Tcp(socket) => self.reactor.deregister(socket),
            #[cfg(unix)]
            Source::Unix(socket) => self.reactor.deregister(socket),
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// A connection on its way.
#[derive(Debug)]
pub struct Connect(Option<io::Result<Socket>>);

impl Connect {
    pub(crate) fn new(reactor: &Handle, endpoint: &Endpoint) -> Self {
        Self(Some(match endpoint {
            Endpoint::Tcp(address) => Socket::tcp(reactor, *address),
            #[cfg(unix)]
            Endpoint::Unix(path) => Socket::unix(reactor, path),
        }))
    }
}

impl Future for Connect {
    type Output = io::Result<Socket>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        if let Some(Ok(socket)) = &self.0
            && let Err(error) = ready!(socket.poll_connected())
        {
            self.0 = Some(Err(error));
        }
        // A future that has been ready is not polled again.
        self.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}

fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

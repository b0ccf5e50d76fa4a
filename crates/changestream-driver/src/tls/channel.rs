//! TLS over one socket.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};
use rustls::ClientConnection;

use super::message::{BROKEN_OFF, CLOSED_IN_HANDSHAKE, Peer};

/// A socket, and the TLS session that goes over it. What either has half done is kept here, never in a future.
pub(crate) struct Channel<C> {
    socket: C,
    tls: ClientConnection,
    peer: Peer,
    /// What was read from the socket; the range is still to be handed to the session.
    incoming: Box<[u8]>,
    unprocessed: Range<usize>,
    /// How large `incoming` is to be: large while much comes, small while little does.
    room: usize,
    /// Why the socket cannot be read. What came before it is read first.
    broken: Option<io::Error>,
    /// Why nothing more can be received. What came before it is read first.
    fault: Option<String>,
}

impl<C> Channel<C> {
    pub(super) fn new(socket: C, tls: ClientConnection, peer: Peer) -> Self {
        Self {
            socket,
            tls,
            peer,
            incoming: Box::default(),
            unprocessed: 0..0,
            room: LEAST_INCOMING,
            broken: None,
            fault: None,
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Channel<C> {
    /// Goes on with the handshake. Ready when it is done.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS {
            let sent = self.poll_flush(cx);
            if let Some(fault) = &self.fault {
                return Poll::Ready(Err(failed(fault)));
            }
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            match (self.poll_receive(cx), sent) {
                (Poll::Ready(result), _) => result?,
                // What the peer said before writing failed says more than the failure.
                (Poll::Pending, Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                (Poll::Pending, _) => return Poll::Pending,
            }
        }
        again_later(cx)
    }

    /// Reads what the peer wrote: at least one byte, or the end; more than one record's, as long as there is room for it and
    /// more to be had.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        // Answers of the session's own. If they cannot be written, the next who writes is told.
        let _ = self.poll_send(cx);
        let mut filled = 0;
        for _ in 0..ROUNDS {
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            match self.tls.reader().read(rest) {
                Ok(len) if len > 0 => {
                    filled += len;
                    if len == rest.len() {
                        break;
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What came before the end is read first; the end is still there then.
                _ if filled > 0 => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Err(io::Error::new(error.kind(), BROKEN_OFF)));
                }
                result => return Poll::Ready(result),
            }
            if filled > 0 && !self.has_more() {
                break;
            }
            if let Some(fault) = &self.fault {
                return Poll::Ready(Err(failed(fault)));
            }
            if let Some(error) = self.broken.take() {
                return Poll::Ready(Err(error));
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if filled > 0 => self.broken = Some(error),
                Poll::Pending if filled > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if filled > 0 {
            return Poll::Ready(Ok(filled));
        }
        again_later(cx)
    }

    /// Whether more of the peer's bytes are here, or likely to be in the socket.
    fn has_more(&self) -> bool {
        let was_full = self.unprocessed.end == self.incoming.len();
        self.fault.is_none() && self.broken.is_none() && (!self.unprocessed.is_empty() || was_full)
    }

    /// Encrypts as much as the session takes, and writes what the socket takes of that.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let taken = self.tls.writer().write_vectored(slices)?;
        // The bytes are the session's now; an error is told by the flush, or the next write.
        let _ = self.poll_send(cx);
        Poll::Ready(Ok(taken))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Takes leave of the peer, without waiting for its answer, nor for a socket that takes no more.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.send_close_notify();
        let _ = self.poll_flush(cx);
        Pin::new(&mut self.socket).poll_close(cx)
    }

    /// Writes what the session has for the peer.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = Unblocking {
                socket: &mut self.socket,
                cx,
            };
            match self.tls.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Hands the session some of the peer's bytes, or their end. The session must have nothing to be read: its room for
    /// that is small.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unprocessed.is_empty() {
            if self.incoming.len() != self.room {
                self.incoming = vec![0; self.room].into_boxed_slice();
            }
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut self.incoming));
            match self.in_handshake(read)? {
                0 if self.tls.is_handshaking() => return Poll::Ready(Err(failed(CLOSED_IN_HANDSHAKE))),
                len => {
                    self.unprocessed = 0..len;
                    self.expect_as_much(len);
                }
            }
        }
        let mut bytes = self.incoming.get(self.unprocessed.clone()).unwrap_or_default();
        let taken = self.tls.read_tls(&mut bytes)?;
        self.unprocessed.start += taken;
        let handshaking = self.tls.is_handshaking();
        if let Err(error) = self.tls.process_new_packets() {
            self.fault = Some(self.peer.failure(&error, handshaking));
        }
        // An answer, or the alert that tells the peer what is wrong.
        let _ = self.poll_flush(cx);
        Poll::Ready(Ok(()))
    }

    /// Fewer reads while much comes, less memory while little does.
    fn expect_as_much(&mut self, len: usize) {
        if len == self.incoming.len() {
            self.room = (2 * self.incoming.len()).min(MOST_INCOMING);
        } else if len < self.incoming.len() / 4 {
            self.room = (self.incoming.len() / 2).max(LEAST_INCOMING);
        }
    }

    /// A connection that is cut off in the handshake says as much about the server as one that ends properly.
    fn in_handshake(&self, read: io::Result<usize>) -> io::Result<usize> {
        match read {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && self.tls.is_handshaking() => {
                Err(io::Error::new(error.kind(), CLOSED_IN_HANDSHAKE))
            }
            read => read,
        }
    }
}

impl<C> fmt::Debug for Channel<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("peer", &self.peer)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// The socket, as the session's writing wants it.
struct Unblocking<'s, 'c, 'w, C> {
    socket: &'s mut C,
    cx: &'c mut Context<'w>,
}

impl<C: AsyncWrite + Unpin> Write for Unblocking<'_, '_, '_, C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unblocked(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        unblocked(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        unblocked(Pin::new(&mut *self.socket).poll_flush(self.cx))
    }
}

fn unblocked<T>(result: Poll<io::Result<T>>) -> io::Result<T> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// A peer that keeps TLS busy without ever sending data must not keep everyone else waiting.
fn again_later<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

fn failed(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// What an idle connection keeps.
const LEAST_INCOMING: usize = 2 << 10;

/// Four records of the largest kind (RFC 8446, section 5.2).
const MOST_INCOMING: usize = 64 << 10;

/// How often in one poll the session is handed bytes that bring no data. A record takes a few.
const ROUNDS: usize = 64;

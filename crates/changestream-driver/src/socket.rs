//! One socket: on its way, or open with what is still to be written to it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use changestream_core::ServerAddress;
use changestream_core::client::Disconnected;
use futures_io::{AsyncRead, AsyncWrite};

use crate::Runtime;
use crate::layer::Layer;
use crate::race::Race;
use crate::security::Security;

/// One connection that the machine has asked for. All of its state is here, none in a future of a caller.
pub(crate) enum Socket<R: Runtime> {
    /// On its way.
    Connecting {
        /// To the socket.
        race: Race<R>,
        /// Where to.
        address: ServerAddress,
        /// What the socket will be wrapped in.
        security: Security,
    },
    /// The socket is there; what it is wrapped in makes itself ready.
    Opening(Layer<R::Connection>),
    /// Open.
    Open(Open<R::Connection>),
    /// On the way from one state to the next.
    Gone,
}

impl<R: Runtime> Socket<R> {
    /// Starts to connect.
    pub(crate) fn connect(runtime: &R, address: &ServerAddress, security: &Security) -> Self {
        Self::Connecting {
            race: Race::new(runtime, address),
            address: address.clone(),
            security: security.clone(),
        }
    }

    /// Goes on connecting. Pending too where nothing is left to be done.
    pub(crate) fn poll_connect(
        &mut self,
        runtime: &R,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Disconnected>> {
        self.poll_open(runtime, cx).map_err(|error| disconnected(&error))
    }

    /// When it wants to be polled again though nothing wakes it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Connecting { race, .. } => race.deadline(),
            Self::Opening(_) | Self::Open(_) | Self::Gone => None,
        }
    }

    fn poll_open(&mut self, runtime: &R, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Connecting {
            race,
            address,
            security,
        } = self
        {
            let socket = ready!(race.poll(runtime, cx))?;
            *self = Self::Opening(security.layer(socket, address)?);
        }
        let Self::Opening(layer) = self else {
            return Poll::Pending;
        };
        ready!(layer.poll_open(cx))?;
        if let Self::Opening(layer) = std::mem::replace(self, Self::Gone) {
            *self = Self::Open(Open::new(layer));
        }
        Poll::Ready(Ok(()))
    }
}

/// An open connection.
pub(crate) struct Open<C> {
    layer: Layer<C>,
    outbox: VecDeque<Bytes>,
    flushed: bool,
    /// Writing has failed. What the peer said before it went is still read.
    write_error: Option<io::Error>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Open<C> {
    fn new(layer: Layer<C>) -> Self {
        Self {
            layer,
            outbox: VecDeque::with_capacity(1),
            flushed: true,
            write_error: None,
        }
    }

    /// Puts bytes behind all that are still to be written.
    pub(crate) fn transmit(&mut self, bytes: Bytes) {
        if self.write_error.is_none() && !bytes.is_empty() {
            self.outbox.push_back(bytes);
            self.flushed = false;
        }
    }

    /// Reads once: at least one byte, or the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, Disconnected>> {
        match (self.layer.poll_read(cx, buffer), &self.write_error) {
            (Poll::Ready(Ok(len)), _) if len > 0 => Poll::Ready(Ok(len)),
            (_, Some(error)) => Poll::Ready(Err(disconnected(error))),
            (Poll::Ready(Ok(_)), None) => Poll::Ready(Err(closed_by_peer())),
            (Poll::Ready(Err(error)), None) => Poll::Ready(Err(disconnected(&error))),
            (Poll::Pending, None) => Poll::Pending,
        }
    }

    /// Writes what the socket takes now. What it does not take stays, to the byte.
    pub(crate) fn write(&mut self, cx: &mut Context<'_>) {
        if self.flushed {
            return;
        }
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            self.outbox.clear();
            self.flushed = true;
            self.write_error = Some(error);
        }
    }

    /// Writes what the socket takes without waiting, and takes leave of the peer.
    pub(crate) fn leave(mut self, cx: &mut Context<'_>) {
        self.write(cx);
        // Nobody is left to wait for it, nor to hear that it failed.
        let _ = self.layer.poll_close(cx);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.outbox.len().min(SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(bytes);
            }
            let written = ready!(self.layer.poll_write(cx, slices.get(..used).unwrap_or_default()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
        ready!(self.layer.poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, mut len: usize) {
        while let Some(first) = self.outbox.front_mut() {
            if first.len() > len {
                first.advance(len);
                return;
            }
            len -= first.len();
            self.outbox.pop_front();
        }
    }
}

fn disconnected(error: &io::Error) -> Disconnected {
    Disconnected {
        message: error.to_string(),
        timed_out: error.kind() == io::ErrorKind::TimedOut,
    }
}

fn closed_by_peer() -> Disconnected {
    Disconnected {
        message: "the peer closed the connection".to_owned(),
        timed_out: false,
    }
}

/// How many pieces one write may gather.
const SLICES: usize = 8;

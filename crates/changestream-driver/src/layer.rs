//! The bytes of a connection, as they are or in disguise.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

/// What lies between a socket and the machine. The machine's bytes enter above, the network's leave below; a layer that
/// encrypts keeps its records here, and no one above or below knows.
#[derive(Debug)]
pub(crate) enum Layer<C> {
    /// The bytes as they are.
    Plain(C),
    /// TLS, with its state beside it: it is large.
    #[cfg(feature = "tls")]
    Tls(Box<crate::tls::Channel<C>>),
}

impl<C: AsyncRead + AsyncWrite + Unpin> Layer<C> {
    /// Ready when bytes can be exchanged.
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::needless_pass_by_ref_mut, reason = "TLS has a handshake to do")
    )]
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => {
                // There is nothing to wait for.
                let _ = cx;
                Poll::Ready(Ok(()))
            }
            #[cfg(feature = "tls")]
            Self::Tls(channel) => channel.poll_open(cx),
        }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            #[cfg(feature = "tls")]
            Self::Tls(channel) => channel.poll_read(cx, buffer),
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            #[cfg(feature = "tls")]
            Self::Tls(channel) => channel.poll_write(cx, slices),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(channel) => channel.poll_flush(cx),
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_close(cx),
            #[cfg(feature = "tls")]
            Self::Tls(channel) => channel.poll_close(cx),
        }
    }
}

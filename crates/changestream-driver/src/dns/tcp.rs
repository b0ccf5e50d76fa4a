//! One question to one server, by TCP (RFC 1035, section 4.2.2).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use crate::{Endpoint, Runtime};

/// A connection with one message to go out and one to come in, each behind its length.
pub(super) struct Exchange<R: Runtime> {
    state: State<R>,
    question: Vec<u8>,
}

enum State<R: Runtime> {
    Connecting(R::Connect),
    Writing {
        connection: R::Connection,
        written: usize,
    },
    Flushing(R::Connection),
    Reading {
        connection: R::Connection,
        buffer: Vec<u8>,
    },
    Gone,
}

impl<R: Runtime> Exchange<R> {
    /// None if the message is too long for its length to be told.
    pub(super) fn new(runtime: &R, server: SocketAddr, message: &[u8]) -> Option<Self> {
        let len = u16::try_from(message.len()).ok()?;
        let mut question = len.to_be_bytes().to_vec();
        question.extend_from_slice(message);
        Some(Self {
            state: State::Connecting(runtime.connect(&Endpoint::Tcp(server))),
            question,
        })
    }

    /// The answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Gone) {
                State::Connecting(mut connect) => match Pin::new(&mut connect).poll(cx) {
                    Poll::Ready(connection) => State::Writing {
                        connection: connection?,
                        written: 0,
                    },
                    Poll::Pending => return self.stay(State::Connecting(connect)),
                },
                State::Writing {
                    mut connection,
                    written,
                } => {
                    let rest = self.question.get(written..).unwrap_or_default();
                    if rest.is_empty() {
                        State::Flushing(connection)
                    } else {
                        match Pin::new(&mut connection).poll_write(cx, rest) {
                            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                            Poll::Ready(len) => State::Writing {
                                connection,
                                written: written + len?,
                            },
                            Poll::Pending => return self.stay(State::Writing { connection, written }),
                        }
                    }
                }
                State::Flushing(mut connection) => match Pin::new(&mut connection).poll_flush(cx) {
                    Poll::Ready(flushed) => {
                        flushed?;
                        State::Reading {
                            connection,
                            buffer: Vec::new(),
                        }
                    }
                    Poll::Pending => return self.stay(State::Flushing(connection)),
                },
                State::Reading {
                    mut connection,
                    mut buffer,
                } => match read_message(&mut connection, cx, &mut buffer) {
                    Poll::Ready(read) => return Poll::Ready(read.map(|()| buffer)),
                    Poll::Pending => return self.stay(State::Reading { connection, buffer }),
                },
                State::Gone => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
        }
    }

    fn stay<T>(&mut self, state: State<R>) -> Poll<T> {
        self.state = state;
        Poll::Pending
    }
}

/// Reads until the message is complete, which is then what the buffer holds.
fn read_message<C: AsyncRead + Unpin>(
    connection: &mut C,
    cx: &mut Context<'_>,
    buffer: &mut Vec<u8>,
) -> Poll<io::Result<()>> {
    let mut piece = [0; 512];
    loop {
        if let Some((length, message)) = buffer.split_first_chunk::<2>()
            && let Some(message) = message.get(..usize::from(u16::from_be_bytes(*length)))
        {
            *buffer = message.to_vec();
            return Poll::Ready(Ok(()));
        }
        let len = ready!(Pin::new(&mut *connection).poll_read(cx, &mut piece))?;
        if len == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buffer.extend_from_slice(piece.get(..len).unwrap_or_default());
    }
}

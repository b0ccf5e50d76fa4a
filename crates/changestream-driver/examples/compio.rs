//! Any executor, part two: one that works by completion. compio gives the operating system a buffer and gets it back
//! filled (io_uring, IOCP), where tokio and smol wait until a socket is ready.
//!
//! ```sh
//! cargo run --example compio -- 'mongodb://localhost/?replicaSet=rs0' 10
//! ```
//!
//! So an operation owns its buffer, and has to live on when a poll is over: it is kept in the connection, where the
//! driver keeps everything. Nothing has to be `Send`.

use std::future::Future;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use changestream_driver::bson::Document;
use changestream_driver::{Client, Endpoint, Runtime, SystemLookup, configure_tcp};
use compio::BufResult;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::TcpStream;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments
        .next()
        .ok_or("which deployment? give its connection string")?;
    let count = arguments.next().map_or(Ok(usize::MAX), |count| count.parse())?;
    follow(&uri, count, &mut io::stdout())
}

/// Writes so many changes of the deployment, a line each.
pub fn follow(uri: &str, count: usize, to: &mut dyn Write) -> Result<(), Box<dyn std::error::Error>> {
    compio::runtime::Runtime::new()?.block_on(async {
        let mut stream = Client::<Compio>::new(uri)?.watch().open().await?;
        for _ in 0..count {
            let Some(event) = stream.next().await else { break };
            writeln!(to, "{}", Document::try_from(event?.as_raw())?)?;
        }
        stream.close().await?;
        Ok(())
    })
}

/// Sockets and timers of compio.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compio;

impl Runtime for Compio {
    const NAME: &'static str = "compio";

    type Connection = Socket;
    type Lookup = SystemLookup;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Socket>>>>;
    type Timer = Pin<Box<dyn Future<Output = ()>>>;

    fn lookup(&self, host: &str, port: u16) -> SystemLookup {
        SystemLookup::new(host, port)
    }

    fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let address = match endpoint {
                Endpoint::Tcp(address) => address,
                #[cfg(unix)]
                Endpoint::Unix(_) => return Err(tcp_only()),
            };
            let stream = TcpStream::connect(address).await?;
            configure_tcp(&stream)?;
            Ok(Socket {
                stream,
                reading: Reading::Done(Vec::new(), 0),
                writing: None,
            })
        })
    }

    fn sleep_until(&self, at: Instant) -> Self::Timer {
        Box::pin(compio::time::sleep_until(at))
    }
}

#[cfg(unix)]
fn tcp_only() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this example knows TCP only")
}

/// A connection with the operations on it.
pub struct Socket {
    stream: TcpStream,
    reading: Reading,
    /// A write on its way. The next one waits for it.
    writing: Option<Operation<()>>,
}

enum Reading {
    /// What was read, and how much of it was taken.
    Done(Vec<u8>, usize),
    OnItsWay(Operation<usize>),
}

/// An operation, which gives the buffer back.
type Operation<T> = Pin<Box<dyn Future<Output = BufResult<T, Vec<u8>>>>>;

impl Socket {
    fn read(&self, mut buffer: Vec<u8>) -> Reading {
        buffer.clear();
        buffer.reserve(64 << 10);
        let mut stream = self.stream.clone();
        Reading::OnItsWay(Box::pin(async move { stream.read(buffer).await }))
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writing) = &mut self.writing else {
            return Poll::Ready(Ok(()));
        };
        let BufResult(result, _) = ready!(writing.as_mut().poll(cx));
        self.writing = None;
        Poll::Ready(result)
    }
}

impl futures_io::AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match &mut self.reading {
                Reading::Done(buffer, taken) => {
                    let mut rest = buffer.get(*taken..).unwrap_or_default();
                    if !rest.is_empty() {
                        let len = io::Read::read(&mut rest, into)?;
                        *taken += len;
                        return Poll::Ready(Ok(len));
                    }
                    let buffer = std::mem::take(buffer);
                    self.reading = self.read(buffer);
                }
                Reading::OnItsWay(reading) => {
                    let BufResult(result, buffer) = ready!(reading.as_mut().poll(cx));
                    self.reading = Reading::Done(buffer, 0);
                    if result? == 0 {
                        return Poll::Ready(Ok(0));
                    }
                }
            }
        }
    }
}

impl futures_io::AsyncWrite for Socket {
    /// Takes the bytes at once: whether they were written is told by the next write, or the flush.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_written(cx))?;
        let (mut stream, bytes) = (self.stream.clone(), bytes.to_vec());
        let len = bytes.len();
        self.writing = Some(Box::pin(async move { stream.write_all(bytes).await }));
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Drop for Socket {
    /// A stream that ends says so to the server and does not wait: the runtime finishes what is on its way.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            compio::runtime::spawn(writing).detach();
        }
    }
}

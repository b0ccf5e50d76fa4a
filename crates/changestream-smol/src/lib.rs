//! Follow MongoDB change streams on smol.
//!
//! ```no_run
//! use changestream_smol::bson::doc;
//! use changestream_smol::{Client, FullDocument};
//!
//! # async fn follow() -> Result<(), changestream_smol::Error> {
//! let client = Client::new("mongodb://localhost/?replicaSet=rs0")?;
//! let mut stream = client
//!     .collection("shop", "orders")
//!     .watch()
//!     .pipeline([doc! { "$match": { "operationType": "insert" } }])
//!     .full_document(FullDocument::UpdateLookup)
//!     .open()
//!     .await?;
//! while let Some(event) = stream.next().await {
//!     let event = event?;
//!     // Work, and then store `event.resume_token()`.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every method of a stream may be dropped at any await point, in `select` or `smol::future::or`, and nothing is lost. A
//! stream is one value without tasks. Its sockets and timers are those of `async-io`, which has a thread of its own where
//! no executor drives it: so it is polled from anywhere, in `smol::block_on`, on `async-executor`, or on an executor that
//! has no I/O.
//!
//! # Features
//! `dns` finds the servers of `mongodb+srv://` connection strings, `tls` encrypts connections; both are on by default.
//! `snappy`, `zlib` and `zstd` compress what goes over the wire, and are off by default.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use async_io::{Async, Timer};
use changestream_driver::{Runtime, configure_tcp};
use futures_io::{AsyncRead, AsyncWrite};

#[doc(inline)]
pub use changestream_driver::types::*;

/// A MongoDB deployment, to open change streams on.
pub type Client = changestream_driver::Client<Smol>;
/// A database, to open change streams on.
pub type Database = changestream_driver::Database<Smol>;
/// A collection, to open change streams on.
pub type Collection = changestream_driver::Collection<Smol>;
/// A change stream to be opened, and all of its options.
pub type Watch = changestream_driver::Watch<Smol>;
/// A change stream. It is a `futures_core::Stream` of events too.
pub type ChangeStream = changestream_driver::ChangeStream<Smol>;

/// Sockets and timers of smol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Smol;

impl Runtime for Smol {
    const NAME: &'static str = "smol";

    type Connection = Box<dyn Socket>;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Self::Connection>> + Send>>;
    type Timer = Deadline;

    fn connect(&self, address: &ServerAddress) -> Self::Connect {
        let address = address.clone();
        Box::pin(async move { connect(&address).await })
    }

    fn sleep_until(&self, at: Instant) -> Self::Timer {
        Deadline(Timer::at(at))
    }

    fn reset(&self, timer: &mut Self::Timer, at: Instant) {
        timer.0.set_at(at);
    }
}

/// A socket of either family.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A timer.
#[derive(Debug)]
pub struct Deadline(Timer);

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

async fn connect(address: &ServerAddress) -> io::Result<Box<dyn Socket>> {
    match address.port() {
        Some(port) => Ok(Box::new(connect_tcp(address.host(), port).await?)),
        None => connect_unix(address.host()).await,
    }
}

#[cfg(unix)]
async fn connect_unix(path: &str) -> io::Result<Box<dyn Socket>> {
    let socket = Async::<std::os::unix::net::UnixStream>::connect(path).await?;
    Ok(Box::new(socket))
}

#[cfg(not(unix))]
async fn connect_unix(_: &str) -> io::Result<Box<dyn Socket>> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this platform has no Unix domain sockets",
    ))
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<Async<TcpStream>> {
    connect_any(resolve(host, port).await?).await
}

/// Tries the addresses in turn; the last one's error counts.
async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<Async<TcpStream>> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match Async::<TcpStream>::connect(address).await {
            Ok(socket) => {
                configure_tcp(&socket)?;
                return Ok(socket);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The system's resolver blocks: it works on a thread of its own.
async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.to_owned();
    blocking::unblock(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_tried_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        // A port that was free a moment ago.
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = async_io::block_on(connect_any(vec![refused, open])).unwrap();
        assert_eq!(socket.get_ref().peer_addr().unwrap(), open);
        assert!(socket.get_ref().nodelay().unwrap());
    }

    #[test]
    fn the_last_error_counts() {
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = async_io::block_on(connect_any(vec![refused])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = async_io::block_on(connect_any(Vec::new())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

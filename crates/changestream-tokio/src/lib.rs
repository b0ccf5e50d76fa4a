//! Follow MongoDB change streams on tokio.
//!
//! ```no_run
//! use changestream_tokio::bson::doc;
//! use changestream_tokio::{Client, FullDocument};
//!
//! # async fn follow() -> Result<(), changestream_tokio::Error> {
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
//! Every method of a stream may be dropped at any await point, in `select!` or by `tokio::time::timeout`, and nothing is
//! lost. A stream is one value without tasks; polled from where it is, on a runtime with the drivers for I/O and time
//! enabled.
//!
//! # Features
//! `dns` finds the servers of `mongodb+srv://` connection strings, `tls` encrypts connections; both are on by default.
//!
//! `snappy`, `zlib` and `zstd` compress what goes over the wire, where the connection string asks for it
//! (`compressors=zstd,zlib`) and the server agrees. They are off by default, so that a program links what it uses and
//! needs no C compiler, which `zstd` takes to build. A compressor that is asked for and not built in is a warning of the
//! connection string, and is not offered to servers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Instant;

use changestream_driver::{Runtime, configure_tcp};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

#[doc(inline)]
pub use changestream_driver::types::*;

/// A MongoDB deployment, to open change streams on.
pub type Client = changestream_driver::Client<Tokio>;
/// A database, to open change streams on.
pub type Database = changestream_driver::Database<Tokio>;
/// A collection, to open change streams on.
pub type Collection = changestream_driver::Collection<Tokio>;
/// A change stream to be opened, and all of its options.
pub type Watch = changestream_driver::Watch<Tokio>;
/// A change stream. It is a `futures_core::Stream` of events too.
pub type ChangeStream = changestream_driver::ChangeStream<Tokio>;

/// Sockets and timers of tokio. The clock is tokio's, so that it can be paused in tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokio;

impl Runtime for Tokio {
    const NAME: &'static str = "tokio";

    type Connection = Compat<Socket>;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Self::Connection>> + Send>>;
    type Timer = Pin<Box<Sleep>>;

    fn connect(&self, address: &ServerAddress) -> Self::Connect {
        let address = address.clone();
        Box::pin(async move { connect(&address).await.map(TokioAsyncReadCompatExt::compat) })
    }

    fn sleep_until(&self, at: Instant) -> Self::Timer {
        Box::pin(sleep_until(at.into()))
    }

    fn reset(&self, timer: &mut Self::Timer, at: Instant) {
        timer.as_mut().reset(at.into());
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// A socket of either family.
#[cfg(unix)]
pub type Socket = tokio_util::either::Either<TcpStream, tokio::net::UnixStream>;

/// A socket.
#[cfg(not(unix))]
pub type Socket = TcpStream;

#[cfg(unix)]
async fn connect(address: &ServerAddress) -> io::Result<Socket> {
    match address.port() {
        Some(port) => connect_tcp(address.host(), port).await.map(Socket::Left),
        None => tokio::net::UnixStream::connect(address.host())
            .await
            .map(Socket::Right),
    }
}

#[cfg(not(unix))]
async fn connect(address: &ServerAddress) -> io::Result<Socket> {
    match address.port() {
        Some(port) => connect_tcp(address.host(), port).await,
        None => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this platform has no Unix domain sockets",
        )),
    }
}

/// Tries the name's addresses in turn; the last one's error counts.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((host, port)).await?;
    configure_tcp(&socket)?;
    Ok(socket)
}

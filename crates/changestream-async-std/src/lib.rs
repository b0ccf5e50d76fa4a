//! Follow MongoDB change streams on async-std (legacy).
//!
//! async-std is [discontinued](https://github.com/async-rs/async-std) in favour of smol. This crate is for programs that
//! have not left it yet; new ones take `changestream-smol`, whose sockets and timers are the same underneath, so that a
//! program can also change first and leave async-std later.
//!
//! ```no_run
//! use changestream_async_std::bson::doc;
//! use changestream_async_std::{Client, FullDocument};
//!
//! # async fn follow() -> Result<(), changestream_async_std::Error> {
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
//! Every method of a stream may be dropped at any await point, in `select!` or by `async_std::future::timeout`, and
//! nothing is lost. A stream is one value without tasks, polled from where it is.
//!
//! # Features
//! `dns` finds the servers of `mongodb+srv://` connection strings, `tls` encrypts connections; both are on by default.
//! `snappy`, `zlib` and `zstd` compress what goes over the wire, and are off by default.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Instant;

use async_std::net::TcpStream;
use changestream_driver::{Runtime, configure_tcp};
use futures_io::{AsyncRead, AsyncWrite};

#[doc(inline)]
pub use changestream_driver::types::*;

/// A MongoDB deployment, to open change streams on.
pub type Client = changestream_driver::Client<AsyncStd>;
/// A database, to open change streams on.
pub type Database = changestream_driver::Database<AsyncStd>;
/// A collection, to open change streams on.
pub type Collection = changestream_driver::Collection<AsyncStd>;
/// A change stream to be opened, and all of its options.
pub type Watch = changestream_driver::Watch<AsyncStd>;
/// A change stream. It is a `futures_core::Stream` of events too.
pub type ChangeStream = changestream_driver::ChangeStream<AsyncStd>;

/// Sockets and timers of async-std.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncStd;

impl Runtime for AsyncStd {
    const NAME: &'static str = "async-std";

    type Connection = Box<dyn Socket>;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Self::Connection>> + Send>>;
    type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn connect(&self, address: &ServerAddress) -> Self::Connect {
        let address = address.clone();
        Box::pin(async move { connect(&address).await })
    }

    fn sleep_until(&self, at: Instant) -> Self::Timer {
        Box::pin(async_std::task::sleep(
            at.saturating_duration_since(Instant::now()),
        ))
    }
}

/// A socket of either family.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

async fn connect(address: &ServerAddress) -> io::Result<Box<dyn Socket>> {
    match address.port() {
        Some(port) => Ok(Box::new(connect_tcp(address.host(), port).await?)),
        None => connect_unix(address.host()).await,
    }
}

#[cfg(unix)]
async fn connect_unix(path: &str) -> io::Result<Box<dyn Socket>> {
    let socket = async_std::os::unix::net::UnixStream::connect(path).await?;
    Ok(Box::new(socket))
}

#[cfg(not(unix))]
async fn connect_unix(_: &str) -> io::Result<Box<dyn Socket>> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this platform has no Unix domain sockets",
    ))
}

/// Tries the name's addresses in turn; the last one's error counts.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((host, port)).await?;
    configure_tcp(&socket)?;
    Ok(socket)
}

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
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Instant;

use async_std::net::{TcpStream, ToSocketAddrs};
#[cfg(unix)]
use async_std::os::unix::net::UnixStream;
use changestream_driver::{EitherSocket, Endpoint, Runtime, configure_tcp};

#[doc(inline)]
pub use changestream_driver::types::*;

/// A MongoDB deployment, to open change streams on.
pub type Client = changestream_driver::Client<AsyncStd>;
/// A client to be made, with callbacks that hand out credentials.
pub type ClientBuilder = changestream_driver::ClientBuilder<AsyncStd>;
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

    type Connection = Socket;
    type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Self::Connection>> + Send>>;
    type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn lookup(&self, host: &str, port: u16) -> Self::Lookup {
        let host = host.to_owned();
        Box::pin(async move { Ok((host.as_str(), port).to_socket_addrs().await?.collect()) })
    }

    fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            match endpoint {
                Endpoint::Tcp(address) => {
                    let socket = TcpStream::connect(address).await?;
                    configure_tcp(&socket)?;
                    Ok(Socket::Tcp(socket))
                }
                #[cfg(unix)]
                Endpoint::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
            }
        })
    }

    fn sleep_until(&self, at: Instant) -> Self::Timer {
        Box::pin(async_std::task::sleep(
            at.saturating_duration_since(Instant::now()),
        ))
    }
}

/// A socket of either family.
pub type Socket = EitherSocket<TcpStream, UnixStream>;

#[cfg(not(unix))]
type UnixStream = TcpStream;

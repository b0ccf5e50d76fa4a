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
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Instant;

use changestream_driver::{EitherSocket, Endpoint, Runtime, configure_tcp};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Sleep, sleep_until};

mod compat;

pub use compat::Compat;

#[doc(inline)]
pub use changestream_driver::types::*;

/// A MongoDB deployment, to open change streams on.
pub type Client = changestream_driver::Client<Tokio>;
/// A client to be made, with callbacks that hand out credentials.
pub type ClientBuilder = changestream_driver::ClientBuilder<Tokio>;
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

    type Connection = Socket;
    type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Self::Connection>> + Send>>;
    type Timer = Pin<Box<Sleep>>;

    fn lookup(&self, host: &str, port: u16) -> Self::Lookup {
        let host = host.to_owned();
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            match endpoint {
                Endpoint::Tcp(address) => {
                    let socket = TcpStream::connect(address).await?;
                    configure_tcp(&socket)?;
                    Ok(Socket::Tcp(Compat(socket)))
                }
                #[cfg(unix)]
                Endpoint::Unix(path) => Ok(Socket::Unix(Compat(UnixStream::connect(path).await?))),
            }
        })
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
pub type Socket = EitherSocket<Compat<TcpStream>, Compat<UnixStream>>;

#[cfg(not(unix))]
type UnixStream = TcpStream;

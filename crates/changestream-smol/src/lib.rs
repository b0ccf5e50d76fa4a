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
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use async_io::{Async, Timer};
use changestream_driver::{EitherSocket, Endpoint, Runtime, configure_tcp};

#[doc(inline)]
pub use changestream_driver::types::*;

/// A MongoDB deployment, to open change streams on.
pub type Client = changestream_driver::Client<Smol>;
/// A client to be made, with callbacks that hand out credentials.
pub type ClientBuilder = changestream_driver::ClientBuilder<Smol>;
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

    type Connection = Socket;
    type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
    type Connect = Pin<Box<dyn Future<Output = io::Result<Self::Connection>> + Send>>;
    type Timer = Deadline;

    /// The system's resolver blocks: it works on a thread of its own.
    fn lookup(&self, host: &str, port: u16) -> Self::Lookup {
        let host = host.to_owned();
        Box::pin(blocking::unblock(move || {
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
        }))
    }

    fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            match endpoint {
                Endpoint::Tcp(address) => {
                    let socket = Async::<TcpStream>::connect(address).await?;
                    configure_tcp(&socket)?;
                    Ok(Socket::Tcp(socket))
                }
                #[cfg(unix)]
                Endpoint::Unix(path) => Async::<UnixStream>::connect(path).await.map(Socket::Unix),
            }
        })
    }

    fn sleep_until(&self, at: Instant) -> Self::Timer {
        Deadline(Timer::at(at))
    }

    fn reset(&self, timer: &mut Self::Timer, at: Instant) {
        timer.0.set_at(at);
    }
}

/// A socket of either family.
pub type Socket = EitherSocket<Async<TcpStream>, Async<UnixStream>>;

#[cfg(not(unix))]
type UnixStream = TcpStream;

/// A timer.
#[derive(Debug)]
pub struct Deadline(Timer);

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

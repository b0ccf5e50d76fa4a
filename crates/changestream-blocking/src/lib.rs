//! Follow MongoDB change streams as a plain blocking iterator: no async runtime, no background work.
//!
//! ```no_run
//! use changestream_blocking::bson::doc;
//! use changestream_blocking::{Client, FullDocument};
//!
//! let client = Client::new("mongodb://localhost/?replicaSet=rs0")?;
//! let mut stream = client
//!     .collection("shop", "orders")
//!     .watch()
//!     .pipeline([doc! { "$match": { "operationType": "insert" } }])
//!     .full_document(FullDocument::UpdateLookup)
//!     .open()?;
//!
//! // Another thread, or a handler of Ctrl-C, ends the loop below with this.
//! let canceller = stream.canceller();
//!
//! for event in &mut stream {
//!     let event = event?;
//!     // Work, and then store `event.resume_token()`.
//! }
//! let token = stream.close()?;
//! # Ok::<(), changestream_blocking::Error>(())
//! ```
//!
//! # How it works
//! There is no second driver. The one loop of `changestream-driver` runs here too, over non-blocking sockets, and where
//! an executor would park the task this crate waits in one call for all sockets of the stream and the next deadline. So
//! a blocking stream does to the byte what an awaited one does, and what is tested of the one holds for the other.
//!
//! What sets it apart: the operating system's resolver blocks, and so a host's name is looked up on a thread, which ends
//! with the look-up. `connectTimeoutMS` holds for it all the same.
//!
//! # Features
//! `dns` finds the servers of `mongodb+srv://` connection strings, `tls` encrypts connections; both are on by default.
//!
//! `snappy`, `zlib` and `zstd` compress what goes over the wire, where the connection string asks for it
//! (`compressors=zstd,zlib`) and the server agrees. They are off by default, so that a program links what it uses and
//! needs no C compiler, which `zstd` takes to build. A compressor that is asked for and not built in is a warning of the
//! connection string, and is not offered to servers.

mod reactor;
mod run;
mod socket;
mod stream;

use std::io;

use changestream_driver::Mode;

#[doc(inline)]
pub use changestream_driver::types::*;
pub use reactor::{Canceller, Reactor};
pub use socket::{Connect, Socket};
pub use stream::ChangeStream;

/// A MongoDB deployment, to open change streams on.
pub type Client = changestream_driver::Client<Blocking>;
/// A client to be made, with callbacks that hand out credentials.
pub type ClientBuilder = changestream_driver::ClientBuilder<Blocking>;
/// A database, to open change streams on.
pub type Database = changestream_driver::Database<Blocking>;
/// A collection, to open change streams on.
pub type Collection = changestream_driver::Collection<Blocking>;
/// A change stream to be opened, and all of its options. [`open`](changestream_driver::Watch::open) gives a result.
pub type Watch = changestream_driver::Watch<Blocking>;

/// Blocking use: each stream waits for its own sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocking;

impl Mode for Blocking {
    type Runtime = Reactor;
    type Stream = ChangeStream;
    type Opening = Result<ChangeStream, Error>;
    type Running = Result<bson::Document, Error>;

    fn platform(&self) -> &str {
        "blocking"
    }

    fn runtime(&self) -> io::Result<Reactor> {
        Reactor::new()
    }

    fn stream(stream: changestream_driver::ChangeStream<Reactor>) -> ChangeStream {
        ChangeStream::new(stream)
    }

    fn open(stream: Result<ChangeStream, Error>) -> Result<ChangeStream, Error> {
        let mut stream = stream?;
        stream.opened()?;
        Ok(stream)
    }

    fn run(command: changestream_driver::Running<Reactor>) -> Result<bson::Document, Error> {
        run::block_on(command)
    }
}

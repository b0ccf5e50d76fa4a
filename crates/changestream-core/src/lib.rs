//! A MongoDB change-stream client as a pure state machine: bytes and time in, bytes and events out.
//!
//! This crate opens no socket, starts no thread, reads no clock and knows no executor. Most users want an adapter that
//! does these things for them: `changestream-tokio`, `changestream-blocking`, or `changestream-driver` for any other
//! executor. Use this crate to embed a change stream where none of them fits, to simulate it, or to fuzz it.
//!
//! # The run loop
//!
//! [`client::ClientMachine`] is the whole client of one stream. Poll it until it waits, wait for one thing, feed that:
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use changestream_core::client::{ClientMachine, ClientSettings, Demand, Disconnected, Input, Output};
//! use changestream_core::connection::ClientMetadata;
//! use changestream_core::dns::DnsFault;
//! use changestream_core::{ConnectionString, Error, Scope, Update, WatchOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let uri: ConnectionString = "mongodb://localhost/?directConnection=true".parse()?;
//! let settings = Arc::new(ClientSettings::new(uri.options, ClientMetadata::new())?);
//! let seed = [0; 32]; // from the operating system, in earnest
//! let (scope, options) = (Scope::Cluster, WatchOptions::default());
//! let mut machine = ClientMachine::new(settings, None, &scope, options, seed, Instant::now())?;
//!
//! // With directConnection there is one connection at a time. With several, wait for whichever moves first.
//! let mut socket = None;
//! machine.handle_input(Instant::now(), Input::Demand(Demand::Next));
//! loop {
//!     let deadline = match machine.poll_output() {
//!         Output::Resolve { lookup, .. } => {
//!             // With a `mongodb+srv://` connection string: ask a name server.
//!             let result = Err(DnsFault::no_server("not here"));
//!             machine.handle_input(Instant::now(), Input::Resolved { lookup, result });
//!             continue;
//!         }
//!         Output::Credentials { connection, .. } => {
//!             // With MONGODB-OIDC or MONGODB-AWS: hand out a token or keys.
//!             let answer = Err(Error::authentication("there are no credentials here"));
//!             machine.handle_input(Instant::now(), Input::Credentials { connection, answer });
//!             continue;
//!         }
//!         Output::Connect { connection, address } => {
//!             let port = address.port().unwrap_or(27017);
//!             let input = match TcpStream::connect((address.host(), port)) {
//!                 Ok(stream) => {
//!                     socket = Some((connection, stream));
//!                     Input::Connected { connection }
//!                 }
//!                 Err(error) => {
//!                     let reason = Disconnected { message: error.to_string(), timed_out: false };
//!                     Input::Disconnected { connection, reason }
//!                 }
//!             };
//!             machine.handle_input(Instant::now(), input);
//!             continue;
//!         }
//!         Output::Transmit { bytes, .. } => {
//!             if let Some((_, stream)) = &mut socket {
//!                 stream.write_all(&bytes)?;
//!             }
//!             continue;
//!         }
//!         Output::Disconnect { .. } => {
//!             socket = None;
//!             continue;
//!         }
//!         Output::Update(update) => {
//!             if let Update::Change(event) = update {
//!                 println!("{:?}", event.document_key());
//!             }
//!             machine.handle_input(Instant::now(), Input::Demand(Demand::Next));
//!             continue;
//!         }
//!         Output::Reply(_) => continue, // to a command, and none was sent
//!         Output::Closed(result) => return Ok(result?),
//!         Output::Wait(deadline) => deadline,
//!     };
//!     let patience = deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()));
//!     let Some((connection, stream)) = &mut socket else {
//!         std::thread::sleep(patience.unwrap_or_default());
//!         machine.handle_input(Instant::now(), Input::Timeout);
//!         continue;
//!     };
//!     let connection = *connection;
//!     stream.set_read_timeout(Some(patience.unwrap_or_default().max(Duration::from_millis(1))))?;
//!     let Some(buffer) = machine.read_buffer(connection) else { continue };
//!     let input = match stream.read(buffer) {
//!         Ok(len) if len > 0 => Input::Received { connection, len },
//!         Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
//!             Input::Timeout
//!         }
//!         end => {
//!             let message = end.err().map_or("the server closed the connection".into(), |e| e.to_string());
//!             Input::Disconnected { connection, reason: Disconnected { message, timed_out: false } }
//!         }
//!     };
//!     machine.handle_input(Instant::now(), input);
//! }
//! # }
//! ```
//!
//! # The parts
//!
//! Three machines, one inside the other, each usable alone: [`stream`] (commands out, replies in: the rules of change
//! streams), [`connection`] (one socket's life) and [`client`] (finds a server and joins the two). [`command`] takes the
//! stream machine's place where a single command is to be run. [`monitoring`] tells what happens. [`topology`] is what
//! is known of a deployment, [`uri`] reads connection strings, [`wire`] is the codec, [`event`] and [`token`] are what a
//! stream yields.
//!
//! # What it does not do yet
//!
//! GSSAPI (Kerberos). TLS is the business of whoever has the
//! sockets: bytes come in and go out in the clear.
//!
//! # Features
//!
//! All are off by default.
//!
//! - `extended-json`: events as MongoDB Extended JSON.
//! - `snappy`, `zlib`, `zstd`: compression of wire messages by that name, for the option `compressors`. `snappy` and `zlib`
//!   are pure Rust; `zstd` is the C library that servers have, and takes a C compiler to build.

pub mod address;
pub mod auth;
mod by_bytes;
pub mod client;
pub mod command;
pub mod connection;
mod depth;
pub mod dns;
pub mod error;
pub mod event;
#[cfg(changestream_faults)]
#[doc(hidden)]
pub mod faults;
#[cfg(not(changestream_faults))]
mod faults;
pub mod monitoring;
pub mod options;
mod printable;
pub mod random;
pub mod read_preference;
pub mod server_api;
pub mod session;
mod small_map;
pub mod stream;
pub mod token;
pub mod topology;
mod tree;
pub mod uri;
mod walk;
pub mod wire;

pub use address::ServerAddress;
pub use client::Update;
pub use command::{CommandOptions, RunCommand};
pub use error::{Error, ErrorKind, ServerError};
pub use event::ChangeEvent;
pub use options::{FullDocument, FullDocumentBeforeChange, ResumePolicy, Scope, WatchOptions};
pub use read_preference::{ReadConcern, ReadPreference, ReadPreferenceMode};
pub use server_api::{ServerApi, ServerApiVersion};
pub use session::Session;
pub use stream::ClusterTime;
pub use token::ResumeToken;
pub use uri::{AuthMechanism, ClientOptions, ConnectionString, Credential};

//! Drives a MongoDB change stream over the sockets and timers of any executor.
//!
//! The protocol, and every decision about it, is in the machine of `changestream-core`, which knows neither sockets nor
//! time. This crate is the one loop around it, and the face that users see: [`Client`], [`Watch`], [`ChangeStream`].
//! Most users want the crate of their executor, such as `changestream-tokio`, or `changestream-blocking` for none. For
//! an executor of your own implement [`Runtime`]: three methods over [`futures_io`] types.
//!
//! ```no_run
//! use changestream_driver::bson::doc;
//! use changestream_driver::{Client, FullDocument, Runtime};
//!
//! async fn follow<R: Runtime + Clone + Default>() -> Result<(), changestream_driver::Error> {
//!     let client = Client::<R>::new("mongodb://localhost/?replicaSet=rs0")?;
//!     let mut stream = client
//!         .collection("shop", "orders")
//!         .watch()
//!         .pipeline([doc! { "$match": { "operationType": "insert" } }])
//!         .full_document(FullDocument::UpdateLookup)
//!         .open()
//!         .await?;
//!     while let Some(event) = stream.next().await {
//!         let event = event?;
//!         // Work, and then store `event.resume_token()`.
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Any executor
//! Beside the adapters, `examples/` of this crate has two runtimes made from scratch: `std_threads`, which needs nothing
//! but the standard library, and `compio`, whose sockets work by completion. A third example, `bare_core`, does without
//! this crate.
//!
//! # What it does not do
//! It spawns nothing: no task, no thread. A stream that is not polled does not work, and that is all right: what the
//! server has sent meanwhile is read before any deadline is judged.
//!
//! # Features
//! `snappy`, `zlib` and `zstd` compress what goes over the wire, where the connection string asks for it
//! (`compressors=zstd,zlib`) and the server agrees. They are off by default, so that a program links what it uses and
//! needs no C compiler, which `zstd` takes to build. A compressor that is asked for and not built in is a warning of the
//! connection string, and is not offered to servers.
//!
//! # Connecting
//! A host's addresses are tried as RFC 8305 (Happy Eyeballs) says: IPv6 and IPv4 in turn, each attempt 250 ms after the one
//! before or as soon as that has failed. The first that is open wins, the others are dropped; if none is, the error names
//! each address and what became of it. `connectTimeoutMS` holds for all of it, the look-up of the name included. A
//! [`Runtime`] looks names up and connects to one address at a time.
//!
//! # DNS
//! With the feature `dns`, which the adapters have on by default, the servers of a `mongodb+srv://` connection string are
//! found by their SRV records; without it such a client is refused. The name servers are those of `/etc/resolv.conf`, or
//! those that `Client::with_dns_servers` names; systems without that file need the latter. They are asked over UDP, and over
//! TCP by connections of the [`Runtime`] where an answer is too long. No executor is asked for UDP: while a name is
//! looked up, timers say when to look for the datagram, every 16 milliseconds at the most seldom.
//!
//! # Authentication
//! SCRAM, MONGODB-X509, PLAIN, MONGODB-AWS and MONGODB-OIDC, as the connection string says. Tokens of MONGODB-OIDC and keys
//! of AWS can come from callbacks: see [`Client::builder`]. Of the environments of MONGODB-OIDC, `k8s` and `test` are read
//! from their files; `azure` and `gcp` take an HTTP client, hence a callback.
//!
//! # TLS
//! is rustls with the feature `tls`, which the adapters have on by default. It lies between the sockets of a runtime and
//! the machine: a [`Runtime`] knows nothing of it. The connection string asks for it (`tls=true`, or any other option of
//! it); without the feature such a client is refused.
//!
//! - TLS 1.2 and 1.3. The server's certificate is verified by `tlsCAFile`, or else by the authorities that the system
//!   trusts, and must be valid for the host of the address, which may be an IP address (for a Unix domain socket:
//!   `localhost`) and must stand in its subject alternative names. `tlsAllowInvalidHostnames`,
//!   `tlsAllowInvalidCertificates` and `tlsInsecure` loosen that, and a warning is logged.
//! - `tlsCertificateKeyFile` is the client's certificate and key; a key of PKCS#8 may be encrypted
//!   (`tlsCertificateKeyFilePassword`).
//! - Whether a certificate was revoked is not asked: neither OCSP nor revocation lists are looked at, as if
//!   `tlsDisableOCSPEndpointCheck` and `tlsDisableCertificateRevocationCheck` were always given.
//! - The handshake counts as connecting (`connectTimeoutMS`). A certificate that is refused is an error of that server,
//!   which is tried again at intervals until `serverSelectionTimeoutMS` is over, and then told.

mod alarm;
mod client;
mod credentials;
#[cfg(feature = "dns")]
#[doc(hidden)]
pub mod dns;
#[cfg(not(feature = "dns"))]
#[path = "no_dns.rs"]
mod dns;
mod driver;
mod either;
mod endpoint;
mod layer;
pub mod logging;
mod lookup;
mod mode;
mod monitor;
mod pace;
mod race;
mod run;
mod runtime;
mod security;
mod socket;
mod stream;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
pub mod types;
mod watch;

pub use client::{Client, Collection, Database};
pub use credentials::ClientBuilder;
pub use either::EitherSocket;
pub use endpoint::Endpoint;
pub use lookup::SystemLookup;
pub use mode::{Mode, Opening};
pub use run::Running;
pub use runtime::Runtime;
pub use stream::ChangeStream;
pub use tcp::configure_tcp;
#[doc(no_inline)]
pub use types::*;
pub use watch::Watch;

//! The connection machine: one socket's life. Hello, authentication, framing, and requests matched with replies.
//!
//! It knows no change streams and no topology, and can be driven alone:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//! use changestream_core::ServerAddress;
//! use changestream_core::connection::{self, ClientMetadata, Connection, ConnectionOutput, ConnectionSettings};
//! use changestream_core::random::Random;
//!
//! let settings = ConnectionSettings {
//!     app_name: None,
//!     credential: None,
//!     load_balanced: false,
//!     tls: false,
//!     connect_timeout: Duration::from_secs(10),
//!     metadata: ClientMetadata::new().into(),
//!     server_api: None,
//!     compressors: Vec::new(),
//!     zlib_level: None,
//!     part_size: connection::PART_SIZE,
//! };
//! let now = Instant::now(); // the caller's clock: the machine itself has none
//! let address = ServerAddress::tcp("localhost", 27017);
//! let mut connection = Connection::new(Arc::new(settings), address, false, Random::new([7; 32]), now);
//! connection.handle_connected(now);
//! let Some(ConnectionOutput::Transmit(hello)) = connection.poll_output() else { panic!() };
//! assert!(hello.windows(8).any(|bytes| bytes == b"isMaster"));
//! ```
//!
//! A connection goes through these states; `Failed` can follow each:
//!
//! ```text
//! Connecting -> Greeting -> Greeted -> Authenticating -> Ready
//!            connected   Hello     authenticate()      Ready
//! ```
//!
//! A server may want a connection that is ready to authenticate anew (error 391): then it goes back to `Authenticating`,
//! and sends what was refused again.

mod arriving;
mod authenticating;
mod environment;
mod exchange;
mod foreign;
mod hello;
mod incoming;
mod machine;
mod metadata;
pub mod reply;
mod server;
mod state;

use std::fmt;
use std::time::{Duration, Instant};

use bson::RawDocumentBuf;
use bytes::Bytes;

pub use authenticating::AuthenticationLimit;
pub use environment::Environment;
pub use machine::Connection;
pub use metadata::{ClientMetadata, DriverInfo, OperatingSystem, SharedMetadata};

use crate::auth::{Credential, CredentialRequest};
use crate::wire::Compressor;
use crate::{Error, ServerApi};

/// What all connections of a client have in common.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// `appName`; what exceeds 128 bytes is cut off.
    pub app_name: Option<String>,
    /// Whom to authenticate as; nobody if none.
    pub credential: Option<Credential>,
    /// Whether the connection goes through a load balancer (`loadBalanced=true`).
    pub load_balanced: bool,
    /// Whether the connection is encrypted (`tls`). The machine does not care; what its errors suggest does.
    pub tls: bool,
    /// How long connecting and the handshake may take together, and authentication, and a later hello, each
    /// (`connectTimeoutMS`). Zero is no limit.
    pub connect_timeout: Duration,
    /// What the handshake says about this client.
    pub metadata: SharedMetadata,
    /// The version of the server's API that every command of the connection's own declares; those that are to be
    /// [sent](Connection::send) declare it themselves.
    pub server_api: Option<ServerApi>,
    /// The compressors that are offered to servers, in order of preference; one that is not built in is left out. The
    /// first one that the server knows too compresses every request that may be compressed.
    pub compressors: Vec<Compressor>,
    /// `zlibCompressionLevel`, -1 to 9. `None` and -1 are zlib's default.
    pub zlib_level: Option<i32>,
    /// How much of a reply that may come [in parts](Request::in_parts) is held at once, in bytes;
    /// [`PART_SIZE`] by default. An event that is larger is held whole.
    pub part_size: usize,
}

/// A command to send.
#[derive(Clone, Debug)]
pub struct Request {
    /// The command, complete with `$db`.
    pub body: RawDocumentBuf,
    /// Whether several replies to it are welcome.
    pub exhaust_allowed: bool,
    /// Whether events of a getMore's reply are welcome while the rest of it is on its way
    /// ([`ConnectionOutput::Events`]).
    pub in_parts: bool,
    /// How long the connection may be silent before the reply counts as lost. Starts anew with each byte that
    /// arrives. None is no limit.
    pub reply_timeout: Option<Duration>,
}

impl Request {
    /// A command with one reply, which comes whole and may take any time.
    pub fn new(body: RawDocumentBuf) -> Self {
        Self {
            body,
            exhaust_allowed: false,
            in_parts: false,
            reply_timeout: None,
        }
    }
}

/// What a [`Connection`] wants, or has to say. Match exhaustively: each variant is an order.
pub enum ConnectionOutput {
    /// Write these bytes.
    Transmit(Bytes),
    /// The server has answered a hello: that of the handshake, or of [`Connection::check`]. It has refused the latter if
    /// it is overloaded; any other refusal is the connection's end.
    Hello {
        /// The reply's document. Its first level was found to be readable.
        body: Bytes,
        /// From the hello's sending to the arrival of the answer.
        round_trip: Duration,
    },
    /// [`Connection::authenticate`] has succeeded: requests are sent from now on.
    Ready,
    /// Authentication needs this of the world outside: answer by [`Connection::answer`].
    Credentials(CredentialRequest),
    /// Events out of the answer to a request that was to be answered [in parts](Request::in_parts). The answer itself
    /// follows, without them, and with at least one more.
    Events {
        /// The request, as [`Connection::send`] numbered it.
        request_id: i32,
        /// Elements of the batch, one behind the other.
        events: Bytes,
    },
    /// The answer to a request, whether it succeeded (`ok: 1`) or not.
    Reply(Reply),
    /// The answer to a request that says that the connection must authenticate anew (`ReauthenticationRequired`). It
    /// does so by itself, and sends the request again, under the number that it had: another answer follows.
    Refused(Reply),
    /// The connection is of no use any more: close it. Nothing follows.
    Failed(Error),
}

/// Without the bytes that are written: some of them authenticate.
impl fmt::Debug for ConnectionOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transmit(bytes) => write!(f, "Transmit({} bytes)", bytes.len()),
            Self::Hello { round_trip, .. } => f
                .debug_struct("Hello")
                .field("round_trip", round_trip)
                .finish_non_exhaustive(),
            Self::Ready => f.write_str("Ready"),
            Self::Credentials(request) => f.debug_tuple("Credentials").field(request).finish(),
            Self::Events { request_id, events } => f
                .debug_struct("Events")
                .field("request_id", request_id)
                .field("len", &events.len())
                .finish(),
            Self::Reply(reply) => f.debug_tuple("Reply").field(reply).finish(),
            Self::Refused(reply) => f.debug_tuple("Refused").field(reply).finish(),
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

/// An answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request that it answers, as [`Connection::send`] numbered it.
    pub request_id: i32,
    /// The document: located, not looked into.
    pub body: Bytes,
    /// Whether another reply to the same request follows without being asked for.
    pub more_to_come: bool,
    /// From the request's sending to the arrival of this reply; from the reply before it, where there is one.
    pub round_trip: Duration,
    /// When it arrived.
    pub received: Instant,
}

/// How much of a reply is held at once that comes in parts, in bytes: little enough to stay in a processor's cache.
pub const PART_SIZE: usize = 128 << 10;

//! What a client does, told to whoever watches: its commands, its connections, and what it learns of the deployment.
//!
//! Off by default, and free then. [`ClientSettings::with_monitoring`](crate::client::ClientSettings::with_monitoring)
//! turns it on; [`ClientMachine::poll_event`](crate::client::ClientMachine::poll_event) hands the events out, in the order
//! in which things happened. They are not among the machine's outputs, since nothing has to be done about them: of
//! events that nobody polls the last [`MAX_EVENTS`] are kept.
//!
//! The events are those of the Command Logging And Monitoring, Connection Monitoring And Pooling, and SDAM Logging And
//! Monitoring specifications, and what the Server Selection specification logs, as far as a client that keeps no pools and checks servers only when it needs one has their
//! equal. Passwords and what proves them never stand in one.

mod redaction;
mod selection;
mod shown;

use std::fmt;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, RawDocument};
use bytes::Bytes;

pub use selection::{SelectionEvent, SelectionStage};

pub(crate) use redaction::{is_sensitive, redacted, without_authentication};

use crate::client::ConnectionId;
use crate::topology::TopologyEvent;
use crate::{Error, ServerAddress};

/// How many events are kept that nobody has polled. Older ones are dropped.
pub const MAX_EVENTS: usize = 1024;

/// Something that a client did or learned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The machine that it happened to, by the number that it was given: the streams of one client, and what runs its
    /// commands, each have a topology and connections of their own. In logs it is the `topologyId`.
    pub source: u64,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    pub(crate) fn new(source: u64, kind: EventKind) -> Self {
        Self { source, kind }
    }
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A command was sent, or has come to its end.
    Command(CommandEvent),
    /// A connection was opened, used or closed.
    Connection(ConnectionEvent),
    /// A server is checked, or was.
    Heartbeat(HeartbeatEvent),
    /// What is known of the deployment has changed.
    Topology(TopologyEvent),
    /// A server is looked for, or was.
    Selection(SelectionEvent),
}

/// A command on its way (Command Logging And Monitoring, "Events API"). Each that started succeeds or fails, once.
///
/// Not told of are the commands that a connection says for itself: hello and authentication.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CommandEvent {
    /// The command's name, such as `aggregate`.
    pub command_name: String,
    /// The database that it runs on.
    pub database_name: String,
    /// The number of its message.
    pub request_id: i32,
    /// The operation that it is part of: equal for all commands of a stream, and for a command and its retry.
    pub operation_id: i64,
    /// The connection that it was sent over.
    pub connection: ConnectionId,
    /// The server's number for that connection (server 4.2 and later tell it).
    pub server_connection_id: Option<i64>,
    /// The server that it was sent to.
    pub server: ServerAddress,
    /// The service behind a load balancer that it was sent to.
    pub service_id: Option<ObjectId>,
    /// How far it has come.
    pub stage: CommandStage,
}

/// How far a command has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CommandStage {
    /// It is sent.
    #[non_exhaustive]
    Started {
        /// The command as it is sent; empty if it may hold secrets.
        command: MonitoredDocument,
    },
    /// The server has answered with `ok: 1`.
    #[non_exhaustive]
    Succeeded {
        /// From sending it to the arrival of the reply.
        duration: Duration,
        /// The reply as it came; empty if it may hold secrets.
        reply: MonitoredDocument,
    },
    /// The server has refused, or there will be no answer.
    #[non_exhaustive]
    Failed {
        /// From sending it to the failure.
        duration: Duration,
        /// Why. If the command may hold secrets, the server's words are left out.
        failure: Error,
    },
}

/// A document that was sent or received. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct MonitoredDocument(Bytes);

impl MonitoredDocument {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn empty() -> Self {
        Self(Bytes::from_static(EMPTY))
    }

    /// The document.
    pub fn as_raw(&self) -> &RawDocument {
        RawDocument::from_bytes(&self.0)
            .or_else(|_| RawDocument::from_bytes(EMPTY))
            .expect("five bytes of which the first says so are an empty document")
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// As text, unless it exceeds a kilobyte: it may have 48 MB.
impl fmt::Debug for MonitoredDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > LONGEST_SHOWN {
            return write!(f, "MonitoredDocument({} bytes)", self.0.len());
        }
        match Document::try_from(self.as_raw()) {
            Ok(document) => fmt::Display::fmt(&document, f),
            Err(error) => write!(f, "MonitoredDocument(not readable: {error})"),
        }
    }
}

/// A connection's life, and its use. One that waits for a stream or a command counts as checked in, as in a pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// It is being opened.
    #[non_exhaustive]
    Created {
        /// Which one.
        connection: ConnectionId,
        /// Where to.
        server: ServerAddress,
    },
    /// It is open, has greeted the server and is authenticated.
    #[non_exhaustive]
    Ready {
        /// Which one.
        connection: ConnectionId,
        /// Where to.
        server: ServerAddress,
        /// How long all of it took.
        duration: Duration,
    },
    /// It is closed.
    #[non_exhaustive]
    Closed {
        /// Which one.
        connection: ConnectionId,
        /// Where to.
        server: ServerAddress,
        /// Why.
        reason: ClosedReason,
    },
    /// A server was chosen, and a connection to it is wanted.
    #[non_exhaustive]
    CheckOutStarted {
        /// Which server.
        server: ServerAddress,
    },
    /// It could not be had.
    #[non_exhaustive]
    CheckOutFailed {
        /// Which server.
        server: ServerAddress,
        /// For how long it was waited for.
        duration: Duration,
        /// Why.
        error: Error,
    },
    /// A stream or a command has it now.
    #[non_exhaustive]
    CheckedOut {
        /// Which one.
        connection: ConnectionId,
        /// Where to.
        server: ServerAddress,
        /// For how long it was waited for.
        duration: Duration,
    },
    /// The stream or the command is done with it.
    #[non_exhaustive]
    CheckedIn {
        /// Which one.
        connection: ConnectionId,
        /// Where to.
        server: ServerAddress,
    },
    /// An error said that connections to this server that were opened before it are of no use any more.
    #[non_exhaustive]
    PoolCleared {
        /// Which server.
        server: ServerAddress,
        /// Only those to this service behind a load balancer.
        service_id: Option<ObjectId>,
    },
}

/// Why a connection was closed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClosedReason {
    /// It failed.
    Error(Error),
    /// Its pool was cleared since it was opened.
    Stale,
    /// Its server was asked, and another one was chosen, or it is not part of the deployment any more.
    Unused,
    /// The stream has ended, or the client was closed.
    Closed,
}

/// A server's check (SDAM Logging And Monitoring, "Heartbeats"). A client without background monitors makes one when it
/// needs a server and knows none, or not recently enough.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HeartbeatEvent {
    /// It begins; before the connection is opened, if it takes a new one.
    #[non_exhaustive]
    Started {
        /// The server that is checked.
        server: ServerAddress,
        /// The connection that hello is sent over.
        connection: ConnectionId,
    },
    /// The server has answered.
    #[non_exhaustive]
    Succeeded {
        /// The server that was checked.
        server: ServerAddress,
        /// The connection that hello was sent over.
        connection: ConnectionId,
        /// How long the answer to hello took, without opening the connection.
        duration: Duration,
        /// The answer, without what it says of authentication.
        reply: MonitoredDocument,
    },
    /// The server has not answered, or the check was given up since another server was chosen meanwhile.
    #[non_exhaustive]
    Failed {
        /// The server that was checked.
        server: ServerAddress,
        /// The connection that hello was sent over.
        connection: ConnectionId,
        /// From the beginning to the failure.
        duration: Duration,
        /// Why; none if it was given up.
        failure: Option<Error>,
    },
}

/// A document without elements: its length, and the byte that ends it.
const EMPTY: &[u8] = &[5, 0, 0, 0, 0];

const LONGEST_SHOWN: usize = 1 << 10;

//! The stream machine: commands out, replies in.
//!
//! It knows the rules of the change-streams specification (which command comes next, what a reply means, which errors
//! are resumed from, what the resume token is) and nothing of bytes, sockets or topology. Whoever drives it gives it a
//! server when it asks for one, sends its commands there, and brings the replies back in order.
//!
//! ```text
//!              Ready              reply                       reply with id 0
//! Selecting ----------> Opening ----------> Live <-> getMore -----------------> Exhausted --> Ended
//!     ^                    |                 |  error of a getMore
//!     |                    | error           v
//!     +--- BackingOff <----+------------- Faulted  (once what came before the error is delivered)
//! ```
//!
//! A call that runs out of time (`timeoutMS`) ends with [`Update::TimedOut`] and leaves the state as it is. What was in
//! flight may still come; if it has not when the next call begins, that call starts by resuming. Where the server itself
//! said that there was too little time, the stream is `Interrupted` until then.
//!
//! What an overloaded server refused is sent again after a pause: an aggregate by way of `BackingOff`, a getMore by way
//! of `Postponed`, which goes back to `Live`.

mod batch;
mod command;
mod inbox;
mod machine;
mod position;
mod reply;
mod resumable;
mod stats;

use std::collections::BTreeMap;
use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bytes::Bytes;

pub use machine::{Patience, Retries, StreamMachine};
pub use reply::{ClusterTime, CommandReply};
pub use stats::StreamStats;

pub(crate) use command::{append_max_time, gossip, read_preference};
pub(crate) use resumable::{
    is_max_time_expired, is_retryable_read, overload_delay, retry_pause, server_share, too_short,
};

use crate::client::{Demand, Update};
use crate::{Error, ServerAddress};

/// What happens to a stream.
#[derive(Debug)]
pub enum StreamInput {
    /// The server asked for: a connection to it is ready for commands.
    Ready(Server),
    /// Events out of the answer to the getMore in flight, of which the rest is still on its way: elements of its batch,
    /// one behind the other. The answer follows, without them, and with at least one more.
    Events(Bytes),
    /// The answer to the aggregate or getMore in flight.
    Reply(CommandReply),
    /// No server was found, or the command in flight got no answer, or the connection is gone.
    Failed(Error),
    /// Time has passed.
    Timeout,
    /// What the consumer wants.
    Demand(Demand),
    /// A call of the consumer's begins.
    Begin,
}

/// What a stream wants.
#[derive(Debug)]
pub enum StreamOutput {
    /// A server by the stream's read preference, and a connection to it: answer with [`StreamInput::Ready`] or
    /// [`StreamInput::Failed`].
    SelectServer {
        /// Servers to avoid where there are others: those that just failed.
        deprioritized: BTreeMap<ServerAddress, Avoid>,
    },
    /// Give the connection to the server that was given last up: it is busy with what nobody waits for any more.
    Abandon,
    /// Send this on the connection to the server that was given last. `$clusterTime` is for the sender to add.
    Send(Command),
    /// Something for the consumer.
    Update(Update),
    /// The end, once; nothing follows. What is left to be told to the server comes along.
    End(Result<(), Error>, Option<Farewell>),
}

/// In which deployments a server that failed is avoided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Avoid {
    /// In all.
    Always,
    /// Among the mongos of a sharded cluster.
    AmongMongos,
}

/// A command of a stream.
#[derive(Debug)]
pub struct Command {
    /// The command with everything but `$clusterTime`.
    pub body: RawDocumentBuf,
    /// What its reply is for.
    pub expects: Expects,
    /// Whether further replies may follow the first without being asked for (`exhaustAllowed`). Each of them is to come
    /// back as [`StreamInput::Reply`], and says [whether another one follows](CommandReply::more_to_come).
    pub exhaust_allowed: bool,
    /// Whether [events](StreamInput::Events) are welcome while the rest of a reply is on its way. Where this is left aside,
    /// all comes with the reply.
    pub in_parts: bool,
}

/// What the reply to a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expects {
    /// The reply is to come back as [`StreamInput::Reply`], within this time and the round-trip time; later is a
    /// network error.
    Reply {
        /// The longest silence.
        within: Duration,
    },
    /// Whatever the reply says is of no interest.
    Nothing,
}

/// What is to be told to a server when a stream is done with it.
#[derive(Debug)]
pub struct Farewell {
    /// To which server, and no other.
    pub server: ServerAddress,
    /// `killCursors`, if there is a cursor, and `endSessions`, if the session is the stream's own.
    pub commands: Vec<RawDocumentBuf>,
    /// Whether a getMore is in flight, so that its connection is busy until the server has waited enough.
    pub busy: bool,
}

/// The server that a stream reads from, as far as its commands depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub address: ServerAddress,
    /// `maxWireVersion` of the connection that was made to it.
    pub max_wire_version: i32,
    /// Whether it knows sessions (`logicalSessionTimeoutMinutes`).
    pub supports_sessions: bool,
    /// What it is in its deployment.
    pub role: Role,
    /// The shortest time that a message to it and its answer take.
    pub min_round_trip: Duration,
}

/// What a server is in its deployment, as far as commands depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A member of a deployment that was discovered, or a mongos.
    Member,
    /// The topology's single server and a member of a replica set: it must be told that a secondary may answer.
    Direct,
    /// A standalone: it must not be told of read preferences.
    Standalone,
    /// One of those behind a load balancer: another connection may lead to another one.
    LoadBalanced,
}

/// How an aggregate starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// As the user said.
    Open,
    /// Where the stream stands.
    Resume,
}

//! The boundary: what goes in, what comes out.

use std::fmt;
use std::time::{Duration, Instant};

use bson::Timestamp;
use bytes::Bytes;

use crate::auth::{CredentialAnswer, CredentialRequest};
use crate::command::RunCommand;
use crate::dns::{Answer, DnsFault, Question};
use crate::event::ChangeEvent;
use crate::stream::CommandReply;
use crate::token::ResumeToken;
use crate::{Error, ServerAddress};

/// One connection that the machine has asked for. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

impl ConnectionId {
    /// The number that it is called by in logs, which counts the machine's connections.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// As in the logs: a number that counts the machine's connections.
impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One look-up that the machine has asked for. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub(crate) u64);

/// What happens to the machine. Every input is accepted at any time; one that makes no sense, such as bytes of a
/// connection that is already given up, is ignored.
#[derive(Debug)]
pub enum Input {
    /// The connection is open. For TLS: its handshake is done.
    Connected {
        /// Which one.
        connection: ConnectionId,
    },
    /// Bytes were read into the buffer that `read_buffer` lent.
    Received {
        /// From which connection.
        connection: ConnectionId,
        /// How many, from the buffer's start.
        len: usize,
    },
    /// The connection could not be opened, or is gone.
    Disconnected {
        /// Which one.
        connection: ConnectionId,
        /// Why.
        reason: Disconnected,
    },
    /// A look-up has ended.
    Resolved {
        /// Which one.
        lookup: LookupId,
        /// The records, or why there are none.
        result: Result<Answer, DnsFault>,
    },
    /// The answer to [`Output::Credentials`].
    Credentials {
        /// The connection that asked.
        connection: ConnectionId,
        /// What it asked for; or why there is none, which ends the connection unless the mechanism has another way.
        answer: Result<CredentialAnswer, Error>,
    },
    /// Time has passed. Due when the last [`Deadline`] is reached; harmless at any other time. Feed what the sockets
    /// already hold first: a deadline is judged by what has been received.
    Timeout,
    /// A call of the consumer's begins: `timeoutMS` counts from now, whatever is demanded until the next one begins. While
    /// the stream is not open yet, the time that opening it has goes on counting. A demand outside of any call is one by
    /// itself.
    Begin,
    /// A command is to be run, after those before it. For a machine [made for it](super::ClientMachine::for_commands); one
    /// of a stream ignores it.
    Command(Box<RunCommand>),
    /// What the consumer wants now. Holds until it is said anew.
    Demand(Demand),
    /// The consumer is done: kill the cursor, end the session, disconnect. [`Output::Closed`] follows, at the latest
    /// at the deadline. Said again, it may bring the deadline forward.
    Close {
        /// Until when the server may be spoken to.
        deadline: Instant,
    },
}

/// What the consumer wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: no [`Output::Update`] comes.
    #[default]
    None,
    /// The next update, however long it takes. Satisfied by one [`Output::Update`], and then back to
    /// [`None`](Self::None).
    Next,
    /// The next update that at most one getMore brings; [`Update::Idle`] if it brings no change. Satisfied by one
    /// [`Update::Change`], [`Update::Invalidated`], [`Update::Idle`] or [`Update::TimedOut`].
    TryNext,
}

/// Why a connection is gone, or was never there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// What the operating system or the TLS library says; never a secret.
    pub message: String,
    /// Whether it was a time limit of the adapter's that passed.
    pub timed_out: bool,
}

/// What the machine wants. Match exhaustively: each variant is an order.
pub enum Output {
    /// Look these records up in DNS: answer with [`Input::Resolved`]. The machine gives up by itself when it takes too
    /// long, and ignores the answer then. Comes only where the connection string is a `mongodb+srv://` one. The addresses
    /// of hosts are not asked for so: they belong to connecting.
    Resolve {
        /// The name by which the input calls it.
        lookup: LookupId,
        /// What to look up.
        question: Question,
    },
    /// Open a connection: answer with [`Input::Connected`] or [`Input::Disconnected`]. The machine gives up by itself
    /// when it takes too long.
    Connect {
        /// The name by which inputs call it.
        connection: ConnectionId,
        /// Where to.
        address: ServerAddress,
    },
    /// Write these bytes, after all that were to be written to this connection before.
    Transmit {
        /// Where to.
        connection: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// Close the connection, or give up opening it. What is still to be written to it is to be written first, if the
    /// socket takes it without waiting. No input names it any more.
    Disconnect {
        /// Which one.
        connection: ConnectionId,
    },
    /// Get what a connection needs to authenticate: answer with [`Input::Credentials`]. The machine gives up by itself
    /// when it takes too long.
    Credentials {
        /// Which connection asks.
        connection: ConnectionId,
        /// What for.
        request: CredentialRequest,
    },
    /// Something for the consumer. Comes only while there is a [`Demand`].
    Update(Update),
    /// How the oldest [`Input::Command`] that is not answered has ended: `Ok` if the server has answered with `ok: 1`.
    Reply(Result<CommandReply, Error>),
    /// Nothing until an input comes; [`Input::Timeout`] is due at the deadline, if there is one.
    Wait(Option<Deadline>),
    /// The end: nothing but this comes any more. `Ok` after the stream's own end (an invalidate event, or `Close`).
    Closed(Result<(), Error>),
}

/// Bytes to be written are shown by their number only: they may be those of an authentication.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { lookup, question } => f
                .debug_struct("Resolve")
                .field("lookup", lookup)
                .field("question", question)
                .finish(),
            Self::Connect { connection, address } => f
                .debug_struct("Connect")
                .field("connection", connection)
                .field("address", address)
                .finish(),
            Self::Transmit { connection, bytes } => f
                .debug_struct("Transmit")
                .field("connection", connection)
                .field("len", &bytes.len())
                .finish(),
            Self::Disconnect { connection } => f
                .debug_struct("Disconnect")
                .field("connection", connection)
                .finish(),
            Self::Credentials { connection, request } => f
                .debug_struct("Credentials")
                .field("connection", connection)
                .field("request", request)
                .finish(),
            Self::Update(update) => f.debug_tuple("Update").field(update).finish(),
            Self::Reply(result) => f
                .debug_tuple("Reply")
                .field(&result.as_ref().map(|_| ()))
                .finish(),
            Self::Wait(deadline) => f.debug_tuple("Wait").field(deadline).finish(),
            Self::Closed(result) => f.debug_tuple("Closed").field(result).finish(),
        }
    }
}

/// When the machine wants to be called, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// What for.
    pub reason: DeadlineReason,
}

/// What a deadline is for: told for logs and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadlineReason {
    /// The seed list should be found in DNS by then (`serverSelectionTimeoutMS`), or it is waited for no longer before
    /// servers are checked.
    Resolve,
    /// A connection should be open by then (`connectTimeoutMS`).
    Connect,
    /// The handshake should be answered by then (`connectTimeoutMS`).
    Handshake,
    /// A command should be answered by then.
    Reply,
    /// A server may be checked again then (`minHeartbeatFrequencyMS`, `cooldownMS`).
    Scan,
    /// A server should be found by then (`serverSelectionTimeoutMS`).
    ServerSelection,
    /// The next attempt to resume, or to run what an overloaded server refused.
    ResumeBackoff,
    /// The end of [`Input::Close`].
    Close,
    /// The end of the consumer's call (`timeoutMS`).
    Call,
}

/// What a stream tells its consumer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Update {
    /// A change event. The stream's resume token has moved past it.
    Change(ChangeEvent),
    /// The server had no change within the await time, but the position moved on: store the token, or a quiet stream
    /// falls off the oplog.
    Idle(Idle),
    /// A resumable error occurred: the stream is about to resume from its token.
    Resuming(Resuming),
    /// The stream has resumed. Nothing was lost.
    Resumed {
        /// The server that it now reads from.
        server: ServerAddress,
    },
    /// What was watched is gone, and the stream ends. It comes behind the invalidate event, and where a pipeline drops that
    /// event in its place. A new stream can `start_after` this token, and cannot `resume_after` it.
    Invalidated {
        /// The invalidate event's token.
        token: ResumeToken,
    },
    /// `timeoutMS` is over for this call. The stream is alive, and the next call goes on where it stands: by resuming, if
    /// it was the server that had not answered. Nothing is lost.
    TimedOut(Error),
}

/// The position of a stream that had nothing to deliver.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Idle {
    /// Where the stream stands; none only with servers before 4.2 and before the first event.
    pub token: Option<ResumeToken>,
    /// The server's `operationTime` of that reply: what the token's cluster time lags behind.
    pub operation_time: Option<Timestamp>,
}

/// An attempt to resume.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resuming {
    /// 1 for the first attempt since the last successful getMore.
    pub attempt: u32,
    /// What made it necessary.
    pub cause: Error,
    /// How long it waits before it starts.
    pub delay: Duration,
}

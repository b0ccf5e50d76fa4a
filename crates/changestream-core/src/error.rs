//! What can go wrong, said so that a user knows what to do next.

use std::fmt;

use crate::ServerAddress;
use crate::dns::{DnsFault, Question};
use crate::printable::Printable;
use crate::token::ResumeToken;
use crate::topology::SYSTEM_OVERLOADED_ERROR;

/// Why a stream ended, could not be opened or had to resume.
///
/// Small to move: one pointer. It says what failed ([`kind`](Self::kind)), at which server, with the server's code,
/// name and labels if a server said it, whether the failure was one that a stream resumes from, and the last resume
/// token, from which a new stream can go on.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    server: Option<ServerAddress>,
    resume_token: Option<ResumeToken>,
    resumable: bool,
    /// Whether the network failed before the server had answered hello.
    greeted_by_none: bool,
}

impl Error {
    /// An error of that kind, without server and token, not resumable.
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            server: None,
            resume_token: None,
            resumable: false,
            greeted_by_none: false,
        }))
    }

    /// A wrong option, connection string or argument.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument {
            message: message.into(),
        })
    }

    /// A connection that could not be made, broke, or stayed silent past its deadline.
    pub fn network(message: impl Into<String>, timed_out: bool) -> Self {
        Self::new(ErrorKind::Network {
            message: message.into(),
            timed_out,
        })
    }

    /// No servers found in DNS for that host of a connection string.
    pub(crate) fn dns(host: &str, question: Question, fault: DnsFault) -> Self {
        Self::new(ErrorKind::Dns {
            host: host.to_owned(),
            question,
            fault,
        })
    }

    /// An authentication that failed on this side, before or without a server's word. The message must hold no secret.
    pub fn authentication(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Authentication {
            message: message.into(),
            server_error: None,
        })
    }

    /// Bytes that are not the protocol.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol {
            message: message.into(),
        })
    }

    /// `timeoutMS` is over: what was being done, and what failed in the end, if anything did.
    pub fn timeout(message: impl Into<String>, cause: Option<Self>) -> Self {
        let server = cause.as_ref().and_then(Self::server).cloned();
        let error = Self::new(ErrorKind::Timeout {
            message: message.into(),
            cause,
        });
        server.into_iter().fold(error, Self::at)
    }

    /// A failure of the operating system's, outside any connection.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::System {
            message: message.into(),
        })
    }

    /// What failed.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The server at which it failed, if one had been chosen.
    pub fn server(&self) -> Option<&ServerAddress> {
        self.0.server.as_ref()
    }

    /// What the server said, if it was a server that refused.
    pub fn server_error(&self) -> Option<&ServerError> {
        self.0.kind.server_error()
    }

    /// The server's error code, if it was a server that refused.
    pub fn code(&self) -> Option<i32> {
        self.server_error().map(|e| e.code)
    }

    /// Whether the error has this label: one that the server gave it, or, where a connection was open and broke or timed out
    /// before the server answered hello, `SystemOverloadedError` and `RetryableError`. A server that takes no more
    /// connections does that (Client Backpressure specification): such an error reached nothing, and may be tried again
    /// after a while.
    pub fn has_label(&self, label: &str) -> bool {
        self.server_error().is_some_and(|error| error.has_label(label))
            || (self.0.greeted_by_none && OVERLOAD_LABELS.contains(&label))
    }

    /// Whether a server was too busy for what failed, so that it may be sent again (Client Backpressure specification,
    /// "Overload Error").
    pub(crate) fn is_overload(&self) -> bool {
        self.0.greeted_by_none || self.server_error().is_some_and(ServerError::is_overload)
    }

    /// The same error of the network, met before the server had answered hello.
    #[must_use]
    pub(crate) fn before_hello(mut self) -> Self {
        self.0.greeted_by_none = true;
        self
    }

    /// Whether the change-streams specification lets a stream resume from it ("Resumable Error").
    pub fn is_resumable(&self) -> bool {
        self.0.resumable
    }

    /// Whether `timeoutMS` is what ended the call ([`ErrorKind::Timeout`]). A stream that was open then still is: the
    /// next call goes on where it stands.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout { .. })
    }

    /// The token of the last event or position that was handed over before the failure: start a new stream from it.
    pub fn resume_token(&self) -> Option<&ResumeToken> {
        self.0.resume_token.as_ref()
    }

    /// The same error, naming the server.
    #[must_use]
    pub fn at(mut self, server: ServerAddress) -> Self {
        self.0.server.get_or_insert(server);
        self
    }

    /// The same error, carrying a resume token.
    #[must_use]
    pub fn with_resume_token(mut self, token: Option<ResumeToken>) -> Self {
        self.0.resume_token = token;
        self
    }

    /// The same error, marked as one that a stream does or does not resume from.
    #[must_use]
    pub fn resumable(mut self, resumable: bool) -> Self {
        self.0.resumable = resumable;
        self
    }
}

/// What says that a server is too busy, and that what it did not even begin may be tried again.
const OVERLOAD_LABELS: [&str; 2] = [SYSTEM_OVERLOADED_ERROR, "RetryableError"];

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.kind.fmt(f)?;
        if let Some(server) = &self.0.server {
            write!(f, " (server {server})")?;
        }
        if let Some(hint) = self.0.kind.hint() {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("server", &self.0.server)
            .field("resumable", &self.0.resumable)
            .field("resume_token", &self.0.resume_token)
            .finish()
    }
}

impl std::error::Error for Error {
    /// What failed when `timeoutMS` was over, if anything did.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let ErrorKind::Timeout { cause, .. } = &self.0.kind else {
            return None;
        };
        cause.as_ref().map(|cause| cause as _)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

/// What failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option, the connection string or an argument is wrong. Nothing was sent.
    #[non_exhaustive]
    InvalidArgument {
        /// What is wrong, where.
        message: String,
    },
    /// The servers of a `mongodb+srv://` connection string could not be found in DNS. No server was talked to.
    #[non_exhaustive]
    Dns {
        /// The host in the connection string.
        host: String,
        /// The look-up that failed, or whose records cannot be used.
        question: Question,
        /// Why.
        fault: DnsFault,
    },
    /// No suitable server was found within `serverSelectionTimeoutMS`.
    #[non_exhaustive]
    ServerSelection {
        /// What was looked for, and what each known server answered last.
        message: String,
    },
    /// The server refused the credentials, or could not prove that it knows them.
    #[non_exhaustive]
    Authentication {
        /// What failed; never a secret.
        message: String,
        /// What the server said, if it was the server that refused.
        server_error: Option<ServerError>,
    },
    /// A connection could not be made, broke, or stayed silent past its deadline.
    #[non_exhaustive]
    Network {
        /// What happened.
        message: String,
        /// Whether it was a deadline that passed.
        timed_out: bool,
    },
    /// `timeoutMS` is over, or would be before an answer came. A call for events that ends so leaves the stream alive:
    /// call again, or close it and open one with more time. Do the latter if no event has come yet: the server may need
    /// longer than this to read its log up to where the stream starts.
    #[non_exhaustive]
    Timeout {
        /// What was being done.
        message: String,
        /// What failed in the end: the server's own error (MaxTimeMSExpired, 50), or why no server was found.
        cause: Option<Error>,
    },
    /// The operating system refused what a stream needs, such as randomness or a way to wait for sockets.
    #[non_exhaustive]
    System {
        /// What it was, and what the system says.
        message: String,
    },
    /// The peer sent bytes that are not the protocol.
    #[non_exhaustive]
    Protocol {
        /// What is wrong with them.
        message: String,
    },
    /// The stream's history is no longer in the oplog (ChangeStreamHistoryLost, 286, or CappedPositionLost, 136, where
    /// a cursor was overtaken): events are lost for good.
    HistoryLost(ServerError),
    /// The resume token was not found, or the pipeline changed an event's `_id` (ChangeStreamFatalError, 280).
    TokenNotFound(ServerError),
    /// The server cannot use this resume token (InvalidResumeToken, 260), for instance that of an invalidate event
    /// with `resume_after`.
    InvalidToken(ServerError),
    /// An event exceeds 16 MiB (BSONObjectTooLarge, 10334).
    EventTooLarge(ServerError),
    /// A pre- or post-image was required and is not there (NoMatchingDocument, 47).
    PreImageMissing(ServerError),
    /// The server does not offer change streams here: a standalone (40573).
    NotAReplicaSet(ServerError),
    /// An event came without `_id`, the resume token, because the pipeline removed it.
    MissingResumeToken,
    /// Any other error reply.
    Server(ServerError),
    /// A value could not be decoded into the type that was asked for.
    #[non_exhaustive]
    Decode {
        /// Which value, and why.
        message: String,
    },
    /// The stream was closed by its user.
    Closed,
}

impl ErrorKind {
    /// What the server said, if it was a server that refused.
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::HistoryLost(e)
            | Self::TokenNotFound(e)
            | Self::InvalidToken(e)
            | Self::EventTooLarge(e)
            | Self::PreImageMissing(e)
            | Self::NotAReplicaSet(e)
            | Self::Server(e) => Some(e),
            Self::Authentication { server_error, .. } => server_error.as_ref(),
            Self::Timeout { cause, .. } => cause.as_ref()?.server_error(),
            Self::InvalidArgument { .. }
            | Self::Dns { .. }
            | Self::ServerSelection { .. }
            | Self::Network { .. }
            | Self::System { .. }
            | Self::Protocol { .. }
            | Self::MissingResumeToken
            | Self::Decode { .. }
            | Self::Closed => None,
        }
    }

    /// The kind that names this server error, by its code.
    pub fn from_server(error: ServerError) -> Self {
        match error.code {
            286 | 136 => Self::HistoryLost(error),
            280 => Self::TokenNotFound(error),
            260 => Self::InvalidToken(error),
            10334 => Self::EventTooLarge(error),
            47 => Self::PreImageMissing(error),
            40573 => Self::NotAReplicaSet(error),
            _ => Self::Server(error),
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::HistoryLost(_) => Some(
                "the oplog no longer holds the position to start from: copy the collection anew, then start without a token, and give the oplog more room",
            ),
            Self::TokenNotFound(_) => Some(
                "was the pipeline or the scope changed since the token was saved, or does the pipeline change `_id`?",
            ),
            Self::InvalidToken(_) => Some("the token of an invalidate event works with start_after only"),
            Self::EventTooLarge(_) => {
                Some("project large fields away, or append $changeStreamSplitLargeEvent (server 7.0, 6.0.9)")
            }
            Self::PreImageMissing(_) => Some(
                "enable changeStreamPreAndPostImages on the collection, or ask for whenAvailable instead of required",
            ),
            Self::NotAReplicaSet(_) => Some(
                "start the server as a replica set (one member is enough): mongod --replSet rs0, then rs.initiate()",
            ),
            Self::MissingResumeToken => Some("keep `_id` in the pipeline's output"),
            Self::Dns { fault, .. } => Some(fault.hint()),
            Self::InvalidArgument { .. }
            | Self::ServerSelection { .. }
            | Self::Authentication { .. }
            | Self::Network { .. }
            | Self::Timeout { .. }
            | Self::System { .. }
            | Self::Protocol { .. }
            | Self::Server(_)
            | Self::Decode { .. }
            | Self::Closed => None,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidArgument { message } => f.write_str(message),
            Self::Dns {
                host,
                question,
                fault,
            } => write!(
                f,
                "cannot find the servers of mongodb+srv://{host} in DNS: {question}: {fault}"
            ),
            Self::ServerSelection { message } => write!(f, "no suitable server: {message}"),
            Self::Authentication {
                message,
                server_error: None,
            } => write!(f, "authentication failed: {message}"),
            Self::Authentication {
                message,
                server_error: Some(e),
            } => write!(f, "authentication failed: {message}: {e}"),
            Self::Network { message, .. } => write!(f, "network error: {message}"),
            Self::Timeout { message, cause: None } => write!(f, "timed out: {message}"),
            Self::Timeout {
                message,
                cause: Some(cause),
            } => write!(f, "timed out: {message}: {cause}"),
            Self::System { message } => f.write_str(message),
            Self::Protocol { message } => write!(f, "protocol error: {message}"),
            Self::HistoryLost(e)
            | Self::TokenNotFound(e)
            | Self::InvalidToken(e)
            | Self::EventTooLarge(e)
            | Self::PreImageMissing(e)
            | Self::NotAReplicaSet(e)
            | Self::Server(e) => e.fmt(f),
            Self::MissingResumeToken => {
                f.write_str("Cannot provide resume functionality when the resume token is missing")
            }
            Self::Decode { message } => write!(f, "cannot decode: {message}"),
            Self::Closed => f.write_str("the stream is closed"),
        }
    }
}

/// An error reply of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// `code`; 0 where the reply has none.
    pub code: i32,
    /// `codeName`; empty where the reply has none.
    pub code_name: String,
    /// `errmsg`.
    pub message: String,
    /// `errorLabels`.
    pub labels: Vec<String>,
}

impl ServerError {
    /// An error of that code, name and message, without labels.
    pub fn new(code: i32, code_name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            code_name: code_name.into(),
            message: message.into(),
            labels: Vec::new(),
        }
    }

    /// Whether the reply carries this label.
    pub fn has_label(&self, label: &str) -> bool {
        self.labels.iter().any(|l| l == label)
    }

    /// Whether an overloaded server refused to run the command, which may be sent again (Client Backpressure
    /// specification, "Overload Error").
    pub(crate) fn is_overload(&self) -> bool {
        OVERLOAD_LABELS.iter().all(|label| self.has_label(label))
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server error {}", self.code)?;
        if !self.code_name.is_empty() {
            write!(f, " ({})", Printable(&self.code_name))?;
        }
        if self.message.is_empty() {
            return f.write_str(", without a message");
        }
        write!(f, ": {}", Printable(&self.message))
    }
}

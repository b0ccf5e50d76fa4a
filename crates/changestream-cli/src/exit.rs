//! How the program ends: exit codes, and failures that carry one.

use std::fmt;
use std::io;
use std::process::ExitCode;

use changestream_core::{Error, ErrorKind};

/// Why the program ended, as its caller sees it. The numbers are part of the program's face: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Other = 1,
    Usage = 2,
    HistoryLost = 3,
    TokenNotFound = 4,
    InvalidToken = 5,
    EventTooLarge = 6,
    MissingToken = 7,
    ImageMissing = 8,
    NotAReplicaSet = 9,
    ServerSelection = 10,
    Authentication = 11,
    Network = 12,
    Protocol = 13,
    Server = 14,
    LocalFile = 15,
}

/// For `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  ended as asked: a signal, --max-events, an invalidate event, a closed standard output
   1  any other failure; of `demo`, that an event was lost or repeated
   2  wrong arguments, connection string or option
   3  history lost: the oplog no longer reaches back to the start position (286)
   4  resume token not found (280)
   5  resume token not usable here, such as an invalidate event's with --resume-after (260)
   6  an event exceeds 16 MiB (10334)
   7  an event came without resume token: the pipeline removed its _id
   8  a required pre- or post-image is missing (47)
   9  the server is no member of a replica set (40573)
  10  no suitable server within serverSelectionTimeoutMS
  11  authentication failed
  12  network error that the stream could not resume from
  13  the server sent what is not the protocol
  14  any other error of the server
  15  a local file or standard output could not be read or written";

/// Why the program fails: an exit code, and what to say.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A file or standard output that failed.
    pub(crate) fn file(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(Exit::LocalFile, format!("{what}: {error}"))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        if let Some(token) = error.resume_token() {
            message.push_str(&match crate::token::to_json(token) {
                Ok(token) => format!("\nthe last position was {token}"),
                Err(broken) => format!("\nthe last position cannot be shown: {broken}"),
            });
        }
        Self::new(exit_of(error.kind()), message)
    }
}

fn exit_of(kind: &ErrorKind) -> Exit {
    match kind {
        ErrorKind::InvalidArgument { .. } => Exit::Usage,
        ErrorKind::Dns { .. } | ErrorKind::ServerSelection { .. } => Exit::ServerSelection,
        ErrorKind::Authentication { .. } => Exit::Authentication,
        ErrorKind::Network { .. } => Exit::Network,
        ErrorKind::Protocol { .. } | ErrorKind::Decode { .. } => Exit::Protocol,
        ErrorKind::HistoryLost(_) => Exit::HistoryLost,
        ErrorKind::TokenNotFound(_) => Exit::TokenNotFound,
        ErrorKind::InvalidToken(_) => Exit::InvalidToken,
        ErrorKind::EventTooLarge(_) => Exit::EventTooLarge,
        ErrorKind::PreImageMissing(_) => Exit::ImageMissing,
        ErrorKind::NotAReplicaSet(_) => Exit::NotAReplicaSet,
        ErrorKind::MissingResumeToken => Exit::MissingToken,
        ErrorKind::Server(_) => Exit::Server,
        ErrorKind::System { .. } | ErrorKind::Closed | _ => Exit::Other,
    }
}

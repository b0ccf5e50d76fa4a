//! Authentication: credentials, SCRAM (RFC 5802, RFC 7677) and its SASL conversation with a server.
//!
//! Specified in the driver specification "Authentication". Mechanisms other than SCRAM are known by name and refused
//! with an error that says so.

mod conversation;
mod credential;
pub mod scram;

pub(crate) use conversation::{Conversation, Next, refused_by_server};
pub use credential::{Credential, Mechanism};

use crate::error::{Error, ErrorKind};

/// An authentication that failed on this side: the server did not prove itself, or said something impossible.
fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Authentication {
        message: message.into(),
        server_error: None,
    })
}

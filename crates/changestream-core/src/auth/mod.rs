//! Authentication: credentials, mechanisms, and their conversations with a server.
//!
//! Specified in the driver specification "Authentication". SCRAM (RFC 5802, RFC 7677), MONGODB-X509, PLAIN, MONGODB-AWS
//! and MONGODB-OIDC are spoken; GSSAPI is known by name and refused with an error that says so.
//!
//! What a mechanism needs of the world outside, keys of AWS or a token, it asks for by a [`CredentialRequest`]: nothing
//! here reads a file, a variable or a clock.

mod aws_steps;
mod conversation;
mod credential;
mod mechanism;
mod oidc;
mod request;
mod sasl;
pub mod scram;
mod scram_steps;
mod sigv4;

pub(crate) use conversation::{Conversation, Next, Parties, Proved};
pub use credential::Credential;
pub use mechanism::Mechanism;
pub use oidc::{DEFAULT_ALLOWED_HOSTS, IdpInfo, OidcFlow, OidcRequest, OidcToken};
pub use request::{AwsCredentials, CredentialAnswer, CredentialRequest};

use crate::error::{Error, ErrorKind};

/// An authentication that failed on this side: the server did not prove itself, or said something impossible.
fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Authentication {
        message: message.into(),
        server_error: None,
    })
}

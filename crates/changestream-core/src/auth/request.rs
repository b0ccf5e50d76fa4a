//! What an authentication asks of the world outside: credentials that somebody else hands out, and the time of day.

use std::fmt;

use bson::DateTime;

use super::oidc::{OidcRequest, OidcToken};
use crate::uri::Secret;

/// What a connection needs to go on authenticating.
///
/// Answered by a [`CredentialAnswer`] of the same kind, or by an error, which ends the authentication. Asked at most once
/// for each attempt, but for a token that the server did not take. Match exhaustively: each variant is an order.
#[derive(Clone, Debug)]
pub enum CredentialRequest {
    /// The keys of an AWS identity, and the time of day, which is signed with them.
    #[non_exhaustive]
    Aws {
        /// The keys that the options give. Answer with these if there are any, and only then look elsewhere.
        given: Option<AwsCredentials>,
    },
    /// An access token of an OpenID Connect provider.
    Oidc(OidcRequest),
}

/// An answer to a [`CredentialRequest`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CredentialAnswer {
    /// Keys of an AWS identity.
    Aws {
        /// The keys.
        credentials: AwsCredentials,
        /// The time of day. AWS refuses a signature that is more than some minutes off.
        time: DateTime,
    },
    /// An access token.
    Oidc(OidcToken),
}

impl CredentialAnswer {
    /// Keys of an AWS identity, and the time of day.
    pub fn aws(credentials: AwsCredentials, time: DateTime) -> Self {
        Self::Aws { credentials, time }
    }
}

/// The keys of an AWS identity. Neither `Debug` nor an error shows the secret ones.
///
/// ```
/// use changestream_core::auth::AwsCredentials;
///
/// let credentials = AwsCredentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI").with_session_token("FwoGZXIvYXdzE");
/// assert_eq!(credentials.access_key_id(), "AKIDEXAMPLE");
/// assert!(!format!("{credentials:?}").contains("wJal"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AwsCredentials {
    access_key_id: String,
    secret_access_key: Secret,
    session_token: Option<Secret>,
}

impl AwsCredentials {
    /// Keys that last.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<Secret>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
        }
    }

    /// The same, temporary: with the session's token.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<Secret>) -> Self {
        self.session_token = Some(token.into());
        self
    }

    /// The key's name, which is no secret.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The key.
    pub fn secret_access_key(&self) -> &Secret {
        &self.secret_access_key
    }

    /// The session's token, of temporary keys.
    pub fn session_token(&self) -> Option<&Secret> {
        self.session_token.as_ref()
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

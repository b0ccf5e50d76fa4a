//! MONGODB-OIDC: an access token of an OpenID Connect provider, which somebody else fetches.

mod cache;
mod hosts;
mod steps;

use std::time::Duration;

pub(super) use cache::Cache;
pub(super) use hosts::allows;
pub(super) use steps::Step;

use crate::uri::Secret;

/// How tokens are come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OidcFlow {
    /// A program fetches them by itself (the specification's `OIDC_CALLBACK`, and its environments).
    Machine,
    /// A human has to do something, such as to log in on a web page (`OIDC_HUMAN_CALLBACK`). The token goes to allowed
    /// hosts only.
    Human,
}

/// What is known when a token is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OidcRequest {
    /// How long it may take: what is left of `connectTimeoutMS`, or five minutes for a human. None is no limit. The
    /// connection is given up after it.
    pub timeout: Option<Duration>,
    /// The version of what is asked, for whoever wants to see that it has changed: 1.
    pub version: u32,
    /// The user name of the options. What it means depends on the provider.
    pub username: Option<String>,
    /// What the server knows of the provider; for a human only.
    pub idp_info: Option<IdpInfo>,
    /// The refresh token that came with the last access token; for a human only.
    pub refresh_token: Option<Secret>,
    /// Where the answer is kept for the other connections of the client.
    cache: Cache,
}

impl OidcRequest {
    /// The token that the client has by now, since this was asked: another of its streams may have got one.
    pub fn known_token(&self) -> Option<OidcToken> {
        self.cache.token().map(OidcToken::new)
    }

    /// Keeps a token for the client's other streams, before this request is answered with it.
    pub fn keep(&self, token: &OidcToken) {
        self.cache.keep(token);
    }
}

/// An access token, as a provider gives it. `Debug` shows nothing of it.
///
/// ```
/// use std::time::Duration;
/// use changestream_core::auth::OidcToken;
///
/// let token = OidcToken::new("eyJhbGciOiJSUzI1NiJ9").with_expiry(Duration::from_secs(3600));
/// assert!(!format!("{token:?}").contains("eyJ"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OidcToken {
    /// The token. It is passed on as it is.
    pub access_token: Secret,
    /// How long it is good; none and zero are for ever. Nothing depends on it today: the server says when a token is
    /// not good any more.
    pub expires_in: Option<Duration>,
    /// What the next request is to be told; for a human's flow only.
    pub refresh_token: Option<Secret>,
}

impl OidcToken {
    /// A token, without more.
    pub fn new(access_token: impl Into<Secret>) -> Self {
        Self {
            access_token: access_token.into(),
            expires_in: None,
            refresh_token: None,
        }
    }

    /// The same, with its lifetime.
    #[must_use]
    pub fn with_expiry(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }

    /// The same, with a refresh token.
    #[must_use]
    pub fn with_refresh_token(mut self, token: impl Into<Secret>) -> Self {
        self.refresh_token = Some(token.into());
        self
    }
}

/// What the server knows of the provider that issues its users' tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdpInfo {
    /// The URL of the provider; its metadata are found by it (RFC 8414).
    pub issuer: String,
    /// The client that asks it for tokens; none if the server does not say.
    pub client_id: Option<String>,
    /// The scopes to ask for, beside the usual ones.
    pub request_scopes: Vec<String>,
}

/// `ALLOWED_HOSTS` where nothing else is given (Authentication specification).
pub const DEFAULT_ALLOWED_HOSTS: [&str; 8] = [
    "*.mongodb.net",
    "*.mongodb-qa.net",
    "*.mongodb-dev.net",
    "*.mongodbgov.net",
    "*.mongo.com",
    "localhost",
    "127.0.0.1",
    "::1",
];

//! MONGODB-OIDC: the tokens that are good. A server verifies a token's signature; here the good ones are listed.

use std::collections::BTreeMap;
use std::time::Instant;

use bson::{RawDocument, rawdoc};

use super::{Login, failed};
use crate::error::CommandError;

#[derive(Clone, Default)]
pub(crate) struct Oidc {
    pub(crate) providers: Vec<Provider>,
    /// By token.
    pub(crate) tokens: BTreeMap<String, Token>,
    /// Whether there has been any of these: without good tokens nobody gets in, and not everybody.
    pub(crate) in_use: bool,
}

#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// How the names of its users begin.
    pub(crate) prefix: String,
}

#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) user: String,
    /// When it ends, if it does.
    pub(crate) until: Option<Instant>,
}

/// What a client begins with.
pub(crate) enum Beginning {
    /// It has a token.
    Token(String),
    /// It asks for its provider.
    Principal(Option<String>),
}

impl Oidc {
    pub(super) fn user_of(&self, token: &str, now: Instant) -> Option<&str> {
        let token = self.tokens.get(token)?;
        token
            .until
            .is_none_or(|until| now < until)
            .then_some(token.user.as_str())
    }

    pub(crate) fn log_in(&self, token: &str, now: Instant) -> Result<Login, CommandError> {
        let user = self.user_of(token, now).ok_or_else(failed)?;
        Ok(Login {
            token: Some(token.to_owned()),
            ..Login::external(user)
        })
    }

    /// The one provider for this user, and what the client is told of it.
    pub(crate) fn provider_of(&self, principal: Option<&str>) -> Result<(usize, Vec<u8>), CommandError> {
        let mut found = (0..)
            .zip(&self.providers)
            .filter(|(_, provider)| principal.is_none_or(|name| name.starts_with(&provider.prefix)));
        match (found.next(), found.next()) {
            (Some((index, provider)), None) => Ok((index, provider.told())),
            (_, _) => Err(failed()),
        }
    }

    /// A token in answer to that.
    pub(crate) fn log_in_at(
        &self,
        provider: usize,
        principal: Option<&str>,
        payload: &[u8],
        now: Instant,
    ) -> Result<Login, CommandError> {
        let Some(Beginning::Token(token)) = Beginning::parse(payload) else {
            return Err(failed());
        };
        let login = self.log_in(&token, now)?;
        let provider = self.providers.get(provider).ok_or_else(failed)?;
        let is_meant = principal.is_none_or(|name| name == login.user);
        if is_meant && login.user.starts_with(&provider.prefix) {
            return Ok(login);
        }
        Err(failed())
    }
}

impl Provider {
    fn told(&self) -> Vec<u8> {
        rawdoc! { "issuer": self.issuer.as_str(), "clientId": self.client_id.as_str() }.into_bytes()
    }
}

impl Beginning {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let message = RawDocument::from_bytes(payload).ok()?;
        if let Ok(token) = message.get_str("jwt") {
            return Some(Self::Token(token.to_owned()));
        }
        Some(Self::Principal(message.get_str("n").ok().map(str::to_owned)))
    }
}

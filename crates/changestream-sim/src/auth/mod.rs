//! The server's side of authentication (the driver specification "Authentication").

mod aws;
mod external;
mod oidc;
mod scram;

use std::fmt;
use std::time::Instant;

use changestream_core::random::Random;

pub(crate) use external::{AwsUser, External};
pub(crate) use oidc::{Provider, Token};
pub(crate) use scram::Credentials;

use crate::error::CommandError;

/// An authentication under way on a connection.
pub(crate) enum Conversation {
    Scram(Box<scram::Conversation>),
    Aws(aws::Conversation),
    /// The provider is named; a token of it is to come.
    Oidc {
        /// Which of the providers, and for whom if the client has said.
        provider: usize,
        principal: Option<String>,
    },
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Scram(_) => "Scram",
            Self::Aws(_) => "Aws",
            Self::Oidc { .. } => "Oidc",
        };
        f.debug_struct(name).finish_non_exhaustive()
    }
}

/// What a step of a conversation answers.
pub(crate) struct Step {
    pub(crate) payload: Vec<u8>,
    /// The user, once authentication is complete.
    pub(crate) login: Option<Login>,
}

impl Step {
    /// The last one.
    pub(crate) fn done(login: Login) -> Self {
        Self {
            payload: Vec::new(),
            login: Some(login),
        }
    }

    /// One that another follows.
    pub(crate) fn answer(payload: Vec<u8>) -> Self {
        Self { payload, login: None }
    }
}

impl Conversation {
    /// Begins SCRAM.
    pub(crate) fn scram(
        users: &[Credentials],
        mechanism: &str,
        payload: &[u8],
        skip_empty_exchange: bool,
        random: &mut Random,
    ) -> Result<(Step, Option<Self>), CommandError> {
        let (conversation, step) =
            scram::Conversation::start(users, mechanism, payload, skip_empty_exchange, random)?;
        Ok((step, Some(Self::Scram(Box::new(conversation)))))
    }

    /// Begins MONGODB-AWS.
    pub(crate) fn aws(payload: &[u8], random: &mut Random) -> Result<(Step, Option<Self>), CommandError> {
        let (conversation, answer) = aws::Conversation::start(payload, random).ok_or_else(failed)?;
        Ok((Step::answer(answer), Some(Self::Aws(conversation))))
    }

    /// Begins MONGODB-OIDC, and ends it if the client has a token.
    pub(crate) fn oidc(
        external: &External,
        payload: &[u8],
        now: Instant,
    ) -> Result<(Step, Option<Self>), CommandError> {
        match oidc::Beginning::parse(payload).ok_or_else(failed)? {
            oidc::Beginning::Token(token) => Ok((Step::done(external.oidc.log_in(&token, now)?), None)),
            oidc::Beginning::Principal(principal) => {
                let (provider, told) = external.oidc.provider_of(principal.as_deref())?;
                Ok((Step::answer(told), Some(Self::Oidc { provider, principal })))
            }
        }
    }
}

/// Who a connection belongs to.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    /// Whether the user lives in `$external`, and not in `admin`.
    pub(crate) external: bool,
    /// The token that must stay good.
    pub(crate) token: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Login {
    pub(crate) fn internal(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            external: false,
            token: None,
        }
    }

    pub(crate) fn external(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            external: true,
            token: None,
        }
    }

    /// The database that knows the user.
    pub(crate) fn source(&self) -> &'static str {
        if self.external { "$external" } else { "admin" }
    }
}

/// Never says what was wrong.
pub(crate) fn failed() -> CommandError {
    CommandError::new(18, "Authentication failed.")
}

//! Where a connection stands.

use std::time::Instant;

use bytes::Bytes;

use super::hello::Dialect;
use super::server::Server;
use crate::auth::{Conversation, Proved};

/// Each state owns what is only known in it.
pub(super) enum State {
    /// The socket is being opened.
    Connecting {
        give_up: Option<Instant>,
        dialect: Dialect,
    },
    /// The first hello is on its way.
    Greeting {
        give_up: Option<Instant>,
        dialect: Dialect,
        speculative: Option<Conversation>,
    },
    /// The first hello is answered, and nobody has authenticated.
    Greeted {
        server: Server,
        /// The first hello's answer: later ones say nothing about authentication.
        handshake: Bytes,
        speculative: Option<Conversation>,
    },
    /// Before the first request, or because the server wants it again.
    Authenticating {
        server: Server,
        give_up: Option<Instant>,
        conversation: Conversation,
        awaits: Awaits,
    },
    Ready {
        server: Server,
        /// None where there is nobody to authenticate as.
        proved: Option<Proved>,
    },
    Failed,
}

/// What a conversation goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The server's reply.
    Reply,
    /// The answer to what was asked outside.
    Credentials,
    /// That time.
    Time(Instant),
}

impl State {
    /// For logs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Connecting { .. } => "connecting",
            Self::Greeting { .. } => "greeting",
            Self::Greeted { .. } => "greeted",
            Self::Authenticating { .. } => "authenticating",
            Self::Ready { .. } => "ready",
            Self::Failed => "failed",
        }
    }

    pub(super) fn server(&self) -> Option<&Server> {
        match self {
            Self::Greeted { server, .. }
            | Self::Authenticating { server, .. }
            | Self::Ready { server, .. } => Some(server),
            Self::Connecting { .. } | Self::Greeting { .. } | Self::Failed => None,
        }
    }

    pub(super) fn server_mut(&mut self) -> Option<&mut Server> {
        match self {
            Self::Greeted { server, .. }
            | Self::Authenticating { server, .. }
            | Self::Ready { server, .. } => Some(server),
            Self::Connecting { .. } | Self::Greeting { .. } | Self::Failed => None,
        }
    }
}

//! Where a connection stands.

use std::time::Instant;

use bytes::Bytes;

use super::hello::Dialect;
use super::server::Server;
use crate::auth::Conversation;

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
    Authenticating {
        server: Server,
        give_up: Option<Instant>,
        conversation: Conversation,
    },
    Ready {
        server: Server,
    },
    Failed,
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
            Self::Greeted { server, .. } | Self::Authenticating { server, .. } | Self::Ready { server } => {
                Some(server)
            }
            Self::Connecting { .. } | Self::Greeting { .. } | Self::Failed => None,
        }
    }

    pub(super) fn server_mut(&mut self) -> Option<&mut Server> {
        match self {
            Self::Greeted { server, .. } | Self::Authenticating { server, .. } | Self::Ready { server } => {
                Some(server)
            }
            Self::Connecting { .. } | Self::Greeting { .. } | Self::Failed => None,
        }
    }
}

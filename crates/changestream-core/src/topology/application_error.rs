//! Errors met while using a server, and what they say about it.

use bson::oid::ObjectId;

use super::TopologyVersion;
use crate::ServerError;

/// An error met on a connection that was being opened or used, other than in a check.
///
/// Server Discovery And Monitoring, "Application errors".
#[derive(Clone, Debug)]
pub struct ApplicationError {
    /// What went wrong.
    pub kind: ApplicationErrorKind,
    /// How far the connection was.
    pub phase: ConnectionPhase,
    /// The pool's generation when the connection, or the attempt at it, was begun.
    pub generation: u64,
    /// `serviceId` of the connection, behind a load balancer.
    pub service_id: Option<ObjectId>,
    /// `maxWireVersion` of the connection; none before hello was answered.
    pub max_wire_version: Option<i32>,
}

/// What went wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ApplicationErrorKind {
    /// Opening, reading or writing a socket failed, or took too long.
    Network {
        /// What happened.
        message: String,
        /// Whether it was a deadline that passed.
        timed_out: bool,
    },
    /// The server refused a command, or its reply has a `writeConcernError`. (`writeErrors` are not for this.)
    Command {
        /// What it said.
        error: ServerError,
        /// `topologyVersion` of the reply.
        topology_version: Option<TopologyVersion>,
    },
    /// Anything else: the host name has no address, the certificate is not good, the reply is no hello reply, the
    /// server could not prove that it knows the password.
    Other {
        /// What happened.
        message: String,
    },
}

/// How far a connection was when an error struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionPhase {
    /// Opening the socket, TLS, or hello.
    Establishing,
    /// Authentication.
    Authenticating,
    /// Ready for commands: the handshake is complete.
    Ready,
}

/// The label of errors that say that a server is too busy.
pub const SYSTEM_OVERLOADED_ERROR: &str = "SystemOverloadedError";

impl ApplicationError {
    /// What went wrong, for messages.
    pub(super) fn message(&self) -> String {
        match &self.kind {
            ApplicationErrorKind::Network { message, .. } | ApplicationErrorKind::Other { message } => {
                super::hello::cut(message)
            }
            ApplicationErrorKind::Command { error, .. } => super::hello::cut(&error.to_string()),
        }
    }

    pub(super) fn topology_version(&self) -> Option<TopologyVersion> {
        match &self.kind {
            ApplicationErrorKind::Command { topology_version, .. } => *topology_version,
            ApplicationErrorKind::Network { .. } | ApplicationErrorKind::Other { .. } => None,
        }
    }

    pub(super) fn state_change(&self) -> Option<StateChange> {
        match &self.kind {
            ApplicationErrorKind::Command { error, .. } => StateChange::of(error),
            ApplicationErrorKind::Network { .. } | ApplicationErrorKind::Other { .. } => None,
        }
    }

    /// Whether it shows that the server cannot be used, other than by a state change.
    pub(super) fn is_fatal_to_server(&self) -> bool {
        let broken = match &self.kind {
            // After the handshake a timeout may be a slow operation, and a refusal says nothing of the server.
            ApplicationErrorKind::Network { timed_out, .. } => !timed_out,
            ApplicationErrorKind::Command { .. } | ApplicationErrorKind::Other { .. } => false,
        };
        (broken || self.phase != ConnectionPhase::Ready) && !self.is_backpressure()
    }

    /// Whether it has the label of backpressure: a refusal that carries it, and each network error and timeout before
    /// hello is answered, which a server that limits new connections causes.
    fn is_backpressure(&self) -> bool {
        match &self.kind {
            ApplicationErrorKind::Network { .. } => self.phase == ConnectionPhase::Establishing,
            ApplicationErrorKind::Command { error, .. } => error.has_label(SYSTEM_OVERLOADED_ERROR),
            ApplicationErrorKind::Other { .. } => false,
        }
    }
}

/// A server error that says that the server is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateChange {
    /// "Node is recovering", but not shutting down.
    Recovering,
    /// "Node is shutting down".
    ShuttingDown,
    /// "Not writable primary".
    NotWritablePrimary,
}

impl StateChange {
    /// By code; by message only where there is no code.
    fn of(error: &ServerError) -> Option<Self> {
        match error.code {
            // InterruptedAtShutdown, ShutdownInProgress
            11600 | 91 => Some(Self::ShuttingDown),
            // InterruptedDueToReplStateChange, NotPrimaryOrSecondary, PrimarySteppedDown
            11602 | 13436 | 189 => Some(Self::Recovering),
            // NotWritablePrimary, NotPrimaryNoSecondaryOk, LegacyNotPrimary
            10107 | 13435 | 10058 => Some(Self::NotWritablePrimary),
            0 => Self::of_message(&error.message),
            _ => None,
        }
    }

    fn of_message(message: &str) -> Option<Self> {
        if message.contains("node is recovering") || message.contains("not master or secondary") {
            return Some(Self::Recovering);
        }
        message.contains("not master").then_some(Self::NotWritablePrimary)
    }
}

//! What arrived, for tests to ask.

use bson::Document;
use changestream_core::wire::Compressor;

use super::{ConnectionId, Deployment};
use crate::commands::Context;

/// A command that a member received.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CommandRecord {
    /// The member's index.
    pub member: usize,
    /// The connection.
    pub connection: ConnectionId,
    /// The command's name, as it came.
    pub name: String,
    /// The database.
    pub db: String,
    /// The whole command; what authenticates is left out.
    pub body: Document,
    /// The application's name from the connection's handshake.
    pub app_name: Option<String>,
    /// By what it came compressed.
    pub compressor: Option<Compressor>,
}

impl Deployment {
    /// The commands received, oldest first; the latest hundred thousand are kept.
    pub fn commands(&self) -> impl DoubleEndedIterator<Item = &CommandRecord> {
        self.records.iter()
    }

    /// Forgets the commands received so far.
    pub fn clear_commands(&mut self) {
        self.records.clear();
    }

    pub(super) fn record(&mut self, context: &Context<'_>) {
        if self.records.len() >= MAX_RECORDS {
            self.records.pop_front();
        }
        let mut body = context.request.body.clone();
        for secret in ["payload", "speculativeAuthenticate", "pwd"] {
            body.remove(secret);
        }
        self.records.push_back(CommandRecord {
            member: context.member,
            connection: context.connection,
            name: context.request.name().to_owned(),
            db: context.request.db().to_owned(),
            body,
            app_name: self
                .connection(context.connection)
                .and_then(|c| c.app_name.clone()),
            compressor: context.request.compressor,
        });
    }
}

const MAX_RECORDS: usize = 100_000;

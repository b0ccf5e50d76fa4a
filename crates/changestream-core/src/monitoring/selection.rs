//! Looking for a server, told.

use std::sync::Arc;
use std::time::Duration;

use crate::topology::TopologyDescription;
use crate::{Error, ReadPreference, ServerAddress};

/// A server is looked for, for a command or a stream (Server Selection specification, "Logging"). Each search that started
/// ends by success or failure, unless whoever wanted it goes away first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SelectionEvent {
    /// The name of the command that it is for; `aggregate` for a stream.
    pub operation: String,
    /// The operation that it is part of, as in [`CommandEvent`](super::CommandEvent); none where its first command has yet
    /// to be sent.
    pub operation_id: Option<i64>,
    /// What it is looked for by.
    pub selector: ReadPreference,
    /// What is known of the deployment at that moment.
    pub topology: Arc<TopologyDescription>,
    /// How far it has come.
    pub stage: SelectionStage,
}

/// How far a search for a server has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SelectionStage {
    /// It begins.
    Started,
    /// All servers were asked, and none suits. Told once.
    #[non_exhaustive]
    Waiting {
        /// How long one is waited for.
        remaining: Duration,
    },
    /// A server was found. A connection to it may yet have to be made.
    #[non_exhaustive]
    Succeeded {
        /// Which one.
        server: ServerAddress,
    },
    /// None was found in time.
    #[non_exhaustive]
    Failed {
        /// As it is told to whoever wanted one.
        failure: Error,
    },
}

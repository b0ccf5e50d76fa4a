//! What a stream is asked to watch, and how.

use std::time::Duration;

use bson::{Bson, Document, Timestamp};

use crate::read_preference::{ReadConcern, ReadPreference};
use crate::session::Session;
use crate::token::ResumeToken;

/// Whose changes a stream follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One collection.
    Collection {
        /// Name of the database.
        database: String,
        /// Name of the collection.
        collection: String,
    },
    /// All collections of a database (server 4.0 and later).
    Database {
        /// Name of the database.
        database: String,
    },
    /// The whole deployment, but for its internal databases (server 4.0 and later).
    Cluster,
}

/// Every option of a change stream. What is `None` or empty is not sent: the server's default holds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WatchOptions {
    /// Stages after `$changeStream`, sent as they are. Default: none.
    pub pipeline: Vec<Document>,
    /// `fullDocument`: which document an update event carries.
    pub full_document: Option<FullDocument>,
    /// `fullDocumentBeforeChange`: whether an event carries the document as it was before (server 6.0).
    pub full_document_before_change: Option<FullDocumentBeforeChange>,
    /// `resumeAfter`: go on after this token's event. Not with an invalidate event's token.
    pub resume_after: Option<ResumeToken>,
    /// `startAfter`: as `resume_after`, also with an invalidate event's token (server 4.2).
    pub start_after: Option<ResumeToken>,
    /// `startAtOperationTime`: start with the changes at or after this cluster time (server 4.0).
    pub start_at_operation_time: Option<Timestamp>,
    /// `maxAwaitTimeMS`: how long the server waits for a change before it answers a getMore with an empty batch.
    /// In whole milliseconds; the server's default is one second.
    pub max_await_time: Option<Duration>,
    /// `timeoutMS`: how long opening the stream may take, and each call for events, the resumes that it makes included. In
    /// whole milliseconds. Zero is no limit; `None` is what the collection, the database or the client says. Has to be
    /// longer than `max_await_time`.
    ///
    /// Where it is set at all, `socketTimeoutMS`, `waitQueueTimeoutMS` and `wTimeoutMS` are ignored, and the aggregates that
    /// open and resume the stream are tried again as often as the time allows. A call for events that runs out of time is
    /// an error ([`Error::is_timeout`](crate::Error::is_timeout)) that leaves the stream alive.
    pub timeout: Option<Duration>,
    /// `batchSize`: the most events in a batch. 0 opens the stream without a first batch.
    pub batch_size: Option<u32>,
    /// `collation` for the pipeline.
    pub collation: Option<Document>,
    /// `comment`, for the server's logs and profiler; on getMore too from server 4.4 on.
    pub comment: Option<Bson>,
    /// The session to run in. Default: one of the stream's own, ended when it is closed.
    pub session: Option<Session>,
    /// `showExpandedEvents`: events for index builds, create, modify and the like (server 6.0).
    pub show_expanded_events: Option<bool>,
    /// Read preference; `None` is the client's.
    pub read_preference: Option<ReadPreference>,
    /// Read concern; `None` is the client's.
    pub read_concern: Option<ReadConcern>,
    /// Further fields of the `$changeStream` stage, for options that this version does not know.
    pub extra_stage_options: Document,
    /// How many batches may be asked for ahead of the one that is being consumed. Default 1. With 0 a getMore leaves
    /// only when the consumer waits for it.
    pub prefetch_batches: usize,
    /// How many bytes of batches may be held before no further one is asked for. Default 16 MiB. What the reply brings
    /// that is arriving then, and the one that is asked for, comes on top; adapters read neither before the consumer waits
    /// for it.
    pub prefetch_bytes: usize,
    /// Whether the server may send one batch after another without being asked (an exhaust cursor). Default false.
    ///
    /// Replica set members since server 4.4 do so, and spare a round trip for each batch; others answer each getMore once, as
    /// always. How far the server gets ahead is then not for `prefetch_batches` and `prefetch_bytes` to say: a reply is read
    /// when the consumer waits for it, so that no more than a part of one is held beside the events that the consumer keeps, and the
    /// server stops when the socket's buffers are full.
    pub exhaust: bool,
    /// What to do when resuming fails. Default: what the specification says.
    pub resume_policy: ResumePolicy,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            pipeline: Vec::new(),
            full_document: None,
            full_document_before_change: None,
            resume_after: None,
            start_after: None,
            start_at_operation_time: None,
            max_await_time: None,
            timeout: None,
            batch_size: None,
            collation: None,
            comment: None,
            session: None,
            show_expanded_events: None,
            read_preference: None,
            read_concern: None,
            extra_stage_options: Document::new(),
            prefetch_batches: 1,
            prefetch_bytes: 16 << 20,
            exhaust: false,
            resume_policy: ResumePolicy::Specification,
        }
    }
}

/// `fullDocument`: which document an event of an update carries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FullDocument {
    /// `default`: none for updates.
    Default,
    /// `updateLookup`: the document as it is when the event is read.
    UpdateLookup,
    /// `whenAvailable`: the post-image, null if there is none (server 6.0).
    WhenAvailable,
    /// `required`: the post-image, an error if there is none (server 6.0).
    Required,
    /// Any other value, sent as it is.
    Other(String),
}

impl FullDocument {
    /// The value as it stands in the command.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Default => "default",
            Self::UpdateLookup => "updateLookup",
            Self::WhenAvailable => "whenAvailable",
            Self::Required => "required",
            Self::Other(value) => value,
        }
    }
}

/// Never fails: a value that is not known is kept as [`FullDocument::Other`], for the server to judge.
impl From<&str> for FullDocument {
    fn from(value: &str) -> Self {
        match value {
            "default" => Self::Default,
            "updateLookup" => Self::UpdateLookup,
            "whenAvailable" => Self::WhenAvailable,
            "required" => Self::Required,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// `fullDocumentBeforeChange`: whether an event carries the document as it was before the change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FullDocumentBeforeChange {
    /// `off`: no.
    Off,
    /// `whenAvailable`: the pre-image, null if there is none.
    WhenAvailable,
    /// `required`: the pre-image, an error if there is none.
    Required,
    /// Any other value, sent as it is.
    Other(String),
}

impl FullDocumentBeforeChange {
    /// The value as it stands in the command.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Off => "off",
            Self::WhenAvailable => "whenAvailable",
            Self::Required => "required",
            Self::Other(value) => value,
        }
    }
}

/// Never fails: a value that is not known is kept as [`FullDocumentBeforeChange::Other`], for the server to judge.
impl From<&str> for FullDocumentBeforeChange {
    fn from(value: &str) -> Self {
        match value {
            "off" => Self::Off,
            "whenAvailable" => Self::WhenAvailable,
            "required" => Self::Required,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What a stream does when it has to resume and resuming fails.
///
/// Under each policy a first resume starts at once, and one that follows another without a successful getMore in
/// between waits: exponentially longer, jittered, each attempt an [`Update::Resuming`](crate::Update::Resuming).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResumePolicy {
    /// As the change-streams specification says: if no server can be selected in time, or the aggregate that resumes
    /// fails, the stream ends with that error. The default.
    #[default]
    Specification,
    /// Keeps trying for this long after the failure that made it necessary.
    For(Duration),
    /// Keeps trying for ever.
    Forever,
}

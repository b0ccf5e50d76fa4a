//! The builder of a stream.

use std::fmt;
use std::time::Duration;

use bson::{Bson, Document, Timestamp};
use changestream_core::{
    Error, FullDocument, FullDocumentBeforeChange, ReadConcern, ReadPreference, ResumePolicy, ResumeToken,
    Scope, Session, WatchOptions,
};

use crate::{Client, Mode};

/// A change stream to be opened, and all of its options. What is not set is not sent: the server's default holds.
///
/// Made by `watch()` of a [`Client`], a [`Database`](crate::Database) or a [`Collection`](crate::Collection).
#[must_use = "nothing is watched before `open`"]
pub struct Watch<M: Mode> {
    client: Client<M>,
    scope: Scope,
    options: WatchOptions,
    /// `timeoutMS` of the database or collection.
    inherited_timeout: Option<Duration>,
    seed: Option<[u8; 32]>,
}

impl<M: Mode> Watch<M> {
    pub(crate) fn new(client: Client<M>, scope: Scope, inherited_timeout: Option<Duration>) -> Self {
        Self {
            client,
            scope,
            options: WatchOptions::default(),
            inherited_timeout,
            seed: None,
        }
    }

    /// Opens the stream: connects, selects a server and creates the cursor there.
    ///
    /// # Errors
    /// An option is illegal, no server was found in time, or the server refused.
    pub fn open(self) -> M::Opening {
        M::open(self.start())
    }

    /// Makes the stream without I/O. It opens when it is first used; or wait for it with `opened()`.
    ///
    /// # Errors
    /// An option is illegal.
    pub fn start(mut self) -> Result<M::Stream, Error> {
        self.options.timeout = self.options.timeout.or(self.inherited_timeout);
        self.client.stream(self.scope, self.options, self.seed)
    }

    /// All options at once, in place of those that were set before.
    pub fn options(mut self, options: WatchOptions) -> Self {
        self.options = options;
        self
    }

    /// The seed of every random choice that the stream makes: equal seeds make equal choices, for reproducible runs.
    /// Keep it secret where the deployment asks for a password: nonces come from it. Default: from the operating system.
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// The options: each method sets the field of [`WatchOptions`] that has its name.
impl<M: Mode> Watch<M> {
    /// Stages after `$changeStream`, sent as they are. Default: none.
    pub fn pipeline(mut self, stages: impl IntoIterator<Item = Document>) -> Self {
        self.options.pipeline = stages.into_iter().collect();
        self
    }

    /// `fullDocument`: which document an update event carries.
    pub fn full_document(mut self, value: FullDocument) -> Self {
        self.options.full_document = Some(value);
        self
    }

    /// `fullDocumentBeforeChange`: whether an event carries the document as it was before (server 6.0).
    pub fn full_document_before_change(mut self, value: FullDocumentBeforeChange) -> Self {
        self.options.full_document_before_change = Some(value);
        self
    }

    /// `resumeAfter`: go on after this token's event. Not with an invalidate event's token.
    pub fn resume_after(mut self, token: ResumeToken) -> Self {
        self.options.resume_after = Some(token);
        self
    }

    /// `startAfter`: as `resume_after`, also with an invalidate event's token (server 4.2).
    pub fn start_after(mut self, token: ResumeToken) -> Self {
        self.options.start_after = Some(token);
        self
    }

    /// `startAtOperationTime`: start with the changes at or after this cluster time (server 4.0).
    pub fn start_at_operation_time(mut self, time: Timestamp) -> Self {
        self.options.start_at_operation_time = Some(time);
        self
    }

    /// `maxAwaitTimeMS`: how long the server waits for a change before it answers with an empty batch. In whole
    /// milliseconds; the server's default is one second.
    pub fn max_await_time(mut self, time: Duration) -> Self {
        self.options.max_await_time = Some(time);
        self
    }

    /// `timeoutMS`: how long opening the stream may take, and each call for events, the resumes that it makes included. In
    /// whole milliseconds; zero is no limit. Default: what the collection, the database or the client says, and if they
    /// say nothing, `serverSelectionTimeoutMS`, `connectTimeoutMS` and `socketTimeoutMS` alone.
    ///
    /// Has to be longer than [`max_await_time`](Self::max_await_time), and should be longer than the server's default for
    /// that, one second, where it is not set. A call that runs out of time ends with an error whose
    /// [`is_timeout`](Error::is_timeout) is true, and leaves the stream alive.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.options.timeout = Some(time);
        self
    }

    /// `batchSize`: the most events in a batch. 0 opens the stream without a first batch.
    pub fn batch_size(mut self, events: u32) -> Self {
        self.options.batch_size = Some(events);
        self
    }

    /// `collation` for the pipeline.
    pub fn collation(mut self, collation: Document) -> Self {
        self.options.collation = Some(collation);
        self
    }

    /// `comment`, for the server's logs and profiler; on getMore too from server 4.4 on.
    pub fn comment(mut self, comment: impl Into<Bson>) -> Self {
        self.options.comment = Some(comment.into());
        self
    }

    /// The session to run in. Default: one of the stream's own, ended when it is closed.
    pub fn session(mut self, session: Session) -> Self {
        self.options.session = Some(session);
        self
    }

    /// `showExpandedEvents`: events for index builds, create, modify and the like (server 6.0).
    pub fn show_expanded_events(mut self, show: bool) -> Self {
        self.options.show_expanded_events = Some(show);
        self
    }

    /// Which members may serve the stream. Default: as the client's options say.
    pub fn read_preference(mut self, preference: ReadPreference) -> Self {
        self.options.read_preference = Some(preference);
        self
    }

    /// The read concern. Default: as the client's options say. Servers accept `majority` only.
    pub fn read_concern(mut self, concern: ReadConcern) -> Self {
        self.options.read_concern = Some(concern);
        self
    }

    /// Further fields of the `$changeStream` stage, for options that this version does not know.
    pub fn extra_stage_options(mut self, options: Document) -> Self {
        self.options.extra_stage_options = options;
        self
    }

    /// How many batches may be asked for ahead of the one that is being consumed. Default 1. With 0 a getMore leaves
    /// only when the consumer waits for it.
    pub fn prefetch_batches(mut self, batches: usize) -> Self {
        self.options.prefetch_batches = batches;
        self
    }

    /// Whether the server may send one batch after another without being asked. Default false. Replica set members since
    /// server 4.4 do so, and spare a round trip for each batch; how far they get ahead is for the socket's buffers to say,
    /// not for the prefetch options. With other servers it is without effect.
    pub fn exhaust(mut self, exhaust: bool) -> Self {
        self.options.exhaust = exhaust;
        self
    }

    /// How many bytes of batches may be held before no further one is asked for. Default 16 MiB. What is on its way comes
    /// on top, and is read when the consumer waits for it.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.options.prefetch_bytes = bytes;
        self
    }

    /// What to do when resuming fails. Default: what the specification says.
    pub fn resume_policy(mut self, policy: ResumePolicy) -> Self {
        self.options.resume_policy = policy;
        self
    }
}

impl<M: Mode> Clone for Watch<M> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            scope: self.scope.clone(),
            options: self.options.clone(),
            inherited_timeout: self.inherited_timeout,
            seed: self.seed,
        }
    }
}

/// Without the seed, which may be a secret.
impl<M: Mode> fmt::Debug for Watch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("scope", &self.scope)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

//! Cursors, and the batches that they answer with.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bson::raw::{RawArrayBuf, RawDocumentBuf, cstr};
use bson::rawdoc;

use crate::change_stream::{ChangeStream, Sink};
use crate::reply::{Reply, raw};
use crate::sharding::MergedStream;
use crate::token::EncodedToken;

/// A cursor of a member.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) id: i64,
    /// The namespace that getMore must name.
    pub(crate) namespace: String,
    pub(crate) kind: Kind,
    pub(crate) session: Option<Vec<u8>>,
    pub(crate) user: Option<String>,
    pub(crate) last_used: Instant,
}

/// What a cursor reads.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Documents that were found when it was opened.
    Documents(VecDeque<RawDocumentBuf>),
    /// A change stream.
    ChangeStream(Box<ChangeStream>),
    /// A change stream of a mongos.
    Merged(Box<MergedStream>),
}

impl Cursor {
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_used) > IDLE_TIMEOUT
    }
}

/// A batch under way.
#[derive(Debug)]
pub(crate) struct Batch {
    documents: RawArrayBuf,
    count: u64,
    bytes: usize,
    limit: u64,
}

impl Batch {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            documents: RawArrayBuf::new(),
            count: 0,
            bytes: 0,
            limit: limit.unwrap_or(u64::MAX),
        }
    }

    /// Whether a further document of this many bytes belongs to the next batch.
    pub(crate) fn is_full_for(&self, bytes: usize) -> bool {
        self.count >= self.limit || (self.count > 0 && self.bytes.saturating_add(bytes) > MAX_BATCH_BYTES)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count >= self.limit
    }

    pub(crate) fn push(&mut self, document: RawDocumentBuf) {
        self.bytes += document.as_bytes().len();
        self.count += 1;
        self.documents.push(document);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The reply, as the server lays it out.
    pub(crate) fn reply(self, first: bool, token: Option<&EncodedToken>, id: i64, namespace: &str) -> Reply {
        let mut cursor = RawDocumentBuf::new();
        cursor.append(
            if first {
                cstr!("firstBatch")
            } else {
                cstr!("nextBatch")
            },
            self.documents,
        );
        if let Some(token) = token {
            cursor.append(cstr!("postBatchResumeToken"), raw(&token.to_document()));
        }
        cursor.append(cstr!("id"), id);
        cursor.append(cstr!("ns"), namespace);
        Reply::Success(rawdoc! { "cursor": cursor })
    }

    /// The reply to a getMore, as a mongos lays it out.
    pub(crate) fn merged_reply(self, token: Option<&EncodedToken>, id: i64, namespace: &str) -> Reply {
        let mut cursor = RawDocumentBuf::new();
        cursor.append(cstr!("id"), id);
        cursor.append(cstr!("ns"), namespace);
        cursor.append(cstr!("nextBatch"), self.documents);
        if let Some(token) = token {
            cursor.append(cstr!("postBatchResumeToken"), raw(&token.to_document()));
        }
        Reply::Success(rawdoc! { "cursor": cursor })
    }
}

impl Sink for Batch {
    fn is_full(&self) -> bool {
        Self::is_full(self)
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        Self::is_full_for(self, bytes)
    }

    fn take(&mut self, _: &EncodedToken, event: RawDocumentBuf) {
        self.push(event);
    }
}

/// Moves documents to a batch until it is full.
pub(crate) fn take(documents: &mut VecDeque<RawDocumentBuf>, batch: &mut Batch) {
    while documents
        .front()
        .is_some_and(|d| !batch.is_full_for(d.as_bytes().len()))
    {
        if let Some(document) = documents.pop_front() {
            batch.push(document);
        }
    }
}

/// `FindCommon::kMaxBytesToReturnToClientAtOnce`.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// `cursorTimeoutMillis`, ten minutes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How many documents the first batch has where the command does not say.
pub(crate) const DEFAULT_FIRST_BATCH: u64 = 101;

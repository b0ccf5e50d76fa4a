//! Cursors, and the batches that they answer with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::raw::{RawDocumentBuf, cstr};
use bson::{RawDocument, Timestamp};
use bytes::Bytes;

use crate::change_stream::{ChangeStream, Sink};
use crate::connection::HEADROOM;
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
    /// How many bytes of documents its last batch had: the next one has about as many.
    pub(crate) last_batch: usize,
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

/// A batch under way, in the reply's message from the start: what goes into it is copied once.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Room for the message's header, then the beginning of the reply's document.
    message: Vec<u8>,
    cursor_at: usize,
    head: Head,
    documents_at: usize,
    count: u64,
    bytes: usize,
    limit: u64,
    at_cluster_time: Option<Timestamp>,
}

/// What stands before the documents.
#[derive(Clone, Copy, Debug)]
enum Head {
    /// Nothing: the cursor's id and namespace follow.
    Empty,
    /// The namespace and, at this place, the id, which is known in the end.
    Id(usize),
}

impl Batch {
    /// The batch of a cursor that is opened.
    pub(crate) fn first(limit: Option<u64>) -> Self {
        Self::begin("firstBatch", limit, None, Vec::new())
    }

    /// The batch of a getMore, in this memory.
    pub(crate) fn next(limit: Option<u64>, memory: Vec<u8>) -> Self {
        Self::begin("nextBatch", limit, None, memory)
    }

    /// The batch of a getMore, as a mongos lays it out.
    pub(crate) fn merged(limit: Option<u64>, memory: Vec<u8>, namespace: &str) -> Self {
        Self::begin("nextBatch", limit, Some(namespace), memory)
    }

    fn begin(field: &str, limit: Option<u64>, namespace_before: Option<&str>, mut message: Vec<u8>) -> Self {
        message.resize(HEADROOM, 0);
        begin_document(&mut message);
        begin_element(&mut message, DOCUMENT, "cursor");
        let cursor_at = begin_document(&mut message);
        let head = match namespace_before {
            None => Head::Empty,
            Some(namespace) => {
                begin_element(&mut message, INT64, "id");
                let id_at = message.len();
                message.extend_from_slice(&[0; 8]);
                let mut rest = RawDocumentBuf::new();
                rest.append(cstr!("ns"), namespace);
                message.extend_from_slice(elements(&rest));
                Head::Id(id_at)
            }
        };
        begin_element(&mut message, ARRAY, field);
        let documents_at = begin_document(&mut message);
        Self {
            message,
            cursor_at,
            head,
            documents_at,
            count: 0,
            bytes: 0,
            limit: limit.unwrap_or(u64::MAX),
            at_cluster_time: None,
        }
    }

    /// Whether a further document of this many bytes belongs to the next batch.
    pub(crate) fn is_full_for(&self, bytes: usize) -> bool {
        self.is_full() || (!self.is_empty() && self.bytes.saturating_add(bytes) > MAX_BATCH_BYTES)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count >= self.limit
    }

    /// Adds a document, as BSON.
    pub(crate) fn push(&mut self, document: &[u8]) {
        begin_indexed(&mut self.message, DOCUMENT, self.count);
        self.message.extend_from_slice(document);
        self.bytes += document.len();
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes its documents have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Says that what it has was read as of a moment.
    pub(crate) fn as_of(&mut self, at: Option<Timestamp>) {
        self.at_cluster_time = at;
    }

    /// The reply, as the server lays it out.
    pub(crate) fn reply(mut self, token: Option<&EncodedToken>, id: i64, namespace: &str) -> Reply {
        end_document(&mut self.message, self.documents_at);
        let mut rest = RawDocumentBuf::new();
        if let Some(token) = token {
            rest.append(cstr!("postBatchResumeToken"), raw(&token.to_document()));
        }
        match self.head {
            Head::Empty => {
                rest.append(cstr!("id"), id);
                rest.append(cstr!("ns"), namespace);
            }
            Head::Id(at) => {
                if let Some(space) = self.message.get_mut(at..at + 8) {
                    space.copy_from_slice(&id.to_le_bytes());
                }
            }
        }
        if let Some(at) = self.at_cluster_time {
            rest.append(cstr!("atClusterTime"), at);
        }
        self.message.extend_from_slice(elements(&rest));
        end_document(&mut self.message, self.cursor_at);
        Reply::Cursor(Box::new(CursorReply(self.message)))
    }
}

impl Sink for Batch {
    fn is_full(&self) -> bool {
        Self::is_full(self)
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        Self::is_full_for(self, bytes)
    }

    fn take(&mut self, _: &Arc<EncodedToken>, event: &Bytes) {
        self.push(event);
    }
}

/// A reply with a batch: a message that lacks its header and its document's last fields.
#[derive(Clone, Debug)]
pub(crate) struct CursorReply(Vec<u8>);

impl CursorReply {
    /// The message with its document's last fields, still without its header.
    pub(crate) fn message(mut self, last: &RawDocument) -> Vec<u8> {
        self.0.extend_from_slice(elements(last));
        end_document(&mut self.0, HEADROOM);
        self.0
    }

    /// The document so far.
    pub(crate) fn document(self) -> RawDocumentBuf {
        let message = self.message(&RawDocumentBuf::new());
        let document = message.get(HEADROOM..).unwrap_or_default();
        RawDocumentBuf::from_bytes(document.to_vec()).unwrap_or_default()
    }
}

/// Where a document begins, its length being written at its end.
fn begin_document(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; 4]);
    out.len() - 4
}

fn end_document(out: &mut Vec<u8>, at: usize) {
    out.push(0);
    let length = i32::try_from(out.len() - at).unwrap_or(i32::MAX);
    if let Some(space) = out.get_mut(at..at + 4) {
        space.copy_from_slice(&length.to_le_bytes());
    }
}

/// What stands before an element's value.
fn begin_element(out: &mut Vec<u8>, kind: u8, name: &str) {
    out.push(kind);
    out.extend_from_slice(name.as_bytes());
    out.push(0);
}

/// The same, of an array.
fn begin_indexed(out: &mut Vec<u8>, kind: u8, index: u64) {
    out.push(kind);
    let start = out.len();
    let mut left = index;
    while left > 9 {
        out.push(digit(left % 10));
        left /= 10;
    }
    out.push(digit(left));
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
    out.push(0);
}

fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value).unwrap_or(0)
}

/// A document without its length and its NUL.
fn elements(document: &RawDocument) -> &[u8] {
    let bytes = document.as_bytes();
    bytes.get(4..bytes.len() - 1).unwrap_or_default()
}

/// Moves documents to a batch until it is full.
pub(crate) fn take(documents: &mut VecDeque<RawDocumentBuf>, batch: &mut Batch) {
    while documents
        .front()
        .is_some_and(|d| !batch.is_full_for(d.as_bytes().len()))
    {
        if let Some(document) = documents.pop_front() {
            batch.push(document.as_bytes());
        }
    }
}

/// `FindCommon::kMaxBytesToReturnToClientAtOnce`.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// `cursorTimeoutMillis`, ten minutes.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How many documents the first batch has where the command does not say.
pub(crate) const DEFAULT_FIRST_BATCH: u64 = 101;
/// BSON's numbers of types (bsonspec.org).
const DOCUMENT: u8 = 3;
const ARRAY: u8 = 4;
const INT64: u8 = 18;

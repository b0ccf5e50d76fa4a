//! A command's reply, read so far as the machine needs it.

use std::time::Duration;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use bson::{Document, Timestamp};
use bytes::Bytes;

use super::batch::Batch;
use crate::connection::reply;
use crate::token::ResumeToken;
use crate::topology::TopologyVersion;
use crate::tree;
use crate::walk::{self, Element};
use crate::{Error, ServerError};

/// A command's reply with the fields that every command shares.
#[derive(Clone, Debug)]
pub struct CommandReply {
    /// The whole document.
    pub(crate) body: Bytes,
    /// The error, if `ok` is not 1.
    pub(crate) error: Option<ServerError>,
    /// `operationTime`: when the server ran the command, in cluster time.
    pub(crate) operation_time: Option<Timestamp>,
    /// `$clusterTime`, to be gossiped on.
    pub(crate) cluster_time: Option<ClusterTime>,
    /// Whether another reply follows that nobody has to ask for.
    pub(crate) more_to_come: bool,
}

impl CommandReply {
    /// Reads a reply's shared fields. Everything else is located when it is asked for.
    ///
    /// # Errors
    /// The bytes are no BSON document on the outermost level.
    pub fn parse(body: Bytes) -> Result<Self, Error> {
        let document = RawDocument::from_bytes(&body).map_err(malformed)?;
        let (mut ok, mut operation_time, mut cluster_time) = (false, None, None);
        let mut elements = walk::elements(&body);
        for element in &mut elements {
            // The cursor may be megabytes; whoever wants it looks for it.
            match element.key() {
                b"ok" => ok = reply::says_ok(value(element, document)?),
                b"operationTime" => operation_time = value(element, document)?.as_timestamp(),
                b"$clusterTime" => {
                    cluster_time = value(element, document)?.as_document().and_then(ClusterTime::new);
                }
                _ => {}
            }
        }
        if !elements.ended_well() {
            return Err(broken(document));
        }
        Ok(Self {
            error: (!ok).then(|| reply::server_error(document)),
            operation_time,
            cluster_time,
            more_to_come: false,
            body,
        })
    }

    /// The same reply, of a message that says whether another one follows without being asked for (`moreToCome`).
    #[must_use]
    pub fn more_to_come(self, more_to_come: bool) -> Self {
        Self { more_to_come, ..self }
    }

    /// The reply, as it came.
    pub fn as_raw(&self) -> &RawDocument {
        RawDocument::from_bytes(&self.body)
            .expect("the bytes were found to be a document when they were parsed")
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.body
    }

    /// The reply, decoded.
    ///
    /// # Errors
    /// It is no valid BSON further inside, or nests deeper than 250 levels.
    pub fn to_document(&self) -> Result<Document, Error> {
        tree::document(&self.body).map_err(|broken| Error::protocol(format!("in a reply, {broken}")))
    }

    /// `topologyVersion`: how new the server's view of itself is. Errors carry it.
    pub(crate) fn topology_version(&self) -> Option<TopologyVersion> {
        let reply = RawDocument::from_bytes(&self.body).ok()?;
        TopologyVersion::parse(reply.get_document("topologyVersion").ok()?)
    }

    /// `baseBackoffMS`: what an overloaded server asks the pauses between tries to begin with.
    pub(crate) fn base_backoff(&self) -> Option<Duration> {
        let reply = RawDocument::from_bytes(&self.body).ok()?;
        let milliseconds = reply::integer(reply, "baseBackoffMS")?;
        u64::try_from(milliseconds).ok().map(Duration::from_millis)
    }

    /// The errors that a reply may hold although it says `ok: 1`: those of single writes, and of the write concern.
    pub(crate) fn write_errors(&self) -> impl Iterator<Item = ServerError> {
        let reply = RawDocument::from_bytes(&self.body).ok();
        let array = reply.and_then(|reply| reply.get_array("writeErrors").ok());
        let of_writes = array
            .into_iter()
            .flatten()
            .filter_map(|error| error.ok()?.as_document());
        let of_concern = reply.and_then(|reply| reply.get_document("writeConcernError").ok());
        of_writes.chain(of_concern).map(reply::server_error)
    }

    /// The cursor in the reply of an aggregate or a getMore.
    ///
    /// # Errors
    /// There is none, or it is not of the specified form. Nothing that a resume would mend.
    pub(crate) fn cursor(&self) -> Result<CursorReply, Error> {
        let cursor = walk::find(&self.body, "cursor")
            .and_then(|element| element.value()?.as_document())
            .ok_or_else(|| Error::protocol("a reply without `cursor`"))?;
        let mut id = None;
        let mut namespace = None;
        let mut batch = None;
        let mut post_batch_resume_token = None;
        let mut invalidated = false;
        let mut elements = walk::elements(cursor.as_bytes());
        for element in &mut elements {
            match element.key() {
                b"id" => {
                    let value = value(element, cursor)?;
                    id = value.as_i64().or_else(|| value.as_i32().map(i64::from));
                }
                b"ns" => namespace = value(element, cursor)?.as_str().map(str::to_owned),
                b"firstBatch" | b"nextBatch" if element.kind() == walk::ARRAY => {
                    let array = RawDocument::from_bytes(element.bytes()).map_err(malformed)?;
                    batch = Some(Batch::new(self.body.slice_ref(array.as_bytes())));
                }
                b"postBatchResumeToken" => {
                    let token = value(element, cursor)?;
                    post_batch_resume_token = Some(ResumeToken::within(self.body.clone(), token));
                }
                b"invalidated" => invalidated = value(element, cursor)?.as_bool() == Some(true),
                _ => {}
            }
        }
        if !elements.ended_well() {
            return Err(broken(cursor));
        }
        Ok(CursorReply {
            id: id.ok_or_else(|| Error::protocol("a cursor without `id`"))?,
            namespace,
            batch: batch.ok_or_else(|| Error::protocol("a cursor without a batch"))?,
            post_batch_resume_token,
            invalidated,
        })
    }
}

/// The cursor in a reply.
#[derive(Debug)]
pub(crate) struct CursorReply {
    /// 0 if the cursor is exhausted.
    pub(crate) id: i64,
    /// `ns`: the namespace that a getMore has to name.
    pub(crate) namespace: Option<String>,
    pub(crate) batch: Batch,
    pub(crate) post_batch_resume_token: Option<ResumeToken>,
    /// Whether the server says that what was watched is gone; servers before 5.0 do not say it.
    pub(crate) invalidated: bool,
}

/// A `$clusterTime` document, signature and all: gossiped as it came (Driver Sessions, "Gossipping the Cluster Time").
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterTime {
    time: Timestamp,
    document: RawDocumentBuf,
}

impl ClusterTime {
    /// The cluster time in that document; none if there is none.
    pub fn new(document: &RawDocument) -> Option<Self> {
        Some(Self {
            time: walk::find(document.as_bytes(), "clusterTime")?
                .value()?
                .as_timestamp()?,
            document: document.to_owned(),
        })
    }

    /// The cluster time that a reply carries.
    pub(crate) fn of_reply(reply: &[u8]) -> Option<Self> {
        let reply = RawDocument::from_bytes(reply).ok()?;
        Self::new(reply.get_document("$clusterTime").ok()?)
    }

    /// The time itself.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The document, to be sent with a command.
    pub fn document(&self) -> &RawDocument {
        &self.document
    }

    /// Takes the newer of both.
    pub(crate) fn advance(known: &mut Option<Self>, seen: Option<Self>) {
        let Some(seen) = seen else { return };
        if known.as_ref().is_none_or(|known| known.time < seen.time) {
            *known = Some(seen);
        }
    }
}

/// A field's value. Seldom kinds are left to the library.
fn value<'a>(element: Element<'a>, document: &'a RawDocument) -> Result<RawBsonRef<'a>, Error> {
    if let Some(value) = element.value() {
        return Ok(value);
    }
    let name = str::from_utf8(element.key()).unwrap_or_default();
    let value = document.get(name).map_err(malformed)?;
    value.ok_or_else(|| broken(document))
}

/// Why the document cannot be stepped through.
fn broken(document: &RawDocument) -> Error {
    match document.iter_elements().find_map(Result::err) {
        Some(error) => malformed(error),
        None => Error::protocol("a reply is not valid BSON"),
    }
}

fn malformed(error: bson::error::Error) -> Error {
    Error::protocol(format!("a reply is not valid BSON: {error}"))
}

//! A command's reply, read so far as the machine needs it.

use std::time::Duration;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use bson::{Document, Timestamp, spec::ElementType};
use bytes::Bytes;

use super::batch::Batch;
use crate::connection::reply;
use crate::token::ResumeToken;
use crate::topology::TopologyVersion;
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
        for element in document.iter_elements() {
            let element = element.map_err(malformed)?;
            let value = || element.value().map_err(malformed);
            // The cursor may be megabytes; whoever wants it looks for it.
            match element.key().as_str() {
                "ok" => ok = reply::says_ok(value()?),
                "operationTime" => operation_time = value()?.as_timestamp(),
                "$clusterTime" => cluster_time = value()?.as_document().and_then(ClusterTime::new),
                _ => {}
            }
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
    /// It is no valid BSON further inside.
    pub fn to_document(&self) -> Result<Document, Error> {
        Document::try_from(self.as_raw()).map_err(malformed)
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
        let reply = RawDocument::from_bytes(&self.body).map_err(malformed)?;
        let Some(RawBsonRef::Document(cursor)) = reply.get("cursor").map_err(malformed)? else {
            return Err(Error::protocol("a reply without `cursor`"));
        };
        let mut id = None;
        let mut namespace = None;
        let mut batch = None;
        let mut post_batch_resume_token = None;
        for element in cursor.iter_elements() {
            let element = element.map_err(malformed)?;
            let value = || element.value().map_err(malformed);
            match element.key().as_str() {
                "id" => {
                    id = value()?
                        .as_i64()
                        .or_else(|| value().ok()?.as_i32().map(i64::from))
                }
                "ns" => namespace = value()?.as_str().map(str::to_owned),
                "firstBatch" | "nextBatch" if element.element_type() == ElementType::Array => {
                    let array = value()?;
                    let bytes = array.as_array().map(|array| array.as_bytes());
                    batch = bytes.map(|bytes| Batch::new(self.body.slice_ref(bytes)));
                }
                "postBatchResumeToken" => {
                    post_batch_resume_token = Some(ResumeToken::within(self.body.clone(), value()?));
                }
                _ => {}
            }
        }
        Ok(CursorReply {
            id: id.ok_or_else(|| Error::protocol("a cursor without `id`"))?,
            namespace,
            batch: batch.ok_or_else(|| Error::protocol("a cursor without a batch"))?,
            post_batch_resume_token,
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
            time: document.get_timestamp("clusterTime").ok()?,
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

fn malformed(error: bson::error::Error) -> Error {
    Error::protocol(format!("a reply is not valid BSON: {error}"))
}

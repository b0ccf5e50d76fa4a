//! What the replies to commands say that operations come to.

use bson::{Bson, Document, doc};
use changestream_core::{Error, ErrorKind, ServerError};

/// How the reply tells an operation's result.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// The reply is the result.
    Reply,
    /// There is none.
    Nothing,
    /// As nothing, and a namespace that does not exist is no error.
    Dropped,
    Inserted(Document),
    Updated,
    Deleted,
    /// The documents of a cursor.
    Cursor(Batches),
    /// The first document of a cursor, or null.
    First,
    /// The field `value`: a document, or null.
    Value,
    /// The only document of a cursor, by this field.
    CountIn(&'static str),
    Values,
}

impl Shape {
    /// What a reply says the result is, or the error that it says although it says `ok`.
    pub(super) fn read(&self, reply: &Document) -> Result<Option<Bson>, Error> {
        if let Some(error) = write_error(reply) {
            return Err(error);
        }
        let count = |name: &str| reply.get(name).cloned().unwrap_or(Bson::Int32(0));
        Ok(match self {
            Self::Reply => Some(Bson::Document(reply.clone())),
            Self::Nothing | Self::Dropped => None,
            Self::Inserted(result) => Some(Bson::Document(result.clone())),
            Self::Updated => Some(Bson::Document(updated(reply))),
            Self::Deleted => Some(doc! { "deletedCount": count("n") }.into()),
            Self::Cursor(_) => Some(Bson::Array(batch(reply))),
            Self::First => Some(batch(reply).into_iter().next().unwrap_or(Bson::Null)),
            Self::Value => Some(reply.get("value").cloned().unwrap_or(Bson::Null)),
            Self::CountIn("n") => Some(count("n")),
            Self::CountIn(_) => Some(
                batch(reply)
                    .first()
                    .and_then(|document| document.as_document()?.get("n").cloned())
                    .unwrap_or(Bson::Int32(0)),
            ),
            Self::Values => Some(count("values")),
        })
    }
}

fn updated(reply: &Document) -> Document {
    let upserted = reply.get_array("upserted").ok();
    let number = |name: &str| reply.get_i32(name).unwrap_or(0);
    let upserts = upserted.map_or(0, |list| i32::try_from(list.len()).unwrap_or(i32::MAX));
    let mut result = doc! {
        "matchedCount": number("n") - upserts,
        "modifiedCount": number("nModified"),
        "upsertedCount": upserts,
    };
    let first = upserted.and_then(|list| list.first()?.as_document()?.get("_id").cloned());
    if let Some(id) = first {
        result.insert("upsertedId", id);
    }
    result
}

/// The documents in a cursor's reply.
pub(super) fn batch(reply: &Document) -> Vec<Bson> {
    let cursor = reply.get_document("cursor").ok();
    let batch = cursor.and_then(|cursor| {
        ["firstBatch", "nextBatch"]
            .into_iter()
            .find_map(|name| cursor.get_array(name).ok())
    });
    batch.cloned().unwrap_or_default()
}

fn write_error(reply: &Document) -> Option<Error> {
    let first = reply
        .get_array("writeErrors")
        .ok()
        .and_then(|errors| errors.first()?.as_document());
    let said = first.or_else(|| reply.get_document("writeConcernError").ok())?;
    let mut error = ServerError::new(
        said.get_i32("code").unwrap_or(0),
        said.get_str("codeName").unwrap_or_default(),
        said.get_str("errmsg").unwrap_or_default(),
    );
    let labels = reply.get_array("errorLabels").into_iter().flatten();
    error.labels = labels
        .filter_map(|label| label.as_str().map(str::to_owned))
        .collect();
    Some(Error::from(ErrorKind::Server(error)))
}

/// In what batches a cursor is asked for more.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    pub(super) size: Option<Bson>,
    /// How many documents there are to be at all.
    pub(super) limit: Option<i64>,
}

impl Batches {
    /// The size of the next batch, after so many documents: never more than are wanted.
    pub(super) fn next_size(&self, read: usize) -> Option<Bson> {
        let left = self
            .limit
            .map(|limit| limit - i64::try_from(read).unwrap_or(i64::MAX));
        match (whole(self.size.as_ref()?), left) {
            (Some(size), Some(left)) if 0 < left && left < size => Some(Bson::Int64(left)),
            _ => self.size.clone(),
        }
    }
}

pub(super) fn whole(number: &Bson) -> Option<i64> {
    number.as_i64().or_else(|| number.as_i32().map(i64::from))
}

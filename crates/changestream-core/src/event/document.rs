//! A ready type for an event, for those who want all of it decoded.

use bson::{DateTime, Document, Timestamp, Uuid};
use serde::{Deserialize, Serialize};

use super::{NsType, OperationType, SplitEvent, whole};
use crate::token::ResumeToken;

/// An event, decoded: `event.decode::<ChangeStreamDocument<Order>>()`.
///
/// The fields of the change-streams specification's type of this name, each optional, since pipelines and fragments
/// of split events can lack any. `T` is the type of your documents. A null document is none, as an absent one is:
/// where the difference matters, ask [`ChangeEvent::full_document`](super::ChangeEvent::full_document). A `T` that borrows
/// from the event is had by [`ChangeEvent::full_document_as`](super::ChangeEvent::full_document_as).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    bound(deserialize = "T: Deserialize<'de> + 'static")
)]
#[non_exhaustive]
pub struct ChangeStreamDocument<T = Document> {
    /// `_id`, the resume token.
    #[serde(rename = "_id")]
    pub id: Option<ResumeToken>,
    /// What happened.
    pub operation_type: Option<OperationType>,
    /// When it happened, in the cluster's logical time.
    pub cluster_time: Option<Timestamp>,
    /// When it happened, by the server's clock (server 6.0).
    pub wall_time: Option<DateTime>,
    /// Where it happened.
    pub ns: Option<Namespace>,
    /// What kind of thing was created.
    pub ns_type: Option<NsType>,
    /// The new name of a renamed collection.
    pub to: Option<Namespace>,
    /// `_id` of the document, and its shard key.
    #[serde(default, deserialize_with = "whole::optional")]
    pub document_key: Option<Document>,
    /// Which fields changed.
    pub update_description: Option<UpdateDocument>,
    /// The document after the change.
    #[serde(default = "none", deserialize_with = "whole::optional")]
    pub full_document: Option<T>,
    /// The document before the change.
    #[serde(default = "none", deserialize_with = "whole::optional")]
    pub full_document_before_change: Option<T>,
    /// The session of the transaction that the change was part of.
    #[serde(default, deserialize_with = "whole::optional")]
    pub lsid: Option<Document>,
    /// The number of the transaction that the change was part of.
    pub txn_number: Option<i64>,
    /// Which fragment of a split event this is.
    pub split_event: Option<SplitEvent>,
    /// What exactly a DDL operation did.
    #[serde(default, deserialize_with = "whole::optional")]
    pub operation_description: Option<Document>,
    /// The collection's UUID.
    #[serde(rename = "collectionUUID")]
    pub collection_uuid: Option<Uuid>,
}

/// A database and, unless the event is about the whole database, a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Namespace {
    /// Name of the database.
    pub db: String,
    /// Name of the collection.
    pub coll: Option<String>,
}

/// `updateDescription`, decoded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct UpdateDocument {
    /// The new value of each field that was set, by its dotted path.
    #[serde(deserialize_with = "whole::required")]
    pub updated_fields: Document,
    /// Dotted paths of the fields that were removed.
    pub removed_fields: Vec<String>,
    /// Arrays that were cut at their end.
    pub truncated_arrays: Option<Vec<TruncatedArrayDocument>>,
    /// For ambiguous paths, their parts.
    #[serde(deserialize_with = "whole::optional")]
    pub disambiguated_paths: Option<Document>,
}

/// An array that an update cut at its end, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TruncatedArrayDocument {
    /// Dotted path of the array.
    pub field: String,
    /// How many elements it has now.
    pub new_size: u32,
}

/// So that `T` needs no default of its own.
fn none<T>() -> Option<T> {
    None
}

//! Change events: raw, lazy, slices of the reply that they came in.

mod decode;
mod deserializer;
mod document;
#[cfg(feature = "extended-json")]
mod extended_json;
mod field;
mod operation_type;
mod whole;

use std::fmt;
use std::ops::Range;

use bson::raw::RawBsonRef;
use bson::spec::BinarySubtype;
use bson::{DateTime, RawDocument, RawDocumentBuf, Timestamp, Uuid};
use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::token::ResumeToken;
use crate::tree;
use crate::walk;

pub use decode::DecodeError;
pub use document::{ChangeStreamDocument, Namespace, TruncatedArrayDocument, UpdateDocument};
#[cfg(feature = "extended-json")]
pub use extended_json::ExtendedJson;
pub use field::{FieldState, NamespaceRef, NsType, SplitEvent, TruncatedArray, UpdateDescription};
pub use operation_type::OperationType;

/// One change event.
///
/// Holds a slice of the reply that it came in: as long as it lives, so does that reply's buffer
/// ([`into_owned`](Self::into_owned) copies it out). Cloning copies no event.
///
/// # Accessors
/// There is one for each field of the change-streams specification's `ChangeStreamDocument`. Each looks its field up
/// when it is called, one walk over the event's top level, and copies nothing. All follow one rule: **a field that is
/// not there, that has another type than the specification gives it, or that cannot be read is `None`**
/// ([`FieldState::Absent`]), since a pipeline may remove or replace anything but `_id`. Where the difference matters,
/// [`get`](Self::get) gives any field as it is and says why it cannot, and [`decode`](Self::decode) says what does not
/// fit.
#[derive(Clone)]
pub struct ChangeEvent {
    /// Stands in the event.
    token: ResumeToken,
}

impl ChangeEvent {
    /// An event of this document: for tests of what consumes events.
    ///
    /// # Errors
    /// [`MissingToken`] if it has no `_id`.
    ///
    /// ```
    /// use changestream_core::event::{ChangeEvent, OperationType};
    ///
    /// let event = ChangeEvent::from_raw(bson::rawdoc! {
    ///     "_id": { "_data": "82" },
    ///     "operationType": "insert",
    ///     "ns": { "db": "shop", "coll": "orders" },
    ///     "fullDocument": { "_id": 1 },
    /// })?;
    /// assert_eq!(event.operation_type(), Some(OperationType::Insert));
    /// assert_eq!(event.namespace().unwrap().to_string(), "shop.orders");
    /// # Ok::<(), changestream_core::event::MissingToken>(())
    /// ```
    pub fn from_raw(document: RawDocumentBuf) -> Result<Self, MissingToken> {
        Self::from_reply(document.into_bytes().into())
    }

    /// The event that these bytes of a reply are.
    pub(crate) fn from_reply(event: Bytes) -> Result<Self, MissingToken> {
        if let Some(place) = walk::leading_id(&event)
            && let Some(token) = ResumeToken::at(event.clone(), &place)
        {
            return Ok(Self { token });
        }
        let document = RawDocument::from_bytes(&event).map_err(|_| MissingToken)?;
        let id = field::get(document, "_id").ok_or(MissingToken)?;
        let token = ResumeToken::within(event.clone(), id);
        Ok(Self { token })
    }

    /// The event at that place of an array, if its first field is an `_id` that is a document, as servers have it; and
    /// where in the array that is.
    #[inline]
    pub(crate) fn in_array(array: &Bytes, place: &Range<usize>) -> Option<(Self, Range<usize>)> {
        let id = walk::leading_id(array.get(place.clone())?)?;
        let token = ResumeToken::at(array.slice(place.clone()), &id)?;
        Some((Self { token }, place.start + id.start..place.start + id.end))
    }

    /// The whole event as the server sent it.
    pub fn as_raw(&self) -> &RawDocument {
        RawDocument::from_bytes(self.token.whole()).expect("checked before the event was made")
    }

    /// The event's own resume token, its `_id`.
    ///
    /// It shares the reply's buffer, as the event does. To store it for long, clone it and take
    /// [`ResumeToken::into_owned`].
    pub fn resume_token(&self) -> &ResumeToken {
        &self.token
    }

    /// The same event in memory of its own, so that it no longer keeps the reply alive that it came in.
    #[must_use]
    pub fn into_owned(self) -> Self {
        Self::from_reply(Bytes::copy_from_slice(self.token.whole())).unwrap_or(self)
    }

    /// Any field, as it is; none if it is not there.
    ///
    /// # Errors
    /// [`FieldError`] if the event is malformed at the field or before it.
    pub fn get(&self, name: &str) -> Result<Option<RawBsonRef<'_>>, FieldError> {
        self.as_raw()
            .get(name)
            .map_err(|error| FieldError::new(Some(name.to_owned()), error.to_string()))
    }

    /// `operationType`: what happened.
    pub fn operation_type(&self) -> Option<OperationType> {
        self.field("operationType")?.as_str().map(OperationType::from)
    }

    /// `ns`: where it happened. None in invalidate events.
    pub fn namespace(&self) -> Option<NamespaceRef<'_>> {
        NamespaceRef::from_value(self.field("ns")?)
    }

    /// `nsType`: what kind of thing was created (server 8.1, `create` events).
    pub fn ns_type(&self) -> Option<NsType> {
        self.field("nsType")?.as_str().map(NsType::from)
    }

    /// `to`: the new name of a renamed collection.
    pub fn to(&self) -> Option<NamespaceRef<'_>> {
        NamespaceRef::from_value(self.field("to")?)
    }

    /// `documentKey`: `_id` of the document, and its shard key in a sharded collection.
    pub fn document_key(&self) -> Option<&RawDocument> {
        self.field("documentKey")?.as_document()
    }

    /// `documentKey._id`: which document it is about.
    pub fn document_id(&self) -> Option<RawBsonRef<'_>> {
        let key = self.find("documentKey")?.document()?;
        walk::find(key, "_id")?
            .value()
            .or_else(|| field::get(self.document_key()?, "_id"))
    }

    /// `fullDocument`: the document after the change. What updates carry depends on
    /// [`FullDocument`](crate::FullDocument); with `updateLookup` it is the document as it was when the event was
    /// read, null if it was gone by then.
    pub fn full_document(&self) -> FieldState<'_> {
        FieldState::from_value(self.field("fullDocument"))
    }

    /// `fullDocumentBeforeChange`: the document before the change, if
    /// [`FullDocumentBeforeChange`](crate::FullDocumentBeforeChange) asks for it (server 6.0).
    pub fn full_document_before_change(&self) -> FieldState<'_> {
        FieldState::from_value(self.field("fullDocumentBeforeChange"))
    }

    /// `updateDescription`: which fields an update changed.
    pub fn update_description(&self) -> Option<UpdateDescription<'_>> {
        UpdateDescription::from_value(self.field("updateDescription")?)
    }

    /// `clusterTime`: when it happened, in the cluster's logical time (server 4.0).
    pub fn cluster_time(&self) -> Option<Timestamp> {
        self.field("clusterTime")?.as_timestamp()
    }

    /// `wallTime`: when it happened, by the server's clock (server 6.0).
    pub fn wall_time(&self) -> Option<DateTime> {
        self.field("wallTime")?.as_datetime()
    }

    /// `lsid`: the session of the transaction that the change was part of; none outside of one.
    pub fn lsid(&self) -> Option<&RawDocument> {
        self.field("lsid")?.as_document()
    }

    /// `txnNumber`: with [`lsid`](Self::lsid), the transaction that the change was part of; none outside of one.
    pub fn txn_number(&self) -> Option<i64> {
        field::integer(self.field("txnNumber")?)
    }

    /// `splitEvent`: which fragment of a split event this is; none in whole events.
    pub fn split_event(&self) -> Option<SplitEvent> {
        SplitEvent::from_value(self.field("splitEvent")?)
    }

    /// `operationDescription`: what exactly a DDL operation did (server 6.0, `show_expanded_events`).
    pub fn operation_description(&self) -> Option<&RawDocument> {
        self.field("operationDescription")?.as_document()
    }

    /// `collectionUUID` (server 6.0, `show_expanded_events`).
    pub fn collection_uuid(&self) -> Option<Uuid> {
        let binary = self.field("collectionUUID")?.as_binary()?;
        if binary.subtype != BinarySubtype::Uuid {
            return None;
        }
        binary.bytes.try_into().ok().map(Uuid::from_bytes)
    }

    fn field(&self, name: &str) -> Option<RawBsonRef<'_>> {
        let element = self.find(name)?;
        element.value().or_else(|| self.as_raw().get(name).ok().flatten())
    }

    /// Where a field is that is not `_id`. Servers have that first, and it need not be stepped over again.
    #[inline(always)]
    fn find(&self, name: &str) -> Option<walk::Element<'_>> {
        let start = match self.token.place() {
            Some(id) if id.start == walk::LEADING_ID => id.end,
            Some(_) | None => walk::FIRST,
        };
        walk::find_from(self.token.whole(), start, name)
    }
}

impl PartialEq for ChangeEvent {
    fn eq(&self, other: &Self) -> bool {
        self.token.whole() == other.token.whole()
    }
}

impl fmt::Debug for ChangeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match tree::document(self.as_raw().as_bytes()) {
            Ok(event) => write!(f, "ChangeEvent({event})"),
            Err(broken) => write!(f, "ChangeEvent(<{broken}>)"),
        }
    }
}

/// An event without `_id`, its resume token: the pipeline removed it, or it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingToken;

impl fmt::Display for MissingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the event has no `_id`, which is its resume token: keep it in the pipeline's output")
    }
}

impl std::error::Error for MissingToken {}

impl From<MissingToken> for Error {
    fn from(_: MissingToken) -> Self {
        Self::new(ErrorKind::MissingResumeToken)
    }
}

/// A field of an event, or the event, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    field: Option<String>,
    message: String,
}

impl FieldError {
    pub(crate) fn new(field: Option<String>, message: String) -> Self {
        Self { field, message }
    }

    /// The field that was being read, if it was one.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "cannot read `{field}` of the event: {}", self.message),
            None => write!(f, "cannot read the event: {}", self.message),
        }
    }
}

impl std::error::Error for FieldError {}

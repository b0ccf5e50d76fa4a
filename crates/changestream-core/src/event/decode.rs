//! Events as the user's own types.

use std::fmt;

use bson::RawDocument;
use bson::raw::RawBsonRef;
use serde::Deserialize;

use super::ChangeEvent;
use super::deserializer::Value;
use crate::error::{Error, ErrorKind};
use crate::token::ResumeToken;

impl ChangeEvent {
    /// The event as a type of yours, which may borrow from it. What the type does not name is ignored.
    ///
    /// Leave room for what an event can lack: a field that a pipeline removed, `fullDocument` of a delete, `ns.coll` of
    /// a dropped database. [`ChangeStreamDocument`](super::ChangeStreamDocument) is a type that does.
    ///
    /// # Errors
    /// [`DecodeError`], with the event itself: set it aside and go on. The stream is not affected.
    ///
    /// ```
    /// # use changestream_core::ChangeEvent;
    /// #[derive(serde::Deserialize)]
    /// #[serde(rename_all = "camelCase")]
    /// struct Deletion<'a> {
    ///     operation_type: &'a str,
    /// }
    /// let event = ChangeEvent::from_raw(bson::rawdoc! { "_id": { "_data": "82" }, "operationType": "delete" })?;
    /// assert_eq!(event.decode::<Deletion>()?.operation_type, "delete");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, DecodeError> {
        self.decode_document(None, self.as_raw())
    }

    /// `fullDocument` as a type of yours, which may borrow from the event; none where it is absent or null.
    ///
    /// # Errors
    /// [`DecodeError`], with the event itself, also if the field is no document.
    pub fn full_document_as<'a, T: Deserialize<'a>>(&'a self) -> Result<Option<T>, DecodeError> {
        self.decode_field("fullDocument")
    }

    /// `fullDocumentBeforeChange` as a type of yours, which may borrow from the event; none where it is absent or
    /// null.
    ///
    /// # Errors
    /// [`DecodeError`], with the event itself, also if the field is no document.
    pub fn full_document_before_change_as<'a, T: Deserialize<'a>>(
        &'a self,
    ) -> Result<Option<T>, DecodeError> {
        self.decode_field("fullDocumentBeforeChange")
    }

    fn decode_field<'a, T: Deserialize<'a>>(&'a self, field: &'static str) -> Result<Option<T>, DecodeError> {
        match self.as_raw().get(field) {
            Ok(None | Some(RawBsonRef::Null)) => Ok(None),
            Ok(Some(RawBsonRef::Document(document))) => self.decode_document(Some(field), document).map(Some),
            Ok(Some(other)) => Err(self.decode_error(
                Some(field.to_owned()),
                format!("it is of type {:?}, not a document", other.element_type()),
            )),
            Err(error) => Err(self.decode_error(Some(field.to_owned()), error.to_string())),
        }
    }

    fn decode_document<'a, T: Deserialize<'a>>(
        &'a self,
        within: Option<&str>,
        document: &'a RawDocument,
    ) -> Result<T, DecodeError> {
        T::deserialize(Value::document(document.as_bytes())).map_err(|failure| {
            let failure = match within {
                Some(field) => failure.in_field(field.as_bytes()),
                None => failure,
            };
            self.decode_error(failure.path(), failure.into_message())
        })
    }

    fn decode_error(&self, path: Option<String>, message: String) -> DecodeError {
        DecodeError(Box::new(Inner {
            event: self.clone(),
            path,
            message,
        }))
    }
}

/// An event, or a part of one, is not of the type that was asked for. Carries the event: nothing is lost.
///
/// Turns into an [`Error`] of kind [`Decode`](ErrorKind::Decode) that carries the event's token.
#[derive(Clone)]
pub struct DecodeError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    event: ChangeEvent,
    path: Option<String>,
    message: String,
}

impl DecodeError {
    /// The event, as the server sent it.
    pub fn event(&self) -> &ChangeEvent {
        &self.0.event
    }

    /// The event, as the server sent it.
    pub fn into_event(self) -> ChangeEvent {
        self.0.event
    }

    /// The event's token: resume after it, and the event is skipped.
    pub fn resume_token(&self) -> &ResumeToken {
        self.0.event.resume_token()
    }

    /// Where in the event the type does not fit, such as `fullDocument.items[2].price`; none if it is the whole event.
    pub fn path(&self) -> Option<&str> {
        self.0.path.as_deref()
    }

    /// Why it does not fit.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot decode the event")?;
        if let Some(path) = self.path() {
            write!(f, " at `{path}`")?;
        }
        write!(f, ": {}", self.message())
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodeError")
            .field("path", &self.0.path)
            .field("message", &self.0.message)
            .field("event", &self.0.event)
            .finish()
    }
}

impl std::error::Error for DecodeError {}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        let message = match error.path() {
            Some(path) => format!("the event at `{path}`: {}", error.message()),
            None => format!("the event: {}", error.message()),
        };
        Self::new(ErrorKind::Decode { message }).with_resume_token(Some(error.resume_token().clone()))
    }
}

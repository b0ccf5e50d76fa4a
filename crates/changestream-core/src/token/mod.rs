//! Resume tokens: opaque for resuming, and for those who look closer, explained.

mod inspect;
mod keystring;

use std::fmt;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use bson::{Bson, Document, RawBson};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::depth::nests_too_deep;

pub use inspect::{TokenInfo, TokenKind, UnknownLayout};

/// A position in a change stream, as the server gave it.
///
/// Opaque: whatever BSON value it is, it goes back to the server byte for byte. Store it with serde, or by
/// [`as_raw_bson`](Self::as_raw_bson) and [`from_raw_bson`](Self::from_raw_bson).
#[derive(Clone, PartialEq)]
pub struct ResumeToken(Repr);

#[derive(Clone, PartialEq)]
enum Repr {
    /// A slice of the reply that it came in, or bytes of its own: a valid document in either case.
    Document(Bytes),
    /// No known server sends anything but a document; a proxy may.
    Other(Box<RawBson>),
}

impl ResumeToken {
    /// The token that this value is.
    pub fn from_raw_bson(value: RawBson) -> Self {
        if let RawBson::Document(document) = value {
            return Self(Repr::Document(document.into_bytes().into()));
        }
        Self(Repr::Other(Box::new(value)))
    }

    /// The token as a borrowed BSON value.
    pub fn as_raw_bson(&self) -> RawBsonRef<'_> {
        match &self.0 {
            Repr::Document(bytes) => {
                RawBsonRef::Document(RawDocument::from_bytes(bytes).expect("only valid documents are kept"))
            }
            Repr::Other(value) => value.as_raw_bson_ref(),
        }
    }

    /// The token as a document; none if it is some other BSON value.
    pub fn as_document(&self) -> Option<&RawDocument> {
        self.as_raw_bson().as_document()
    }

    /// The same token in memory of its own, so that it no longer keeps the reply alive that it came in.
    #[must_use]
    pub fn into_owned(self) -> Self {
        Self(match self.0 {
            Repr::Document(bytes) => Repr::Document(Bytes::copy_from_slice(&bytes)),
            other @ Repr::Other(_) => other,
        })
    }

    /// The token at `value`, which lies in `whole`: a slice of it if it is a document, else a copy.
    pub(crate) fn slice_of(whole: &Bytes, value: RawBsonRef<'_>) -> Self {
        match value.as_document() {
            Some(document) => Self(Repr::Document(whole.slice_ref(document.as_bytes()))),
            None => Self(Repr::Other(Box::new(value.into()))),
        }
    }
}

impl From<RawDocumentBuf> for ResumeToken {
    fn from(document: RawDocumentBuf) -> Self {
        Self::from_raw_bson(RawBson::Document(document))
    }
}

impl TryFrom<Document> for ResumeToken {
    type Error = bson::error::Error;

    fn try_from(document: Document) -> Result<Self, Self::Error> {
        RawDocumentBuf::try_from(&document).map(Self::from)
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_document().is_some_and(nests_too_deep) {
            return f.write_str("ResumeToken(<nested too deep to show>)");
        }
        match Bson::try_from(self.as_raw_bson()) {
            Ok(value) => write!(f, "ResumeToken({value})"),
            Err(_) => f.write_str("ResumeToken(<invalid BSON>)"),
        }
    }
}

impl Serialize for ResumeToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_raw_bson().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ResumeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawBson::deserialize(deserializer).map(Self::from_raw_bson)
    }
}

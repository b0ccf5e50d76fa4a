//! Resume tokens: opaque for resuming, and for those who look closer, explained.

mod inspect;
mod keystring;

use std::fmt;
use std::ops::Range;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use bson::{Bson, Document, RawBson};
use bytes::Bytes;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::by_bytes::BY_BYTES;
use crate::tree;

pub use inspect::{TokenInfo, TokenKind, UnknownLayout};

/// A position in a change stream, as the server gave it.
///
/// Opaque: whatever BSON value it is, it goes back to the server byte for byte. Store it with serde, or by
/// [`as_raw_bson`](Self::as_raw_bson) and [`from_raw_bson`](Self::from_raw_bson).
#[derive(Clone)]
pub struct ResumeToken {
    /// What the token stands in, such as the event that it is the `_id` of.
    whole: Bytes,
    value: Value,
}

#[derive(Clone)]
enum Value {
    /// A valid document, at this place of the whole.
    Document { start: u32, end: u32 },
    /// No known server sends anything but a document; a proxy may.
    Other(Box<RawBson>),
}

impl ResumeToken {
    /// The token that this value is.
    pub fn from_raw_bson(value: RawBson) -> Self {
        if let RawBson::Document(document) = value {
            return Self::of_document(document.into_bytes().into());
        }
        Self {
            whole: Bytes::new(),
            value: Value::Other(Box::new(value)),
        }
    }

    /// The token as a borrowed BSON value.
    pub fn as_raw_bson(&self) -> RawBsonRef<'_> {
        match &self.value {
            Value::Document { .. } => RawBsonRef::Document(
                RawDocument::from_bytes(self.bytes()).expect("only valid documents are kept"),
            ),
            Value::Other(value) => value.as_raw_bson_ref(),
        }
    }

    /// The token as a document; none if it is some other BSON value.
    pub fn as_document(&self) -> Option<&RawDocument> {
        self.as_raw_bson().as_document()
    }

    /// The token as a value that owns what it holds, such as to be written down as extended JSON.
    ///
    /// # Errors
    /// It is not valid BSON further inside, or nests deeper than 250 levels: no server's.
    pub fn to_bson(&self) -> Result<Bson, crate::Error> {
        tree::value(self.as_raw_bson())
            .map_err(|broken| crate::Error::protocol(format!("in a resume token, {broken}")))
    }

    /// The same token in memory of its own, so that it no longer keeps the reply alive that it came in.
    #[must_use]
    pub fn into_owned(self) -> Self {
        match self.value {
            Value::Document { .. } => Self::of_document(Bytes::copy_from_slice(self.bytes())),
            Value::Other(_) => Self {
                whole: Bytes::new(),
                ..self
            },
        }
    }

    /// The token at `value`, which lies in `whole`: a place in it if it is a document, else a copy.
    pub(crate) fn within(whole: Bytes, value: RawBsonRef<'_>) -> Self {
        let place = value.as_document().map(|document| {
            let start = (document.as_bytes().as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
            start..start.saturating_add(document.as_bytes().len())
        });
        let place = place
            .filter(|place| place.end <= whole.len())
            .and_then(|place| Value::at(&place));
        Self {
            value: place.unwrap_or_else(|| Value::Other(Box::new(value.into()))),
            whole,
        }
    }

    /// The token that is a document at that place, which must have been found to be one.
    pub(crate) fn at(whole: Bytes, place: &Range<usize>) -> Option<Self> {
        let value = Value::at(place)?;
        Some(Self { whole, value })
    }

    /// Moves to another document at that place of the same whole. Says whether it could.
    pub(crate) fn move_within(&mut self, whole: &Bytes, place: &Range<usize>) -> bool {
        let is_same = self.whole.as_ptr() == whole.as_ptr() && self.whole.len() == whole.len();
        match Value::at(place) {
            Some(value) if is_same => self.value = value,
            Some(_) | None => return false,
        }
        true
    }

    /// What the token stands in.
    pub(crate) fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// Where in the whole it stands, if it is a document.
    pub(crate) fn place(&self) -> Option<Range<usize>> {
        match self.value {
            Value::Document { start, end } => Some(start as usize..end as usize),
            Value::Other(_) => None,
        }
    }

    fn of_document(document: Bytes) -> Self {
        let end = u32::try_from(document.len()).unwrap_or(0);
        Self {
            whole: document,
            value: Value::Document { start: 0, end },
        }
    }

    fn bytes(&self) -> &[u8] {
        self.place()
            .and_then(|place| self.whole.get(place))
            .unwrap_or_default()
    }
}

impl Value {
    fn at(place: &Range<usize>) -> Option<Self> {
        Some(Self::Document {
            start: u32::try_from(place.start).ok()?,
            end: u32::try_from(place.end).ok()?,
        })
    }
}

impl PartialEq for ResumeToken {
    fn eq(&self, other: &Self) -> bool {
        self.as_raw_bson() == other.as_raw_bson()
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
        match tree::value(self.as_raw_bson()) {
            Ok(value) => write!(f, "ResumeToken({value})"),
            Err(broken) => write!(f, "ResumeToken(<{broken}>)"),
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
        deserializer.deserialize_newtype_struct(BY_BYTES, TokenVisitor)
    }
}

struct TokenVisitor;

impl<'de> Visitor<'de> for TokenVisitor {
    type Value = ResumeToken;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resume token")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<ResumeToken, E> {
        let document = RawDocument::from_bytes(bytes).map_err(Error::custom)?;
        Ok(document.to_owned().into())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<ResumeToken, D::Error> {
        RawBson::deserialize(deserializer).map(ResumeToken::from_raw_bson)
    }
}

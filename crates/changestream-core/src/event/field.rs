//! The parts of an event, as they stand in the raw document.

use std::fmt;

use bson::RawDocument;
use bson::raw::{RawArray, RawBsonRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::walk;

/// `ns` or `to` of an event: a database and, unless the event is about the whole database, a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct NamespaceRef<'a> {
    /// Name of the database.
    pub db: &'a str,
    /// Name of the collection; none in events about a database.
    pub coll: Option<&'a str>,
}

impl<'a> NamespaceRef<'a> {
    pub(crate) fn from_value(value: RawBsonRef<'a>) -> Option<Self> {
        let document = value.as_document()?;
        Some(Self {
            db: get(document, "db")?.as_str()?,
            coll: get(document, "coll").and_then(RawBsonRef::as_str),
        })
    }
}

/// `database.collection`, or the database alone.
impl fmt::Display for NamespaceRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.db)?;
        self.coll.map_or(Ok(()), |coll| write!(f, ".{coll}"))
    }
}

/// `nsType` of a `create` event: what was created (server 8.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NsType {
    /// A collection.
    Collection,
    /// A time series collection.
    Timeseries,
    /// A view.
    View,
    /// Anything else, by the server's name for it.
    Other(String),
}

impl NsType {
    /// The server's name for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Collection => "collection",
            Self::Timeseries => "timeseries",
            Self::View => "view",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for NsType {
    fn from(name: &str) -> Self {
        match name {
            "collection" => Self::Collection,
            "timeseries" => Self::Timeseries,
            "view" => Self::View,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for NsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for NsType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for NsType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self::from(name.as_str()))
    }
}

/// A document that an event can carry, lack, or say that there is none.
///
/// The difference matters: `fullDocument` is absent where it was not asked for, and null where it was but the
/// document, or the image of it, is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldState<'a> {
    /// The field is not there, or is not a document.
    Absent,
    /// The field is there and null.
    Null,
    /// The document.
    Present(&'a RawDocument),
}

impl<'a> FieldState<'a> {
    pub(crate) fn from_value(value: Option<RawBsonRef<'a>>) -> Self {
        match value {
            Some(RawBsonRef::Null) => Self::Null,
            Some(RawBsonRef::Document(document)) => Self::Present(document),
            Some(_) | None => Self::Absent,
        }
    }

    /// The document, if there is one.
    pub fn present(self) -> Option<&'a RawDocument> {
        match self {
            Self::Present(document) => Some(document),
            Self::Absent | Self::Null => None,
        }
    }

    /// Whether the field is not there at all.
    pub fn is_absent(self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Whether the server says that there is no such document.
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }
}

/// `updateDescription` of an update event: which fields changed. Read on demand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateDescription<'a>(&'a RawDocument);

impl<'a> UpdateDescription<'a> {
    pub(crate) fn from_value(value: RawBsonRef<'a>) -> Option<Self> {
        value.as_document().map(Self)
    }

    /// The whole of it.
    pub fn as_raw(&self) -> &'a RawDocument {
        self.0
    }

    /// `updatedFields`: the new value of each field that was set, by its dotted path.
    pub fn updated_fields(&self) -> Option<&'a RawDocument> {
        get(self.0, "updatedFields")?.as_document()
    }

    /// `removedFields`: dotted paths of the fields that were removed. Empty where there are none.
    pub fn removed_fields(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        elements(self.0, "removedFields").filter_map(RawBsonRef::as_str)
    }

    /// `truncatedArrays`: arrays that were cut at their end. Empty where there are none.
    pub fn truncated_arrays(&self) -> impl Iterator<Item = TruncatedArray<'a>> + use<'a> {
        elements(self.0, "truncatedArrays").filter_map(TruncatedArray::from_value)
    }

    /// `disambiguatedPaths`: for paths whose parts could be field names or array indexes, the parts (server 6.1, with
    /// `show_expanded_events`).
    pub fn disambiguated_paths(&self) -> Option<&'a RawDocument> {
        get(self.0, "disambiguatedPaths")?.as_document()
    }
}

/// An array that an update cut at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TruncatedArray<'a> {
    /// Dotted path of the array.
    pub field: &'a str,
    /// How many elements it has now.
    pub new_size: u32,
}

impl<'a> TruncatedArray<'a> {
    fn from_value(value: RawBsonRef<'a>) -> Option<Self> {
        let document = value.as_document()?;
        Some(Self {
            field: get(document, "field")?.as_str()?,
            new_size: u32::try_from(integer(get(document, "newSize")?)?).ok()?,
        })
    }
}

/// `splitEvent`: which fragment of an event this is, that `$changeStreamSplitLargeEvent` split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SplitEvent {
    /// The fragment's number, from 1 on.
    pub fragment: i32,
    /// How many fragments there are.
    pub of: i32,
}

impl SplitEvent {
    pub(crate) fn from_value(value: RawBsonRef<'_>) -> Option<Self> {
        let document = value.as_document()?;
        let number = |name| i32::try_from(integer(get(document, name)?)?).ok();
        Some(Self {
            fragment: number("fragment")?,
            of: number("of")?,
        })
    }

    /// Whether no further fragment follows.
    pub fn is_last(&self) -> bool {
        self.fragment >= self.of
    }
}

/// A whole number, whichever of BSON's number types holds it.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
pub(crate) fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it a double does not name one whole number
    if let Some(number) = value.as_i32() {
        return Some(number.into());
    }
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() <= LIMIT;
    let from_double = || value.as_f64().filter(whole).map(|number| number as i64);
    value.as_i64().or_else(from_double)
}

/// The field of that name; none if it is not there or cannot be read.
#[inline]
pub(crate) fn get<'a>(document: &'a RawDocument, name: &str) -> Option<RawBsonRef<'a>> {
    let element = walk::find(document.as_bytes(), name)?;
    element.value().or_else(|| document.get(name).ok().flatten())
}

/// The elements of the array of that name, up to the first that cannot be read.
fn elements<'a>(document: &'a RawDocument, name: &str) -> impl Iterator<Item = RawBsonRef<'a>> + use<'a> {
    get(document, name)
        .and_then(RawBsonRef::as_array)
        .into_iter()
        .flat_map(<&RawArray>::into_iter)
        .map_while(Result::ok)
}

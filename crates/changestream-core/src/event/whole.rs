//! Fields that are decoded into the library's `Document`, made from the bytes at once.
//!
//! By way of serde the library allocates each name twice, and asks of each field whether it is Extended JSON. Where the
//! type says that a `Document` is wanted, neither is needed. Every other type, and every other format, goes the usual way.

use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;

use bson::{Bson, Document, RawDocument};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::by_bytes::BY_BYTES;
use crate::depth::{MAX_DEPTH, nests_too_deep};
use crate::walk;

/// For `deserialize_with` of a field that may be null.
pub(super) fn optional<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de> + 'static,
    D: Deserializer<'de>,
{
    if TypeId::of::<T>() == TypeId::of::<Document>() {
        deserializer.deserialize_newtype_struct(BY_BYTES, Whole(PhantomData))
    } else {
        Option::deserialize(deserializer)
    }
}

/// For `deserialize_with` of a field that is a document if it is there.
pub(super) fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Document, D::Error> {
    optional(deserializer)?.ok_or_else(|| Error::custom("null, where a document was expected"))
}

struct Whole<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + 'static> Visitor<'de> for Whole<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document or null")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Option<T>, E> {
        let mut made = document(bytes, 0);
        // A `T` is a `Document` here, which the compiler does not know.
        let made = (&mut made as &mut dyn Any).downcast_mut::<Option<T>>();
        made.and_then(Option::take)
            .map(Some)
            .ok_or_else(|| Error::custom("a document is malformed"))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        Option::deserialize(deserializer)
    }
}

/// None if it is malformed or nests too deep. A level takes little of the stack, unlike by way of serde.
fn document(bytes: &[u8], depth: usize) -> Option<Document> {
    let mut made = Document::new();
    let mut elements = walk::elements(bytes);
    for element in &mut elements {
        let key = str::from_utf8(element.key()).ok()?;
        // Most values are texts, and a text is less to move than what can be anything.
        match element.kind() {
            walk::STRING => made.insert(key, element.text()?),
            _ => made.insert(key, value(element, depth)?),
        };
    }
    elements.ended_well().then_some(made)
}

fn array(bytes: &[u8], depth: usize) -> Option<Bson> {
    let mut elements = walk::elements(bytes);
    let made: Option<Vec<Bson>> = (&mut elements).map(|element| value(element, depth)).collect();
    made.filter(|_| elements.ended_well()).map(Bson::Array)
}

fn value(element: walk::Element<'_>, depth: usize) -> Option<Bson> {
    match element.kind() {
        walk::DOCUMENT | walk::ARRAY if depth == MAX_DEPTH => None,
        walk::DOCUMENT => document(element.bytes(), depth + 1).map(Bson::Document),
        walk::ARRAY => array(element.bytes(), depth + 1),
        walk::STRING => Some(Bson::String(element.text()?.to_owned())),
        _ => match element.value() {
            Some(value) => Bson::try_from(value).ok(),
            None => by_library(element),
        },
    }
}

/// A value of a kind that is seldom: as the library reads it in a document of its own.
fn by_library(element: walk::Element<'_>) -> Option<Bson> {
    let value = element.bytes();
    // Length, type, an empty name, and the end.
    let len = value.len().checked_add(4 + 1 + 1 + 1)?;
    let mut alone = Vec::with_capacity(len);
    alone.extend_from_slice(&i32::try_from(len).ok()?.to_le_bytes());
    alone.extend_from_slice(&[element.kind(), 0]);
    alone.extend_from_slice(value);
    alone.push(0);
    let alone = RawDocument::from_bytes(&alone).ok()?;
    if nests_too_deep(alone) {
        return None;
    }
    let (_, value) = alone.iter().next()?.ok()?;
    Bson::try_from(value).ok()
}

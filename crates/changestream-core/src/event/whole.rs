//! Fields that are decoded into the library's `Document`, made from the bytes at once.
//!
//! By way of serde the library allocates each name twice, and asks of each field whether it is Extended JSON. Where the
//! type says that a `Document` is wanted, neither is needed. Every other type, and every other format, goes the usual way.

use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;

use bson::Document;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::by_bytes::BY_BYTES;
use crate::tree;

/// For `deserialize_with` of a field that may be null.
pub(super) fn optional<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de> + 'static,
    D: Deserializer<'de>,
{
    // Texts have no use for bytes, and some of them write newtypes otherwise than what is in them.
    if TypeId::of::<T>() == TypeId::of::<Document>() && !deserializer.is_human_readable() {
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
        let mut made = Some(tree::document(bytes).map_err(Error::custom)?);
        // A `T` is a `Document` here, which the compiler does not know.
        let made = (&mut made as &mut dyn Any).downcast_mut::<Option<T>>();
        made.and_then(Option::take)
            .map(Some)
            .ok_or_else(|| Error::custom("no document is wanted"))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        Option::deserialize(deserializer)
    }
}

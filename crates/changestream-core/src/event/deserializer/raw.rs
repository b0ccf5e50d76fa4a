//! Values for the library's types that keep them raw, in the forms that these take values in.

use std::sync::OnceLock;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, RawBson, RawDocumentBuf, Timestamp, rawdoc};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::extended::{Extended, Once};
use super::failure::{Failure, Result};
use super::library::RAW_ARRAY;
use super::{GENERIC, Manner, Value, array, binary};
use crate::walk;

/// Deserializes the newtype of that name, which is one of the library's for values that are kept raw. No document.
pub(super) fn value<'de, V: Visitor<'de>>(
    value: Value<'de>,
    name: &'static str,
    visitor: V,
) -> Result<V::Value> {
    let bytes = value.element.bytes();
    let raw = match value.element.kind() {
        walk::ARRAY => Extended::RawArray(RAW_ARRAY, bytes),
        _ if name == RAW_ARRAY => return Err(de::Error::custom("it is no array")),
        walk::DATE => Extended::RawDate(i64::from_le_bytes(array(bytes)?)),
        walk::BINARY => match binary(bytes) {
            Some((GENERIC, data)) => return visitor.visit_borrowed_bytes(data),
            Some((subtype, data)) => Extended::RawBinary(subtype, data),
            None => return Err(Failure::malformed("a binary value")),
        },
        _ => return value.deserialize_any(visitor),
    };
    visitor.visit_map(Once(Some(raw)))
}

/// Whether the library's types take these forms. They are its own affair, so another version may have others: then it is led
/// to each value. Tried once.
pub(super) fn is_understood() -> bool {
    static TRIED: OnceLock<bool> = OnceLock::new();
    *TRIED.get_or_init(|| {
        let samples = samples();
        let theirs = samples.iter().map(|element| Some(RawBson::from(element.ok()?.1)));
        let ours = walk::elements(samples.as_bytes()).map(|element| {
            let sample = Sample(Value {
                element,
                depth: 0,
                place: None,
                manner: Manner::default(),
            });
            RawBson::deserialize(sample).ok()
        });
        ours.eq(theirs)
    })
}

/// A value of each kind whose form could be another one.
fn samples() -> RawDocumentBuf {
    let binary = |subtype| Binary {
        subtype,
        bytes: vec![1, 2],
    };
    rawdoc! {
        "array": [1, "two"],
        "date": DateTime::from_millis(-3),
        "generic": binary(BinarySubtype::Generic),
        "old": binary(BinarySubtype::BinaryOld),
        "other": binary(BinarySubtype::Md5),
        "id": ObjectId::from_bytes([4; 12]),
        "time": Timestamp { time: 5, increment: 6 },
        "text": "seven",
    }
}

/// A sample on its way to the library's type.
struct Sample<'de>(Value<'de>);

impl<'de> Deserializer<'de> for Sample<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        value(self.0, name, visitor)
    }

    forward_to_deserialize_any! {
        bool char str string bytes byte_buf unit unit_struct seq tuple tuple_struct struct map option
        enum identifier ignored_any i8 i16 i32 i64 u8 u16 u32 u64 f32 f64
    }
}

//! Values that serde knows no type for: documents as in Extended JSON, by names that the library's types understand.

use std::any::type_name;
use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::{BorrowedBytesDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::failure::{Failure, Result};
use super::{Manner, Value};
use crate::walk::{self, Element};

/// A document of one field.
pub(super) struct Once<'de>(pub(super) Option<Extended<'de>>);

pub(super) enum Extended<'de> {
    ObjectId([u8; 12]),
    /// Increment, then seconds.
    Timestamp([u8; 8]),
    /// Milliseconds.
    Date(i64),
    /// A date's milliseconds.
    Long(i64),
    /// Subtype and bytes.
    Binary(u8, &'de [u8]),
    Decimal([u8; 16]),
    /// Pattern and options.
    Regex(Cow<'de, str>, Cow<'de, str>),
    Code(Cow<'de, str>),
    Symbol(Cow<'de, str>),
    /// Namespace and ObjectId.
    Pointer(Cow<'de, str>, [u8; 12]),
    Undefined,
    MinKey,
    MaxKey,
    /// What it is to types that keep values raw: milliseconds as they are.
    RawDate(i64),
    /// The same: subtype and bytes as they are.
    RawBinary(u8, &'de [u8]),
    /// The same: the bytes of an array, by the library's own name for that.
    RawArray(&'static str, &'de [u8]),
}

impl<'de> Extended<'de> {
    /// A value of a kind that is seldom; none if it is malformed, or of none.
    pub(super) fn rare(element: &Element<'de>, manner: Manner) -> Option<Self> {
        let bytes = element.bytes();
        Some(match element.kind() {
            0x06 => Self::Undefined,
            0x0b => {
                let (pattern, rest) = to_zero(bytes)?;
                Self::Regex(manner.read(pattern)?, manner.read(to_zero(rest)?.0)?)
            }
            0x0c => {
                let (text, id) = bytes.split_last_chunk()?;
                Self::Pointer(manner.text(text)?, *id)
            }
            0x0d => Self::Code(manner.text(bytes)?),
            0x0e => Self::Symbol(manner.text(bytes)?),
            0x13 => Self::Decimal(*bytes.first_chunk()?),
            0xff => Self::MinKey,
            0x7f => Self::MaxKey,
            _ => return None,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::ObjectId(_) => "$oid",
            Self::Timestamp(_) => "$timestamp",
            Self::Date(_) | Self::RawDate(_) => "$date",
            Self::Long(_) => "$numberLong",
            Self::Binary(..) | Self::RawBinary(..) => "$binary",
            // The library's own name for the bytes themselves: its types need no text on the way.
            Self::Decimal(_) => "$numberDecimalBytes",
            Self::Regex(..) => "$regularExpression",
            Self::Code(_) => "$code",
            Self::Symbol(_) => "$symbol",
            Self::Pointer(..) => "$dbPointer",
            Self::Undefined => "$undefined",
            Self::MinKey => "$minKey",
            Self::MaxKey => "$maxKey",
            Self::RawArray(name, _) => name,
        }
    }
}

impl<'de> MapAccess<'de> for Once<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some(value) = &self.0 else {
            return Ok(None);
        };
        seed.deserialize(Text(Cow::Borrowed(value.name()))).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let value = self.0.take();
        seed.deserialize(value.ok_or_else(|| Failure::malformed("a document"))?)
    }
}

impl<'de> Deserializer<'de> for Extended<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::ObjectId(bytes) if takes_bytes::<V::Value>() => visitor.visit_bytes(&bytes),
            Self::ObjectId(bytes) => {
                let mut text = [0; 24];
                for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
                    pair.copy_from_slice(&hex(byte));
                }
                visitor.visit_str(str::from_utf8(&text).unwrap_or_default())
            }
            Self::Timestamp([a, b, c, d, time @ ..]) => visitor.visit_map(Parts::new([
                ("t", Part::Number(u32::from_le_bytes(time))),
                ("i", Part::Number(u32::from_le_bytes([a, b, c, d]))),
            ])),
            Self::Date(milliseconds) => visitor.visit_map(Once(Some(Self::Long(milliseconds)))),
            Self::Long(number) => visitor.visit_string(number.to_string()),
            Self::Binary(subtype, data) => visitor.visit_map(Parts::new([
                (
                    "subType",
                    Part::Text(String::from_utf8_lossy(&hex(subtype)).into_owned().into()),
                ),
                ("base64", Part::Text(STANDARD.encode(data).into())),
            ])),
            Self::Decimal(bytes) => visitor.visit_bytes(&bytes),
            Self::Regex(pattern, options) => visitor.visit_map(Parts::new([
                ("pattern", Part::Text(pattern)),
                ("options", Part::Text(options)),
            ])),
            Self::Code(text) | Self::Symbol(text) => Text(text).deserialize_any(visitor),
            Self::Pointer(namespace, id) => visitor.visit_map(Parts::new([
                ("$ref", Part::Text(namespace)),
                ("$id", Part::ObjectId(id)),
            ])),
            Self::Undefined => visitor.visit_bool(true),
            Self::MinKey | Self::MaxKey => visitor.visit_i32(1),
            Self::RawDate(milliseconds) => visitor.visit_i64(milliseconds),
            Self::RawBinary(subtype, data) => visitor.visit_map(Parts::new([
                ("subType", Part::Number(subtype.into())),
                ("bytes", Part::Bytes(data)),
            ])),
            Self::RawArray(_, bytes) => visitor.visit_borrowed_bytes(bytes),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool char str string bytes byte_buf unit unit_struct seq tuple tuple_struct struct map option
        enum identifier ignored_any i8 i16 i32 i64 u8 u16 u32 u64 f32 f64
    }
}

/// Whether that is what the library reads an ObjectId's `$oid` into. It takes the bytes as well as their digits, which
/// other types do not; were it renamed, digits would still do.
fn takes_bytes<T>() -> bool {
    let name = type_name::<T>();
    name.strip_suffix("<'_>")
        .unwrap_or(name)
        .ends_with("::BytesOrHex")
}

/// A document of two fields.
pub(super) struct Parts<'de> {
    rest: std::array::IntoIter<(&'static str, Part<'de>), 2>,
    value: Option<Part<'de>>,
}

enum Part<'de> {
    Number(u32),
    Text(Cow<'de, str>),
    Bytes(&'de [u8]),
    ObjectId([u8; 12]),
    Document(Value<'de>),
}

impl<'de> Parts<'de> {
    fn new(parts: [(&'static str, Part<'de>); 2]) -> Self {
        Self {
            rest: parts.into_iter(),
            value: None,
        }
    }

    pub(super) fn code_with_scope(code: Cow<'de, str>, scope: Value<'de>) -> Self {
        Self::new([("$code", Part::Text(code)), ("$scope", Part::Document(scope))])
    }
}

impl<'de> MapAccess<'de> for Parts<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        seed.deserialize(Text(Cow::Borrowed(name))).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        match self.value.take() {
            Some(Part::Number(number)) => seed.deserialize(number.into_deserializer()),
            Some(Part::Text(text)) => seed.deserialize(Text(text)),
            Some(Part::Bytes(bytes)) => seed.deserialize(BorrowedBytesDeserializer::new(bytes)),
            Some(Part::ObjectId(id)) => {
                let document = Once(Some(Extended::ObjectId(id)));
                seed.deserialize(MapAccessDeserializer::new(document))
            }
            Some(Part::Document(value)) => seed.deserialize(value),
            None => Err(Failure::malformed("a document")),
        }
    }
}

/// A string, or a type that wraps one.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool char str string bytes byte_buf unit unit_struct seq tuple tuple_struct struct map option
        enum identifier ignored_any i8 i16 i32 i64 u8 u16 u32 u64 f32 f64
    }
}

/// What stands before the first zero, and what is behind that.
fn to_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = walk::until_zero(bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn hex(byte: u8) -> [u8; 2] {
    let digit = |value: u8| match value {
        0..10 => b'0' + value,
        _ => b'a' + value - 10,
    };
    [digit(byte >> 4), digit(byte & 15)]
}

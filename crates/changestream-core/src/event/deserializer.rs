//! A deserializer of BSON for the common kinds of values; whatever else comes is left to the library's own.
//!
//! Typed decoding steps over every field. The library finds and checks each value several times on the way; here it is
//! found once, by lengths. What is seldom in documents, and what the library keeps between itself and its own types, goes
//! through the library, so that there is one truth about it.

use std::any::type_name;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::error::{Error, Result};
use bson::{RawDeserializer, RawDocument};
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::by_bytes::BY_BYTES;
use crate::depth::nests_too_deep;
use crate::walk::{self, Element};

/// A value that is to be deserialized.
#[derive(Clone, Copy)]
pub(super) struct Value<'de> {
    element: Element<'de>,
    /// How many documents and arrays it stands in.
    depth: usize,
    /// The document or array that it stands in, and as the how manieth; none for the whole document.
    place: Option<(&'de [u8], usize)>,
}

impl<'de> Value<'de> {
    /// A whole document.
    pub(super) fn document(bytes: &'de [u8]) -> Self {
        Self {
            element: Element::document_of(bytes),
            depth: 0,
            place: None,
        }
    }

    #[inline]
    fn text(&self) -> Result<&'de str> {
        self.element.text().ok_or_else(|| malformed("a string"))
    }

    fn fields(&self) -> Result<Fields<'de>> {
        if self.depth == DEEPEST {
            return Err(malformed("what nests too deep"));
        }
        let bytes = self.element.bytes();
        Ok(Fields {
            whole: bytes,
            elements: walk::elements(bytes),
            depth: self.depth + 1,
            value: None,
            next: 0,
        })
    }

    /// Has the library do it: by way of the document that the value stands in, since it takes nothing smaller.
    fn by_library<V: Visitor<'de>>(self, how: How, visitor: V) -> Result<V::Value> {
        let stepped_through = self
            .place
            .map_or_else(|| self.element.bytes(), |(whole, _)| whole);
        // The library goes as deep as it has to.
        if nests_too_deep(RawDocument::from_bytes(stepped_through)?) {
            return Err(malformed("what nests too deep"));
        }
        match self.place {
            None => How::deserialize(how, RawDeserializer::new(self.element.bytes())?, visitor),
            Some((whole, index)) => {
                RawDeserializer::new(whole)?.deserialize_map(Pick { index, how, visitor })
            }
        }
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let bytes = self.element.bytes();
        match self.element.kind() {
            0x01 => visitor.visit_f64(f64::from_le_bytes(array(bytes)?)),
            walk::STRING => visitor.visit_borrowed_str(self.text()?),
            walk::DOCUMENT => visitor.visit_map(self.fields()?),
            walk::ARRAY => visitor.visit_seq(self.fields()?),
            0x08 if matches!(bytes, [0 | 1]) => visitor.visit_bool(bytes == [1]),
            walk::NULL => visitor.visit_unit(),
            0x10 => visitor.visit_i32(i32::from_le_bytes(array(bytes)?)),
            0x12 => visitor.visit_i64(i64::from_le_bytes(array(bytes)?)),
            walk::OBJECT_ID => visitor.visit_map(Once(Some(Extended::ObjectId(array(bytes)?)))),
            0x11 => visitor.visit_map(Once(Some(Extended::Timestamp(array(bytes)?)))),
            0x09 => visitor.visit_map(Once(Some(Extended::Date(i64::from_le_bytes(array(bytes)?))))),
            walk::BINARY => match binary(bytes)? {
                Some((GENERIC, data)) => visitor.visit_borrowed_bytes(data),
                Some((subtype, data)) => visitor.visit_map(Once(Some(Extended::Binary(subtype, data)))),
                None => self.by_library(How::Any, visitor),
            },
            _ => self.by_library(How::Any, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.element.kind() {
            walk::NULL => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.element.kind() {
            walk::STRING => visitor.visit_enum(self.text()?.into_deserializer()),
            _ => self.by_library(How::Enum(name, variants), visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.element.kind() {
            walk::OBJECT_ID => visitor.visit_borrowed_bytes(self.element.bytes()),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if name == BY_BYTES {
            return match self.element.document() {
                Some(document) => visitor.visit_borrowed_bytes(document),
                None => visitor.visit_newtype_struct(self),
            };
        }
        // The names by which the library's own types ask it for more than serde can say.
        if name.starts_with('$') {
            return self.by_library(How::Newtype(name), visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool char str byte_buf unit unit_struct string identifier seq tuple tuple_struct struct map
        i8 i16 i32 i64 u8 u16 u32 u64 f32 f64
    }
}

/// The fields of a document, or the elements of an array.
struct Fields<'de> {
    whole: &'de [u8],
    elements: walk::Elements<'de>,
    /// Of its values.
    depth: usize,
    value: Option<Element<'de>>,
    next: usize,
}

impl<'de> Fields<'de> {
    fn advance(&mut self) -> Result<Option<Element<'de>>> {
        let element = self.elements.next();
        if element.is_none() && !self.elements.ended_well() {
            return Err(malformed("a document"));
        }
        self.next += 1;
        Ok(element)
    }

    fn value_of(&self, element: Element<'de>) -> Value<'de> {
        Value {
            element,
            depth: self.depth,
            place: Some((self.whole, self.next - 1)),
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.value = self.advance()?;
        let Some(element) = &self.value else {
            return Ok(None);
        };
        let key = str::from_utf8(element.key()).map_err(|_| malformed("a key"))?;
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let element = self.value.take().ok_or_else(|| malformed("a document"))?;
        seed.deserialize(self.value_of(element))
    }
}

impl<'de> SeqAccess<'de> for Fields<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        match self.advance()? {
            Some(element) => seed.deserialize(self.value_of(element)).map(Some),
            None => Ok(None),
        }
    }
}

/// What serde knows no type for: a document of one field, as in Extended JSON, which the library's types understand.
struct Once<'de>(Option<Extended<'de>>);

#[derive(Clone, Copy)]
enum Extended<'de> {
    ObjectId([u8; 12]),
    /// Increment, then seconds.
    Timestamp([u8; 8]),
    /// Milliseconds.
    Date(i64),
    /// A date's milliseconds.
    Long(i64),
    /// Subtype and bytes.
    Binary(u8, &'de [u8]),
}

impl<'de> MapAccess<'de> for Once<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let name = match self.0 {
            Some(Extended::ObjectId(_)) => "$oid",
            Some(Extended::Timestamp(_)) => "$timestamp",
            Some(Extended::Date(_)) => "$date",
            Some(Extended::Long(_)) => "$numberLong",
            Some(Extended::Binary(..)) => "$binary",
            None => return Ok(None),
        };
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(self.0.take().ok_or_else(|| malformed("a document"))?)
    }
}

impl<'de> Deserializer<'de> for Extended<'de> {
    type Error = Error;

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
                    Part::Text(String::from_utf8_lossy(&hex(subtype)).into_owned()),
                ),
                ("base64", Part::Text(STANDARD.encode(data))),
            ])),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool char str byte_buf bytes unit unit_struct string identifier seq tuple tuple_struct struct map option
        newtype_struct enum ignored_any i8 i16 i32 i64 u8 u16 u32 u64 f32 f64
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

/// The parts of a timestamp or of a binary value, and the one whose name was said.
struct Parts {
    rest: std::array::IntoIter<(&'static str, Part), 2>,
    value: Option<Part>,
}

enum Part {
    Number(u32),
    Text(String),
}

impl Parts {
    fn new(parts: [(&'static str, Part); 2]) -> Self {
        Self {
            rest: parts.into_iter(),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Parts {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        match self.value.take() {
            Some(Part::Number(number)) => seed.deserialize(number.into_deserializer()),
            Some(Part::Text(text)) => seed.deserialize(text.into_deserializer()),
            None => Err(malformed("a document")),
        }
    }
}

/// What the library is asked for.
#[derive(Clone, Copy)]
enum How {
    Any,
    Newtype(&'static str),
    Enum(&'static str, &'static [&'static str]),
}

impl How {
    fn deserialize<'de, D: Deserializer<'de>, V: Visitor<'de>>(
        self,
        deserializer: D,
        visitor: V,
    ) -> std::result::Result<V::Value, D::Error> {
        match self {
            Self::Any => deserializer.deserialize_any(visitor),
            Self::Newtype(name) => deserializer.deserialize_newtype_struct(name, visitor),
            Self::Enum(name, variants) => deserializer.deserialize_enum(name, variants, visitor),
        }
    }
}

/// Finds one value of a document that the library steps through.
struct Pick<V> {
    index: usize,
    how: How,
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Pick<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<V::Value, A::Error> {
        for _ in 0..self.index {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        map.next_key::<IgnoredAny>()?
            .ok_or_else(|| de::Error::custom("it has fewer fields than a moment ago"))?;
        map.next_value_seed(Picked(self.how, self.visitor))
    }
}

struct Picked<V>(How, V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Picked<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<V::Value, D::Error> {
        self.0.deserialize(deserializer, self.1)
    }
}

/// Subtype and bytes of a binary value; none if it is of the old kind, which has another length within.
fn binary(value: &[u8]) -> Result<Option<(u8, &[u8])>> {
    const OLD: u8 = 0x02;
    let Some(([_, _, _, _, subtype], data)) = value.split_first_chunk() else {
        return Err(malformed("a binary value"));
    };
    Ok((*subtype != OLD).then_some((*subtype, data)))
}

fn hex(byte: u8) -> [u8; 2] {
    let digit = |value: u8| match value {
        0..10 => b'0' + value,
        _ => b'a' + value - 10,
    };
    [digit(byte >> 4), digit(byte & 15)]
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.first_chunk().copied().ok_or_else(|| malformed("a number"))
}

fn malformed(what: &str) -> Error {
    de::Error::custom(format!("{what} is malformed"))
}

/// How deep it goes without a look ahead: each level takes stack. What nests deeper is seldom, and is looked through first.
const DEEPEST: usize = 32;

/// The subtype of binary values that are bytes and nothing else.
const GENERIC: u8 = 0x00;

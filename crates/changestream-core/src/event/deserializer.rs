//! A deserializer of BSON for the common kinds of values; whatever else comes is left to the library's own.
//!
//! Typed decoding steps over every field. The library finds and checks each value several times on the way; here it is
//! found once, by lengths. What is seldom in documents, and what the library keeps between itself and its own types, goes
//! through the library, so that there is one truth about it.

use std::fmt;

use bson::RawDeserializer;
use bson::error::{Error, Result};
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::walk::{self, Element};

/// A value that is to be deserialized.
#[derive(Clone, Copy)]
pub(super) struct Value<'de> {
    element: Element<'de>,
    /// The document or array that it stands in, and as the how manieth; none for the whole document.
    place: Option<(&'de [u8], usize)>,
}

impl<'de> Value<'de> {
    /// A whole document.
    pub(super) fn document(bytes: &'de [u8]) -> Self {
        Self {
            element: Element::document_of(bytes),
            place: None,
        }
    }

    fn text(&self) -> Result<&'de str> {
        self.element.text().ok_or_else(|| malformed("a string"))
    }

    fn fields(&self) -> Fields<'de> {
        let bytes = self.element.bytes();
        Fields {
            whole: bytes,
            elements: walk::elements(bytes),
            value: None,
            next: 0,
        }
    }

    /// Has the library do it: by way of the document that the value stands in, since it takes nothing smaller.
    fn by_library<V: Visitor<'de>>(self, how: How, visitor: V) -> Result<V::Value> {
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
            walk::DOCUMENT => visitor.visit_map(self.fields()),
            walk::ARRAY => visitor.visit_seq(self.fields()),
            0x08 if matches!(bytes, [0 | 1]) => visitor.visit_bool(bytes == [1]),
            walk::NULL => visitor.visit_unit(),
            0x10 => visitor.visit_i32(i32::from_le_bytes(array(bytes)?)),
            0x12 => visitor.visit_i64(i64::from_le_bytes(array(bytes)?)),
            walk::OBJECT_ID => visitor.visit_map(Once(Some(Extended::ObjectId(array(bytes)?)))),
            0x11 => visitor.visit_map(Once(Some(Extended::Timestamp(array(bytes)?)))),
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
            walk::BINARY => self.by_library(How::Bytes, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
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
struct Once(Option<Extended>);

#[derive(Clone, Copy)]
enum Extended {
    ObjectId([u8; 12]),
    /// Increment, then seconds.
    Timestamp([u8; 8]),
    Number(u32),
}

impl<'de> MapAccess<'de> for Once {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let name = match self.0 {
            Some(Extended::ObjectId(_)) => "$oid",
            Some(Extended::Timestamp(_)) => "$timestamp",
            Some(Extended::Number(_)) | None => return Ok(None),
        };
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(self.0.take().ok_or_else(|| malformed("a document"))?)
    }
}

impl<'de> Deserializer<'de> for Extended {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::ObjectId(bytes) => {
                let mut hex = [0; 24];
                for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
                    pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
                }
                visitor.visit_str(str::from_utf8(&hex).unwrap_or_default())
            }
            Self::Timestamp([a, b, c, d, time @ ..]) => visitor.visit_map(Parts(
                [
                    ("t", u32::from_le_bytes(time)),
                    ("i", u32::from_le_bytes([a, b, c, d])),
                ]
                .into_iter(),
                0,
            )),
            Self::Number(number) => visitor.visit_u32(number),
        }
    }

    forward_to_deserialize_any! {
        bool char str byte_buf bytes unit unit_struct string identifier seq tuple tuple_struct struct map option
        newtype_struct enum ignored_any i8 i16 i32 i64 u8 u16 u32 u64 f32 f64
    }
}

/// The parts of a timestamp, and the one whose name was said.
struct Parts(std::array::IntoIter<(&'static str, u32), 2>, u32);

impl<'de> MapAccess<'de> for Parts {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((name, number)) = self.0.next() else {
            return Ok(None);
        };
        self.1 = number;
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(Extended::Number(self.1))
    }
}

/// What the library is asked for.
#[derive(Clone, Copy)]
enum How {
    Any,
    Bytes,
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
            Self::Bytes => deserializer.deserialize_bytes(visitor),
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

fn digit(value: u8) -> u8 {
    match value {
        0..10 => b'0' + value,
        _ => b'a' + value - 10,
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.first_chunk().copied().ok_or_else(|| malformed("a number"))
}

fn malformed(what: &str) -> Error {
    de::Error::custom(format!("{what} is malformed"))
}

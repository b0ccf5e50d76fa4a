//! A deserializer of BSON that finds each value once, by lengths, and knows where it is when a type does not fit.
//!
//! Typed decoding steps over every field, and the library finds and checks each value several times on the way. It also
//! makes the compiler emit each type a second time. So it is left with what only its own types can ask for.

mod extended;
mod failure;
mod library;
mod raw;

use std::borrow::Cow;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use self::extended::{Extended, Once, Parts};
pub(super) use self::failure::Failure;
use self::failure::Result;
use crate::by_bytes::BY_BYTES;
use crate::depth::{MAX_DEPTH, nests_deeper};
use crate::walk::{self, Element};

/// A value that is to be deserialized.
#[derive(Clone, Copy)]
pub(super) struct Value<'de> {
    element: Element<'de>,
    /// How many documents and arrays it stands in.
    depth: usize,
    /// The document or array that it stands in, and as the how manieth; none for a whole document and for a scope.
    place: Option<(&'de [u8], usize)>,
    manner: Manner,
}

/// How values are to be read, what is in them included. Wrappers of the library ask for it.
#[derive(Clone, Copy, Default)]
struct Manner {
    /// What is no UTF-8 is replaced (`Utf8Lossy`).
    lossy: bool,
    /// Types are told that people read it (`HumanReadable`).
    human_readable: bool,
}

impl<'de> Value<'de> {
    /// A whole document.
    pub(super) fn document(bytes: &'de [u8]) -> Self {
        Self {
            element: Element::document_of(bytes),
            depth: 0,
            place: None,
            manner: Manner::default(),
        }
    }

    fn text(&self) -> Result<Cow<'de, str>> {
        self.manner
            .text(self.element.bytes())
            .ok_or_else(|| Failure::malformed("a string, which has to be UTF-8,"))
    }

    fn fields(&self) -> Result<Fields<'de>> {
        let bytes = self.element.bytes();
        // Each level takes stack.
        if self.depth == LOOK_AHEAD && nests_deeper(bytes, MAX_DEPTH - LOOK_AHEAD) {
            return Err(Failure::too_deep());
        }
        Ok(Fields {
            whole: bytes,
            elements: walk::elements(bytes),
            depth: self.depth + 1,
            manner: self.manner,
            value: None,
            next: 0,
        })
    }

    /// What is seldom in documents.
    #[cold]
    fn deserialize_rare<V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value> {
        match self.element.kind() {
            walk::STRING => match self.text()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            walk::CODE_WITH_SCOPE => match self.code_with_scope() {
                Some((code, scope)) => visitor.visit_map(Parts::code_with_scope(code, scope)),
                None => Err(Failure::malformed("code with a scope")),
            },
            _ => match Extended::rare(&self.element, self.manner) {
                Some(value) => visitor.visit_map(Once(Some(value))),
                None => Err(Failure::malformed("a value")),
            },
        }
    }

    /// The same value, to be read in that manner.
    fn read(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    /// The code, and its scope, which stands where the code stands itself.
    fn code_with_scope(&self) -> Option<(Cow<'de, str>, Self)> {
        let (code, scope) = self.element.code_with_scope()?;
        let scope = Self {
            element: Element::document_of(scope),
            place: None,
            ..*self
        };
        Some((self.manner.text(code)?, scope))
    }
}

impl Manner {
    fn is_plain(self) -> bool {
        !self.lossy && !self.human_readable
    }

    /// The text of a string.
    fn text(self, string: &[u8]) -> Option<Cow<'_, str>> {
        self.read(walk::text_bytes(string)?)
    }

    /// What these bytes say; none if they are no UTF-8 and may not be replaced.
    fn read(self, text: &[u8]) -> Option<Cow<'_, str>> {
        match simdutf8::basic::from_utf8(text) {
            Ok(text) => Some(Cow::Borrowed(text)),
            Err(_) => self.lossy.then(|| String::from_utf8_lossy(text)),
        }
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let bytes = self.element.bytes();
        match self.element.kind() {
            0x01 => visitor.visit_f64(f64::from_le_bytes(array(bytes)?)),
            walk::STRING => match self.element.text() {
                Some(text) => visitor.visit_borrowed_str(text),
                None => self.deserialize_rare(visitor),
            },
            walk::DOCUMENT => visitor.visit_map(self.fields()?),
            walk::ARRAY => visitor.visit_seq(self.fields()?),
            0x08 if matches!(bytes, [0 | 1]) => visitor.visit_bool(bytes == [1]),
            walk::NULL => visitor.visit_unit(),
            0x10 => visitor.visit_i32(i32::from_le_bytes(array(bytes)?)),
            0x12 => visitor.visit_i64(i64::from_le_bytes(array(bytes)?)),
            walk::OBJECT_ID => visitor.visit_map(Once(Some(Extended::ObjectId(array(bytes)?)))),
            0x11 => visitor.visit_map(Once(Some(Extended::Timestamp(array(bytes)?)))),
            walk::DATE => visitor.visit_map(Once(Some(Extended::Date(i64::from_le_bytes(array(bytes)?))))),
            walk::BINARY => match binary(bytes) {
                Some((GENERIC, data)) => visitor.visit_borrowed_bytes(data),
                Some((subtype, data)) => visitor.visit_map(Once(Some(Extended::Binary(subtype, data)))),
                None => Err(Failure::malformed("a binary value")),
            },
            _ => self.deserialize_rare(visitor),
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
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.element.kind() {
            walk::STRING => visitor.visit_enum(self.text()?.into_deserializer()),
            walk::DOCUMENT => visitor.visit_enum(self.fields()?),
            _ => Err(de::Error::custom(format_args!(
                "enum {name} is a string, or a document whose first field is the variant"
            ))),
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
                Some(document) if self.manner.is_plain() => visitor.visit_borrowed_bytes(document),
                _ => visitor.visit_newtype_struct(self),
            };
        }
        // The names by which the library's own types ask it for more than serde can say.
        if name.starts_with('$') {
            return library::newtype(self, name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        self.manner.human_readable
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
    manner: Manner,
    value: Option<Element<'de>>,
    next: usize,
}

impl<'de> Fields<'de> {
    fn advance(&mut self) -> Result<Option<Element<'de>>> {
        let element = self.elements.next();
        if element.is_none() && !self.elements.ended_well() {
            return Err(Failure::malformed("a document"));
        }
        self.next += 1;
        Ok(element)
    }

    fn value_of(&self, element: Element<'de>) -> Value<'de> {
        Value {
            element,
            depth: self.depth,
            place: Some((self.whole, self.next - 1)),
            manner: self.manner,
        }
    }

    /// Deserializes the value of the field whose key was read.
    fn value_by<T>(&mut self, deserialize: impl FnOnce(Value<'de>) -> Result<T>) -> Result<T> {
        let element = self
            .value
            .take()
            .ok_or_else(|| Failure::malformed("a document"))?;
        deserialize(self.value_of(element)).map_err(|failure| failure.in_field(element.key()))
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.value = self.advance()?;
        let Some(element) = &self.value else {
            return Ok(None);
        };
        let key = str::from_utf8(element.key()).map_err(|_| Failure::malformed("a key"))?;
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.value_by(|value| seed.deserialize(value))
    }
}

impl<'de> SeqAccess<'de> for Fields<'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some(element) = self.advance()? else {
            return Ok(None);
        };
        match seed.deserialize(self.value_of(element)) {
            Ok(value) => Ok(Some(value)),
            Err(failure) => Err(failure.in_element(self.next - 1)),
        }
    }
}

/// An enum's variant is the name of the first field, and what it holds is that field's value.
impl<'de> EnumAccess<'de> for Fields<'de> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(mut self, seed: V) -> Result<(V::Value, Self)> {
        match self.next_key_seed(seed)? {
            Some(variant) => Ok((variant, self)),
            None => Err(de::Error::custom("a document without fields names no variant")),
        }
    }
}

impl<'de> VariantAccess<'de> for Fields<'de> {
    type Error = Failure;

    fn unit_variant(self) -> Result<()> {
        Err(de::Error::custom(
            "a variant that holds nothing is a string, and not a document",
        ))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value> {
        self.value_by(|value| seed.deserialize(value))
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, _len: usize, visitor: V) -> Result<V::Value> {
        self.value_by(|value| value.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.value_by(|value| value.deserialize_any(visitor))
    }
}

/// Subtype and bytes of a binary value; none if it is malformed.
fn binary(value: &[u8]) -> Option<(u8, &[u8])> {
    let ([_, _, _, _, subtype], data) = value.split_first_chunk()?;
    if *subtype != OLD {
        return Some((*subtype, data));
    }
    let (length, data) = data.split_first_chunk()?;
    let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
    (length == data.len()).then_some((OLD, data))
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes
        .first_chunk()
        .copied()
        .ok_or_else(|| Failure::malformed("a number"))
}

/// From where on it looks ahead how deep a document nests. Few ever get there.
const LOOK_AHEAD: usize = 32;

/// The subtype of binary values that are bytes and nothing else.
const GENERIC: u8 = 0x00;
/// The subtype that was that before: it has its length once more within.
const OLD: u8 = 0x02;

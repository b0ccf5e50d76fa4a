//! What the library keeps between itself and its own types: the newtypes whose names begin with `$`.
//!
//! It takes whole documents only, so it is led to the value through the document that the value stands in.

use std::fmt;

use bson::{RawDeserializer, RawDocument};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Value;
use super::failure::{Failure, Result};
use crate::depth::nests_too_deep;

/// Has the library deserialize the newtype of that name.
pub(super) fn newtype<'de, V: Visitor<'de>>(
    value: Value<'de>,
    name: &'static str,
    visitor: V,
) -> Result<V::Value> {
    let stepped_through = value
        .place
        .map_or_else(|| value.element.bytes(), |(whole, _)| whole);
    // The library goes as deep as it has to.
    if nests_too_deep(RawDocument::from_bytes(stepped_through)?) {
        return Err(Failure::too_deep());
    }
    let deserializer = RawDeserializer::new(stepped_through)?;
    Ok(match value.place {
        None => deserializer.deserialize_newtype_struct(name, visitor)?,
        Some((_, index)) => deserializer.deserialize_map(Pick {
            index,
            picked: Picked { name, visitor },
        })?,
    })
}

/// Finds one value of a document that the library steps through.
struct Pick<V> {
    index: usize,
    picked: Picked<V>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Pick<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.picked.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<V::Value, A::Error> {
        for _ in 0..self.index {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        map.next_key::<IgnoredAny>()?
            .ok_or_else(|| de::Error::custom("it has fewer fields than a moment ago"))?;
        map.next_value_seed(self.picked)
    }
}

struct Picked<V> {
    name: &'static str,
    visitor: V,
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Picked<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<V::Value, D::Error> {
        deserializer.deserialize_newtype_struct(self.name, self.visitor)
    }
}

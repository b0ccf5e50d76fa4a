//! What the library keeps between itself and its own types: the newtypes whose names begin with `$`.

use std::fmt;

use bson::RawDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::failure::{Failure, Result};
use super::{Manner, Value, binary, raw};
use crate::depth::{MAX_DEPTH, nests_deeper};
use crate::walk;

/// Deserializes the newtype of that name.
pub(super) fn newtype<'de, V: Visitor<'de>>(
    value: Value<'de>,
    name: &'static str,
    visitor: V,
) -> Result<V::Value> {
    let manner = value.manner;
    match name {
        UUID => return uuid(value, visitor),
        UTF8_LOSSY => {
            return visitor.visit_newtype_struct(value.read(Manner {
                lossy: true,
                ..manner
            }));
        }
        HUMAN_READABLE => {
            let manner = Manner {
                human_readable: true,
                ..manner
            };
            return visitor.visit_newtype_struct(value.read(manner));
        }
        // Documents it takes itself, and as they are.
        RAW_VALUE | RAW_ARRAY if value.element.document().is_none() && raw::is_understood() => {
            return raw::value(value, name, visitor);
        }
        _ => {}
    }
    let nested = value.element.nested();
    // The library goes as deep as it has to.
    if nested.is_some_and(|nested| nests_deeper(nested, MAX_DEPTH - 1)) {
        return Err(Failure::too_deep());
    }
    Ok(match (value.element.document(), value.place) {
        (None, Some((whole, index))) => RawDeserializer::new(whole)?.deserialize_map(Pick {
            index,
            picked: Picked { name, visitor },
        })?,
        (_, _) => RawDeserializer::new(value.element.bytes())?.deserialize_newtype_struct(name, visitor)?,
    })
}

/// The only one of them that is in every event.
fn uuid<'de, V: Visitor<'de>>(value: Value<'de>, visitor: V) -> Result<V::Value> {
    match (value.element.kind(), binary(value.element.bytes())) {
        (walk::BINARY, Some((subtype, _))) if subtype != UUID_SUBTYPE => Err(de::Error::custom(
            format_args!("a UUID is binary of subtype {UUID_SUBTYPE}, and this is of subtype {subtype}"),
        )),
        (_, _) => value.deserialize_any(visitor),
    }
}

/// Finds one value that is no document: the library takes whole documents only, so it is led through the one that the
/// value stands in.
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
        // Values that nobody asks for are not looked at: they may be what this type is lenient about.
        for _ in 0..=self.index {
            map.next_key::<IgnoredAny>()?
                .ok_or_else(|| de::Error::custom("it has fewer fields than a moment ago"))?;
        }
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

/// The library's own names. Were they others, the library would do, by a way that is long in long arrays.
const UUID: &str = "$__bson_private_uuid";
const UTF8_LOSSY: &str = "$__bson_private_utf8_lossy";
const HUMAN_READABLE: &str = "$__bson_private_human_readable";
const RAW_VALUE: &str = "$__private__bson_RawBson";
pub(super) const RAW_ARRAY: &str = "$__private__bson_RawArray";
/// The subtype of UUIDs.
const UUID_SUBTYPE: u8 = 0x04;

//! What `$type` can name.

use bson::Bson;

use crate::error::CommandError;
use crate::query::number::Number;
use crate::query::show;

/// What `$type` accepts: one type, or all numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TypeSet {
    Number,
    /// By the number that the wire format gives the type.
    One(i64),
}

impl TypeSet {
    pub(super) fn parse(value: &Bson) -> Result<Self, CommandError> {
        if let Bson::String(name) = value {
            if name == "number" {
                return Ok(Self::Number);
            }
            return NAMES
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, code)| Self::One(*code))
                .ok_or_else(|| CommandError::bad_value(format!("Unknown type name alias: {name}")));
        }
        let Some(number) = Number::of(value) else {
            return Err(CommandError::type_mismatch(
                "type must be represented as a number or a string",
            ));
        };
        match number.to_exact_i64() {
            Some(code) if NAMES.iter().any(|(_, known)| *known == code) => Ok(Self::One(code)),
            Some(_) | None => Err(CommandError::bad_value(format!(
                "Invalid numerical type code: {}",
                show::value(value)
            ))),
        }
    }

    pub(super) fn contains(self, value: &Bson) -> bool {
        match self {
            Self::Number => Number::of(value).is_some(),
            Self::One(code) => {
                let name = show::type_name(value);
                NAMES
                    .iter()
                    .any(|(known, number)| *known == name && *number == code)
            }
        }
    }
}

/// The types by the server's aliases and the numbers of the BSON specification.
const NAMES: &[(&str, i64)] = &[
    ("double", 1),
    ("string", 2),
    ("object", 3),
    ("array", 4),
    ("binData", 5),
    ("undefined", 6),
    ("objectId", 7),
    ("bool", 8),
    ("date", 9),
    ("null", 10),
    ("regex", 11),
    ("dbPointer", 12),
    ("javascript", 13),
    ("symbol", 14),
    ("javascriptWithScope", 15),
    ("int", 16),
    ("timestamp", 17),
    ("long", 18),
    ("decimal", 19),
    ("minKey", -1),
    ("maxKey", 127),
];

//! KeyString, version 1, ascending: the encoding whose bytes compare as the encoded values do, in which a server
//! writes its resume tokens.
//!
//! Two values of different types can be the same to the order (1 and 1.0, a string and a symbol). What tells them
//! apart stands beside the bytes, in the type bits.

mod decode;
mod encode;
mod number;
mod type_bits;

use std::fmt;

use bson::Bson;

pub use type_bits::TypeBits;

/// Values as a KeyString.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// What compares.
    pub bytes: Vec<u8>,
    /// What else is needed to get the same values back.
    pub type_bits: TypeBits,
}

/// The KeyString of these values, in order, with its end mark.
///
/// Two kinds of value do not come back as they went in: a decimal that is no double and has more than 15 digits, or
/// lies outside the range of normal doubles, is encoded as the double next to it towards zero; and the deprecated
/// DBPointer is encoded as undefined.
pub fn encode(values: &[Bson]) -> Encoded {
    let mut encoder = encode::Encoder::default();
    for value in values {
        encoder.value(value);
    }
    encoder.finish()
}

/// The values of a KeyString. What follows the end mark is ignored, and the end mark itself may be missing.
///
/// # Errors
/// For bytes that no server writes, and for what this module does not decode: decimals with a continuation and
/// DBPointers.
pub fn decode(bytes: &[u8], type_bits: &TypeBits) -> Result<Vec<Bson>, KeyStringError> {
    decode::Decoder::new(bytes, type_bits).values()
}

/// Why bytes are not a KeyString that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyStringError {
    /// The bytes end within a value.
    Truncated,
    /// The type bits end before the values do.
    TypeBitsTruncated,
    /// No type has that byte, or a value cannot be of the type that its type bits say.
    UnknownType,
    /// A string that is not UTF-8, or a NUL where none may be.
    BadString,
    /// Nested deeper than a document may be.
    TooDeep,
    /// A number of a form that is not decoded here.
    UnsupportedNumber,
}

impl fmt::Display for KeyStringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "KeyString ends within a value",
            Self::TypeBitsTruncated => "type bits end before the values do",
            Self::UnknownType => "Unknown type byte in KeyString",
            Self::BadString => "invalid string in KeyString",
            Self::TooDeep => "KeyString encoding exceeded maximum allowable BSON nesting depth",
            Self::UnsupportedNumber => "KeyString holds a number that is not decoded here",
        })
    }
}

impl std::error::Error for KeyStringError {}

/// The bytes that tell the types, in their order.
mod ctype {
    pub(super) const END: u8 = 4;
    pub(super) const MIN_KEY: u8 = 10;
    pub(super) const UNDEFINED: u8 = 15;
    pub(super) const NULL: u8 = 20;
    /// Any number, where a field's type precedes its name; a NaN where a value is.
    pub(super) const NUMERIC: u8 = 30;
    /// At most -2^63.
    pub(super) const NEGATIVE_LARGE: u8 = 31;
    /// An integer part of one byte; two bytes are one less, and so on.
    pub(super) const NEGATIVE_ONE_BYTE: u8 = 39;
    /// Between -1 and 0.
    pub(super) const NEGATIVE_SMALL: u8 = 40;
    pub(super) const ZERO: u8 = 41;
    /// Between 0 and 1.
    pub(super) const POSITIVE_SMALL: u8 = 42;
    /// An integer part of one byte; two bytes are one more, and so on.
    pub(super) const POSITIVE_ONE_BYTE: u8 = 43;
    /// At least 2^63.
    pub(super) const POSITIVE_LARGE: u8 = 51;
    pub(super) const STRING: u8 = 60;
    pub(super) const OBJECT: u8 = 70;
    pub(super) const ARRAY: u8 = 80;
    pub(super) const BINARY: u8 = 90;
    pub(super) const OBJECT_ID: u8 = 100;
    pub(super) const FALSE: u8 = 110;
    pub(super) const TRUE: u8 = 111;
    pub(super) const DATE: u8 = 120;
    pub(super) const TIMESTAMP: u8 = 130;
    pub(super) const REGEX: u8 = 140;
    pub(super) const DB_POINTER: u8 = 150;
    pub(super) const CODE: u8 = 160;
    pub(super) const CODE_WITH_SCOPE: u8 = 170;
    pub(super) const MAX_KEY: u8 = 240;
}

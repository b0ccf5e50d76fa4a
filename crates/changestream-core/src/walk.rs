//! Steps over the fields of a document by their lengths alone: what an accessor needs, and nothing that it does not.

use std::ops::Range;

use bson::oid::ObjectId;
use bson::{DateTime, RawBsonRef, RawDocument, Timestamp};

/// A field, located.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    /// Its type (BSON 1.1, "element").
    kind: u8,
    key: &'a [u8],
    value: &'a [u8],
}

/// The field of that name; none if it is not there, or if something before it cannot be stepped over.
///
/// Always inline: of a name that is known there, the comparison is one instruction instead of a call.
#[inline(always)]
pub(crate) fn find<'a>(document: &'a [u8], name: &str) -> Option<Element<'a>> {
    find_from(document, FIRST, name)
}

/// The same, but for the fields before that place, where one has to start.
#[inline(always)]
pub(crate) fn find_from<'a>(document: &'a [u8], start: usize, name: &str) -> Option<Element<'a>> {
    let name = name.as_bytes();
    let mut rest = document.get(start..)?;
    loop {
        // What a document ends with is no kind, and no key is behind it.
        let (&kind, after) = rest.split_first()?;
        let end = until_zero(after)?;
        let value = after.get(end + 1..)?;
        let size = size(value, kind)?;
        // Most names of one length differ in the first letter.
        if end == name.len() && after.first() == name.first() && after.get(..end)? == name {
            let value = value.get(..size)?;
            return Some(Element {
                kind,
                key: &[],
                value,
            });
        }
        rest = value.get(size..)?;
    }
}

/// Where the value of the first field stands, if that field is `_id` and a document.
#[inline]
pub(crate) fn leading_id(document: &[u8]) -> Option<Range<usize>> {
    if document.get(LENGTH..)?.first_chunk()? != ID_FIELD {
        return None;
    }
    let start = LEADING_ID;
    let end = start.checked_add(length(document, start)?)?;
    let id = document.get(start..end)?;
    (id.len() >= LEAST && id.last() == Some(&0)).then_some(start..end)
}

/// The fields of a document, up to the first that cannot be stepped over.
#[inline]
pub(crate) fn elements(document: &[u8]) -> Elements<'_> {
    Elements {
        rest: document.get(LENGTH..).unwrap_or_default(),
    }
}

/// How many fields there are up to the first that cannot be stepped over.
#[inline]
pub(crate) fn count(document: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = document.get(LENGTH..).unwrap_or_default();
    while let Some(behind) = behind_one(rest) {
        (count, rest) = (count + 1, behind);
    }
    count
}

/// What stands behind the field that stands first.
#[inline]
fn behind_one(rest: &[u8]) -> Option<&[u8]> {
    let (&kind, after) = rest.split_first()?;
    let value = after.get(until_zero(after)? + 1..)?;
    value.get(size(value, kind)?..)
}

/// See [`elements`].
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Name and text of the next field, if it is a string and one look tells that both are UTF-8. None says nothing.
    ///
    /// That look takes in the length between them, which most strings have of bytes that are ASCII.
    #[inline]
    pub(crate) fn next_text(&mut self) -> Option<(&'a str, &'a str)> {
        let after = self.rest.strip_prefix(&[STRING])?;
        let name = until_zero(after)?;
        let text = name + 1 + LENGTH;
        let length = after.get(name + 1..text).filter(|length| length.is_ascii())?;
        let end = text.checked_add(self::length(length, 0)?)?;
        let (both, rest) = after.split_at_checked(end)?;
        let both = simdutf8::basic::from_utf8(both).ok()?.strip_suffix('\0')?;
        let found = (both.get(..name)?, both.get(text..)?);
        self.rest = rest;
        Some(found)
    }

    /// Whether what is left is what a document ends with.
    pub(crate) fn ended_well(&self) -> bool {
        self.rest == [0]
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        let (&kind, after) = self.rest.split_first()?;
        if kind == 0 {
            return None;
        }
        let end = until_zero(after)?;
        let (key, after) = (after.get(..end)?, after.get(end + 1..)?);
        let (value, rest) = after.split_at_checked(size(after, kind)?)?;
        self.rest = rest;
        Some(Element { kind, key, value })
    }
}

impl<'a> Element<'a> {
    /// The value, if it is one of the common kinds and well-formed. None says nothing.
    #[inline]
    pub(crate) fn value(&self) -> Option<RawBsonRef<'a>> {
        let long = || self.value.first_chunk().copied().map(i64::from_le_bytes);
        Some(match self.kind {
            0x01 => RawBsonRef::Double(f64::from_le_bytes(*self.value.first_chunk()?)),
            0x08 if matches!(self.value, [0 | 1]) => RawBsonRef::Boolean(self.value == [1]),
            DOCUMENT => RawBsonRef::Document(RawDocument::from_bytes(self.value).ok()?),
            STRING => RawBsonRef::String(self.text()?),
            OBJECT_ID => RawBsonRef::ObjectId(ObjectId::from_bytes(*self.value.first_chunk()?)),
            DATE => RawBsonRef::DateTime(DateTime::from_millis(long()?)),
            NULL => RawBsonRef::Null,
            0x10 => RawBsonRef::Int32(i32::from_le_bytes(*self.value.first_chunk()?)),
            0x11 => RawBsonRef::Timestamp(Timestamp {
                increment: u32::from_le_bytes(*self.value.first_chunk()?),
                time: u32::from_le_bytes(*self.value.last_chunk()?),
            }),
            0x12 => RawBsonRef::Int64(long()?),
            _ => return None,
        })
    }

    /// A whole document, as if it were a field.
    pub(crate) fn document_of(bytes: &'a [u8]) -> Self {
        Self {
            kind: DOCUMENT,
            key: &[],
            value: bytes,
        }
    }

    #[inline]
    pub(crate) fn kind(&self) -> u8 {
        self.kind
    }

    /// Its name; empty where it was found by its name.
    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        self.key
    }

    /// All of the value.
    #[inline]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.value
    }

    /// The text that a string is.
    #[inline]
    pub(crate) fn text(&self) -> Option<&'a str> {
        text(self.value)
    }

    /// The bytes of a document.
    #[inline]
    pub(crate) fn document(&self) -> Option<&'a [u8]> {
        (self.kind == DOCUMENT).then_some(self.value)
    }

    /// The document or array that the value is, or the scope that belongs to it if it is code.
    #[inline]
    pub(crate) fn nested(&self) -> Option<&'a [u8]> {
        match self.kind {
            DOCUMENT | ARRAY => Some(self.value),
            CODE_WITH_SCOPE => {
                let code = length(self.value.get(LENGTH..)?, 0)?;
                self.value.get(LENGTH.checked_mul(2)?.checked_add(code)?..)
            }
            _ => None,
        }
    }

    /// The code, a string, and the scope that a value of that kind is.
    pub(crate) fn code_with_scope(&self) -> Option<(&'a [u8], &'a [u8])> {
        let code = self.value.get(LENGTH..)?;
        let end = LENGTH.checked_add(length(code, 0)?)?;
        Some((code.get(..end)?, self.nested()?))
    }
}

/// The text of a string, if it is UTF-8.
#[inline]
pub(crate) fn text(string: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(text_bytes(string)?).ok()
}

/// What should be the text of a string: behind its length, and before the zero that ends it.
#[inline]
pub(crate) fn text_bytes(string: &[u8]) -> Option<&[u8]> {
    let (zero, text) = string.get(LENGTH..)?.split_last()?;
    (*zero == 0).then_some(text)
}

/// How many bytes a value takes.
#[inline]
pub(crate) fn size(value: &[u8], kind: u8) -> Option<usize> {
    Some(match kind {
        DOCUMENT | ARRAY | CODE_WITH_SCOPE => length(value, 0)?.max(LENGTH),
        // Strings; code, symbols.
        0x02 | 0x0d | 0x0e => LENGTH.checked_add(length(value, 0)?)?,
        // Doubles, dates, timestamps, 64-bit integers.
        0x01 | 0x09 | 0x11 | 0x12 => 8,
        0x10 => 4,
        // An ObjectId.
        0x07 => 12,
        0x08 => 1,
        // Null, undefined, the smallest and the largest key.
        0x06 | 0x0a | 0xff | 0x7f => 0,
        // Binary: length and subtype.
        0x05 => (LENGTH + 1).checked_add(length(value, 0)?)?,
        // A decimal.
        0x13 => 16,
        // A regular expression: two texts that end with zero.
        0x0b => {
            let pattern = until_zero(value)? + 1;
            let options = until_zero(value.get(pattern..)?)? + 1;
            pattern + options
        }
        // A pointer: a name and an ObjectId.
        0x0c => (LENGTH + 12).checked_add(length(value, 0)?)?,
        _ => return None,
    })
}

/// How many bytes stand before the first zero: sixteen of them at a time, which is one time for nearly every key.
#[inline]
pub(crate) fn until_zero(bytes: &[u8]) -> Option<usize> {
    match bytes.first_chunk().and_then(zero_among) {
        Some(at) => Some(at),
        None => until_late_zero(bytes),
    }
}

/// Where among them the first zero is.
#[inline]
fn zero_among(bytes: &[u8; 16]) -> Option<usize> {
    const LOW: u128 = u128::from_le_bytes([1; 16]);
    const HIGH: u128 = LOW << 7;
    let word = u128::from_le_bytes(*bytes);
    // The lowest bit that is set marks the first byte that is zero.
    let zeros = word.wrapping_sub(LOW) & !word & HIGH;
    (zeros != 0).then(|| zeros.trailing_zeros() as usize / 8)
}

/// The same for longer keys, and where fewer bytes are left.
#[cold]
fn until_late_zero(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == 0)
}

#[inline]
fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let declared = i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    usize::try_from(declared).ok()
}

pub(crate) const STRING: u8 = 0x02;
pub(crate) const DOCUMENT: u8 = 0x03;
pub(crate) const ARRAY: u8 = 0x04;
pub(crate) const BINARY: u8 = 0x05;
pub(crate) const OBJECT_ID: u8 = 0x07;
pub(crate) const DATE: u8 = 0x09;
pub(crate) const NULL: u8 = 0x0a;
pub(crate) const CODE_WITH_SCOPE: u8 = 0x0f;
/// Where the first field stands.
pub(crate) const FIRST: usize = LENGTH;
/// Where the value of an `_id` stands that is the first field, and a document.
pub(crate) const LEADING_ID: usize = LENGTH + ID_FIELD.len();
const ID_FIELD: &[u8; 5] = b"\x03_id\0";
/// A document starts with its length.
const LENGTH: usize = 4;
/// The empty document.
const LEAST: usize = 5;

//! From KeyString to values.

use bson::oid::ObjectId;
use bson::raw::CString;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, Regex, Timestamp};

use super::type_bits::TypeBits;
use super::{KeyStringError, ctype, number};
use crate::query::path::MAX_DEPTH;

pub(super) struct Decoder<'a> {
    rest: &'a [u8],
    bits: &'a TypeBits,
    bits_read: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], bits: &'a TypeBits) -> Self {
        Self {
            rest: bytes,
            bits,
            bits_read: 0,
        }
    }

    pub(super) fn values(mut self) -> Result<Vec<Bson>, KeyStringError> {
        let mut values = Vec::new();
        while let Ok(tag) = self.byte() {
            if tag == ctype::END {
                break;
            }
            values.push(self.value(tag, MAX_DEPTH)?);
        }
        Ok(values)
    }

    fn value(&mut self, tag: u8, depth: usize) -> Result<Bson, KeyStringError> {
        let below = depth.checked_sub(1).ok_or(KeyStringError::TooDeep)?;
        Ok(match tag {
            ctype::MIN_KEY => Bson::MinKey,
            ctype::UNDEFINED => Bson::Undefined,
            ctype::NULL => Bson::Null,
            ctype::NUMERIC..=ctype::POSITIVE_LARGE => number::decode(tag, self)?,
            ctype::STRING => {
                let symbol = self.bits(1)? == 1;
                let text = self.text()?;
                if symbol {
                    Bson::Symbol(text)
                } else {
                    Bson::String(text)
                }
            }
            ctype::OBJECT => Bson::Document(self.fields(below)?),
            ctype::ARRAY => self.array(below)?,
            ctype::BINARY => self.binary()?,
            ctype::OBJECT_ID => Bson::ObjectId(ObjectId::from_bytes(*self.chunk()?)),
            ctype::FALSE => Bson::Boolean(false),
            ctype::TRUE => Bson::Boolean(true),
            ctype::DATE => {
                let biased = u64::from_be_bytes(*self.chunk()?);
                Bson::DateTime(DateTime::from_millis((biased ^ (1 << 63)).cast_signed()))
            }
            ctype::TIMESTAMP => Bson::Timestamp(Timestamp {
                time: u32::from_be_bytes(*self.chunk()?),
                increment: u32::from_be_bytes(*self.chunk()?),
            }),
            ctype::REGEX => Bson::RegularExpression(Regex {
                pattern: self.cstring()?,
                options: self.cstring()?,
            }),
            ctype::CODE => Bson::JavaScriptCode(self.text()?),
            ctype::CODE_WITH_SCOPE => Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
                code: self.text()?,
                scope: self.fields(below)?,
            }),
            ctype::MAX_KEY => Bson::MaxKey,
            // The bson crate lets nobody make a DBPointer.
            ctype::DB_POINTER => return Err(KeyStringError::UnknownType),
            _ => return Err(KeyStringError::UnknownType),
        })
    }

    fn fields(&mut self, depth: usize) -> Result<Document, KeyStringError> {
        let mut document = Document::new();
        // The general type of each field, which the value's own type byte repeats.
        while self.byte()? != 0 {
            let name = self.text()?;
            let tag = self.byte()?;
            document.insert(name, self.value(tag, depth)?);
        }
        Ok(document)
    }

    fn array(&mut self, depth: usize) -> Result<Bson, KeyStringError> {
        let mut items = Vec::new();
        loop {
            match self.byte()? {
                0 => return Ok(Bson::Array(items)),
                tag => items.push(self.value(tag, depth)?),
            }
        }
    }

    fn binary(&mut self) -> Result<Bson, KeyStringError> {
        let length = match self.byte()? {
            0xFF => usize::try_from(u32::from_be_bytes(*self.chunk()?)).unwrap_or(usize::MAX),
            short => usize::from(short),
        };
        let subtype = BinarySubtype::from(self.byte()?);
        Ok(Bson::Binary(Binary {
            subtype,
            bytes: self.take(length)?.to_vec(),
        }))
    }

    fn text(&mut self) -> Result<String, KeyStringError> {
        let mut bytes = Vec::new();
        loop {
            let byte = self.byte()?;
            if byte != 0 {
                bytes.push(byte);
            } else if let Some((0xFF, rest)) = self.rest.split_first() {
                self.rest = rest;
                bytes.push(0);
            } else {
                return String::from_utf8(bytes).map_err(|_| KeyStringError::BadString);
            }
        }
    }

    fn cstring(&mut self) -> Result<CString, KeyStringError> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(KeyStringError::Truncated)?;
        let bytes = self.take(end)?.to_vec();
        self.byte()?;
        let text = String::from_utf8(bytes).map_err(|_| KeyStringError::BadString)?;
        CString::try_from(text).map_err(|_| KeyStringError::BadString)
    }

    fn byte(&mut self) -> Result<u8, KeyStringError> {
        self.chunk::<1>().map(|[byte]| *byte)
    }

    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], KeyStringError> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(KeyStringError::Truncated)?;
        self.rest = rest;
        Ok(chunk)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], KeyStringError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(KeyStringError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Eight bytes, inverted where the number is negative.
    pub(super) fn signed(&mut self, negative: bool) -> Result<u64, KeyStringError> {
        let encoded = u64::from_be_bytes(*self.chunk()?);
        Ok(if negative { !encoded } else { encoded })
    }

    pub(super) fn bits(&mut self, count: u32) -> Result<u16, KeyStringError> {
        let value = self.peek_bits(count)?;
        self.bits_read += usize::try_from(count).unwrap_or(0);
        Ok(value)
    }

    pub(super) fn peek_bits(&self, count: u32) -> Result<u16, KeyStringError> {
        self.bits.read(self.bits_read, count)
    }
}

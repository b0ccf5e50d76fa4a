//! From values to KeyString.

use bson::{Bson, Document};

use super::type_bits::TypeBits;
use super::{Encoded, ctype, number};

#[derive(Default)]
pub(super) struct Encoder {
    pub(super) bytes: Vec<u8>,
    pub(super) bits: TypeBits,
}

impl Encoder {
    pub(super) fn finish(mut self) -> Encoded {
        self.bytes.push(ctype::END);
        Encoded {
            bytes: self.bytes,
            type_bits: self.bits,
        }
    }

    pub(super) fn value(&mut self, value: &Bson) {
        match value {
            Bson::MinKey => self.bytes.push(ctype::MIN_KEY),
            Bson::Undefined | Bson::DbPointer(_) => self.bytes.push(ctype::UNDEFINED),
            Bson::Null => self.bytes.push(ctype::NULL),
            Bson::Int32(value) => number::int(self, *value),
            Bson::Int64(value) => number::long(self, *value),
            Bson::Double(value) => number::double(self, *value),
            Bson::Decimal128(value) => number::decimal(self, *value),
            Bson::String(text) => self.string(text, 0),
            Bson::Symbol(text) => self.string(text, 1),
            Bson::Document(document) => {
                self.bytes.push(ctype::OBJECT);
                self.fields(document);
            }
            Bson::Array(items) => {
                self.bytes.push(ctype::ARRAY);
                items.iter().for_each(|item| self.value(item));
                self.bytes.push(0);
            }
            Bson::Binary(binary) => self.binary(u8::from(binary.subtype), &binary.bytes),
            Bson::ObjectId(id) => self.tagged(ctype::OBJECT_ID, &id.bytes()),
            Bson::Boolean(false) => self.bytes.push(ctype::FALSE),
            Bson::Boolean(true) => self.bytes.push(ctype::TRUE),
            Bson::DateTime(date) => {
                // The sign bit turned over makes two's complement compare as unsigned.
                let biased = date.timestamp_millis().cast_unsigned() ^ (1 << 63);
                self.tagged(ctype::DATE, &biased.to_be_bytes());
            }
            Bson::Timestamp(time) => {
                self.tagged(ctype::TIMESTAMP, &time.time.to_be_bytes());
                self.bytes.extend_from_slice(&time.increment.to_be_bytes());
            }
            Bson::RegularExpression(regex) => {
                self.tagged(ctype::REGEX, regex.pattern.as_str().as_bytes());
                self.bytes.push(0);
                self.bytes.extend_from_slice(regex.options.as_str().as_bytes());
                self.bytes.push(0);
            }
            Bson::JavaScriptCode(code) => {
                self.bytes.push(ctype::CODE);
                self.text(code);
            }
            Bson::JavaScriptCodeWithScope(code) => {
                self.bytes.push(ctype::CODE_WITH_SCOPE);
                self.text(&code.code);
                self.fields(&code.scope);
            }
            Bson::MaxKey => self.bytes.push(ctype::MAX_KEY),
        }
    }

    /// Each field as its general type, its name, its value: so that documents compare type first.
    fn fields(&mut self, document: &Document) {
        for (name, value) in document {
            self.bytes.push(general_type(value));
            self.text(name);
            self.value(value);
        }
        self.bytes.push(0);
    }

    fn string(&mut self, text: &str, bit: u16) {
        self.bits.push(bit, 1);
        self.bytes.push(ctype::STRING);
        self.text(text);
    }

    /// The bytes up to a NUL; a NUL within is followed by FF, which no end is.
    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.bytes.push(byte);
            if byte == 0 {
                self.bytes.push(0xFF);
            }
        }
        self.bytes.push(0);
    }

    fn binary(&mut self, subtype: u8, data: &[u8]) {
        self.bytes.push(ctype::BINARY);
        match u8::try_from(data.len()) {
            Ok(short) if short < 0xFF => self.bytes.push(short),
            Ok(_) | Err(_) => {
                self.bytes.push(0xFF);
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                self.bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        self.bytes.push(subtype);
        self.bytes.extend_from_slice(data);
    }

    pub(super) fn tagged(&mut self, tag: u8, data: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(data);
    }
}

/// The type byte that precedes a field's name.
fn general_type(value: &Bson) -> u8 {
    match value {
        Bson::MinKey => ctype::MIN_KEY,
        Bson::Undefined | Bson::DbPointer(_) => ctype::UNDEFINED,
        Bson::Null => ctype::NULL,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => ctype::NUMERIC,
        Bson::String(_) | Bson::Symbol(_) => ctype::STRING,
        Bson::Document(_) => ctype::OBJECT,
        Bson::Array(_) => ctype::ARRAY,
        Bson::Binary(_) => ctype::BINARY,
        Bson::ObjectId(_) => ctype::OBJECT_ID,
        Bson::Boolean(_) => ctype::FALSE,
        Bson::DateTime(_) => ctype::DATE,
        Bson::Timestamp(_) => ctype::TIMESTAMP,
        Bson::RegularExpression(_) => ctype::REGEX,
        Bson::JavaScriptCode(_) => ctype::CODE,
        Bson::JavaScriptCodeWithScope(_) => ctype::CODE_WITH_SCOPE,
        Bson::MaxKey => ctype::MAX_KEY,
    }
}

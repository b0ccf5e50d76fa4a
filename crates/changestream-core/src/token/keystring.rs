//! The encoding of values in a resume token: a server's KeyString, version 1, ascending.
//!
//! Each value is a type byte and what that type brings, so that the bytes compare as the values do. That leaves no
//! room for which number type a number had: whole numbers come back as the smallest integer that holds them, others
//! as doubles.

use std::fmt;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, Regex, Timestamp};

/// Reads one value after the other; never beyond its bytes, and never more than a token can sensibly hold.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values_left: usize,
}

/// Where reading stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotUnderstood {
    at: usize,
    message: String,
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {} of the token)", self.message, self.at)
    }
}

type Result<T> = std::result::Result<T, NotUnderstood>;

impl<'a> Reader<'a> {
    pub(super) fn starting_at(at: usize, bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at,
            values_left: MOST_VALUES,
        }
    }

    /// The next byte, which stays.
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Whether the next byte is the one that ends a key.
    pub(super) fn at_end(&self) -> bool {
        matches!(self.peek(), None | Some(END))
    }

    /// The next value.
    pub(super) fn value(&mut self) -> Result<Bson> {
        let kind = self.byte()?;
        self.value_of(kind, 0)
    }

    fn value_of(&mut self, kind: u8, depth: usize) -> Result<Bson> {
        self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or_else(|| self.not_understood("it holds more values than a token does"))?;
        if depth > DEEPEST {
            return Err(self.not_understood("it nests deeper than a server allows"));
        }
        Ok(match kind {
            MIN_KEY => Bson::MinKey,
            UNDEFINED => Bson::Undefined,
            NULL => Bson::Null,
            NAN..=POSITIVE_LARGE => self.number(kind)?,
            STRING => Bson::String(self.string()?),
            OBJECT => Bson::Document(self.object(depth)?),
            ARRAY => self.array(depth)?,
            BINARY => self.binary()?,
            OBJECT_ID => Bson::ObjectId(ObjectId::from_bytes(self.take()?)),
            FALSE => Bson::Boolean(false),
            TRUE => Bson::Boolean(true),
            DATE => Bson::DateTime(DateTime::from_millis(
                // Stored with the sign turned over, so that earlier dates compare lower.
                i64::from_be_bytes(self.take()?) ^ i64::MIN,
            )),
            TIMESTAMP => Bson::Timestamp(self.timestamp()?),
            REGEX => self.regex()?,
            CODE => Bson::JavaScriptCode(self.string()?),
            CODE_WITH_SCOPE => Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
                code: self.string()?,
                scope: self.object(depth)?,
            }),
            MAX_KEY => Bson::MaxKey,
            other => {
                self.at = self.at.saturating_sub(1);
                return Err(self.not_understood(format!("no value is known to start with {other:02X}")));
            }
        })
    }

    fn object(&mut self, depth: usize) -> Result<Document> {
        let mut document = Document::new();
        // The type stands twice: before the name, for sorting, and before the value.
        while self.byte()? != 0 {
            let name = self.name()?;
            let kind = self.byte()?;
            let value = self.value_of(kind, depth + 1)?;
            document.insert(name, value);
        }
        Ok(document)
    }

    fn array(&mut self, depth: usize) -> Result<Bson> {
        let mut elements = Vec::new();
        loop {
            match self.byte()? {
                0 => return Ok(Bson::Array(elements)),
                kind => elements.push(self.value_of(kind, depth + 1)?),
            }
        }
    }

    fn number(&mut self, kind: u8) -> Result<Bson> {
        match kind {
            NAN => Ok(Bson::Double(f64::NAN)),
            ZERO => Ok(Bson::Int32(0)),
            NEGATIVE_LARGE | POSITIVE_LARGE => self.large(kind == NEGATIVE_LARGE),
            NEGATIVE_SMALL | POSITIVE_SMALL => self.small(kind == NEGATIVE_SMALL),
            _ => self.integer(kind),
        }
    }

    /// Whole numbers, and others of magnitude 1 to 2^63. The number of bytes is in the type byte; their lowest bit
    /// says whether a fraction follows, which fills up to eight bytes in all.
    fn integer(&mut self, kind: u8) -> Result<Bson> {
        let negative = kind < NEGATIVE_SMALL;
        let length = usize::from(if negative {
            NEGATIVE_SMALL - kind
        } else {
            kind - POSITIVE_SMALL
        });
        let mut shifted = 0_u64;
        for _ in 0..length {
            shifted = shifted << 8 | u64::from(self.byte_of(negative)?);
        }
        let has_fraction = shifted & 1 == 1;
        let whole = shifted >> 1;
        if !has_fraction {
            let magnitude = whole.cast_signed(); // 63 bits: no overflow
            return Ok(smallest_integer(if negative { -magnitude } else { magnitude }));
        }
        let mut fixed_point = whole;
        for _ in length..8 {
            fixed_point = fixed_point << 8 | u64::from(self.byte_of(negative)?);
        }
        if length == 8 || fixed_point & 3 != 0 {
            return Err(self.not_understood(DECIMAL));
        }
        #[expect(clippy::cast_precision_loss, reason = "the encoding holds 53 bits at most")]
        let magnitude = fixed_point as f64 / 256_f64.powi(8 - length.min(8) as i32);
        Ok(Bson::Double(signed(magnitude, negative)))
    }

    /// Doubles from 2^63 on, and infinity.
    fn large(&mut self, negative: bool) -> Result<Bson> {
        let encoded = self.eight_bytes_of(negative)?;
        if encoded == u64::MAX {
            return Ok(Bson::Double(signed(f64::INFINITY, negative)));
        }
        if encoded >> 63 == 1 || encoded & 1 == 1 {
            return Err(self.not_understood(DECIMAL));
        }
        let magnitude = f64::from_bits(encoded >> 1 | 1 << 62);
        Ok(Bson::Double(signed(magnitude, negative)))
    }

    /// Numbers between 0 and 1. The top two bits tell doubles from tinier ones and from decimals.
    fn small(&mut self, negative: bool) -> Result<Bson> {
        let encoded = self.eight_bytes_of(negative)?;
        let magnitude = match encoded >> 62 {
            3 if encoded & 3 == 0 => f64::from_bits(encoded >> 2),
            // Scaled by 2^256, to keep clear of subnormal numbers.
            1 | 2 if encoded & 1 == 0 => f64::from_bits((encoded - (1 << 62)) >> 1) * 2_f64.powi(-256),
            _ => return Err(self.not_understood(DECIMAL)),
        };
        Ok(Bson::Double(signed(magnitude, negative)))
    }

    fn timestamp(&mut self) -> Result<Timestamp> {
        let time = u32::from_be_bytes(self.take()?);
        let increment = u32::from_be_bytes(self.take()?);
        Ok(Timestamp { time, increment })
    }

    fn binary(&mut self) -> Result<Bson> {
        let length = match self.byte()? {
            u8::MAX => u32::from_be_bytes(self.take()?),
            short => u32::from(short),
        };
        let subtype = BinarySubtype::from(self.byte()?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.slice(length)?.to_vec();
        Ok(Bson::Binary(Binary { subtype, bytes }))
    }

    fn regex(&mut self) -> Result<Bson> {
        let (pattern, options) = (self.name()?, self.name()?);
        let (Ok(pattern), Ok(options)) = (pattern.try_into(), options.try_into()) else {
            return Err(self.not_understood("a regular expression with a NUL"));
        };
        Ok(Bson::RegularExpression(Regex { pattern, options }))
    }

    /// Up to the next NUL, which is left behind.
    fn name(&mut self) -> Result<String> {
        let bytes = self.up_to_nul()?;
        self.utf8(bytes.to_vec())
    }

    /// Up to the next NUL that no FF follows: NUL and FF together stand for a NUL of the string's own.
    fn string(&mut self) -> Result<String> {
        let mut string = self.up_to_nul()?.to_vec();
        while self.peek() == Some(u8::MAX) {
            self.at += 1;
            string.push(0);
            string.extend_from_slice(self.up_to_nul()?);
        }
        self.utf8(string)
    }

    fn utf8(&self, bytes: Vec<u8>) -> Result<String> {
        String::from_utf8(bytes).map_err(|_| self.not_understood("a string that is not UTF-8"))
    }

    fn up_to_nul(&mut self) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == 0) else {
            return Err(self.not_understood("a string without an end"));
        };
        let bytes = self.slice(length)?;
        self.at += 1;
        Ok(bytes)
    }

    fn eight_bytes_of(&mut self, negative: bool) -> Result<u64> {
        let value = u64::from_be_bytes(self.take()?);
        Ok(if negative { !value } else { value })
    }

    /// Negative numbers stand with their bits turned over, so that larger ones compare lower.
    fn byte_of(&mut self, negative: bool) -> Result<u8> {
        let byte = self.byte()?;
        Ok(if negative { !byte } else { byte })
    }

    fn byte(&mut self) -> Result<u8> {
        let [byte] = self.take()?;
        Ok(byte)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(bytes) = rest.first_chunk() else {
            return Err(self.not_understood("it ends within a value"));
        };
        self.at += N;
        Ok(*bytes)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length);
        let Some(bytes) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(self.not_understood("it ends within a value"));
        };
        self.at += length;
        Ok(bytes)
    }

    pub(super) fn not_understood(&self, message: impl Into<String>) -> NotUnderstood {
        NotUnderstood {
            at: self.at,
            message: message.into(),
        }
    }
}

fn smallest_integer(number: i64) -> Bson {
    i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32)
}

fn signed(magnitude: f64, negative: bool) -> f64 {
    if negative { -magnitude } else { magnitude }
}

/// As deep as servers let documents nest.
const DEEPEST: usize = 200;

/// Bounds the memory that a hostile token can take: a value in memory is a hundred times its single byte here.
const MOST_VALUES: usize = 20_000;

const DECIMAL: &str = "a decimal number, which is not decoded";

// Type bytes. Between those of two types lies room for values that the type byte itself tells apart.
const END: u8 = 0x04;
const MIN_KEY: u8 = 0x0A;
const UNDEFINED: u8 = 0x0F;
const NULL: u8 = 0x14;
const NAN: u8 = 0x1E;
const NEGATIVE_LARGE: u8 = 0x1F;
const NEGATIVE_SMALL: u8 = 0x28;
const ZERO: u8 = 0x29;
const POSITIVE_SMALL: u8 = 0x2A;
const POSITIVE_LARGE: u8 = 0x33;
const STRING: u8 = 0x3C;
pub(super) const OBJECT: u8 = 0x46;
const ARRAY: u8 = 0x50;
const BINARY: u8 = 0x5A;
const OBJECT_ID: u8 = 0x64;
const FALSE: u8 = 0x6E;
const TRUE: u8 = 0x6F;
const DATE: u8 = 0x78;
pub(super) const TIMESTAMP: u8 = 0x82;
const REGEX: u8 = 0x8C;
const CODE: u8 = 0xA0;
const CODE_WITH_SCOPE: u8 = 0xAA;
const MAX_KEY: u8 = 0xF0;

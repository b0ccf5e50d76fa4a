//! The bits beside a KeyString that tell types apart which compare as one.

use super::KeyStringError;

/// A sequence of bits, the first in the lowest place of the first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeBits {
    bytes: Vec<u8>,
    length: usize,
}

impl TypeBits {
    /// Whether there is nothing to tell: then a server leaves them out.
    pub fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// The form in which they stand in a token's `_typeBits`: a byte by itself where its high bit is free, else the
    /// number of bytes before them.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.is_zero() {
            return vec![0];
        }
        if let [only] = self.bytes.as_slice()
            && only & 0x80 == 0
        {
            return vec![*only];
        }
        let mut out = match u8::try_from(self.bytes.len()) {
            Ok(short) if short <= MAX_SHORT => vec![0x80 | short],
            Ok(_) | Err(_) => {
                let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
                [&[0x80], length.to_le_bytes().as_slice()].concat()
            }
        };
        out.extend_from_slice(&self.bytes);
        out
    }

    /// The bits of a token's `_typeBits`.
    ///
    /// # Errors
    /// If there are fewer bytes than their own head says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyStringError> {
        let Some((first, rest)) = bytes.split_first() else {
            return Ok(Self::default());
        };
        let data = if *first & 0x80 == 0 {
            std::slice::from_ref(first)
        } else if *first == 0x80 {
            let (length, rest) = rest
                .split_first_chunk::<4>()
                .ok_or(KeyStringError::TypeBitsTruncated)?;
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            rest.get(..length).ok_or(KeyStringError::TypeBitsTruncated)?
        } else {
            rest.get(..usize::from(first & 0x7F))
                .ok_or(KeyStringError::TypeBitsTruncated)?
        };
        Ok(Self {
            bytes: data.to_vec(),
            length: data.len() * 8,
        })
    }

    /// Appends the lowest `count` bits of `value`, the highest of them first.
    pub(super) fn push(&mut self, value: u16, count: u32) {
        for at in (0..count).rev() {
            let bit = u8::from(value >> at & 1 == 1);
            if self.length.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (self.length % 8);
            }
            self.length += 1;
        }
    }

    /// The `count` bits from `at` on, the first the highest. All bits of what is zero are zero, however short it is.
    pub(super) fn read(&self, at: usize, count: u32) -> Result<u16, KeyStringError> {
        if self.is_zero() {
            return Ok(0);
        }
        let mut value = 0;
        for offset in (at..).take(usize::try_from(count).unwrap_or(0)) {
            let byte = self
                .bytes
                .get(offset / 8)
                .ok_or(KeyStringError::TypeBitsTruncated)?;
            value = value << 1 | u16::from(byte >> (offset % 8) & 1);
        }
        Ok(value)
    }
}

/// How many bytes the short head can count.
const MAX_SHORT: u8 = 127;

/// A number's type, in two bits.
pub(super) const INT: u16 = 0b00;
pub(super) const LONG: u16 = 0b01;
pub(super) const DOUBLE: u16 = 0b10;
/// Six bits follow: the lowest of the decimal's biased exponent.
pub(super) const DECIMAL: u16 = 0b11;
pub(super) const DECIMAL_EXPONENT_BITS: u32 = 6;
/// For zeros, the same two bits open a five-bit code: a double's -0, or a decimal zero.
pub(super) const SPECIAL_ZERO: u16 = 0b11;
pub(super) const NEGATIVE_ZERO: u16 = 0b11000;
/// The first of six codes, each with 12 bits behind it: together they number the decimal zeros.
pub(super) const DECIMAL_ZERO: u16 = 0b11010;
pub(super) const DECIMAL_ZERO_BITS: u32 = 12;

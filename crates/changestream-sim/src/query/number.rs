//! Numbers of any BSON type: exact comparison across types, and the arithmetic of `$inc`, `$mul` and `$add`.

use std::cmp::Ordering;
use std::str::FromStr;

use bson::{Bson, Decimal128};

/// A BSON number, read once.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A 32-bit integer.
    Int(i32),
    /// A 64-bit integer.
    Long(i64),
    /// A double.
    Double(f64),
    /// A decimal.
    Decimal(Decimal128),
}

impl Number {
    /// The number that this value is, if it is one.
    pub fn of(value: &Bson) -> Option<Self> {
        if let Bson::Int32(value) = value {
            Some(Self::Int(*value))
        } else if let Bson::Int64(value) = value {
            Some(Self::Long(*value))
        } else if let Bson::Double(value) = value {
            Some(Self::Double(*value))
        } else if let Bson::Decimal128(value) = value {
            Some(Self::Decimal(*value))
        } else {
            None
        }
    }

    /// The BSON value of this number.
    pub fn into_bson(self) -> Bson {
        match self {
            Self::Int(value) => Bson::Int32(value),
            Self::Long(value) => Bson::Int64(value),
            Self::Double(value) => Bson::Double(value),
            Self::Decimal(value) => Bson::Decimal128(value),
        }
    }

    /// The order of the server: NaN is equal to NaN and less than everything else; types do not matter.
    pub fn compare(self, other: Self) -> Ordering {
        if let (Some(left), Some(right)) = (self.integer(), other.integer()) {
            return left.cmp(&right);
        }
        if let (Self::Double(left), Self::Double(right)) = (self, other) {
            return match (left.is_nan(), right.is_nan()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => left.partial_cmp(&right).unwrap_or(Ordering::Equal),
            };
        }
        Digits::of(self).compare(&Digits::of(other))
    }

    /// The number as an integer, if it was written as one.
    fn integer(self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(value.into()),
            Self::Long(value) => Some(value),
            Self::Double(_) | Self::Decimal(_) => None,
        }
    }

    /// Whether it is not a number.
    pub fn is_nan(self) -> bool {
        match self {
            Self::Int(_) | Self::Long(_) => false,
            Self::Double(value) => value.is_nan(),
            Self::Decimal(value) => DecimalParts::of(value) == DecimalParts::Nan,
        }
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => value.into(),
            Self::Long(value) => value as f64,
            Self::Double(value) => value,
            Self::Decimal(value) => f64::from_str(&value.to_string()).unwrap_or(f64::NAN),
        }
    }

    /// The number truncated to an integer; none where it does not fit.
    pub fn to_i64(self) -> Option<i64> {
        if let Some(value) = self.integer() {
            return Some(value);
        }
        if let Self::Decimal(value) = self {
            return DecimalParts::of(value).truncated();
        }
        let value = self.to_f64().trunc();
        // 2^63 is the first double that does not fit.
        (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0)
            .contains(&value)
            .then_some(value as i64)
    }

    /// The number as an integer, if it has no fraction and fits.
    pub fn to_exact_i64(self) -> Option<i64> {
        let value = self.to_i64()?;
        (self.compare(Self::Long(value)) == Ordering::Equal).then_some(value)
    }

    /// The sum, in the wider of the two types; an int that overflows becomes a long. None where a long overflows.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.combine(
            other,
            i64::checked_add,
            |left, right| left + right,
            DecimalParts::add,
        )
    }

    /// The product, by the same rules.
    pub fn times(self, other: Self) -> Option<Self> {
        self.combine(
            other,
            i64::checked_mul,
            |left, right| left * right,
            DecimalParts::multiply,
        )
    }

    /// The number with its sign changed; none where a long overflows.
    pub fn negate(self) -> Option<Self> {
        self.times(Self::Int(-1))
    }

    fn combine(
        self,
        other: Self,
        integers: fn(i64, i64) -> Option<i64>,
        doubles: fn(f64, f64) -> f64,
        decimals: fn(DecimalParts, DecimalParts) -> Option<DecimalParts>,
    ) -> Option<Self> {
        if matches!(self, Self::Decimal(_)) || matches!(other, Self::Decimal(_)) {
            let exact = decimals(self.parts(), other.parts()).and_then(DecimalParts::pack);
            // Beyond 34 digits the server rounds; the nearest double stands in for that.
            return Some(Self::Decimal(
                exact.unwrap_or_else(|| decimal_of(doubles(self.to_f64(), other.to_f64()))),
            ));
        }
        let (Some(left), Some(right)) = (self.integer(), other.integer()) else {
            return Some(Self::Double(doubles(self.to_f64(), other.to_f64())));
        };
        let result = integers(left, right)?;
        let both_int = matches!((self, other), (Self::Int(_), Self::Int(_)));
        match i32::try_from(result) {
            Ok(small) if both_int => Some(Self::Int(small)),
            Ok(_) | Err(_) => Some(Self::Long(result)),
        }
    }

    fn parts(self) -> DecimalParts {
        match self {
            Self::Int(value) => DecimalParts::from(i64::from(value)),
            Self::Long(value) => DecimalParts::from(value),
            Self::Double(value) => DecimalParts::of(decimal_of(value)),
            Self::Decimal(value) => DecimalParts::of(value),
        }
    }
}

/// The decimal that a double becomes: 15 significant digits, as the server converts.
fn decimal_of(value: f64) -> Decimal128 {
    let text = if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 {
            "Infinity".to_owned()
        } else {
            "-Infinity".to_owned()
        }
    } else {
        format!("{value:.14E}")
    };
    Decimal128::from_str(&text).unwrap_or_else(|_| Decimal128::from_bytes([0; 16]))
}

/// What a Decimal128 says: IEEE 754-2008 in the binary integer encoding, which is BSON's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum DecimalParts {
    Nan,
    Infinity {
        negative: bool,
    },
    Finite {
        negative: bool,
        coefficient: u128,
        exponent: i32,
    },
}

impl DecimalParts {
    pub(crate) fn of(value: Decimal128) -> Self {
        let bits = u128::from_le_bytes(value.bytes());
        let negative = bits >> 127 == 1;
        match (bits >> 122) & 0b1_1111 {
            0b1_1111 => return Self::Nan,
            0b1_1110 => return Self::Infinity { negative },
            _ => {}
        }
        if (bits >> 125) & 0b11 == 0b11 {
            // A coefficient that would exceed 34 digits: the standard reads it as zero.
            let biased = (bits >> 111) & EXPONENT_MASK;
            return Self::finite(negative, 0, biased);
        }
        let coefficient = bits & ((1 << 113) - 1);
        let biased = (bits >> 113) & EXPONENT_MASK;
        Self::finite(
            negative,
            if coefficient > MAX_COEFFICIENT {
                0
            } else {
                coefficient
            },
            biased,
        )
    }

    fn finite(negative: bool, coefficient: u128, biased: u128) -> Self {
        Self::Finite {
            negative,
            coefficient,
            exponent: i32::try_from(biased).unwrap_or(EXPONENT_BIAS) - EXPONENT_BIAS,
        }
    }

    /// The Decimal128 of a finite number; none if it has too many digits or is out of range.
    pub(crate) fn pack(self) -> Option<Decimal128> {
        let Self::Finite {
            negative,
            coefficient,
            exponent,
        } = self
        else {
            return None;
        };
        let biased = u128::try_from(exponent.checked_add(EXPONENT_BIAS)?).ok()?;
        if coefficient > MAX_COEFFICIENT || biased > MAX_BIASED_EXPONENT {
            return None;
        }
        let bits = u128::from(negative) << 127 | biased << 113 | coefficient;
        Some(Decimal128::from_bytes(bits.to_le_bytes()))
    }

    fn add(self, other: Self) -> Option<Self> {
        let (Some((left, left_exponent)), Some((right, right_exponent))) = (self.signed(), other.signed())
        else {
            return None;
        };
        let exponent = left_exponent.min(right_exponent);
        let sum =
            scale(left, left_exponent - exponent)?.checked_add(scale(right, right_exponent - exponent)?)?;
        Some(Self::from_signed(sum, exponent))
    }

    fn multiply(self, other: Self) -> Option<Self> {
        let (Some((left, left_exponent)), Some((right, right_exponent))) = (self.signed(), other.signed())
        else {
            return None;
        };
        Some(Self::from_signed(
            left.checked_mul(right)?,
            left_exponent + right_exponent,
        ))
    }

    /// The integer towards zero; none where it does not fit.
    fn truncated(self) -> Option<i64> {
        let (value, exponent) = self.signed()?;
        let whole = match u32::try_from(exponent) {
            Ok(_) if value == 0 => 0,
            Ok(_) => scale(value, exponent)?,
            // More than 38 places move every digit behind the point.
            Err(_) => 10_i128
                .checked_pow(exponent.unsigned_abs())
                .map_or(0, |power| value / power),
        };
        i64::try_from(whole).ok()
    }

    fn signed(self) -> Option<(i128, i32)> {
        let Self::Finite {
            negative,
            coefficient,
            exponent,
        } = self
        else {
            return None;
        };
        let magnitude = i128::try_from(coefficient).ok()?;
        Some((if negative { -magnitude } else { magnitude }, exponent))
    }

    fn from_signed(value: i128, exponent: i32) -> Self {
        Self::Finite {
            negative: value < 0,
            coefficient: value.unsigned_abs(),
            exponent,
        }
    }
}

impl From<i64> for DecimalParts {
    fn from(value: i64) -> Self {
        Self::from_signed(value.into(), 0)
    }
}

fn scale(value: i128, by: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(by).ok()?)?.checked_mul(value)
}

const EXPONENT_MASK: u128 = 0x3FFF;
const EXPONENT_BIAS: i32 = 6176;
const MAX_BIASED_EXPONENT: u128 = 12287;
/// 34 nines.
const MAX_COEFFICIENT: u128 = 9_999_999_999_999_999_999_999_999_999_999_999;

/// A number as decimal digits: the one form in which all four types compare exactly.
struct Digits {
    class: Class,
    negative: bool,
    /// Significant digits without leading or trailing zeros; empty for zero.
    digits: Vec<u8>,
    /// The power of ten of the first digit.
    magnitude: i32,
}

#[derive(PartialEq)]
enum Class {
    Nan,
    Finite,
    Infinite,
}

impl Digits {
    fn of(number: Number) -> Self {
        match number {
            Number::Int(value) => Self::of_parts(i64::from(value).into()),
            Number::Long(value) => Self::of_parts(value.into()),
            Number::Decimal(value) => Self::of_parts(DecimalParts::of(value)),
            Number::Double(value) => Self::of_double(value),
        }
    }

    fn of_parts(parts: DecimalParts) -> Self {
        match parts {
            DecimalParts::Nan => Self::special(Class::Nan, false),
            DecimalParts::Infinity { negative } => Self::special(Class::Infinite, negative),
            DecimalParts::Finite {
                negative,
                coefficient,
                exponent,
            } => {
                let text = coefficient.to_string();
                let length = i32::try_from(text.len()).unwrap_or(i32::MAX);
                Self::finite(negative, text.as_bytes(), exponent + length - 1)
            }
        }
    }

    fn of_double(value: f64) -> Self {
        if value.is_nan() {
            return Self::special(Class::Nan, false);
        }
        if value.is_infinite() {
            return Self::special(Class::Infinite, value < 0.0);
        }
        // A double has at most 767 significant decimal digits.
        let text = format!("{:.770e}", value.abs());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
        Self::finite(value < 0.0, &digits, exponent.parse().unwrap_or(0))
    }

    fn special(class: Class, negative: bool) -> Self {
        Self {
            class,
            negative,
            digits: Vec::new(),
            magnitude: 0,
        }
    }

    fn finite(negative: bool, digits: &[u8], magnitude: i32) -> Self {
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        let trailing = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        let kept = digits
            .get(leading..digits.len().saturating_sub(trailing).max(leading))
            .unwrap_or_default();
        let shift = i32::try_from(leading).unwrap_or(0);
        Self {
            class: Class::Finite,
            negative: negative && !kept.is_empty(),
            digits: kept.to_vec(),
            magnitude: magnitude - shift,
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.class == Class::Nan, other.class == Class::Nan) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        match (self.negative, other.negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.compare_magnitude(other),
            (true, true) => other.compare_magnitude(self),
        }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        let infinite = (self.class == Class::Infinite).cmp(&(other.class == Class::Infinite));
        let nonzero = (!self.digits.is_empty()).cmp(&!other.digits.is_empty());
        if infinite.is_ne() || self.class == Class::Infinite {
            return infinite;
        }
        if nonzero.is_ne() || self.digits.is_empty() {
            return nonzero;
        }
        self.magnitude
            .cmp(&other.magnitude)
            .then_with(|| self.digits.cmp(&other.digits))
    }
}

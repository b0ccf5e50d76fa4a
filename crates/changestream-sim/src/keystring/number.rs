//! Numbers in KeyString: an integer part as big-endian bytes shifted by one bit, whose lowest bit says that a
//! fraction follows; doubles between -1 and 1 and beyond 2^63 by their IEEE bits.

use bson::{Bson, Decimal128};

use super::decode::Decoder;
use super::encode::Encoder;
use super::type_bits::{
    DECIMAL, DECIMAL_EXPONENT_BITS, DECIMAL_ZERO, DECIMAL_ZERO_BITS, DOUBLE, INT, LONG, NEGATIVE_ZERO,
    SPECIAL_ZERO,
};
use super::{KeyStringError, ctype};
use crate::query::number::{DecimalParts, Number};

pub(super) fn int(out: &mut Encoder, value: i32) {
    out.bits.push(INT, 2);
    integer(out, value.into());
}

pub(super) fn long(out: &mut Encoder, value: i64) {
    out.bits.push(LONG, 2);
    integer(out, value);
}

pub(super) fn double(out: &mut Encoder, value: f64) {
    if value == 0.0 && value.is_sign_negative() {
        out.bits.push(NEGATIVE_ZERO, 5);
    } else {
        out.bits.push(DOUBLE, 2);
    }
    double_bytes(out, value, Continuation::EqualToDouble);
}

pub(super) fn decimal(out: &mut Encoder, value: Decimal128) {
    match DecimalParts::of(value) {
        DecimalParts::Nan => {
            out.bits.push(DECIMAL, 2);
            out.bytes.push(ctype::NUMERIC);
        }
        DecimalParts::Infinity { negative } => {
            out.bits.push(DECIMAL, 2);
            let infinity = if negative {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            };
            double_bytes(out, infinity, Continuation::EqualToDouble);
        }
        DecimalParts::Finite {
            negative,
            coefficient: 0,
            exponent,
        } => {
            let which = biased(exponent) + if negative { DECIMAL_EXPONENTS } else { 0 };
            out.bits.push(DECIMAL_ZERO + (which >> DECIMAL_ZERO_BITS), 5);
            out.bits.push(which, DECIMAL_ZERO_BITS);
            out.bytes.push(ctype::ZERO);
        }
        DecimalParts::Finite {
            coefficient,
            exponent,
            ..
        } => {
            out.bits.push(DECIMAL, 2);
            out.bits.push(biased(exponent), DECIMAL_EXPONENT_BITS);
            let number = Number::Decimal(value);
            match number.to_exact_i64() {
                Some(whole) => integer(out, whole),
                None => fractional_decimal(out, number, coefficient),
            }
        }
    }
}

fn biased(exponent: i32) -> u16 {
    u16::try_from(exponent + EXPONENT_BIAS).unwrap_or(0)
}

const EXPONENT_BIAS: i32 = 6176;
/// How many biased exponents a decimal can have.
const DECIMAL_EXPONENTS: u16 = 12288;

/// How a decimal relates to the double that stands for it. A real server has two more, which are followed by the
/// difference.
#[derive(Clone, Copy, PartialEq)]
enum Continuation {
    EqualToDouble = 0,
    EqualToDoubleRoundedUpTo15Digits = 2,
}

fn fractional_decimal(out: &mut Encoder, number: Number, coefficient: u128) {
    let nearest = number.to_f64();
    if Number::Double(nearest).compare(number).is_eq() {
        return double_bytes(out, nearest, Continuation::EqualToDouble);
    }
    let beyond = Number::Double(nearest.abs()).compare(absolute(number)).is_gt();
    let truncated = if beyond {
        f64::from_bits(nearest.to_bits().wrapping_sub(1))
    } else {
        nearest
    };
    let in_range = (TINIEST_WITH_TWO_BITS..MAX_INTEGER_DOUBLE).contains(&truncated.abs());
    let mut significant = coefficient;
    while significant >= FIFTEEN_DIGITS && significant.is_multiple_of(10) {
        significant /= 10;
    }
    let continuation = if in_range && significant < FIFTEEN_DIGITS {
        Continuation::EqualToDoubleRoundedUpTo15Digits
    } else {
        Continuation::EqualToDouble
    };
    double_bytes(out, truncated, continuation);
}

fn absolute(number: Number) -> Number {
    if number.compare(Number::Int(0)).is_lt() {
        number.negate().unwrap_or(number)
    } else {
        number
    }
}

const FIFTEEN_DIGITS: u128 = 1_000_000_000_000_000;
/// 2^53, up to which doubles count integers.
const MAX_INTEGER_DOUBLE: f64 = 9_007_199_254_740_992.0;
/// 2^63, from which on doubles are encoded by their bits.
const MIN_LARGE_DOUBLE: f64 = 9_223_372_036_854_775_808.0;
/// 2^-255: the smallest double whose bits leave room for two more.
const TINIEST_WITH_TWO_BITS: f64 = f64::from_bits((1023 - 255) << 52);
/// 2^256, which lifts subnormal doubles into the normal range.
const TINY_SHIFT: f64 = f64::from_bits((1023 + 256) << 52);

fn integer(out: &mut Encoder, value: i64) {
    if value == 0 {
        out.bytes.push(ctype::ZERO);
    } else if value == i64::MIN {
        large_double(out, -MIN_LARGE_DOUBLE);
    } else {
        integer_part(out, value.unsigned_abs() << 1, value < 0);
    }
}

/// The bytes of a shifted integer part, behind the type byte that counts them; inverted for a negative number.
fn integer_part(out: &mut Encoder, shifted: u64, negative: bool) {
    let bytes = shifted.to_be_bytes();
    let skip = usize::try_from(shifted.leading_zeros() / 8).unwrap_or(0);
    let used = bytes.get(skip..).unwrap_or_default();
    let more = u8::try_from(used.len()).unwrap_or(8).saturating_sub(1);
    out.bytes.push(if negative {
        ctype::NEGATIVE_ONE_BYTE - more
    } else {
        ctype::POSITIVE_ONE_BYTE + more
    });
    out.bytes
        .extend(used.iter().map(|byte| if negative { !byte } else { *byte }));
}

fn double_bytes(out: &mut Encoder, value: f64, continuation: Continuation) {
    let (magnitude, negative) = (value.abs(), value < 0.0);
    if value.is_nan() {
        out.bytes.push(ctype::NUMERIC);
    } else if value == 0.0 {
        out.bytes.push(ctype::ZERO);
    } else if magnitude < 1.0 {
        small_double(out, value, continuation);
    } else if magnitude >= MIN_LARGE_DOUBLE {
        large_double(out, value);
    } else if magnitude.fract() == 0.0 && continuation == Continuation::EqualToDouble {
        integer_part(out, (magnitude as u64) << 1, negative);
    } else {
        fractional_double(out, magnitude, negative, continuation);
    }
}

/// Eight bytes: the integer part, then as much fraction as the rest of them holds.
fn fractional_double(out: &mut Encoder, magnitude: f64, negative: bool, continuation: Continuation) {
    let whole = magnitude.trunc() as u64;
    let fraction_bytes = (whole << 1).leading_zeros() / 8;
    let power = f64::from_bits(u64::from(1023 + 8 * fraction_bytes) << 52);
    let shifted = (magnitude * power) as u64;
    // Doubling the integer part and adding one says that a fraction follows.
    let encoded = shifted.wrapping_add((whole + 1) << (8 * fraction_bytes)) | continuation as u64;
    let fewer = u8::try_from(fraction_bytes).unwrap_or(0);
    out.bytes.push(if negative {
        ctype::NEGATIVE_ONE_BYTE - 7 + fewer
    } else {
        ctype::POSITIVE_ONE_BYTE + 7 - fewer
    });
    push_signed(out, encoded, negative);
}

fn small_double(out: &mut Encoder, value: f64, continuation: Continuation) {
    let (magnitude, negative) = (value.abs(), value < 0.0);
    out.bytes.push(if negative {
        ctype::NEGATIVE_SMALL
    } else {
        ctype::POSITIVE_SMALL
    });
    let encoded = if magnitude >= TINIEST_WITH_TWO_BITS {
        magnitude.to_bits() << 2 | continuation as u64
    } else {
        ((magnitude * TINY_SHIFT).to_bits() << 1).wrapping_add(1 << 62)
    };
    push_signed(out, encoded, negative);
}

fn large_double(out: &mut Encoder, value: f64) {
    let negative = value < 0.0;
    out.bytes.push(if negative {
        ctype::NEGATIVE_LARGE
    } else {
        ctype::POSITIVE_LARGE
    });
    let encoded = if value.is_finite() {
        value.abs().to_bits() << 1 & !(1 << 63)
    } else {
        u64::MAX
    };
    push_signed(out, encoded, negative);
}

fn push_signed(out: &mut Encoder, encoded: u64, negative: bool) {
    let encoded = if negative { !encoded } else { encoded };
    out.bytes.extend_from_slice(&encoded.to_be_bytes());
}

/// The number whose type byte was just read.
pub(super) fn decode(tag: u8, from: &mut Decoder<'_>) -> Result<Bson, KeyStringError> {
    match tag {
        ctype::NUMERIC => {
            if from.bits(2)? != DECIMAL {
                return Ok(Bson::Double(f64::NAN));
            }
            Ok(Bson::Decimal128(Decimal128::from_bytes(
                (0b1_1111_u128 << 122).to_le_bytes(),
            )))
        }
        ctype::ZERO => decode_zero(from),
        ctype::NEGATIVE_SMALL | ctype::POSITIVE_SMALL => {
            let encoded = from.signed(tag == ctype::NEGATIVE_SMALL)?;
            let (magnitude, continuation) = match encoded >> 62 {
                0b11 => (f64::from_bits(encoded >> 2), encoded & 0b11),
                0b01 | 0b10 => {
                    let bits = encoded.wrapping_sub(1 << 62) >> 1;
                    (f64::from_bits(bits) / TINY_SHIFT, encoded & 1)
                }
                _ => return Err(KeyStringError::UnsupportedNumber),
            };
            typed_double(from, magnitude, tag == ctype::NEGATIVE_SMALL, continuation)
        }
        ctype::NEGATIVE_LARGE | ctype::POSITIVE_LARGE => decode_large(from, tag == ctype::NEGATIVE_LARGE),
        _ if tag < ctype::ZERO => decode_integer_part(from, ctype::NEGATIVE_ONE_BYTE - tag + 1, true),
        _ => decode_integer_part(from, tag - ctype::POSITIVE_ONE_BYTE + 1, false),
    }
}

fn decode_zero(from: &mut Decoder<'_>) -> Result<Bson, KeyStringError> {
    let kind = from.bits(2)?;
    if kind != SPECIAL_ZERO {
        return Ok(match kind {
            INT => Bson::Int32(0),
            LONG => Bson::Int64(0),
            _ => Bson::Double(0.0),
        });
    }
    let code = kind << 3 | from.bits(3)?;
    if code == NEGATIVE_ZERO {
        return Ok(Bson::Double(-0.0));
    }
    let Some(high) = code.checked_sub(DECIMAL_ZERO) else {
        return Err(KeyStringError::UnknownType);
    };
    let which = high << DECIMAL_ZERO_BITS | from.bits(DECIMAL_ZERO_BITS)?;
    let (negative, biased) = match which.checked_sub(DECIMAL_EXPONENTS) {
        Some(biased) => (true, biased),
        None => (false, which),
    };
    decimal_of(negative, 0, i32::from(biased) - EXPONENT_BIAS)
}

fn decode_large(from: &mut Decoder<'_>, negative: bool) -> Result<Bson, KeyStringError> {
    let encoded = from.signed(negative)?;
    if encoded == u64::MAX {
        return typed_double(from, f64::INFINITY, negative, 0);
    }
    if encoded >> 63 == 1 {
        return Err(KeyStringError::UnsupportedNumber);
    }
    let magnitude = f64::from_bits(encoded >> 1 | 1 << 62);
    if negative && magnitude == MIN_LARGE_DOUBLE && from.peek_bits(2)? == LONG {
        from.bits(2)?;
        return Ok(Bson::Int64(i64::MIN));
    }
    typed_double(from, magnitude, negative, encoded & 1)
}

fn decode_integer_part(from: &mut Decoder<'_>, bytes: u8, negative: bool) -> Result<Bson, KeyStringError> {
    let mut shifted = 0_u64;
    for byte in from.take(usize::from(bytes))? {
        shifted = shifted << 8 | u64::from(if negative { !byte } else { *byte });
    }
    let whole = shifted >> 1;
    if shifted & 1 == 1 {
        return decode_fraction(from, whole, 8 - usize::from(bytes), negative);
    }
    let value = if negative {
        -whole.cast_signed()
    } else {
        whole.cast_signed()
    };
    match from.bits(2)? {
        INT => i32::try_from(value)
            .map(Bson::Int32)
            .map_err(|_| KeyStringError::UnknownType),
        LONG => Ok(Bson::Int64(value)),
        DOUBLE => Ok(Bson::Double(value as f64)),
        _ => {
            let exponent = from.bits(DECIMAL_EXPONENT_BITS)?;
            with_exponent(negative, whole.into(), 0, exponent)
        }
    }
}

fn decode_fraction(
    from: &mut Decoder<'_>,
    whole: u64,
    bytes: usize,
    negative: bool,
) -> Result<Bson, KeyStringError> {
    if bytes == 0 || whole as f64 >= MAX_INTEGER_DOUBLE {
        // A decimal of more digits than a double has: its continuation follows.
        return Err(KeyStringError::UnsupportedNumber);
    }
    let mut fraction = 0_u64;
    for byte in from.take(bytes)? {
        fraction = fraction << 8 | u64::from(if negative { !byte } else { *byte });
    }
    let exponent = u64::try_from(8 * bytes).unwrap_or(0);
    let power = f64::from_bits((1023 + exponent) << 52);
    let magnitude = whole as f64 + (fraction & !0b11) as f64 / power;
    typed_double(from, magnitude, negative, fraction & 0b11)
}

/// A double, or the decimal that it stands for.
fn typed_double(
    from: &mut Decoder<'_>,
    magnitude: f64,
    negative: bool,
    continuation: u64,
) -> Result<Bson, KeyStringError> {
    let value = if negative { -magnitude } else { magnitude };
    match from.bits(2)? {
        DOUBLE => Ok(Bson::Double(value)),
        DECIMAL if value.is_infinite() => {
            let top: u128 = if negative { 0b1_11110 } else { 0b0_11110 };
            Ok(Bson::Decimal128(Decimal128::from_bytes(
                (top << 122).to_le_bytes(),
            )))
        }
        DECIMAL => {
            let stored = from.bits(DECIMAL_EXPONENT_BITS)?;
            let (coefficient, exponent) = match continuation {
                0 => exact_digits(magnitude)?,
                2 => fifteen_digits_up(magnitude),
                _ => return Err(KeyStringError::UnsupportedNumber),
            };
            with_exponent(negative, coefficient, exponent, stored)
        }
        _ => Err(KeyStringError::UnknownType),
    }
}

/// A double's digits and exponent, exactly; none where they are more than a decimal holds.
fn exact_digits(magnitude: f64) -> Result<(u128, i32), KeyStringError> {
    let (digits, exponent) = scientific(magnitude);
    let kept = digits.trim_end_matches('0');
    let coefficient = kept.parse().map_err(|_| KeyStringError::UnsupportedNumber)?;
    Ok((
        coefficient,
        exponent + 1 - i32::try_from(kept.len()).unwrap_or(i32::MAX),
    ))
}

/// A double's first 15 digits, rounded up where more follow.
fn fifteen_digits_up(magnitude: f64) -> (u128, i32) {
    let (digits, exponent) = scientific(magnitude);
    let (head, tail) = digits.split_at_checked(15).unwrap_or((&digits, ""));
    let up = u128::from(tail.bytes().any(|digit| digit != b'0'));
    (head.parse().unwrap_or(0) + up, exponent - 14)
}

/// All digits of a double, and the power of ten of the first.
fn scientific(magnitude: f64) -> (String, i32) {
    let text = format!("{magnitude:.770e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.replace('.', ""), exponent.parse().unwrap_or(0))
}

/// The decimal of that value whose biased exponent ends in the stored bits.
fn with_exponent(
    negative: bool,
    coefficient: u128,
    exponent: i32,
    stored: u16,
) -> Result<Bson, KeyStringError> {
    let fits = |exponent: i32| biased(exponent) & ((1 << DECIMAL_EXPONENT_BITS) - 1) == stored;
    let (mut down, mut down_exponent) = (coefficient, exponent);
    while down <= MAX_COEFFICIENT {
        if fits(down_exponent) {
            return decimal_of(negative, down, down_exponent);
        }
        down *= 10;
        down_exponent -= 1;
    }
    let (mut up, mut up_exponent) = (coefficient, exponent);
    while up.is_multiple_of(10) && up != 0 {
        up /= 10;
        up_exponent += 1;
        if fits(up_exponent) {
            return decimal_of(negative, up, up_exponent);
        }
    }
    decimal_of(negative, coefficient, exponent)
}

/// 34 nines.
const MAX_COEFFICIENT: u128 = 9_999_999_999_999_999_999_999_999_999_999_999;

fn decimal_of(negative: bool, coefficient: u128, exponent: i32) -> Result<Bson, KeyStringError> {
    DecimalParts::Finite {
        negative,
        coefficient,
        exponent,
    }
    .pack()
    .map(Bson::Decimal128)
    .ok_or(KeyStringError::UnsupportedNumber)
}

//! Documents as text for a log: relaxed Extended JSON (Extended JSON v2), cut where a log wants no more of it.
//!
//! Written from the bytes, and no further than the cut: of a reply of 48 MB that is logged as a thousand characters, only
//! those are looked at.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::raw::{RawArray, RawBsonRef, RawDocument};
use bson::{DateTime, Timestamp};

use super::MonitoredDocument;
use crate::depth::MAX_DEPTH;

impl MonitoredDocument {
    /// The document as relaxed Extended JSON, of at most so many characters; what is cut ends with `...`, which does not
    /// count.
    pub fn to_extended_json(&self, longest: usize) -> String {
        let mut out = Cut {
            text: String::new(),
            left: longest,
        };
        if document(&mut out, self.as_raw(), 0).is_err() {
            out.text.push_str("...");
        }
        out.text
    }
}

/// Takes no more than its due, and says so by an error.
struct Cut {
    text: String,
    left: usize,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        match more.char_indices().nth(self.left) {
            Some((end, _)) => {
                self.text.push_str(more.get(..end).unwrap_or_default());
                self.left = 0;
                Err(fmt::Error)
            }
            None => {
                self.text.push_str(more);
                self.left -= more.chars().count();
                Ok(())
            }
        }
    }
}

fn document(out: &mut Cut, document: &RawDocument, depth: usize) -> fmt::Result {
    out.write_str("{")?;
    let mut elements = document.iter();
    let mut separator = "";
    loop {
        match elements.next() {
            None => return out.write_str("}"),
            Some(Ok((key, element))) => {
                out.write_str(separator)?;
                string(out, key.as_str())?;
                out.write_str(":")?;
                value(out, element, depth + 1)?;
            }
            Some(Err(_)) => return unreadable(out),
        }
        separator = ",";
    }
}

fn array(out: &mut Cut, array: &RawArray, depth: usize) -> fmt::Result {
    out.write_str("[")?;
    let mut separator = "";
    for element in array {
        let Ok(element) = element else {
            return unreadable(out);
        };
        out.write_str(separator)?;
        value(out, element, depth + 1)?;
        separator = ",";
    }
    out.write_str("]")
}

/// What follows is not to be had.
fn unreadable(out: &mut Cut) -> fmt::Result {
    out.write_str("...")
}

fn value(out: &mut Cut, value: RawBsonRef<'_>, depth: usize) -> fmt::Result {
    if depth > MAX_DEPTH {
        return unreadable(out);
    }
    match value {
        RawBsonRef::Document(inner) => document(out, inner, depth),
        RawBsonRef::Array(inner) => array(out, inner, depth),
        RawBsonRef::String(text) => string(out, text),
        RawBsonRef::Boolean(is) => write!(out, "{is}"),
        RawBsonRef::Null => out.write_str("null"),
        RawBsonRef::Int32(number) => write!(out, "{number}"),
        RawBsonRef::Int64(number) => write!(out, "{number}"),
        RawBsonRef::Double(number) => double(out, number),
        RawBsonRef::Decimal128(number) => write!(out, "{{\"$numberDecimal\":\"{number}\"}}"),
        RawBsonRef::ObjectId(id) => write!(out, "{{\"$oid\":\"{id}\"}}"),
        RawBsonRef::DateTime(time) => date(out, time),
        RawBsonRef::Timestamp(Timestamp { time, increment }) => {
            write!(out, "{{\"$timestamp\":{{\"t\":{time},\"i\":{increment}}}}}")
        }
        RawBsonRef::Binary(binary) => {
            out.write_str("{\"$binary\":{\"base64\":\"")?;
            // Three bytes are four characters: no more is encoded than is shown.
            let shown = binary.bytes.len().min(out.left);
            out.write_str(&BASE64.encode(binary.bytes.get(..shown).unwrap_or_default()))?;
            write!(out, "\",\"subType\":\"{:02x}\"}}}}", u8::from(binary.subtype))
        }
        RawBsonRef::RegularExpression(regex) => {
            out.write_str("{\"$regularExpression\":{\"pattern\":")?;
            string(out, regex.pattern.as_str())?;
            out.write_str(",\"options\":")?;
            string(out, regex.options.as_str())?;
            out.write_str("}}")
        }
        RawBsonRef::JavaScriptCode(code) => {
            out.write_str("{\"$code\":")?;
            string(out, code)?;
            out.write_str("}")
        }
        RawBsonRef::JavaScriptCodeWithScope(scoped) => {
            out.write_str("{\"$code\":")?;
            string(out, scoped.code)?;
            out.write_str(",\"$scope\":")?;
            document(out, scoped.scope, depth + 1)?;
            out.write_str("}")
        }
        RawBsonRef::Symbol(symbol) => {
            out.write_str("{\"$symbol\":")?;
            string(out, symbol)?;
            out.write_str("}")
        }
        RawBsonRef::Undefined => out.write_str("{\"$undefined\":true}"),
        RawBsonRef::MinKey => out.write_str("{\"$minKey\":1}"),
        RawBsonRef::MaxKey => out.write_str("{\"$maxKey\":1}"),
        // Of a type that is no longer in use; its parts cannot be had.
        RawBsonRef::DbPointer(pointer) => {
            out.write_str("{\"$dbPointer\":")?;
            string(out, &format!("{pointer:?}"))?;
            out.write_str("}")
        }
    }
}

fn double(out: &mut Cut, number: f64) -> fmt::Result {
    if number.is_finite() {
        return write!(out, "{number:?}");
    }
    let name = match (number.is_nan(), number.is_sign_negative()) {
        (true, _) => "NaN",
        (false, false) => "Infinity",
        (false, true) => "-Infinity",
    };
    write!(out, "{{\"$numberDouble\":\"{name}\"}}")
}

/// A date of the years 1970 to 9999 by its name, another one by its number.
fn date(out: &mut Cut, time: DateTime) -> fmt::Result {
    match time.try_to_rfc3339_string() {
        Ok(name) if (0..=LAST_NAMED).contains(&time.timestamp_millis()) => {
            write!(out, "{{\"$date\":\"{name}\"}}")
        }
        Ok(_) | Err(_) => write!(
            out,
            "{{\"$date\":{{\"$numberLong\":\"{}\"}}}}",
            time.timestamp_millis()
        ),
    }
}

/// The end of the year 9999, in milliseconds (Extended JSON specification, "Conversion table").
const LAST_NAMED: i64 = 253_402_300_799_999;

fn string(out: &mut Cut, text: &str) -> fmt::Result {
    out.write_str("\"")?;
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        let escape = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            control if control.is_control() => "",
            _ => continue,
        };
        out.write_str(text.get(plain..at).unwrap_or_default())?;
        if escape.is_empty() {
            write!(out, "\\u{:04x}", u32::from(character))?;
        } else {
            out.write_str(escape)?;
        }
        plain = at + character.len_utf8();
    }
    out.write_str(text.get(plain..).unwrap_or_default())?;
    out.write_str("\"")
}

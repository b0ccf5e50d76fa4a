//! Values as the server's error messages print them.

use std::fmt::Write as _;

use bson::{Bson, Document};

/// A document as aggregation prints it: `{x: 1}`.
pub fn document(document: &Document) -> String {
    render(&Bson::Document(document.clone()), "")
}

/// A document as BSON prints it: `{ x: 1 }`.
pub fn spaced(document: &Document) -> String {
    render(&Bson::Document(document.clone()), " ")
}

/// A value as BSON prints it.
pub fn value(value: &Bson) -> String {
    render(value, " ")
}

/// A field as BSON prints it: `x: 1`.
pub fn element(name: &str, of: &Bson) -> String {
    format!("{name}: {}", value(of))
}

/// The name of a value's type, as the server's messages spell it.
pub fn type_name(value: &Bson) -> &'static str {
    match value {
        Bson::Double(_) => "double",
        Bson::String(_) => "string",
        Bson::Array(_) => "array",
        Bson::Document(_) => "object",
        Bson::Boolean(_) => "bool",
        Bson::Null => "null",
        Bson::RegularExpression(_) => "regex",
        Bson::JavaScriptCode(_) => "javascript",
        Bson::JavaScriptCodeWithScope(_) => "javascriptWithScope",
        Bson::Int32(_) => "int",
        Bson::Int64(_) => "long",
        Bson::Timestamp(_) => "timestamp",
        Bson::Binary(_) => "binData",
        Bson::ObjectId(_) => "objectId",
        Bson::DateTime(_) => "date",
        Bson::Symbol(_) => "symbol",
        Bson::Decimal128(_) => "decimal",
        Bson::Undefined => "undefined",
        Bson::MaxKey => "maxKey",
        Bson::MinKey => "minKey",
        Bson::DbPointer(_) => "dbPointer",
    }
}

fn render(value: &Bson, space: &str) -> String {
    let mut out = String::new();
    write_value(&mut out, value, space);
    out
}

fn write_value(out: &mut String, value: &Bson, space: &str) {
    // Writing to a String cannot fail, hence the dropped results.
    if let Bson::Document(document) = value {
        out.push('{');
        for (at, (name, value)) in document.iter().enumerate() {
            out.push_str(if at == 0 { space } else { ", " });
            let _ = write!(out, "{name}: ");
            write_value(out, value, space);
        }
        out.push_str(if document.is_empty() { "" } else { space });
        out.push('}');
    } else if let Bson::Array(array) = value {
        out.push('[');
        for (at, value) in array.iter().enumerate() {
            out.push_str(if at == 0 { space } else { ", " });
            write_value(out, value, space);
        }
        out.push_str(if array.is_empty() { "" } else { space });
        out.push(']');
    } else if let Bson::String(text) | Bson::Symbol(text) = value {
        let _ = write!(out, "\"{text}\"");
    } else if let Bson::Int32(number) = value {
        let _ = write!(out, "{number}");
    } else if let Bson::Int64(number) = value {
        let _ = write!(out, "{number}");
    } else if let Bson::Double(number) = value {
        let _ = if number.fract() == 0.0 && number.abs() < 1e15 {
            write!(out, "{number:.1}")
        } else {
            write!(out, "{number}")
        };
    } else if let Bson::ObjectId(id) = value {
        let _ = write!(out, "ObjectId('{}')", id.to_hex());
    } else if let Bson::Timestamp(time) = value {
        let _ = write!(out, "Timestamp({}, {})", time.time, time.increment);
    } else if let Bson::DateTime(date) = value {
        let _ = write!(out, "new Date({})", date.timestamp_millis());
    } else if let Bson::Binary(binary) = value {
        let _ = write!(
            out,
            "BinData({}, {})",
            u8::from(binary.subtype),
            hex(&binary.bytes)
        );
    } else {
        let _ = write!(out, "{value}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}

//! The server's total order of BSON values, and its equality.

use std::cmp::Ordering;

use bson::{Bson, Document};

use super::number::Number;

/// The order in which the server sorts two values: by type bracket, then within it.
pub fn compare(left: &Bson, right: &Bson) -> Ordering {
    bracket(left)
        .cmp(&bracket(right))
        .then_with(|| within_bracket(left, right))
}

/// The order of two documents: field by field; of each the type bracket, then the name, then the value.
pub fn compare_documents(left: &Document, right: &Document) -> Ordering {
    let mut others = right.iter();
    for (name, value) in left {
        let Some((other_name, other)) = others.next() else {
            return Ordering::Greater;
        };
        let order = bracket(value)
            .cmp(&bracket(other))
            .then_with(|| name.cmp(other_name))
            .then_with(|| within_bracket(value, other));
        if order.is_ne() {
            return order;
        }
    }
    if others.next().is_some() {
        Ordering::Less
    } else {
        Ordering::Equal
    }
}

/// Whether two values are the same to a query: numbers across types, documents in field order.
pub fn equal(left: &Bson, right: &Bson) -> bool {
    compare(left, right).is_eq()
}

/// Whether two values are the same to an update's no-op test: also of the same type, down to the bytes.
pub fn identical(left: &Bson, right: &Bson) -> bool {
    let (Bson::Document(left), Bson::Document(right)) = (left, right) else {
        if let (Bson::Array(left), Bson::Array(right)) = (left, right) {
            return left.len() == right.len() && left.iter().zip(right).all(|(a, b)| identical(a, b));
        }
        if let (Bson::Double(left), Bson::Double(right)) = (left, right) {
            return left.to_bits() == right.to_bits();
        }
        return left == right;
    };
    identical_documents(left, right)
}

/// The same for documents: also the order of their fields counts.
pub fn identical_documents(left: &Document, right: &Document) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|((name, value), (other_name, other))| name == other_name && identical(value, other))
}

/// The type bracket: values of different brackets never compare by `$gt` and the like, save MinKey and MaxKey.
pub fn bracket(value: &Bson) -> i8 {
    match value {
        Bson::MinKey => i8::MIN,
        Bson::Undefined => 0,
        Bson::Null => 5,
        Bson::Double(_) | Bson::Int32(_) | Bson::Int64(_) | Bson::Decimal128(_) => 10,
        Bson::String(_) | Bson::Symbol(_) => 15,
        Bson::Document(_) => 20,
        Bson::Array(_) => 25,
        Bson::Binary(_) => 30,
        Bson::ObjectId(_) => 35,
        Bson::Boolean(_) => 40,
        Bson::DateTime(_) => 45,
        Bson::Timestamp(_) => 47,
        Bson::RegularExpression(_) => 50,
        Bson::DbPointer(_) => 55,
        Bson::JavaScriptCode(_) => 60,
        Bson::JavaScriptCodeWithScope(_) => 65,
        Bson::MaxKey => i8::MAX,
    }
}

fn within_bracket(left: &Bson, right: &Bson) -> Ordering {
    if let (Some(left), Some(right)) = (Number::of(left), Number::of(right)) {
        return left.compare(right);
    }
    if let (Some(left), Some(right)) = (text(left), text(right)) {
        return left.as_bytes().cmp(right.as_bytes());
    }
    match (left, right) {
        (Bson::Document(left), Bson::Document(right)) => compare_documents(left, right),
        (Bson::Array(left), Bson::Array(right)) => compare_arrays(left, right),
        (Bson::Binary(left), Bson::Binary(right)) => {
            let key = |binary: &bson::Binary| (binary.bytes.len(), u8::from(binary.subtype));
            key(left)
                .cmp(&key(right))
                .then_with(|| left.bytes.cmp(&right.bytes))
        }
        (Bson::ObjectId(left), Bson::ObjectId(right)) => left.cmp(right),
        (Bson::Boolean(left), Bson::Boolean(right)) => left.cmp(right),
        (Bson::DateTime(left), Bson::DateTime(right)) => left.cmp(right),
        (Bson::Timestamp(left), Bson::Timestamp(right)) => {
            (left.time, left.increment).cmp(&(right.time, right.increment))
        }
        (Bson::RegularExpression(left), Bson::RegularExpression(right)) => {
            (left.pattern.as_str(), left.options.as_str())
                .cmp(&(right.pattern.as_str(), right.options.as_str()))
        }
        (Bson::JavaScriptCode(left), Bson::JavaScriptCode(right)) => left.cmp(right),
        (Bson::JavaScriptCodeWithScope(left), Bson::JavaScriptCodeWithScope(right)) => left
            .code
            .cmp(&right.code)
            .then_with(|| compare_documents(&left.scope, &right.scope)),
        // A deprecated type whose fields the bson crate keeps private: any fixed order will do.
        (Bson::DbPointer(left), Bson::DbPointer(right)) => format!("{left:?}").cmp(&format!("{right:?}")),
        _ => Ordering::Equal,
    }
}

fn compare_arrays(left: &[Bson], right: &[Bson]) -> Ordering {
    let mut others = right.iter();
    for value in left {
        let Some(other) = others.next() else {
            return Ordering::Greater;
        };
        let order = compare(value, other);
        if order.is_ne() {
            return order;
        }
    }
    if others.next().is_some() {
        Ordering::Less
    } else {
        Ordering::Equal
    }
}

fn text(value: &Bson) -> Option<&str> {
    if let Bson::String(text) | Bson::Symbol(text) = value {
        Some(text)
    } else {
        None
    }
}

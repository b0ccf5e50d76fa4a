//! Reading a command's arguments.

use bson::{Bson, Document};

use super::Context;
use crate::error::CommandError;
use crate::failpoints::number;
pub(super) use crate::query::show::type_name;

/// The collection that the command names by its first field.
pub(super) fn collection<'a>(context: &Context<'a>) -> Result<&'a str, CommandError> {
    let name = context.request.name();
    match context.request.body.get(name) {
        Some(Bson::String(coll)) if !coll.is_empty() && !coll.contains('\0') => Ok(coll),
        Some(Bson::String(coll)) => Err(CommandError::new(
            73,
            format!("Invalid namespace specified '{}.{coll}'", context.db()),
        )),
        Some(other) => Err(CommandError::new(
            73,
            format!("collection name has invalid type {}", type_name(other)),
        )),
        None => Err(CommandError::new(73, "no collection is named")),
    }
}

/// A document argument; empty if it is missing.
pub(super) fn document(body: &Document, key: &str) -> Result<Document, CommandError> {
    match body.get(key) {
        None | Some(Bson::Null) => Ok(Document::new()),
        Some(Bson::Document(d)) => Ok(d.clone()),
        Some(other) => Err(wrong_type(key, other, "object")),
    }
}

/// An array of documents; empty if it is missing.
pub(super) fn documents(body: &Document, key: &str) -> Result<Vec<Document>, CommandError> {
    let Some(value) = body.get(key) else {
        return Ok(Vec::new());
    };
    let Bson::Array(items) = value else {
        return Err(wrong_type(key, value, "array"));
    };
    items
        .iter()
        .enumerate()
        .map(|(i, item)| {
            let document = item.as_document().cloned();
            document.ok_or_else(|| wrong_type(&format!("{key}.{i}"), item, "object"))
        })
        .collect()
}

/// A whole number that is not negative; none if it is missing.
pub(super) fn count(body: &Document, key: &str) -> Result<Option<u64>, CommandError> {
    let Some(value) = body.get(key) else {
        return Ok(None);
    };
    let n = number(value).ok_or_else(|| wrong_type(key, value, "number"))?;
    u64::try_from(n)
        .map(Some)
        .map_err(|_| CommandError::new(2, format!("{key} value must be non-negative, but received: {n}")))
}

pub(super) fn flag(body: &Document, key: &str) -> bool {
    match body.get(key) {
        Some(Bson::Boolean(b)) => *b,
        Some(value) => number(value).is_some_and(|n| n != 0),
        None => false,
    }
}

fn wrong_type(key: &str, value: &Bson, wanted: &str) -> CommandError {
    let is = type_name(value);
    CommandError::new(
        14,
        format!("BSON field '{key}' is the wrong type '{is}', expected type '{wanted}'"),
    )
}

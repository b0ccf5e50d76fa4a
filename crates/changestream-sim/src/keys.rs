//! Document keys: what names a document to a change stream.

use bson::{Bson, Document};

use crate::error::CommandError;
use crate::query::path::{self, Path};
use crate::query::show;

/// The `documentKey` of a document: the shard key's fields that it has, in the shard key's order, then `_id` if it is
/// not among them. A nested shard key field stands under its dotted name.
pub fn document_key(document: &Document, shard_key: Option<&Document>) -> Document {
    let mut key = Document::new();
    for name in shard_key.into_iter().flat_map(Document::keys) {
        if let Some(value) = path::get(document, Path::new(name).parts()) {
            key.insert(name, value.clone());
        }
    }
    if let Some(id) = document.get("_id")
        && !key.contains_key("_id")
    {
        key.insert("_id", id.clone());
    }
    key
}

/// Whether a value may be an `_id`.
///
/// # Errors
/// 53 for an array, a regular expression or undefined; 52 for a document with `$` names.
pub fn check_id(id: &Bson) -> Result<(), CommandError> {
    if matches!(id, Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined) {
        return Err(CommandError::new(
            53,
            format!("The '_id' value cannot be of type {}", show::type_name(id)),
        ));
    }
    match id
        .as_document()
        .and_then(|id| id.keys().find(|name| name.starts_with('$')))
    {
        Some(name) => Err(CommandError::dollar_prefixed_field_name(format!(
            "_id fields may not contain '$'-prefixed fields: {name} is not valid for storage."
        ))),
        None => Ok(()),
    }
}

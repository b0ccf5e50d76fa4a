//! Unique indexes.

use bson::{Bson, Document, doc};

use crate::catalog::{Collection, id_of};
use crate::error::CommandError;
use crate::query::{compare, path, show};

/// Refuses a document that another of the collection excludes; `except` is the `_id` of the document that it replaces.
pub(crate) fn check(
    collection: &Collection,
    db: &str,
    coll: &str,
    document: &Document,
    except: Option<&Bson>,
) -> Result<(), CommandError> {
    let id = id_of(document);
    if except.is_none() && collection.by_id(&id).is_some() {
        return Err(duplicate(
            db,
            coll,
            "_id_",
            &doc! { "_id": 1 },
            &doc! { "_id": id },
        ));
    }
    for index in &collection.indexes {
        let unique = index.get_bool("unique").unwrap_or(false);
        let (true, Ok(key), Ok(name)) = (unique, index.get_document("key"), index.get_str("name")) else {
            continue;
        };
        let values = values(document, key);
        let taken = collection.documents().any(|other| {
            let other_id = id_of(other);
            !except.is_some_and(|e| compare::equal(e, &other_id))
                && compare::identical_documents(&self::values(other, key), &values)
        });
        if taken {
            return Err(duplicate(db, coll, name, key, &values));
        }
    }
    Ok(())
}

fn values(document: &Document, key: &Document) -> Document {
    key.keys()
        .map(|name| {
            let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
            (
                name.clone(),
                path::get(document, &parts).cloned().unwrap_or(Bson::Null),
            )
        })
        .collect()
}

fn duplicate(db: &str, coll: &str, index: &str, pattern: &Document, value: &Document) -> CommandError {
    CommandError::duplicate_key(format!(
        "E11000 duplicate key error collection: {db}.{coll} index: {index} dup key: {}",
        show::spaced(value)
    ))
    .with_field("keyPattern", pattern.clone())
    .with_field("keyValue", value.clone())
}

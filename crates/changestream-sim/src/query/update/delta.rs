//! What changed between two documents, as a server of 5.0 and later logs a pipeline update.

use bson::{Bson, Document};

use super::UpdateDescription;
use crate::query::compare::identical;

/// The changes that lead from one document to the other; none where naming them would not be smaller than the
/// document itself, or where the order of fields changed, which a description cannot say.
pub(super) fn between(old: &Document, new: &Document) -> Option<UpdateDescription> {
    if !same_order(old, new) {
        return None;
    }
    let mut changes = UpdateDescription::default();
    documents(old, new, "", &mut changes);
    (size_of(&changes) < document_size(new)).then_some(changes)
}

/// Whether applying the changes leaves the fields in the new document's order: kept ones first, as they stood.
fn same_order(old: &Document, new: &Document) -> bool {
    let kept = old.keys().filter(|name| new.contains_key(name));
    let added = new.keys().filter(|name| !old.contains_key(name));
    let level = kept.chain(added).eq(new.keys());
    level
        && new
            .iter()
            .all(|(name, value)| match (old.get(name), value) {
                (Some(Bson::Document(old)), Bson::Document(new)) => same_order(old, new),
                _ => true,
            })
}

fn documents(old: &Document, new: &Document, path: &str, changes: &mut UpdateDescription) {
    for name in old.keys().filter(|name| !new.contains_key(name)) {
        changes.removed_fields.push(format!("{path}{name}"));
    }
    for (name, value) in new {
        let below = format!("{path}{name}");
        match old.get(name) {
            Some(before) => values(before, value, below, changes),
            None => {
                changes.updated_fields.insert(below, value.clone());
            }
        }
    }
}

fn values(old: &Bson, new: &Bson, path: String, changes: &mut UpdateDescription) {
    if identical(old, new) {
        return;
    }
    let mut inner = UpdateDescription::default();
    match (old, new) {
        (Bson::Document(old), Bson::Document(new)) => {
            documents(old, new, &format!("{path}."), &mut inner)
        }
        (Bson::Array(old), Bson::Array(new)) => arrays(old, new, &path, &mut inner),
        _ => {
            changes.updated_fields.insert(path, new.clone());
            return;
        }
    }
    let whole = [(path.clone(), new.clone())].into_iter().collect();
    if size_of(&inner) >= document_size(&whole) {
        changes.updated_fields.extend(whole);
        return;
    }
    changes.updated_fields.extend(inner.updated_fields);
    changes.removed_fields.extend(inner.removed_fields);
    changes.truncated_arrays.extend(inner.truncated_arrays);
}

fn arrays(old: &[Bson], new: &[Bson], path: &str, changes: &mut UpdateDescription) {
    for (index, value) in new.iter().enumerate() {
        let below = format!("{path}.{index}");
        match old.get(index) {
            Some(before) => values(before, value, below, changes),
            None => {
                changes.updated_fields.insert(below, value.clone());
            }
        }
    }
    if new.len() < old.len() {
        changes.truncated_arrays.push((path.to_owned(), new.len()));
    }
}

fn size_of(changes: &UpdateDescription) -> usize {
    let removed: usize = changes
        .removed_fields
        .iter()
        .map(|name| name.len() + 3)
        .sum();
    let truncated: usize = changes
        .truncated_arrays
        .iter()
        .map(|(name, _)| name.len() + 7)
        .sum();
    document_size(&changes.updated_fields) + removed + truncated
}

fn document_size(document: &Document) -> usize {
    bson::serialize_to_vec(document).map_or(usize::MAX, |bytes| bytes.len())
}

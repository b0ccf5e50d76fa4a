//! What changed between two documents, as a server of 5.0 and later logs a pipeline update.

use bson::{Bson, Document};

use super::UpdateDescription;
use crate::query::compare::identical;

/// The changes that lead from one document to the other; none where logging them would not be smaller than logging
/// the document itself, or where the order of fields changed, which a description cannot say.
pub(super) fn between(old: &Document, new: &Document) -> Option<UpdateDescription> {
    if !same_order(old, new) {
        return None;
    }
    let delta = documents(old, new, "");
    (delta.size < document_size(new)).then_some(delta.changes)
}

/// Changes, and the size of the server's log entry of them.
#[derive(Default)]
struct Delta {
    changes: UpdateDescription,
    size: usize,
}

impl Delta {
    fn set(&mut self, path: String, name: &str, value: &Bson) {
        self.size += ELEMENT + name.len() + value_size(value);
        self.changes.updated_fields.insert(path, value.clone());
    }

    fn include(&mut self, name: &str, below: Self) {
        // A nested change stands under a marked name.
        self.size += ELEMENT + 1 + name.len() + below.size;
        self.changes.updated_fields.extend(below.changes.updated_fields);
        self.changes.removed_fields.extend(below.changes.removed_fields);
        self.changes
            .truncated_arrays
            .extend(below.changes.truncated_arrays);
    }

    /// The change of a value that stands on both sides.
    fn change(&mut self, path: String, name: &str, old: &Bson, new: &Bson) {
        if identical(old, new) {
            return;
        }
        let below = match (old, new) {
            (Bson::Document(old), Bson::Document(new)) => documents(old, new, &format!("{path}.")),
            (Bson::Array(old), Bson::Array(new)) => arrays(old, new, &path),
            _ => return self.set(path, name, new),
        };
        if below.size < value_size(new) {
            self.include(name, below);
        } else {
            self.set(path, name, new);
        }
    }
}

fn documents(old: &Document, new: &Document, prefix: &str) -> Delta {
    let mut delta = Delta {
        size: EMPTY,
        ..Delta::default()
    };
    let removed: Vec<&String> = old.keys().filter(|name| !new.contains_key(*name)).collect();
    let changed = |name: &&String| match (old.get(*name), new.get(*name)) {
        (Some(old), Some(new)) => !identical(old, new),
        (None, _) | (_, None) => false,
    };
    // Removed, updated and inserted fields stand in a section each.
    let sections = [
        !removed.is_empty(),
        new.keys().any(|name| changed(&name)),
        new.keys().any(|name| !old.contains_key(name)),
    ];
    delta.size += sections.into_iter().filter(|used| *used).count() * (ELEMENT + 1 + EMPTY);
    for name in removed {
        delta.size += ELEMENT + name.len() + 1;
        delta.changes.removed_fields.push(format!("{prefix}{name}"));
    }
    for (name, value) in new {
        let path = format!("{prefix}{name}");
        match old.get(name) {
            Some(before) => delta.change(path, name, before, value),
            None => delta.set(path, name, value),
        }
    }
    delta
}

fn arrays(old: &[Bson], new: &[Bson], path: &str) -> Delta {
    // A mark says that it is an array's.
    let mut delta = Delta {
        size: EMPTY + ELEMENT + 2,
        ..Delta::default()
    };
    for (index, value) in new.iter().enumerate() {
        let below = format!("{path}.{index}");
        // Each name is the index behind a letter.
        let name = format!("u{index}");
        match old.get(index) {
            Some(before) => delta.change(below, &name, before, value),
            None => delta.set(below, &name, value),
        }
    }
    if new.len() < old.len() {
        delta.size += ELEMENT + 5;
        delta.changes.truncated_arrays.push((path.to_owned(), new.len()));
    }
    delta
}

/// Whether applying the changes leaves the fields in the new document's order: kept ones first, as they stood.
fn same_order(old: &Document, new: &Document) -> bool {
    let kept = old.keys().filter(|name| new.contains_key(*name));
    let added = new.keys().filter(|name| !old.contains_key(*name));
    let level = kept.chain(added).eq(new.keys());
    level
        && new.iter().all(|(name, value)| match (old.get(name), value) {
            (Some(Bson::Document(old)), Bson::Document(new)) => same_order(old, new),
            _ => true,
        })
}

/// An element's type byte and the end of its name.
const ELEMENT: usize = 2;
/// A document without elements.
const EMPTY: usize = 5;

fn value_size(value: &Bson) -> usize {
    let alone = [(String::new(), value.clone())].into_iter().collect();
    document_size(&alone).saturating_sub(EMPTY + ELEMENT)
}

fn document_size(document: &Document) -> usize {
    bson::serialize_to_vec(document).map_or(usize::MAX, |bytes| bytes.len())
}

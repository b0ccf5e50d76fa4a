//! What a filter looks at, so that no more of a document has to be decoded.

use std::collections::BTreeMap;

use bson::raw::RawBsonRef;
use bson::{Bson, Document, RawDocument};

/// Fields, each with those below it that are needed; nothing below means all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Needs(BTreeMap<String, Self>);

impl Needs {
    /// Adds a path.
    pub(crate) fn add(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let known = self.0.contains_key(first);
        let below = self.0.entry(first.clone()).or_default();
        if rest.is_empty() {
            below.0.clear();
        } else if !known || !below.0.is_empty() {
            below.add(rest);
        }
    }

    /// The document with these fields alone; none if it is malformed. Arrays are decoded whole.
    pub(crate) fn of(&self, document: &RawDocument) -> Option<Document> {
        let mut found = Document::new();
        for element in document.iter_elements() {
            let element = element.ok()?;
            let Some(below) = self.0.get(element.key().as_str()) else {
                continue;
            };
            let value = element.value().ok()?;
            let value = if let (RawBsonRef::Document(inner), false) = (value, below.0.is_empty()) {
                Bson::Document(below.of(inner)?)
            } else {
                Bson::try_from(value).ok()?
            };
            found.insert(element.key().as_str(), value);
            if found.len() == self.0.len() {
                break;
            }
        }
        Some(found)
    }
}

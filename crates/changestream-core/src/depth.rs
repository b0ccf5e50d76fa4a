//! How deep a document nests: asked before anything recursive is done to bytes that came from elsewhere.

use bson::RawDocument;
use bson::raw::{RawBsonRef, RawIter};

/// The deepest nesting that is decoded, formatted or converted. Servers refuse to store more than 100 levels and to
/// handle more than 200; a peer that sends more is not one of them.
pub(crate) const MAX_DEPTH: usize = 250;

/// Whether documents and arrays nest deeper than [`MAX_DEPTH`] here. What follows malformed bytes does not count: it
/// is out of reach for every reader.
pub(crate) fn nests_too_deep(document: &RawDocument) -> bool {
    // Too short to nest that deep: the usual case, decided without a look at the content.
    if document.as_bytes().len() < MAX_DEPTH * SMALLEST_LEVEL {
        return false;
    }
    let mut path: Vec<RawIter<'_>> = vec![document.iter_elements()];
    while let Some(iterator) = path.last_mut() {
        let Some(Ok(element)) = iterator.next() else {
            path.pop();
            continue;
        };
        let Some(inner) = element.value().ok().and_then(nested) else {
            continue;
        };
        if path.len() == MAX_DEPTH {
            return true;
        }
        path.push(inner.iter_elements());
    }
    false
}

/// What a value holds that nests.
fn nested(value: RawBsonRef<'_>) -> Option<&RawDocument> {
    if let RawBsonRef::Document(document) = value {
        return Some(document);
    }
    if let RawBsonRef::Array(array) = value {
        return RawDocument::from_bytes(array.as_bytes()).ok();
    }
    value.as_javascript_with_scope().map(|code| code.scope)
}

/// Bytes that a level takes at least: length and closing NUL, and the type and empty name of what nests in it.
const SMALLEST_LEVEL: usize = 7;

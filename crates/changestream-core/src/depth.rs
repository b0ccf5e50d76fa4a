//! How deep a document nests: asked before anything recursive is done to bytes that came from elsewhere.

use crate::walk;

/// The deepest nesting that is decoded, formatted or converted. Servers refuse to store more than 100 levels and to
/// handle more than 200; a peer that sends more is not one of them.
pub(crate) const MAX_DEPTH: usize = 250;

/// Whether documents and arrays nest deeper than so many levels here. What follows malformed bytes does not count: it is
/// out of reach for every reader.
pub(crate) fn nests_deeper(document: &[u8], levels: usize) -> bool {
    // Too short to nest that deep: the usual case, decided without a look at the content.
    if document.len() < levels * SMALLEST_LEVEL {
        return false;
    }
    let mut path = vec![walk::elements(document)];
    while let Some(elements) = path.last_mut() {
        let Some(element) = elements.next() else {
            path.pop();
            continue;
        };
        let Some(inner) = element.nested() else {
            continue;
        };
        if path.len() == levels {
            return true;
        }
        path.push(walk::elements(inner));
    }
    false
}

/// Bytes that a level takes at least: length and closing NUL, and the type and empty name of what nests in it.
const SMALLEST_LEVEL: usize = 7;

//! `disambiguatedPaths`: what the dots of an update description's paths stand for.

use bson::{Bson, Document};

/// The paths that a reader may take for something else, each with its parts: array indexes are numbers, names are
/// strings.
///
/// A path is ambiguous if one of its names has a dot in it or looks like an index.
pub(crate) fn disambiguated_paths(description: &Document, before: &Document, after: &Document) -> Document {
    let mut found = Document::new();
    let mut look = |path: &str, document: &Document| {
        let Some(parts) = parts(document, path) else {
            return;
        };
        if parts.iter().any(is_ambiguous) {
            found.insert(path, parts);
        }
    };
    if let Ok(updated) = description.get_document("updatedFields") {
        updated.keys().for_each(|path| look(path, after));
    }
    if let Ok(removed) = description.get_array("removedFields") {
        removed
            .iter()
            .filter_map(Bson::as_str)
            .for_each(|path| look(path, before));
    }
    if let Ok(truncated) = description.get_array("truncatedArrays") {
        let fields = truncated
            .iter()
            .filter_map(|t| t.as_document()?.get_str("field").ok());
        fields.for_each(|path| look(path, after));
    }
    found
}

fn is_ambiguous(part: &Bson) -> bool {
    let Bson::String(name) = part else { return false };
    name.contains('.') || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()))
}

/// The parts of a path, as the document has them.
fn parts(document: &Document, path: &str) -> Option<Vec<Bson>> {
    // The shortest name first: modifiers read a dot as a step, and only stages can write a name with one.
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    ends.filter_map(|end| Some((path.get(..end)?, path.get(end + 1..))))
        .filter_map(|(name, rest)| Some((name, document.get(name)?, rest)))
        .find_map(|(name, value, rest)| with_rest(Bson::from(name), value, rest))
}

fn parts_in_array(array: &[Bson], path: &str) -> Option<Vec<Bson>> {
    let (index, rest) = match path.split_once('.') {
        Some((index, rest)) => (index, Some(rest)),
        None => (path, None),
    };
    let index: u32 = index.parse().ok()?;
    let value = array.get(usize::try_from(index).ok()?)?;
    with_rest(Bson::Int32(i32::try_from(index).ok()?), value, rest)
}

fn with_rest(part: Bson, value: &Bson, rest: Option<&str>) -> Option<Vec<Bson>> {
    let mut all = vec![part];
    match (rest, value) {
        (None, _) => {}
        (Some(rest), Bson::Document(document)) => all.extend(parts(document, rest)?),
        (Some(rest), Bson::Array(array)) => all.extend(parts_in_array(array, rest)?),
        (Some(_), _) => return None,
    }
    Some(all)
}

//! How a command differs from the recorded one.

use bson::{Bson, Document};

use crate::recorded_stream::integer;

/// The fields in which `ours` differs from `theirs`, each with its path and both values; empty if they ask for the
/// same. Whole numbers compare by value. Not compared: what differs from run to run, and fields named in `ignored`.
pub fn differences(ours: &Document, theirs: &Document, ignored: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let first = |command: &Document| command.keys().next().cloned();
    if first(ours) != first(theirs) {
        found.push(format!(
            "command: ours is {:?}, recorded is {:?}",
            first(ours),
            first(theirs)
        ));
    }
    compare_documents(&mut found, "", ours, theirs, ignored);
    found
}

fn compare_documents(
    found: &mut Vec<String>,
    path: &str,
    ours: &Document,
    theirs: &Document,
    ignored: &[&str],
) {
    let at = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    for (key, expected) in theirs.iter().filter(|(key, _)| !ignored.contains(&key.as_str())) {
        match ours.get(key) {
            Some(value) => compare(found, &at(key), value, expected),
            None => found.push(format!("{}: not in ours, recorded is {expected}", at(key))),
        }
    }
    for (key, value) in ours.iter().filter(|(key, _)| !ignored.contains(&key.as_str())) {
        if !theirs.contains_key(key) {
            found.push(format!("{}: ours is {value}, not in the recorded one", at(key)));
        }
    }
}

fn compare(found: &mut Vec<String>, path: &str, ours: &Bson, theirs: &Bson) {
    if let (Some(ours), Some(theirs)) = (ours.as_document(), theirs.as_document()) {
        return compare_documents(found, path, ours, theirs, &[]);
    }
    if let (Some(ours), Some(theirs)) = (ours.as_array(), theirs.as_array())
        && ours.len() == theirs.len()
    {
        for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            compare(found, &format!("{path}.{index}"), ours, theirs);
        }
        return;
    }
    let equal_numbers = integer(ours).is_some() && integer(ours) == integer(theirs);
    if ours != theirs && !equal_numbers {
        found.push(format!("{path}: ours is {ours}, recorded is {theirs}"));
    }
}

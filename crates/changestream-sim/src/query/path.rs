//! Dotted paths and the values that stand at them.

use bson::{Bson, Document};

use crate::error::CommandError;

/// A dotted path, split.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<String>);

impl Path {
    /// The path that this text names. Any text is one; see [`Path::checked`] for the stricter form of projections.
    pub fn new(text: &str) -> Self {
        Self(text.split('.').map(str::to_owned).collect())
    }

    /// The path, refused where a component is empty or starts with `$`, or where it is deeper than a server allows.
    pub fn checked(text: &str) -> Result<Self, CommandError> {
        if text.is_empty() {
            return Err(CommandError::new(
                40352,
                "FieldPath cannot be constructed with empty string",
            ));
        }
        if text.ends_with('.') {
            return Err(CommandError::new(40353, "FieldPath must not end with a '.'."));
        }
        let path = Self::new(text);
        if path.0.len() > MAX_DEPTH {
            return Err(CommandError::new(15, "FieldPath is too long"));
        }
        for part in &path.0 {
            if part.is_empty() {
                return Err(CommandError::new(
                    15998,
                    "FieldPath field names may not be empty strings.",
                ));
            }
            if part.starts_with('$') {
                return Err(CommandError::new(
                    16410,
                    "FieldPath field names may not start with '$'.",
                ));
            }
        }
        Ok(path)
    }

    /// The components, at least one.
    pub fn parts(&self) -> &[String] {
        &self.0
    }
}

/// The value at a path through documents only (no array is entered).
pub fn get<'a>(document: &'a Document, parts: &[String]) -> Option<&'a Bson> {
    let (first, rest) = parts.split_first()?;
    let value = document.get(first)?;
    if rest.is_empty() {
        return Some(value);
    }
    get(value.as_document()?, rest)
}

/// The array index that a path component is, if it is one: digits without a leading zero.
pub fn index(part: &str) -> Option<usize> {
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (part.len() > 1 && part.starts_with('0')) {
        return None;
    }
    part.parse().ok()
}

/// The deepest document that the server stores.
pub const MAX_DEPTH: usize = 200;

/// Whether the document is nested no deeper than that many levels.
pub fn within_depth(document: &Document, levels: usize) -> bool {
    match levels.checked_sub(1) {
        Some(below) => document.values().all(|value| value_within_depth(value, below)),
        None => false,
    }
}

/// The same for any value.
pub fn value_within_depth(value: &Bson, levels: usize) -> bool {
    if let Bson::Document(document) = value {
        return within_depth(document, levels);
    }
    let Bson::Array(items) = value else {
        return true;
    };
    match levels.checked_sub(1) {
        Some(below) => items.iter().all(|value| value_within_depth(value, below)),
        None => false,
    }
}

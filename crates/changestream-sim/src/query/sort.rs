//! Sort patterns: of `$sort`, of a find's `sort`, and of `$push`.

use std::cmp::Ordering;

use bson::{Bson, Document};

use super::compare::compare;
use super::number::Number;
use super::path::Path;
use crate::error::CommandError;

/// A sort pattern: paths, each ascending or descending.
#[derive(Clone, Debug, PartialEq)]
pub struct SortPattern(Vec<(Path, Direction)>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Ascending,
    Descending,
}

impl SortPattern {
    /// The pattern that this document writes.
    ///
    /// # Errors
    /// 15976 for an empty pattern, 15975 for a direction other than 1 and -1, and those of bad paths.
    pub fn parse(spec: &Document) -> Result<Self, CommandError> {
        if spec.is_empty() {
            return Err(CommandError::new(
                15976,
                "$sort stage must have at least one sort key",
            ));
        }
        let keys: Result<Vec<_>, CommandError> = spec
            .iter()
            .map(|(name, value)| Ok((Path::checked(name)?, direction(value)?)))
            .collect();
        Ok(Self(keys?))
    }

    /// The order of two documents by this pattern.
    pub fn compare(&self, left: &Document, right: &Document) -> Ordering {
        for (path, direction) in &self.0 {
            let order = compare(
                &key(left, path.parts(), *direction),
                &key(right, path.parts(), *direction),
            );
            let order = directed(order, *direction);
            if order.is_ne() {
                return order;
            }
        }
        Ordering::Equal
    }
}

/// The order of two values by a single direction: `$push`'s `$sort: 1` and `$sort: -1`.
pub(crate) fn compare_values(left: &Bson, right: &Bson, ascending: bool) -> Ordering {
    directed(
        compare(left, right),
        if ascending {
            Direction::Ascending
        } else {
            Direction::Descending
        },
    )
}

fn direction(value: &Bson) -> Result<Direction, CommandError> {
    match Number::of(value).and_then(Number::to_exact_i64) {
        Some(1) => Ok(Direction::Ascending),
        Some(-1) => Ok(Direction::Descending),
        Some(_) => Err(CommandError::new(
            15975,
            "$sort key ordering must be 1 (for ascending) or -1 (for descending)",
        )),
        None => Err(CommandError::new(15974, "Illegal key in $sort specification")),
    }
}

fn directed(order: Ordering, direction: Direction) -> Ordering {
    match direction {
        Direction::Ascending => order,
        Direction::Descending => order.reverse(),
    }
}

/// A document's sort key: of an array its least element when ascending, its greatest when descending; null if absent.
fn key(document: &Document, parts: &[String], direction: Direction) -> Bson {
    let mut candidates = Vec::new();
    collect(document, parts, &mut candidates);
    candidates
        .into_iter()
        .min_by(|left, right| directed(compare(left, right), direction))
        .unwrap_or(Bson::Null)
}

fn collect(document: &Document, parts: &[String], out: &mut Vec<Bson>) {
    let Some((first, rest)) = parts.split_first() else {
        return;
    };
    match document.get(first) {
        None => out.push(Bson::Null),
        Some(Bson::Array(items)) if rest.is_empty() && items.is_empty() => out.push(Bson::Undefined),
        Some(Bson::Array(items)) if rest.is_empty() => out.extend(items.iter().cloned()),
        Some(Bson::Array(items)) => {
            for item in items.iter().filter_map(Bson::as_document) {
                collect(item, rest, out);
            }
        }
        Some(value) if rest.is_empty() => out.push(value.clone()),
        Some(value) => match value.as_document() {
            Some(inner) => collect(inner, rest, out),
            None => out.push(Bson::Null),
        },
    }
}

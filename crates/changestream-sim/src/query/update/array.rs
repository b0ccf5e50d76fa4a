//! The operators upon arrays.

use std::cmp::Ordering;

use bson::{Bson, Document};

use super::modifier::{Effect, Site};
use crate::error::CommandError;
use crate::query::compare::{compare, equal, identical};
use crate::query::filter::Filter;
use crate::query::number::Number;
use crate::query::show;
use crate::query::sort::{SortPattern, compare_values};

/// `$push` with its options.
#[derive(Clone, Debug)]
pub(super) struct Push {
    values: Vec<Bson>,
    position: Option<i64>,
    slice: Option<i64>,
    sort: Option<Sort>,
}

#[derive(Clone, Debug)]
enum Sort {
    Whole { ascending: bool },
    Pattern(SortPattern),
}

impl Push {
    pub(super) fn parse(value: &Bson) -> Result<Self, CommandError> {
        let options = match value.as_document() {
            Some(document) if document.contains_key("$each") => document,
            Some(_) | None => {
                return Ok(Self {
                    values: vec![value.clone()],
                    position: None,
                    slice: None,
                    sort: None,
                });
            }
        };
        if let Some(unknown) = options
            .keys()
            .find(|name| !matches!(name.as_str(), "$each" | "$position" | "$slice" | "$sort"))
        {
            return Err(CommandError::bad_value(format!(
                "Unrecognized clause in $push: {unknown}"
            )));
        }
        let Some(Bson::Array(values)) = options.get("$each") else {
            return Err(CommandError::bad_value(format!(
                "The argument to $each in $push must be an array but it was of type: {}",
                options.get("$each").map_or("missing", show::type_name)
            )));
        };
        Ok(Self {
            values: values.clone(),
            position: integer(options, "$position", "position")?,
            slice: integer(options, "$slice", "slice")?,
            sort: options.get("$sort").map(Sort::parse).transpose()?,
        })
    }

    pub(super) fn apply(&self, current: Option<&Bson>, site: Site<'_>) -> Result<Effect, CommandError> {
        let old: &[Bson] = match current {
            None => &[],
            Some(Bson::Array(items)) => items,
            Some(other) => {
                return Err(CommandError::bad_value(format!(
                    "The field '{}' must be an array but is of type {} in document {}",
                    site.path,
                    show::type_name(other),
                    site.id()
                )));
            }
        };
        let mut items = old.to_vec();
        let at = self.insertion_point(old.len());
        items.splice(at..at, self.values.iter().cloned());
        if let Some(sort) = &self.sort {
            items.sort_by(|left, right| sort.compare(left, right));
        }
        let full = items.len();
        if let Some(slice) = self.slice {
            cut(&mut items, slice);
        }
        if current.is_none() {
            return Ok(Effect::Value(Bson::Array(items)));
        }
        if items.len() == old.len() && items.iter().zip(old).all(|(new, old)| identical(new, old)) {
            return Ok(Effect::Nothing);
        }
        if at == old.len() && self.sort.is_none() && items.len() == full {
            return Ok(Effect::Appended {
                items,
                from: old.len(),
            });
        }
        Ok(Effect::Value(Bson::Array(items)))
    }

    fn insertion_point(&self, length: usize) -> usize {
        match self.position {
            None => length,
            Some(position) => match usize::try_from(position) {
                Ok(position) => position.min(length),
                Err(_) => {
                    length.saturating_sub(usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX))
                }
            },
        }
    }
}

/// Keeps the first `slice` elements, or the last ones if it is negative.
fn cut(items: &mut Vec<Bson>, slice: i64) {
    let keep = usize::try_from(slice.unsigned_abs()).unwrap_or(usize::MAX);
    if slice >= 0 {
        items.truncate(keep);
    } else {
        items.drain(..items.len().saturating_sub(keep));
    }
}

fn integer(options: &Document, name: &str, what: &str) -> Result<Option<i64>, CommandError> {
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    match Number::of(value).and_then(Number::to_exact_i64) {
        Some(number) => Ok(Some(number)),
        None => Err(CommandError::bad_value(format!(
            "The value for ${what} must be an integer value but was given type: {}",
            show::type_name(value)
        ))),
    }
}

impl Sort {
    fn parse(value: &Bson) -> Result<Self, CommandError> {
        const WRONG: &str = "The $sort is invalid: use 1/-1 to sort the whole element, or {field:1/-1} to sort \
                             embedded fields";
        if let Bson::Document(pattern) = value {
            if pattern.is_empty() {
                return Err(CommandError::bad_value(
                    "The $sort pattern is empty when it should be a set of fields.",
                ));
            }
            return SortPattern::parse(pattern)
                .map(Self::Pattern)
                .map_err(|_| CommandError::bad_value(WRONG));
        }
        match Number::of(value).and_then(Number::to_exact_i64) {
            Some(1) => Ok(Self::Whole { ascending: true }),
            Some(-1) => Ok(Self::Whole { ascending: false }),
            Some(_) | None => Err(CommandError::bad_value(WRONG)),
        }
    }

    fn compare(&self, left: &Bson, right: &Bson) -> Ordering {
        match self {
            Self::Whole { ascending } => compare_values(left, right, *ascending),
            Self::Pattern(pattern) => {
                let empty = Document::new();
                let document = |value| Bson::as_document(value).unwrap_or(&empty);
                pattern.compare(document(left), document(right))
            }
        }
    }
}

/// The values of `$addToSet`: those of its `$each`, or the one.
pub(super) fn each(value: &Bson) -> Result<Vec<Bson>, CommandError> {
    let Some(options) = value
        .as_document()
        .filter(|document| document.keys().next().is_some_and(|k| k == "$each"))
    else {
        return Ok(vec![value.clone()]);
    };
    if let Some(unknown) = options.keys().nth(1) {
        return Err(CommandError::bad_value(format!(
            "Found unexpected fields after $each in $addToSet: {unknown}"
        )));
    }
    let Some(Bson::Array(values)) = options.get("$each") else {
        return Err(CommandError::type_mismatch(format!(
            "The argument to $each in $addToSet must be an array but it was of type {}",
            options.get("$each").map_or("missing", show::type_name)
        )));
    };
    Ok(values.clone())
}

pub(super) fn add_to_set(
    values: &[Bson],
    current: Option<&Bson>,
    site: Site<'_>,
) -> Result<Effect, CommandError> {
    let mut items = match current {
        None => Vec::new(),
        Some(Bson::Array(items)) => items.clone(),
        Some(other) => {
            return Err(CommandError::bad_value(format!(
                "Cannot apply $addToSet to non-array field. Field named '{}' has non-array type {}",
                site.field(),
                show::type_name(other)
            )));
        }
    };
    let before = items.len();
    for value in values {
        if !items.iter().any(|item| equal(item, value)) {
            items.push(value.clone());
        }
    }
    let same = current.is_some() && items.len() == before;
    Ok(if same {
        Effect::Nothing
    } else {
        Effect::Value(Bson::Array(items))
    })
}

pub(super) fn pop(first: bool, current: Option<&Bson>, site: Site<'_>) -> Result<Effect, CommandError> {
    let Some(current) = current else {
        return Ok(Effect::Nothing);
    };
    let Bson::Array(items) = current else {
        return Err(CommandError::type_mismatch(format!(
            "Path '{}' contains an element of non-array type '{}'",
            site.path,
            show::type_name(current)
        )));
    };
    let kept = if first {
        items.split_first().map(|(_, rest)| rest)
    } else {
        items.split_last().map(|(_, rest)| rest)
    };
    Ok(match kept {
        Some(kept) => Effect::Value(Bson::Array(kept.to_vec())),
        None => Effect::Nothing,
    })
}

/// What `$pull` removes.
#[derive(Clone, Debug)]
pub(super) enum Pull {
    Equal(Bson),
    /// Documents that match as a query's would.
    Matching(Filter),
    /// Values for which `{ "": value }` matches: operators upon the element itself.
    Satisfying(Filter),
}

/// The name under which an element stands in the document that an element's own operators are matched against.
const ELEMENT: &str = "element";

impl Pull {
    pub(super) fn parse(value: &Bson) -> Result<Self, CommandError> {
        let operators = |value: &Bson| {
            Filter::parse(&[(ELEMENT.to_owned(), value.clone())].into_iter().collect()).map(Self::Satisfying)
        };
        if matches!(value, Bson::RegularExpression(_)) {
            return operators(value);
        }
        let Bson::Document(condition) = value else {
            return Ok(Self::Equal(value.clone()));
        };
        match condition.keys().next() {
            Some(first)
                if first.starts_with('$') && !matches!(first.as_str(), "$and" | "$or" | "$nor" | "$expr") =>
            {
                operators(value)
            }
            Some(_) | None => Ok(Self::Matching(Filter::parse(condition)?)),
        }
    }

    pub(super) fn matches(&self, item: &Bson) -> bool {
        match self {
            Self::Equal(value) => compare(value, item).is_eq(),
            Self::Matching(filter) => item
                .as_document()
                .is_some_and(|document| filter.matches(document)),
            Self::Satisfying(filter) => {
                filter.matches(&[(ELEMENT.to_owned(), item.clone())].into_iter().collect())
            }
        }
    }
}

/// The array without what is to go.
pub(super) fn pull(current: Option<&Bson>, goes: impl Fn(&Bson) -> bool) -> Result<Effect, CommandError> {
    let Some(current) = current else {
        return Ok(Effect::Nothing);
    };
    let Bson::Array(items) = current else {
        return Err(CommandError::bad_value("Cannot apply $pull to a non-array value"));
    };
    let kept: Vec<Bson> = items.iter().filter(|item| !goes(item)).cloned().collect();
    Ok(if kept.len() == items.len() {
        Effect::Nothing
    } else {
        Effect::Value(Bson::Array(kept))
    })
}

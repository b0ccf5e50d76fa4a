//! What operators make of values.

use std::cmp::Ordering;

use bson::{Bson, Document};

use super::{Comparison, Operator, truthy};
use crate::error::CommandError;
use crate::query::compare::compare;
use crate::query::number::Number;
use crate::query::show;

/// An operator all of whose arguments are evaluated.
pub(super) fn apply(operator: Operator, values: &[Option<Bson>]) -> Result<Option<Bson>, CommandError> {
    let first = values.first().and_then(Option::as_ref);
    let second = values.get(1).and_then(Option::as_ref);
    Ok(match operator {
        Operator::Compare(comparison) => Some(compare_values(comparison, first, second)),
        Operator::Not => Some(Bson::Boolean(!truthy(first))),
        Operator::In => {
            let Some(Bson::Array(items)) = second else {
                return Err(CommandError::new(
                    40081,
                    format!(
                        "$in requires an array as a second argument, found: {}",
                        kind(second)
                    ),
                ));
            };
            let found = first.is_some_and(|value| items.iter().any(|item| compare(item, value).is_eq()));
            Some(Bson::Boolean(found))
        }
        Operator::Type => Some(Bson::String(kind(first).to_owned())),
        Operator::IsArray => Some(Bson::Boolean(matches!(first, Some(Bson::Array(_))))),
        Operator::Size => {
            let Some(Bson::Array(items)) = first else {
                return Err(CommandError::new(
                    17124,
                    format!(
                        "The argument to $size must be an array, but was of type: {}",
                        kind(first)
                    ),
                ));
            };
            Some(Bson::Int32(i32::try_from(items.len()).unwrap_or(i32::MAX)))
        }
        Operator::ArrayElemAt => element_at(first, second)?,
        Operator::ConcatArrays => concat_arrays(values)?,
        Operator::MergeObjects => Some(merge_objects(values)?),
        Operator::Concat => Some(concat(values)?),
        Operator::Add => Some(fold_numbers("$add", 16554, values, Number::Int(0), Number::plus)?),
        Operator::Multiply => Some(fold_numbers(
            "$multiply",
            16555,
            values,
            Number::Int(1),
            Number::times,
        )?),
        Operator::Subtract => Some(subtract(first, second)?),
        Operator::And | Operator::Or | Operator::Cond | Operator::IfNull => None,
    })
}

fn compare_values(comparison: Comparison, left: Option<&Bson>, right: Option<&Bson>) -> Bson {
    // A missing value is less than any other, undefined and null included.
    let order = match (left, right) {
        (Some(left), Some(right)) => compare(left, right),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
    };
    Bson::Boolean(match comparison {
        Comparison::Eq => order.is_eq(),
        Comparison::Ne => order.is_ne(),
        Comparison::Gt => order.is_gt(),
        Comparison::Gte => order.is_ge(),
        Comparison::Lt => order.is_lt(),
        Comparison::Lte => order.is_le(),
        Comparison::Cmp => return Bson::Int32(order as i32),
    })
}

fn element_at(array: Option<&Bson>, index: Option<&Bson>) -> Result<Option<Bson>, CommandError> {
    if is_nullish(array) || is_nullish(index) {
        return Ok(Some(Bson::Null));
    }
    let Some(Bson::Array(items)) = array else {
        return Err(CommandError::new(
            28689,
            format!(
                "$arrayElemAt's first argument must be an array, but is {}",
                kind(array)
            ),
        ));
    };
    let Some(index) = index.and_then(Number::of).and_then(Number::to_exact_i64) else {
        return Err(CommandError::new(
            28690,
            format!(
                "$arrayElemAt's second argument must be a numeric value, but is {}",
                kind(index)
            ),
        ));
    };
    let at = match usize::try_from(index) {
        Ok(at) => Some(at),
        Err(_) => usize::try_from(index.unsigned_abs())
            .ok()
            .and_then(|back| items.len().checked_sub(back)),
    };
    Ok(at.and_then(|at| items.get(at)).cloned())
}

fn concat_arrays(values: &[Option<Bson>]) -> Result<Option<Bson>, CommandError> {
    let mut out = Vec::new();
    for value in values {
        if is_nullish(value.as_ref()) {
            return Ok(Some(Bson::Null));
        }
        let Some(Bson::Array(items)) = value else {
            return Err(CommandError::new(
                28664,
                format!("$concatArrays only supports arrays, not {}", kind(value.as_ref())),
            ));
        };
        out.extend(items.iter().cloned());
    }
    Ok(Some(Bson::Array(out)))
}

fn merge_objects(values: &[Option<Bson>]) -> Result<Bson, CommandError> {
    let mut out = Document::new();
    for value in values {
        if is_nullish(value.as_ref()) {
            continue;
        }
        let Some(Bson::Document(document)) = value else {
            return Err(CommandError::new(
                40400,
                format!(
                    "$mergeObjects requires object inputs, but input {} is of type {}",
                    value.as_ref().map(show::value).unwrap_or_default(),
                    kind(value.as_ref())
                ),
            ));
        };
        for (name, value) in document {
            out.insert(name, value.clone());
        }
    }
    Ok(Bson::Document(out))
}

fn concat(values: &[Option<Bson>]) -> Result<Bson, CommandError> {
    let mut out = String::new();
    for value in values {
        if is_nullish(value.as_ref()) {
            return Ok(Bson::Null);
        }
        let Some(Bson::String(text)) = value else {
            return Err(CommandError::new(
                16702,
                format!("$concat only supports strings, not {}", kind(value.as_ref())),
            ));
        };
        out.push_str(text);
    }
    Ok(Bson::String(out))
}

fn fold_numbers(
    name: &str,
    code: i32,
    values: &[Option<Bson>],
    start: Number,
    step: fn(Number, Number) -> Option<Number>,
) -> Result<Bson, CommandError> {
    let mut total = start;
    for value in values {
        if is_nullish(value.as_ref()) {
            return Ok(Bson::Null);
        }
        let Some(number) = value.as_ref().and_then(Number::of) else {
            return Err(CommandError::new(
                code,
                format!("{name} only supports numeric types, not {}", kind(value.as_ref())),
            ));
        };
        // An aggregation that leaves the long range goes on in doubles.
        total = match step(total, number) {
            Some(sum) => sum,
            None => step(Number::Double(total.to_f64()), number).unwrap_or(total),
        };
    }
    Ok(total.into_bson())
}

fn subtract(left: Option<&Bson>, right: Option<&Bson>) -> Result<Bson, CommandError> {
    if is_nullish(left) || is_nullish(right) {
        return Ok(Bson::Null);
    }
    if let (Some(Bson::DateTime(left)), Some(Bson::DateTime(right))) = (left, right) {
        return Ok(Bson::Int64(
            left.timestamp_millis().saturating_sub(right.timestamp_millis()),
        ));
    }
    let numbers = (left.and_then(Number::of), right.and_then(Number::of));
    let (Some(left_number), Some(right_number)) = numbers else {
        return Err(CommandError::new(
            16556,
            format!("can't $subtract a {} from a {}", kind(right), kind(left)),
        ));
    };
    let difference = right_number
        .negate()
        .and_then(|negated| left_number.plus(negated));
    Ok(difference
        .unwrap_or_else(|| Number::Double(left_number.to_f64() - right_number.to_f64()))
        .into_bson())
}

pub(super) fn is_nullish(value: Option<&Bson>) -> bool {
    matches!(value, None | Some(Bson::Null | Bson::Undefined))
}

fn kind(value: Option<&Bson>) -> &'static str {
    value.map_or("missing", show::type_name)
}

//! Whether a document satisfies clauses.

use bson::{Bson, Document};

use super::{BitTest, Clause, Comparison, Filter, Predicate};
use crate::query::compare::{bracket, compare, equal};
use crate::query::expression::Scope;
use crate::query::number::Number;
use crate::query::path;

/// Whether all clauses hold; `position` becomes the array index by which the last of them did.
pub(super) fn matches(filter: &Filter, document: &Document, position: &mut Option<usize>) -> bool {
    filter.0.iter().all(|clause| holds(clause, document, position))
}

fn holds(clause: &Clause, document: &Document, position: &mut Option<usize>) -> bool {
    match clause {
        Clause::And(filters) => filters.iter().all(|filter| matches(filter, document, position)),
        Clause::Or(filters) => filters.iter().any(|filter| matches(filter, document, position)),
        Clause::Nor(filters) => !filters.iter().any(|filter| matches(filter, document, &mut None)),
        Clause::Constant(value) => *value,
        Clause::Expression(expression) => expression.is_true(Scope::of(document)).unwrap_or(false),
        Clause::Field { path, predicate } => at_path(predicate, document, path.parts(), position),
    }
}

/// Whether something at the path satisfies the predicate.
fn at_path(
    predicate: &Predicate,
    document: &Document,
    parts: &[String],
    position: &mut Option<usize>,
) -> bool {
    if let Predicate::Not(inner) = predicate {
        return !at_path(inner, document, parts, &mut None);
    }
    // Each of them may be satisfied by another element.
    if let Predicate::All(all) = predicate {
        return all.iter().all(|each| at_path(each, document, parts, position));
    }
    in_document(predicate, document, parts, position)
}

fn in_document(
    predicate: &Predicate,
    document: &Document,
    parts: &[String],
    position: &mut Option<usize>,
) -> bool {
    match parts.split_first() {
        Some((first, rest)) => in_value(predicate, document.get(first), rest, position),
        None => false,
    }
}

fn in_value(
    predicate: &Predicate,
    value: Option<&Bson>,
    rest: &[String],
    position: &mut Option<usize>,
) -> bool {
    let Some((next, below)) = rest.split_first() else {
        return at_leaf(predicate, value, position);
    };
    if let Some(Bson::Array(items)) = value {
        let by_index = path::index(next).and_then(|at| items.get(at));
        if by_index.is_some() && in_value(predicate, by_index, below, position) {
            return true;
        }
        return found(items, position, |item, position| {
            item.as_document()
                .is_some_and(|inner| in_document(predicate, inner, rest, position))
        });
    }
    match value.and_then(Bson::as_document) {
        Some(inner) => in_document(predicate, inner, rest, position),
        None => test(predicate, None, position),
    }
}

/// At the path's end an array counts as itself and, for most predicates, as each of its elements.
fn at_leaf(predicate: &Predicate, value: Option<&Bson>, position: &mut Option<usize>) -> bool {
    if test(predicate, value, position) {
        return true;
    }
    let whole_only = matches!(
        predicate,
        Predicate::Size(_)
            | Predicate::ElementMatches(_)
            | Predicate::ElementSatisfies(_)
            | Predicate::Exists
    );
    let Some(Bson::Array(items)) = value else {
        return false;
    };
    !whole_only
        && found(items, position, |item, position| {
            test(predicate, Some(item), position)
        })
}

/// Whether one of the elements will do; its index becomes the position.
fn found(
    items: &[Bson],
    position: &mut Option<usize>,
    mut will_do: impl FnMut(&Bson, &mut Option<usize>) -> bool,
) -> bool {
    for (index, item) in items.iter().enumerate() {
        if will_do(item, position) {
            *position = Some(index);
            return true;
        }
    }
    false
}

/// Whether this one value, or its absence, satisfies the predicate.
fn test(predicate: &Predicate, value: Option<&Bson>, position: &mut Option<usize>) -> bool {
    match predicate {
        Predicate::Not(inner) => !test(inner, value, &mut None),
        Predicate::All(all) => all.iter().all(|each| test(each, value, position)),
        Predicate::Never => false,
        Predicate::Exists => value.is_some(),
        Predicate::Equal(wanted) => is_equal(value, wanted),
        Predicate::Compare(comparison, wanted) => is_ordered(*comparison, value, wanted),
        Predicate::In { values, patterns } => {
            values.iter().any(|wanted| is_equal(value, wanted))
                || patterns.iter().any(|regex| is_match(regex, value))
        }
        Predicate::Type(types) => value.is_some_and(|value| types.iter().any(|set| set.contains(value))),
        Predicate::Modulo { divisor, remainder } => value
            .and_then(Number::of)
            .and_then(Number::to_i64)
            .is_some_and(|number| number.wrapping_rem(*divisor) == *remainder),
        Predicate::Pattern(regex) => is_match(regex, value),
        Predicate::Size(size) => value
            .and_then(Bson::as_array)
            .is_some_and(|items| i64::try_from(items.len()) == Ok(*size)),
        Predicate::Bits { test, mask } => bits_match(*test, *mask, value),
        Predicate::ElementMatches(filter) => in_elements(value, position, |item| {
            if let Bson::Document(document) = item {
                return matches(filter, document, &mut None);
            }
            // An array counts as a document whose fields are its indexes.
            item.as_array()
                .is_some_and(|items| matches(filter, &as_document(items), &mut None))
        }),
        Predicate::ElementSatisfies(all) => in_elements(value, position, |item| {
            all.iter().all(|each| test(each, Some(item), &mut None))
        }),
    }
}

fn in_elements(value: Option<&Bson>, position: &mut Option<usize>, will_do: impl Fn(&Bson) -> bool) -> bool {
    value
        .and_then(Bson::as_array)
        .is_some_and(|items| found(items, position, |item, _| will_do(item)))
}

fn as_document(items: &[Bson]) -> Document {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| (index.to_string(), item.clone()))
        .collect()
}

fn is_equal(value: Option<&Bson>, wanted: &Bson) -> bool {
    match value {
        None => matches!(wanted, Bson::Null),
        Some(Bson::Undefined) => matches!(wanted, Bson::Null),
        Some(value) => equal(value, wanted),
    }
}

fn is_ordered(comparison: Comparison, value: Option<&Bson>, wanted: &Bson) -> bool {
    let or_equal = matches!(comparison, Comparison::GreaterOrEqual | Comparison::LessOrEqual);
    let Some(value) = value else {
        return or_equal && matches!(wanted, Bson::Null);
    };
    let extreme = matches!(wanted, Bson::MinKey | Bson::MaxKey);
    if bracket(value) != bracket(wanted) && !extreme {
        return false;
    }
    let is_nan = |value: &Bson| Number::of(value).is_some_and(Number::is_nan);
    if is_nan(value) || is_nan(wanted) {
        return or_equal && is_nan(value) && is_nan(wanted);
    }
    let order = compare(value, wanted);
    match comparison {
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
    }
}

fn is_match(regex: &regex::Regex, value: Option<&Bson>) -> bool {
    if let Some(Bson::String(text) | Bson::Symbol(text)) = value {
        return regex.is_match(text);
    }
    // A stored pattern matches itself.
    matches!(value, Some(Bson::RegularExpression(stored)) if stored.pattern.as_str() == regex.as_str())
}

fn bits_match(test: BitTest, mask: u64, value: Option<&Bson>) -> bool {
    let Some(bits) = value.and_then(bits_of) else {
        return false;
    };
    match test {
        BitTest::AllSet => bits & mask == mask,
        BitTest::AllClear => bits & mask == 0,
        BitTest::AnySet => bits & mask != 0,
        BitTest::AnyClear => bits & mask != mask,
    }
}

/// The lowest 64 bits of an integral number, in two's complement, or of binary data.
fn bits_of(value: &Bson) -> Option<u64> {
    if let Bson::Binary(binary) = value {
        let bits = binary.bytes.iter().take(8).zip(0_u32..);
        return Some(bits.fold(0, |bits, (byte, at)| bits | u64::from(*byte) << (8 * at)));
    }
    Number::of(value)?.to_exact_i64().map(i64::cast_unsigned)
}

//! From a filter document to clauses.

use bson::{Bson, Document};
use regex::RegexBuilder;

use super::types::TypeSet;
use super::{BitTest, Clause, Comparison, Filter, Predicate};
use crate::error::CommandError;
use crate::query::expression::{Expression, truthy};
use crate::query::number::Number;
use crate::query::path::Path;
use crate::query::show;

pub(super) fn filter(document: &Document) -> Result<Filter, CommandError> {
    let mut clauses = Vec::new();
    for (name, value) in document {
        match name.strip_prefix('$') {
            Some(operator) => clauses.extend(top_level(operator, value)?),
            None => {
                let path = Path::new(name);
                for predicate in field(value)? {
                    clauses.push(Clause::Field {
                        path: path.clone(),
                        predicate,
                    });
                }
            }
        }
    }
    Ok(Filter(clauses))
}

/// A `$` name where a field's name may stand.
fn top_level(operator: &str, value: &Bson) -> Result<Option<Clause>, CommandError> {
    Ok(Some(match operator {
        "and" => Clause::And(list(operator, value)?),
        "or" => Clause::Or(list(operator, value)?),
        "nor" => Clause::Nor(list(operator, value)?),
        "expr" => Clause::Expression(Box::new(Expression::parse(value)?)),
        "comment" => return Ok(None),
        "alwaysTrue" => Clause::Constant(true),
        "alwaysFalse" => Clause::Constant(false),
        "where" | "text" | "jsonSchema" | "sampleRate" => return Err(not_built(operator)),
        _ => {
            return Err(CommandError::bad_value(format!(
                "unknown top level operator: ${operator}"
            )));
        }
    }))
}

fn list(operator: &str, value: &Bson) -> Result<Vec<Filter>, CommandError> {
    let Bson::Array(items) = value else {
        return Err(CommandError::bad_value(format!("${operator} must be an array")));
    };
    if items.is_empty() {
        return Err(CommandError::bad_value("$and/$or/$nor must be a nonempty array"));
    }
    let entry = |item: &Bson| match item.as_document() {
        Some(document) => filter(document),
        None => Err(CommandError::bad_value(
            "$or/$and/$nor entries need to be full objects",
        )),
    };
    items.iter().map(entry).collect()
}

/// What a field's value asks of the field.
fn field(value: &Bson) -> Result<Vec<Predicate>, CommandError> {
    if let Bson::RegularExpression(regex) = value {
        return Ok(vec![pattern(regex.pattern.as_str(), regex.options.as_str())?]);
    }
    if let Bson::Document(document) = value
        && is_operators(document)
    {
        return operators(document);
    }
    if matches!(value, Bson::Undefined) {
        return Err(CommandError::bad_value("cannot compare to undefined"));
    }
    Ok(vec![Predicate::Equal(value.clone())])
}

/// Whether a document holds operators, rather than being a value to be equal to. A DBRef is a value.
fn is_operators(document: &Document) -> bool {
    document
        .keys()
        .next()
        .is_some_and(|first| first.starts_with('$') && !matches!(first.as_str(), "$ref" | "$id" | "$db"))
}

fn operators(document: &Document) -> Result<Vec<Predicate>, CommandError> {
    document
        .iter()
        .filter_map(|(name, value)| operator(name, value, document).transpose())
        .collect()
}

/// One operator of a field; none for one that says nothing by itself (`$options`, `$comment`).
fn operator(name: &str, value: &Bson, siblings: &Document) -> Result<Option<Predicate>, CommandError> {
    Ok(Some(match name {
        "$eq" => equal(value)?,
        "$ne" => negated(equal(value)?),
        "$gt" => Predicate::Compare(Comparison::Greater, comparable(value)?),
        "$gte" => Predicate::Compare(Comparison::GreaterOrEqual, comparable(value)?),
        "$lt" => Predicate::Compare(Comparison::Less, comparable(value)?),
        "$lte" => Predicate::Compare(Comparison::LessOrEqual, comparable(value)?),
        "$in" => one_of(name, value)?,
        "$nin" => negated(one_of(name, value)?),
        "$exists" => {
            if truthy(Some(value)) {
                Predicate::Exists
            } else {
                negated(Predicate::Exists)
            }
        }
        "$type" => types(value)?,
        "$mod" => modulo(value)?,
        "$regex" => regex_operator(value, siblings)?,
        "$options" if siblings.contains_key("$regex") => return Ok(None),
        "$options" => return Err(CommandError::bad_value("$options needs a $regex")),
        "$size" => size(value)?,
        "$all" => all(value)?,
        "$elemMatch" => element_match(value)?,
        "$not" => not(value)?,
        "$bitsAllSet" => bits(BitTest::AllSet, name, value)?,
        "$bitsAllClear" => bits(BitTest::AllClear, name, value)?,
        "$bitsAnySet" => bits(BitTest::AnySet, name, value)?,
        "$bitsAnyClear" => bits(BitTest::AnyClear, name, value)?,
        "$comment" => return Ok(None),
        "$geoWithin" | "$geoIntersects" | "$near" | "$nearSphere" => {
            return Err(not_built(name.trim_start_matches('$')));
        }
        _ => return Err(CommandError::bad_value(format!("unknown operator: {name}"))),
    }))
}

fn negated(predicate: Predicate) -> Predicate {
    Predicate::Not(Box::new(predicate))
}

fn equal(value: &Bson) -> Result<Predicate, CommandError> {
    Ok(Predicate::Equal(comparable(value)?))
}

fn comparable(value: &Bson) -> Result<Bson, CommandError> {
    if matches!(value, Bson::Undefined) {
        return Err(CommandError::bad_value("cannot compare to undefined"));
    }
    Ok(value.clone())
}

fn one_of(name: &str, value: &Bson) -> Result<Predicate, CommandError> {
    let Bson::Array(items) = value else {
        return Err(CommandError::bad_value(format!("{name} needs an array")));
    };
    let (mut values, mut patterns) = (Vec::new(), Vec::new());
    for item in items {
        if let Bson::RegularExpression(regex) = item {
            patterns.push(compile(regex.pattern.as_str(), regex.options.as_str())?);
            continue;
        }
        if item.as_document().is_some_and(is_operators) {
            return Err(CommandError::bad_value(format!("cannot nest $ under {name}")));
        }
        values.push(comparable(item)?);
    }
    Ok(Predicate::In { values, patterns })
}

fn types(value: &Bson) -> Result<Predicate, CommandError> {
    let Bson::Array(items) = value else {
        return Ok(Predicate::Type(vec![TypeSet::parse(value)?]));
    };
    if items.is_empty() {
        return Err(CommandError::failed_to_parse(
            "$type must match at least one type",
        ));
    }
    Ok(Predicate::Type(
        items.iter().map(TypeSet::parse).collect::<Result<_, _>>()?,
    ))
}

fn modulo(value: &Bson) -> Result<Predicate, CommandError> {
    let Bson::Array(items) = value else {
        return Err(CommandError::bad_value("malformed mod, needs to be an array"));
    };
    let number = |at: usize| items.get(at).and_then(Number::of).and_then(Number::to_i64);
    match items.len() {
        0 | 1 => {
            return Err(CommandError::bad_value("malformed mod, not enough elements"));
        }
        2 => {}
        _ => return Err(CommandError::bad_value("malformed mod, too many elements")),
    }
    let Some(divisor) = number(0) else {
        return Err(CommandError::bad_value("malformed mod, divisor not a number"));
    };
    if divisor == 0 {
        return Err(CommandError::bad_value("divisor cannot be 0"));
    }
    let Some(remainder) = number(1) else {
        return Err(CommandError::bad_value("malformed mod, remainder not a number"));
    };
    Ok(Predicate::Modulo { divisor, remainder })
}

fn regex_operator(value: &Bson, siblings: &Document) -> Result<Predicate, CommandError> {
    let options = match siblings.get("$options") {
        None => None,
        Some(Bson::String(options)) => Some(options.as_str()),
        Some(_) => return Err(CommandError::bad_value("$options has to be a string")),
    };
    if let Bson::String(text) = value {
        return pattern(text, options.unwrap_or_default());
    }
    let Bson::RegularExpression(regex) = value else {
        return Err(CommandError::bad_value("$regex has to be a string"));
    };
    let own = regex.options.as_str();
    if options.is_some() && !own.is_empty() {
        return Err(CommandError::new(
            51075,
            "options set in both $regex and $options",
        ));
    }
    pattern(regex.pattern.as_str(), options.unwrap_or(own))
}

fn pattern(text: &str, options: &str) -> Result<Predicate, CommandError> {
    compile(text, options).map(Predicate::Pattern)
}

fn compile(text: &str, options: &str) -> Result<regex::Regex, CommandError> {
    let mut builder = RegexBuilder::new(text);
    for flag in options.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'm' => builder.multi_line(true),
            's' => builder.dot_matches_new_line(true),
            'x' => builder.ignore_whitespace(true),
            'u' => builder.unicode(true),
            _ => {
                return Err(CommandError::new(
                    51108,
                    format!("invalid flag in regex options: {flag}"),
                ));
            }
        };
    }
    builder
        .size_limit(PATTERN_MEMORY)
        .build()
        .map_err(|error| CommandError::new(51091, format!("Regular expression is invalid: {error}")))
}

/// A pattern's compiled program may take that many bytes; a repetition of repetitions would take all memory.
const PATTERN_MEMORY: usize = 1 << 20;

fn size(value: &Bson) -> Result<Predicate, CommandError> {
    let Some(number) = Number::of(value) else {
        return Err(CommandError::failed_to_parse(format!(
            "Failed to parse $size. Expected a number in: {}",
            show::element("$size", value)
        )));
    };
    match number.to_exact_i64() {
        Some(size) if size >= 0 => Ok(Predicate::Size(size)),
        Some(_) => Err(CommandError::bad_value(format!(
            "Failed to parse $size. Expected a non-negative number in: {}",
            show::element("$size", value)
        ))),
        None => Err(CommandError::failed_to_parse(format!(
            "Failed to parse $size. Expected an integer: {}",
            show::element("$size", value)
        ))),
    }
}

fn all(value: &Bson) -> Result<Predicate, CommandError> {
    let Bson::Array(items) = value else {
        return Err(CommandError::bad_value("$all needs an array"));
    };
    if items.is_empty() {
        return Ok(Predicate::Never);
    }
    let each = |item: &Bson| {
        if let Bson::RegularExpression(regex) = item {
            return pattern(regex.pattern.as_str(), regex.options.as_str());
        }
        match item.as_document().and_then(|document| document.iter().next()) {
            Some((name, value)) if name == "$elemMatch" => element_match(value),
            Some((name, _)) if name.starts_with('$') => {
                Err(CommandError::bad_value("no $ expressions in $all"))
            }
            Some(_) | None => equal(item),
        }
    };
    Ok(Predicate::All(items.iter().map(each).collect::<Result<_, _>>()?))
}

fn element_match(value: &Bson) -> Result<Predicate, CommandError> {
    let Some(document) = value.as_document() else {
        return Err(CommandError::bad_value("$elemMatch needs an Object"));
    };
    let logical = |name: &str| matches!(name, "$and" | "$or" | "$nor" | "$where" | "$expr");
    match document.keys().next() {
        Some(first) if is_operators(document) && !logical(first) => {
            Ok(Predicate::ElementSatisfies(operators(document)?))
        }
        Some(_) | None => Ok(Predicate::ElementMatches(Box::new(filter(document)?))),
    }
}

fn not(value: &Bson) -> Result<Predicate, CommandError> {
    if let Bson::RegularExpression(regex) = value {
        return Ok(negated(pattern(regex.pattern.as_str(), regex.options.as_str())?));
    }
    let Some(document) = value.as_document() else {
        return Err(CommandError::bad_value("$not needs a regex or a document"));
    };
    if document.is_empty() {
        return Err(CommandError::bad_value("$not cannot be empty"));
    }
    Ok(negated(Predicate::All(operators(document)?)))
}

fn bits(test: BitTest, name: &str, value: &Bson) -> Result<Predicate, CommandError> {
    if let Some(mask) = Number::of(value).and_then(Number::to_exact_i64) {
        return match u64::try_from(mask) {
            Ok(mask) => Ok(Predicate::Bits { test, mask }),
            Err(_) => Err(CommandError::bad_value(format!(
                "Expected a non-negative number in: {}",
                show::element(name, value)
            ))),
        };
    }
    let Bson::Array(items) = value else {
        return Err(CommandError::bad_value(format!(
            "{name} takes an Array, a number, or a BinData but received: {}",
            show::element(name, value)
        )));
    };
    let mut mask = 0_u64;
    for item in items {
        let position = Number::of(item)
            .and_then(Number::to_exact_i64)
            .and_then(|at| u32::try_from(at).ok());
        let Some(bit) = position.and_then(|at| 1_u64.checked_shl(at)) else {
            return Err(CommandError::bad_value(
                "bit positions must be integers from 0 to 63 in the simulated server",
            ));
        };
        mask |= bit;
    }
    Ok(Predicate::Bits { test, mask })
}

/// A refusal of what a real server has and this one has not.
fn not_built(operator: &str) -> CommandError {
    CommandError::command_not_supported(format!("the simulated server has no ${operator}"))
}

//! One operator upon one field: what it makes of the value that stands there, or of nothing.

use bson::{Bson, Document};

use super::UpdateContext;
use super::array::{self, Pull, Push};
use crate::error::CommandError;
use crate::query::compare::{compare, identical};
use crate::query::number::Number;
use crate::query::path::{self, Path};
use crate::query::show;

#[derive(Clone, Debug)]
pub(super) enum Modifier {
    Set(Bson),
    SetOnInsert(Bson),
    Unset,
    Increment(Number),
    Multiply(Number),
    Min(Bson),
    Max(Bson),
    CurrentDate(DateKind),
    Bits(Vec<(BitOperation, Number)>),
    Push(Push),
    AddToSet(Vec<Bson>),
    Pop { first: bool },
    Pull(Pull),
    PullAll(Vec<Bson>),
    RenameFrom,
    RenameTo(Path),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum DateKind {
    Date,
    Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum BitOperation {
    And,
    Or,
    Xor,
}

/// What a modifier makes of a value.
#[derive(Debug)]
pub(super) enum Effect {
    Nothing,
    Value(Bson),
    /// The array with elements added behind the first `from`.
    Appended {
        items: Vec<Bson>,
        from: usize,
    },
    Removed,
}

/// Where a modifier is applied, for what it needs to know and what its errors name.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) document: &'a Document,
    pub(super) context: &'a UpdateContext,
    /// The dotted path.
    pub(super) path: &'a str,
}

impl Site<'_> {
    /// The field's own name.
    pub(super) fn field(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The document's `_id`, as messages name a document.
    pub(super) fn id(&self) -> String {
        match self.document.get("_id") {
            Some(id) => format!("{{_id: {}}}", show::value(id)),
            None => "{no id}".to_owned(),
        }
    }
}

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

const NAMES: &[&str] = &[
    "$set",
    "$setOnInsert",
    "$unset",
    "$inc",
    "$mul",
    "$min",
    "$max",
    "$currentDate",
    "$bit",
    "$push",
    "$addToSet",
    "$pop",
    "$pull",
    "$pullAll",
    "$rename",
];

impl Modifier {
    pub(super) fn parse(name: &str, field: &str, value: &Bson) -> Result<Self, CommandError> {
        Ok(match name {
            "$set" => Self::Set(value.clone()),
            "$setOnInsert" => Self::SetOnInsert(value.clone()),
            "$unset" => Self::Unset,
            "$inc" => Self::Increment(number("increment", field, value)?),
            "$mul" => Self::Multiply(number("multiply", field, value)?),
            "$min" => Self::Min(value.clone()),
            "$max" => Self::Max(value.clone()),
            "$currentDate" => Self::CurrentDate(date_kind(value)?),
            "$bit" => Self::Bits(bit_operations(field, value)?),
            "$push" => Self::Push(Push::parse(value)?),
            "$addToSet" => Self::AddToSet(array::each(value)?),
            "$pop" => match Number::of(value).and_then(Number::to_exact_i64) {
                Some(1) => Self::Pop { first: false },
                Some(-1) => Self::Pop { first: true },
                Some(_) | None => {
                    return Err(CommandError::failed_to_parse(format!(
                        "$pop expects 1 or -1, found: {}",
                        show::value(value)
                    )));
                }
            },
            "$pull" => Self::Pull(Pull::parse(value)?),
            "$pullAll" => {
                let Bson::Array(values) = value else {
                    return Err(CommandError::bad_value(
                        "$pullAll requires an array argument but was given a scalar",
                    ));
                };
                Self::PullAll(values.clone())
            }
            _ => {
                return Err(CommandError::failed_to_parse(format!("Unknown modifier: {name}")));
            }
        })
    }

    /// What becomes of the value at the site; `None` where nothing stands there.
    pub(super) fn apply(&self, current: Option<&Bson>, site: Site<'_>) -> Result<Effect, CommandError> {
        match self {
            Self::Set(value) => Ok(changed(current, value.clone())),
            Self::SetOnInsert(value) if site.context.inserting => Ok(changed(current, value.clone())),
            Self::SetOnInsert(_) => Ok(Effect::Nothing),
            Self::Unset | Self::RenameFrom => Ok(if current.is_some() {
                Effect::Removed
            } else {
                Effect::Nothing
            }),
            Self::RenameTo(source) => Ok(match path::get(site.document, source.parts()) {
                Some(value) => Effect::Value(value.clone()),
                None => Effect::Nothing,
            }),
            Self::Increment(by) => arithmetic("$inc", current, site, *by, *by, Number::plus),
            Self::Multiply(by) => arithmetic("$mul", current, site, *by, zero_like(*by), Number::times),
            Self::Min(value) => Ok(extreme(current, value, |order| order.is_lt())),
            Self::Max(value) => Ok(extreme(current, value, |order| order.is_gt())),
            Self::CurrentDate(DateKind::Date) => Ok(Effect::Value(Bson::DateTime(site.context.now))),
            Self::CurrentDate(DateKind::Timestamp) => {
                Ok(Effect::Value(Bson::Timestamp(site.context.timestamp)))
            }
            Self::Bits(operations) => bits(operations, current, site),
            Self::Push(push) => push.apply(current, site),
            Self::AddToSet(values) => array::add_to_set(values, current, site),
            Self::Pop { first } => array::pop(*first, current, site),
            Self::Pull(pull) => array::pull(current, |item| pull.matches(item)),
            Self::PullAll(values) => array::pull(current, |item| {
                values.iter().any(|value| compare(value, item).is_eq())
            }),
        }
    }
}

fn changed(current: Option<&Bson>, value: Bson) -> Effect {
    match current {
        Some(current) if identical(current, &value) => Effect::Nothing,
        Some(_) | None => Effect::Value(value),
    }
}

fn number(verb: &str, field: &str, value: &Bson) -> Result<Number, CommandError> {
    Number::of(value).ok_or_else(|| {
        CommandError::type_mismatch(format!(
            "Cannot {verb} with non-numeric argument: {{{}}}",
            show::element(field, value)
        ))
    })
}

fn zero_like(number: Number) -> Number {
    match number {
        Number::Int(_) => Number::Int(0),
        Number::Long(_) => Number::Long(0),
        Number::Double(_) => Number::Double(0.0),
        Number::Decimal(_) => number.times(Number::Int(0)).unwrap_or(Number::Int(0)),
    }
}

fn arithmetic(
    name: &str,
    current: Option<&Bson>,
    site: Site<'_>,
    by: Number,
    absent: Number,
    step: fn(Number, Number) -> Option<Number>,
) -> Result<Effect, CommandError> {
    let Some(current) = current else {
        return Ok(Effect::Value(absent.into_bson()));
    };
    let Some(number) = Number::of(current) else {
        return Err(CommandError::type_mismatch(format!(
            "Cannot apply {name} to a value of non-numeric type. {} has the field '{}' of non-numeric type {}",
            site.id(),
            site.field(),
            show::type_name(current)
        )));
    };
    match step(number, by) {
        Some(result) => Ok(changed(Some(current), result.into_bson())),
        None => Err(CommandError::bad_value(format!(
            "Failed to apply {name} operations to current value ((NumberLong){}) for document {}",
            show::value(current),
            site.id()
        ))),
    }
}

fn extreme(current: Option<&Bson>, value: &Bson, wins: fn(std::cmp::Ordering) -> bool) -> Effect {
    match current {
        Some(current) if !wins(compare(value, current)) => Effect::Nothing,
        Some(_) | None => Effect::Value(value.clone()),
    }
}

fn date_kind(value: &Bson) -> Result<DateKind, CommandError> {
    if matches!(value, Bson::Boolean(_)) {
        return Ok(DateKind::Date);
    }
    let Bson::Document(document) = value else {
        return Err(CommandError::bad_value(format!(
            "{} is not valid type for $currentDate. Please use a boolean ('true') or a $type expression ({{$type: \
             'timestamp/date'}}).",
            show::type_name(value)
        )));
    };
    if let Some(unknown) = document.keys().find(|name| *name != "$type") {
        return Err(CommandError::bad_value(format!(
            "Unrecognized $currentDate option: {unknown}"
        )));
    }
    match document.get("$type").and_then(Bson::as_str) {
        Some("date") => Ok(DateKind::Date),
        Some("timestamp") => Ok(DateKind::Timestamp),
        Some(_) | None => Err(CommandError::bad_value(
            "The '$type' string field is required to be 'date' or 'timestamp': {$currentDate: {field : {$type: \
             'date'}}}",
        )),
    }
}

fn bit_operations(field: &str, value: &Bson) -> Result<Vec<(BitOperation, Number)>, CommandError> {
    let Some(document) = value.as_document() else {
        return Err(CommandError::bad_value(format!(
            "The $bit modifier is not compatible with a {}. You must pass in an embedded document: {{$bit: {{field: \
             {{and/or/xor: #}}}}",
            show::type_name(value)
        )));
    };
    if document.is_empty() {
        return Err(CommandError::bad_value(format!(
            "You must pass in at least one bitwise operation. The format is: {{$bit: {{{field}: {{and/or/xor: #}}}}"
        )));
    }
    let operation = |(name, value): (&String, &Bson)| {
        let operation = match name.as_str() {
            "and" => BitOperation::And,
            "or" => BitOperation::Or,
            "xor" => BitOperation::Xor,
            _ => {
                return Err(CommandError::bad_value(format!(
                    "The $bit modifier only supports 'and', 'or', and 'xor', not '{name}' which is an unknown \
                     operator: {{{}}}",
                    show::element(name, value)
                )));
            }
        };
        match Number::of(value) {
            Some(number @ (Number::Int(_) | Number::Long(_))) => Ok((operation, number)),
            Some(Number::Double(_) | Number::Decimal(_)) | None => Err(CommandError::bad_value(format!(
                "The $bit modifier field must be an Integer(32/64 bit); a '{}' is not supported here: {{{}}}",
                show::type_name(value),
                show::element(name, value)
            ))),
        }
    };
    document.iter().map(operation).collect()
}

fn bits(
    operations: &[(BitOperation, Number)],
    current: Option<&Bson>,
    site: Site<'_>,
) -> Result<Effect, CommandError> {
    let start = match current {
        None => Number::Int(0),
        Some(current) => match Number::of(current) {
            Some(number @ (Number::Int(_) | Number::Long(_))) => number,
            Some(Number::Double(_) | Number::Decimal(_)) | None => {
                return Err(CommandError::bad_value(format!(
                    "Cannot apply $bit to a value of non-integral type.{} has the field {} of non-integer type {}",
                    site.id(),
                    site.field(),
                    show::type_name(current)
                )));
            }
        },
    };
    let mut value = start.to_i64().unwrap_or(0);
    let mut long = matches!(start, Number::Long(_));
    for (operation, operand) in operations {
        let by = operand.to_i64().unwrap_or(0);
        long |= matches!(operand, Number::Long(_));
        value = match operation {
            BitOperation::And => value & by,
            BitOperation::Or => value | by,
            BitOperation::Xor => value ^ by,
        };
    }
    let result = match i32::try_from(value) {
        Ok(small) if !long => Bson::Int32(small),
        Ok(_) | Err(_) => Bson::Int64(value),
    };
    Ok(changed(current, result))
}

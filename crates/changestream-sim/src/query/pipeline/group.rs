//! `$group`, with the accumulators that tests use.

use std::cmp::Ordering;

use bson::{Bson, Document};

use crate::error::CommandError;
use crate::query::compare::compare;
use crate::query::expression::{Expression, Scope};
use crate::query::number::Number;
use crate::query::show;

/// A parsed `$group`.
#[derive(Clone, Debug)]
pub(super) struct Group {
    key: Expression,
    fields: Vec<(String, Accumulator, Expression)>,
}

#[derive(Clone, Copy, Debug)]
enum Accumulator {
    Sum,
    Average,
    First,
    Last,
    Max,
    Min,
    Push,
    AddToSet,
}

impl Group {
    pub(super) fn parse(spec: &Bson) -> Result<Self, CommandError> {
        let Bson::Document(spec) = spec else {
            return Err(CommandError::new(
                15947,
                "a group's fields must be specified in an object",
            ));
        };
        let mut key = None;
        let mut fields = Vec::new();
        for (name, value) in spec {
            if name == "_id" {
                key = Some(Expression::parse(value)?);
                continue;
            }
            if name.contains('.') {
                return Err(CommandError::new(
                    40235,
                    format!("The field name '{name}' cannot contain '.'"),
                ));
            }
            let operator = value.as_document().filter(|document| document.len() == 1);
            let Some((accumulator, argument)) = operator.and_then(|document| document.iter().next()) else {
                return Err(CommandError::new(
                    40234,
                    format!("The field '{name}' must be an accumulator object"),
                ));
            };
            fields.push((
                name.clone(),
                Accumulator::named(accumulator)?,
                Expression::parse(argument)?,
            ));
        }
        let key = key.ok_or_else(|| CommandError::new(15955, "a group specification must include an _id"))?;
        Ok(Self { key, fields })
    }

    /// One document a group, in the order in which the groups first appear.
    pub(super) fn apply(&self, documents: &[Document]) -> Result<Vec<Document>, CommandError> {
        let mut groups: Vec<(Bson, Vec<&Document>)> = Vec::new();
        for document in documents {
            let key = self.key.evaluate(Scope::of(document))?.unwrap_or(Bson::Null);
            match groups.iter_mut().find(|(known, _)| compare(known, &key).is_eq()) {
                Some((_, members)) => members.push(document),
                None => groups.push((key, vec![document])),
            }
        }
        let result = |(key, members): (Bson, Vec<&Document>)| {
            let mut out = Document::new();
            out.insert("_id", key);
            for (name, accumulator, expression) in &self.fields {
                let values: Result<Vec<_>, _> = members
                    .iter()
                    .map(|member| expression.evaluate(Scope::of(member)))
                    .collect();
                out.insert(name, accumulator.of(values?));
            }
            Ok(out)
        };
        groups.into_iter().map(result).collect()
    }
}

impl Accumulator {
    fn named(name: &str) -> Result<Self, CommandError> {
        Ok(match name {
            "$sum" => Self::Sum,
            "$avg" => Self::Average,
            "$first" => Self::First,
            "$last" => Self::Last,
            "$max" => Self::Max,
            "$min" => Self::Min,
            "$push" => Self::Push,
            "$addToSet" => Self::AddToSet,
            _ => {
                return Err(CommandError::new(
                    15952,
                    format!("unknown group operator '{name}'"),
                ));
            }
        })
    }

    fn of(self, values: Vec<Option<Bson>>) -> Bson {
        match self {
            Self::Sum => sum(&values).into_bson(),
            Self::Average => average(&values),
            Self::First => values.into_iter().next().flatten().unwrap_or(Bson::Null),
            Self::Last => values.into_iter().next_back().flatten().unwrap_or(Bson::Null),
            Self::Max => extreme(values, Ordering::Greater),
            Self::Min => extreme(values, Ordering::Less),
            Self::Push => Bson::Array(values.into_iter().flatten().collect()),
            Self::AddToSet => {
                let mut set: Vec<Bson> = Vec::new();
                for value in values.into_iter().flatten() {
                    if !set.iter().any(|known| compare(known, &value).is_eq()) {
                        set.push(value);
                    }
                }
                Bson::Array(set)
            }
        }
    }
}

/// The sum of the numbers among the values; what leaves the long range goes on in doubles.
fn sum(values: &[Option<Bson>]) -> Number {
    numbers(values).fold(Number::Int(0), |total, number| {
        total
            .plus(number)
            .unwrap_or_else(|| Number::Double(total.to_f64() + number.to_f64()))
    })
}

fn average(values: &[Option<Bson>]) -> Bson {
    let count = numbers(values).count();
    if count == 0 {
        return Bson::Null;
    }
    Bson::Double(sum(values).to_f64() / count as f64)
}

fn numbers(values: &[Option<Bson>]) -> impl Iterator<Item = Number> {
    values.iter().flatten().filter_map(Number::of)
}

fn extreme(values: Vec<Option<Bson>>, wanted: Ordering) -> Bson {
    values
        .into_iter()
        .flatten()
        .filter(|value| !matches!(show::type_name(value), "null" | "undefined"))
        .reduce(|best, value| {
            if compare(&value, &best) == wanted {
                value
            } else {
                best
            }
        })
        .unwrap_or(Bson::Null)
}

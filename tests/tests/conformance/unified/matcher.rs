//! Whether a value is what a test expects ("Evaluating Matches" of the unified test format).

use bson::{Binary, Bson, Document};
use serde_json::Value;

/// What special operators may refer to.
pub(super) trait Entities {
    /// The value that was saved under that name.
    fn value(&self, name: &str) -> Option<Bson>;
    /// The id of the session of that name.
    fn lsid(&self, name: &str) -> Option<Document>;
}

/// How documents are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Fields that are not expected may be there.
    Root,
    /// They may not.
    Nested,
}

/// Compares a result, a command, a reply: fields that are not expected may be there at the outermost level, and in the
/// documents of an array at the outermost level.
pub(super) fn matches_root(
    expected: &Bson,
    actual: Option<&Bson>,
    entities: &dyn Entities,
) -> Result<(), String> {
    Matcher { entities }.compare(expected, actual, Level::Root, "")
}

/// Compares what a collection holds: nothing may be there that is not expected.
pub(super) fn matches_nested(expected: &Bson, actual: &Bson, entities: &dyn Entities) -> Result<(), String> {
    Matcher { entities }.compare(expected, Some(actual), Level::Nested, "")
}

/// A JSON value of a test file as BSON.
pub(super) fn to_bson(value: &Value) -> Result<Bson, String> {
    Bson::try_from(value.clone()).map_err(|error| format!("no Extended JSON: {error}: {value}"))
}

struct Matcher<'a> {
    entities: &'a dyn Entities,
}

impl Matcher<'_> {
    fn compare(
        &self,
        expected: &Bson,
        actual: Option<&Bson>,
        level: Level,
        path: &str,
    ) -> Result<(), String> {
        if let Bson::Document(document) = expected
            && let Some((operator, operand)) = special(document)
        {
            return self.evaluate(operator, operand, actual, level, path);
        }
        let Some(actual) = actual else {
            return Err(format!("{path}: expected {expected}, but there is nothing"));
        };
        match (expected, actual) {
            (Bson::Document(expected), Bson::Document(actual)) => {
                self.compare_documents(expected, actual, level, path)
            }
            (Bson::Array(expected), Bson::Array(actual)) => {
                if expected.len() != actual.len() {
                    return Err(format!(
                        "{path}: expected {} elements, not {}: {actual:?}",
                        expected.len(),
                        actual.len()
                    ));
                }
                for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    self.compare(expected, Some(actual), level, &format!("{path}[{index}]"))?;
                }
                Ok(())
            }
            _ if is_equal(expected, actual) => Ok(()),
            _ => Err(format!("{path}: expected {expected}, not {actual}")),
        }
    }

    fn compare_documents(
        &self,
        expected: &Document,
        actual: &Document,
        level: Level,
        path: &str,
    ) -> Result<(), String> {
        for (key, value) in expected {
            self.compare(value, actual.get(key), Level::Nested, &format!("{path}.{key}"))?;
        }
        if level == Level::Root {
            return Ok(());
        }
        match actual.keys().find(|key| !expected.contains_key(key)) {
            Some(key) => Err(format!("{path}.{key}: is not expected: {actual}")),
            None => Ok(()),
        }
    }

    fn evaluate(
        &self,
        operator: &str,
        operand: &Bson,
        actual: Option<&Bson>,
        level: Level,
        path: &str,
    ) -> Result<(), String> {
        match operator {
            "$$exists" => {
                let wanted = operand.as_bool().ok_or("$$exists takes a boolean")?;
                return check(actual.is_some() == wanted, || {
                    format!("{path}: $$exists: {wanted} does not hold: {actual:?}")
                });
            }
            "$$unsetOrMatches" if actual.is_none() => return Ok(()),
            "$$unsetOrMatches" => return self.compare(operand, actual, level, path),
            _ => {}
        }
        let actual = actual.ok_or_else(|| format!("{path}: {operator} of nothing"))?;
        match operator {
            "$$type" => compare_type(operand, actual, path),
            "$$lte" => {
                let is_lte = numbers(actual, operand).is_some_and(|(actual, most)| actual <= most);
                check(is_lte, || {
                    format!("{path}: {actual} is not less than or equal to {operand}")
                })
            }
            "$$matchesHexBytes" => compare_bytes(operand, actual, path),
            "$$matchesEntity" => {
                let name = operand.as_str().ok_or("$$matchesEntity takes a name")?;
                let value = self.entities.value(name);
                let value = value.ok_or_else(|| format!("there is no value named {name}"))?;
                self.compare(&value, Some(actual), Level::Nested, path)
            }
            "$$sessionLsid" => {
                let name = operand.as_str().ok_or("$$sessionLsid takes a name")?;
                let lsid = self.entities.lsid(name);
                let lsid = lsid.ok_or_else(|| format!("there is no session named {name}"))?;
                self.compare(&Bson::Document(lsid), Some(actual), Level::Nested, path)
            }
            "$$matchAsDocument" => {
                let text = actual
                    .as_str()
                    .ok_or_else(|| format!("{path}: no string: {actual}"))?;
                let value: Value =
                    serde_json::from_str(text).map_err(|error| format!("{path}: no JSON: {error}"))?;
                let value = to_bson(&value)?;
                check(value.as_document().is_some(), || {
                    format!("{path}: no document: {text}")
                })?;
                self.compare(operand, Some(&value), Level::Nested, path)
            }
            "$$matchAsRoot" => {
                check(actual.as_document().is_some(), || {
                    format!("{path}: no document: {actual}")
                })?;
                self.compare(operand, Some(actual), Level::Root, path)
            }
            _ => Err(format!("the runner does not know the operator {operator}")),
        }
    }
}

/// The special operator that a document is, and what it applies to.
fn special(document: &Document) -> Option<(&str, &Bson)> {
    let mut fields = document.iter();
    let (name, operand) = fields.next()?;
    (fields.next().is_none() && name.starts_with("$$")).then_some((name.as_str(), operand))
}

fn is_equal(expected: &Bson, actual: &Bson) -> bool {
    match numbers(expected, actual) {
        Some((expected, actual)) => expected == actual,
        None => expected == actual,
    }
}

/// A number that is compared by its value.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Number {
    Whole(i64),
    Real(f64),
}

/// Both as numbers of one kind, if both are numbers.
fn numbers(a: &Bson, b: &Bson) -> Option<(Number, Number)> {
    let number = |value: &Bson| {
        let whole = value.as_i32().map(i64::from).or_else(|| value.as_i64());
        whole
            .map(Number::Whole)
            .or_else(|| value.as_f64().map(Number::Real))
    };
    let real = |number: Number| match number {
        Number::Whole(whole) => Number::Real(whole as f64),
        Number::Real(_) => number,
    };
    match (number(a)?, number(b)?) {
        (a @ Number::Whole(_), b @ Number::Whole(_)) => Some((a, b)),
        (a, b) => Some((real(a), real(b))),
    }
}

fn compare_type(operand: &Bson, actual: &Bson, path: &str) -> Result<(), String> {
    let names: Vec<&str> = match operand {
        Bson::String(name) => vec![name],
        Bson::Array(names) => names.iter().filter_map(Bson::as_str).collect(),
        _ => return Err(format!("$$type takes names, not {operand}")),
    };
    let own = type_of(actual);
    let is_number = matches!(own, "int" | "long" | "double" | "decimal");
    let is_one = names
        .iter()
        .any(|name| *name == own || (*name == "number" && is_number));
    check(is_one, || {
        format!("{path}: {actual} is of type {own}, not {names:?}")
    })
}

/// The name of a value's type, as `$type` of the query language calls it.
fn type_of(value: &Bson) -> &'static str {
    match value {
        Bson::Double(_) => "double",
        Bson::String(_) => "string",
        Bson::Array(_) => "array",
        Bson::Document(_) => "object",
        Bson::Boolean(_) => "bool",
        Bson::Null => "null",
        Bson::RegularExpression(_) => "regex",
        Bson::JavaScriptCode(_) => "javascript",
        Bson::JavaScriptCodeWithScope(_) => "javascriptWithScope",
        Bson::Int32(_) => "int",
        Bson::Int64(_) => "long",
        Bson::Timestamp(_) => "timestamp",
        Bson::Binary(_) => "binData",
        Bson::ObjectId(_) => "objectId",
        Bson::DateTime(_) => "date",
        Bson::Symbol(_) => "symbol",
        Bson::Decimal128(_) => "decimal",
        Bson::Undefined => "undefined",
        Bson::MaxKey => "maxKey",
        Bson::MinKey => "minKey",
        Bson::DbPointer(_) => "dbPointer",
    }
}

fn compare_bytes(operand: &Bson, actual: &Bson, path: &str) -> Result<(), String> {
    let wanted = operand.as_str().ok_or("$$matchesHexBytes takes a string")?;
    let found: String = match actual {
        Bson::Binary(Binary { bytes, .. }) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => return Err(format!("{path}: no bytes: {actual}")),
    };
    check(found.eq_ignore_ascii_case(wanted), || {
        format!("{path}: the bytes {found} are not {wanted}")
    })
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

//! Aggregation expressions: the small set that filters, projections and pipeline updates of tests need. What is not
//! in it is refused as the server refuses an operator that it does not know, never silently ignored.

use std::cmp::Ordering;

use bson::{Bson, DateTime, Document};

use super::compare::compare;
use super::number::Number;
use super::path::Path;
use super::show;
use crate::error::CommandError;

/// What an expression is evaluated in.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// `$$ROOT`.
    pub root: &'a Document,
    /// `$$CURRENT`, of which plain field paths speak; the root, save within `$redact`.
    pub current: &'a Document,
    /// `$$NOW`, if the caller knows the time.
    pub now: Option<DateTime>,
}

impl<'a> Scope<'a> {
    /// A scope whose root and current document are that one, and whose time is unknown.
    pub fn of(root: &'a Document) -> Self {
        Self {
            root,
            current: root,
            now: None,
        }
    }
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Literal(Bson),
    Path {
        variable: Variable,
        path: Vec<String>,
    },
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Operator(Operator, Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Variable {
    Root,
    Current,
    Now,
    Remove,
    Descend,
    Prune,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Compare(Comparison),
    And,
    Or,
    Not,
    In,
    IfNull,
    Cond,
    Type,
    IsArray,
    Size,
    ArrayElemAt,
    ConcatArrays,
    MergeObjects,
    Concat,
    Add,
    Subtract,
    Multiply,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    Cmp,
}

impl Expression {
    /// The expression that this value writes.
    ///
    /// # Errors
    /// 168 for an unknown operator, 15983, 16020 and the like for malformed ones, 17276 for an unknown variable.
    pub fn parse(value: &Bson) -> Result<Self, CommandError> {
        parse(value).map(Self)
    }

    /// The value in that scope; none where it is missing (an absent field, `$$REMOVE`).
    ///
    /// # Errors
    /// What the operators say of values of the wrong type.
    pub fn evaluate(&self, scope: Scope<'_>) -> Result<Option<Bson>, CommandError> {
        evaluate(&self.0, scope)
    }

    /// Whether the expression's value is true by the server's rules.
    ///
    /// # Errors
    /// Those of [`evaluate`](Self::evaluate).
    pub fn is_true(&self, scope: Scope<'_>) -> Result<bool, CommandError> {
        Ok(truthy(self.evaluate(scope)?.as_ref()))
    }
}

/// Whether a value counts as true: not missing, null, undefined, false, or zero.
pub fn truthy(value: Option<&Bson>) -> bool {
    let Some(value) = value else {
        return false;
    };
    match Number::of(value) {
        Some(number) => number.compare(Number::Int(0)).is_ne(),
        None => !matches!(value, Bson::Null | Bson::Undefined | Bson::Boolean(false)),
    }
}

fn parse(value: &Bson) -> Result<Node, CommandError> {
    if let Bson::String(text) = value {
        return match text.strip_prefix("$$") {
            Some(variable) => parse_variable(variable),
            None => match text.strip_prefix('$') {
                Some(path) => Ok(Node::Path {
                    variable: Variable::Current,
                    path: Path::checked(path)?.parts().to_vec(),
                }),
                None => Ok(Node::Literal(value.clone())),
            },
        };
    }
    if let Bson::Array(items) = value {
        return Ok(Node::Array(
            items.iter().map(parse).collect::<Result<_, _>>()?,
        ));
    }
    let Bson::Document(document) = value else {
        return Ok(Node::Literal(value.clone()));
    };
    match document.iter().next() {
        Some((name, argument)) if name.starts_with('$') => {
            if document.len() != 1 {
                return Err(CommandError::new(
                    15983,
                    format!(
                        "An object representing an expression must have exactly one field: {}",
                        show::spaced(document)
                    ),
                ));
            }
            parse_operator(name, argument)
        }
        Some(_) | None => parse_object(document),
    }
}

fn parse_object(document: &Document) -> Result<Node, CommandError> {
    let mut fields = Vec::with_capacity(document.len());
    for (name, value) in document {
        if name.starts_with('$') {
            return Err(CommandError::new(
                16410,
                "FieldPath field names may not start with '$'.",
            ));
        }
        if name.contains('.') {
            return Err(CommandError::new(
                16412,
                "FieldPath field names may not contain '.'.",
            ));
        }
        fields.push((name.clone(), parse(value)?));
    }
    Ok(Node::Object(fields))
}

fn parse_variable(text: &str) -> Result<Node, CommandError> {
    let (name, rest) = match text.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let variable = match name {
        "ROOT" => Variable::Root,
        "CURRENT" => Variable::Current,
        "NOW" => Variable::Now,
        "REMOVE" => Variable::Remove,
        "DESCEND" => Variable::Descend,
        "PRUNE" => Variable::Prune,
        "KEEP" => Variable::Keep,
        _ => {
            return Err(CommandError::new(
                17276,
                format!("Use of undefined variable: {name}"),
            ));
        }
    };
    let path = match rest {
        Some(rest) => Path::checked(rest)?.parts().to_vec(),
        None => Vec::new(),
    };
    Ok(Node::Path { variable, path })
}

fn parse_operator(name: &str, argument: &Bson) -> Result<Node, CommandError> {
    if name == "$literal" || name == "$const" {
        return Ok(Node::Literal(argument.clone()));
    }
    if name == "$cond" && argument.as_document().is_some() {
        return parse_cond_object(argument.as_document().unwrap_or(&Document::new()));
    }
    let Some((operator, least, most)) = operator_named(name) else {
        return Err(CommandError::invalid_pipeline_operator(format!(
            "Unrecognized expression '{name}'"
        )));
    };
    let arguments = match argument {
        _ if argument.as_array().is_none() => vec![parse(argument)?],
        _ => {
            let items = argument.as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().map(parse).collect::<Result<_, _>>()?
        }
    };
    if (least..=most).contains(&arguments.len()) {
        return Ok(Node::Operator(operator, arguments));
    }
    let message = if most == usize::MAX {
        format!(
            "Expression {name} takes at least {least} arguments, and {} were passed in.",
            arguments.len()
        )
    } else {
        format!(
            "Expression {name} takes exactly {least} arguments. {} were passed in.",
            arguments.len()
        )
    };
    Err(CommandError::new(16020, message))
}

fn operator_named(name: &str) -> Option<(Operator, usize, usize)> {
    let any = usize::MAX;
    Some(match name {
        "$eq" => (Operator::Compare(Comparison::Eq), 2, 2),
        "$ne" => (Operator::Compare(Comparison::Ne), 2, 2),
        "$gt" => (Operator::Compare(Comparison::Gt), 2, 2),
        "$gte" => (Operator::Compare(Comparison::Gte), 2, 2),
        "$lt" => (Operator::Compare(Comparison::Lt), 2, 2),
        "$lte" => (Operator::Compare(Comparison::Lte), 2, 2),
        "$cmp" => (Operator::Compare(Comparison::Cmp), 2, 2),
        "$and" => (Operator::And, 0, any),
        "$or" => (Operator::Or, 0, any),
        "$not" => (Operator::Not, 1, 1),
        "$in" => (Operator::In, 2, 2),
        "$ifNull" => (Operator::IfNull, 2, any),
        "$cond" => (Operator::Cond, 3, 3),
        "$type" => (Operator::Type, 1, 1),
        "$isArray" => (Operator::IsArray, 1, 1),
        "$size" => (Operator::Size, 1, 1),
        "$arrayElemAt" => (Operator::ArrayElemAt, 2, 2),
        "$concatArrays" => (Operator::ConcatArrays, 0, any),
        "$mergeObjects" => (Operator::MergeObjects, 0, any),
        "$concat" => (Operator::Concat, 0, any),
        "$add" => (Operator::Add, 0, any),
        "$subtract" => (Operator::Subtract, 2, 2),
        "$multiply" => (Operator::Multiply, 0, any),
        _ => return None,
    })
}

fn parse_cond_object(document: &Document) -> Result<Node, CommandError> {
    let mut parts = [None, None, None];
    for (name, value) in document {
        let slot = match name.as_str() {
            "if" => &mut parts[0],
            "then" => &mut parts[1],
            "else" => &mut parts[2],
            _ => {
                return Err(CommandError::new(
                    17083,
                    format!("Unrecognized parameter to $cond: {name}"),
                ));
            }
        };
        *slot = Some(parse(value)?);
    }
    let missing =
        |code, part| CommandError::new(code, format!("Missing '{part}' parameter to $cond"));
    let [condition, then, other] = parts;
    Ok(Node::Operator(
        Operator::Cond,
        vec![
            condition.ok_or_else(|| missing(17080, "if"))?,
            then.ok_or_else(|| missing(17081, "then"))?,
            other.ok_or_else(|| missing(17082, "else"))?,
        ],
    ))
}

fn evaluate(node: &Node, scope: Scope<'_>) -> Result<Option<Bson>, CommandError> {
    match node {
        Node::Literal(value) => Ok(Some(value.clone())),
        Node::Path { variable, path } => evaluate_path(*variable, path, scope),
        Node::Object(fields) => {
            let mut document = Document::new();
            for (name, node) in fields {
                if let Some(value) = evaluate(node, scope)? {
                    document.insert(name, value);
                }
            }
            Ok(Some(Bson::Document(document)))
        }
        Node::Array(items) => {
            let values: Result<Vec<_>, _> = items
                .iter()
                .map(|item| Ok(evaluate(item, scope)?.unwrap_or(Bson::Null)))
                .collect();
            Ok(Some(Bson::Array(values?)))
        }
        Node::Operator(operator, arguments) => evaluate_operator(*operator, arguments, scope),
    }
}

fn evaluate_path(
    variable: Variable,
    path: &[String],
    scope: Scope<'_>,
) -> Result<Option<Bson>, CommandError> {
    let word = |word: &str| Ok(path.is_empty().then(|| Bson::String(word.to_owned())));
    match variable {
        Variable::Current => Ok(along(scope.current, path)),
        Variable::Root => Ok(along(scope.root, path)),
        Variable::Remove => Ok(None),
        Variable::Now => match scope.now {
            Some(now) => Ok(path.is_empty().then_some(Bson::DateTime(now))),
            None => Err(CommandError::new(
                51144,
                "Builtin variable '$$NOW' is not available",
            )),
        },
        // The three verdicts of $redact are values of their own; a plain string would do harm nowhere else.
        Variable::Descend => word(DESCEND),
        Variable::Prune => word(PRUNE),
        Variable::Keep => word(KEEP),
    }
}

pub(crate) const DESCEND: &str = "descend";
pub(crate) const PRUNE: &str = "prune";
pub(crate) const KEEP: &str = "keep";

/// What stands at a path, arrays on the way giving arrays of what their documents have there.
fn along(document: &Document, path: &[String]) -> Option<Bson> {
    let Some((first, rest)) = path.split_first() else {
        return Some(Bson::Document(document.clone()));
    };
    along_value(document.get(first)?, rest)
}

fn along_value(value: &Bson, rest: &[String]) -> Option<Bson> {
    if rest.is_empty() {
        return Some(value.clone());
    }
    if let Bson::Array(items) = value {
        return Some(Bson::Array(
            items
                .iter()
                .filter_map(|item| along_value(item, rest))
                .collect(),
        ));
    }
    along(value.as_document()?, rest)
}

fn evaluate_operator(
    operator: Operator,
    arguments: &[Node],
    scope: Scope<'_>,
) -> Result<Option<Bson>, CommandError> {
    match operator {
        Operator::And => every(arguments, scope, true).map(|all| Some(Bson::Boolean(all))),
        Operator::Or => every(arguments, scope, false).map(|none| Some(Bson::Boolean(!none))),
        Operator::Cond => {
            let condition = argument(arguments, 0, scope)?;
            argument(
                arguments,
                if truthy(condition.as_ref()) { 1 } else { 2 },
                scope,
            )
        }
        Operator::IfNull => {
            let mut last = None;
            for node in arguments {
                last = evaluate(node, scope)?;
                if !is_nullish(last.as_ref()) {
                    break;
                }
            }
            Ok(last)
        }
        Operator::Compare(_)
        | Operator::Not
        | Operator::In
        | Operator::Type
        | Operator::IsArray
        | Operator::Size
        | Operator::ArrayElemAt
        | Operator::ConcatArrays
        | Operator::MergeObjects
        | Operator::Concat
        | Operator::Add
        | Operator::Subtract
        | Operator::Multiply => {
            let values: Vec<_> = arguments
                .iter()
                .map(|node| evaluate(node, scope))
                .collect::<Result<_, _>>()?;
            apply(operator, &values)
        }
    }
}

/// Whether every argument's truth is `wanted`; stops at the first that is not.
fn every(arguments: &[Node], scope: Scope<'_>, wanted: bool) -> Result<bool, CommandError> {
    for node in arguments {
        if truthy(evaluate(node, scope)?.as_ref()) != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

fn argument(arguments: &[Node], at: usize, scope: Scope<'_>) -> Result<Option<Bson>, CommandError> {
    match arguments.get(at) {
        Some(node) => evaluate(node, scope),
        None => Ok(None),
    }
}

/// An operator all of whose arguments are evaluated.
fn apply(operator: Operator, values: &[Option<Bson>]) -> Result<Option<Bson>, CommandError> {
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
            let found =
                first.is_some_and(|value| items.iter().any(|item| compare(item, value).is_eq()));
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
        Operator::Add => Some(fold_numbers(
            "$add",
            16554,
            values,
            Number::Int(0),
            Number::add,
        )?),
        Operator::Multiply => Some(fold_numbers(
            "$multiply",
            16555,
            values,
            Number::Int(1),
            Number::multiply,
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
                format!(
                    "$concatArrays only supports arrays, not {}",
                    kind(value.as_ref())
                ),
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
                format!(
                    "$concat only supports strings, not {}",
                    kind(value.as_ref())
                ),
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
                format!(
                    "{name} only supports numeric types, not {}",
                    kind(value.as_ref())
                ),
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
            left.timestamp_millis()
                .saturating_sub(right.timestamp_millis()),
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
        .and_then(|negated| left_number.add(negated));
    Ok(difference
        .unwrap_or_else(|| Number::Double(left_number.to_f64() - right_number.to_f64()))
        .into_bson())
}

fn is_nullish(value: Option<&Bson>) -> bool {
    matches!(value, None | Some(Bson::Null | Bson::Undefined))
}

fn kind(value: Option<&Bson>) -> &'static str {
    value.map_or("missing", show::type_name)
}

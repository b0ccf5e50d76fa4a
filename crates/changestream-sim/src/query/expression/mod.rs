//! Aggregation expressions: the small set that filters, projections and pipeline updates of tests need. What is not
//! in it is refused as the server refuses an operator that it does not know, never silently ignored.

mod operators;
mod parse;

use bson::{Bson, DateTime, Document};

use super::number::Number;
use crate::error::CommandError;
use operators::{apply, is_nullish};

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
    Path { variable: Variable, path: Vec<String> },
    Object(Vec<(String, Self)>),
    Array(Vec<Self>),
    Operator(Operator, Vec<Self>),
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
        parse::parse(value).map(Self)
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
            items.iter().filter_map(|item| along_value(item, rest)).collect(),
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
            argument(arguments, if truthy(condition.as_ref()) { 1 } else { 2 }, scope)
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

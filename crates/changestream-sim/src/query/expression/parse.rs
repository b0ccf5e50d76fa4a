//! From a value to an expression.

use bson::{Bson, Document};

use super::{Comparison, Node, Operator, Variable};
use crate::error::CommandError;
use crate::query::path::Path;
use crate::query::show;

pub(super) fn parse(value: &Bson) -> Result<Node, CommandError> {
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
        return Ok(Node::Array(items.iter().map(parse).collect::<Result<_, _>>()?));
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
    if name == "$cond"
        && let Bson::Document(parts) = argument
    {
        return parse_cond_object(parts);
    }
    let Some((operator, least, most)) = operator_named(name) else {
        return Err(CommandError::invalid_pipeline_operator(format!(
            "Unrecognized expression '{name}'"
        )));
    };
    let arguments = match argument.as_array() {
        Some(items) => items.iter().map(parse).collect::<Result<_, _>>()?,
        None => vec![parse(argument)?],
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
    let missing = |code, part| CommandError::new(code, format!("Missing '{part}' parameter to $cond"));
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

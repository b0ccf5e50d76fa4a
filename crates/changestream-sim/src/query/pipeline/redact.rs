//! `$redact`: which parts of a document its expression lets through.

use bson::{Bson, Document};

use crate::error::CommandError;
use crate::query::expression::{DESCEND, Expression, KEEP, PRUNE, Scope};

/// The document with what the expression prunes removed; none if the whole of it is pruned.
pub(super) fn apply(expression: &Expression, scope: Scope<'_>) -> Result<Option<Document>, CommandError> {
    let verdict = expression.evaluate(scope)?;
    match verdict.as_ref().and_then(Bson::as_str) {
        Some(KEEP) => Ok(Some(scope.current.clone())),
        Some(PRUNE) => Ok(None),
        Some(DESCEND) => descend(expression, scope).map(Some),
        Some(_) | None => Err(CommandError::new(
            17053,
            "$redact's expression should not return anything aside from the variables $$KEEP, $$DESCEND, and \
             $$PRUNE",
        )),
    }
}

fn descend(expression: &Expression, scope: Scope<'_>) -> Result<Document, CommandError> {
    let mut out = Document::new();
    for (name, value) in scope.current {
        if let Some(value) = redact_value(expression, value, scope)? {
            out.insert(name, value);
        }
    }
    Ok(out)
}

fn redact_value(
    expression: &Expression,
    value: &Bson,
    scope: Scope<'_>,
) -> Result<Option<Bson>, CommandError> {
    if let Bson::Document(current) = value {
        return Ok(apply(expression, Scope { current, ..scope })?.map(Bson::Document));
    }
    let Bson::Array(items) = value else {
        return Ok(Some(value.clone()));
    };
    let mut kept = Vec::new();
    for item in items {
        kept.extend(redact_value(expression, item, scope)?);
    }
    Ok(Some(Bson::Array(kept)))
}

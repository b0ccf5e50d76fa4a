//! From an update document to modifiers.

use std::collections::BTreeMap;

use bson::{Bson, Document};

use super::Operators;
use super::modifier::{self, Modifier};
use super::tree;
use crate::error::CommandError;
use crate::query::filter::Filter;
use crate::query::path::{MAX_DEPTH, Path};
use crate::query::show;

pub(super) fn operators(update: &Document, array_filters: &[Document]) -> Result<Operators, CommandError> {
    let mut modifiers = Vec::new();
    for (name, fields) in update {
        if !modifier::is_known(name) {
            return Err(CommandError::failed_to_parse(format!(
                "Unknown modifier: {name}. Expected a valid update modifier or pipeline-style update specified as an \
                 array"
            )));
        }
        let Bson::Document(fields) = fields else {
            return Err(CommandError::failed_to_parse(format!(
                "Modifiers operate on fields but we found type {} instead. For example: {{$mod: {{<field>: ...}}}} not \
                 {{{}}}",
                show::type_name(fields),
                show::element(name, fields)
            )));
        };
        for (field, value) in fields {
            let path = checked_path(field)?;
            if name == "$rename" {
                modifiers.extend(rename(field, path, value)?);
            } else {
                modifiers.push((path, Modifier::parse(name, field, value)?));
            }
        }
    }
    let operators = Operators {
        modifiers,
        array_filters: parse_array_filters(array_filters)?,
    };
    check_array_filters(&operators, update)?;
    // Conflicts that the positional operator's index may bring are found on application.
    tree::check(&operators)?;
    Ok(operators)
}

/// A replacement may hold no field that looks like an operator.
pub(super) fn check_replacement(document: &Document) -> Result<(), CommandError> {
    match document.keys().find(|name| name.starts_with('$')) {
        Some(name) => Err(dollar_prefixed(name, name)),
        None => Ok(()),
    }
}

fn dollar_prefixed(field: &str, path: &str) -> CommandError {
    CommandError::dollar_prefixed_field_name(format!(
        "The dollar ($) prefixed field '{field}' in '{path}' is not valid for storage."
    ))
}

fn checked_path(text: &str) -> Result<Path, CommandError> {
    let path = Path::new(text);
    if path.parts().len() > MAX_DEPTH {
        return Err(CommandError::new(15, "the update path is too long"));
    }
    for (at, part) in path.parts().iter().enumerate() {
        if part.is_empty() {
            return Err(CommandError::new(
                56,
                format!("The update path '{text}' contains an empty field name, which is not allowed."),
            ));
        }
        let positional = part == "$" || tree::identifier(part).is_some();
        if positional && at == 0 {
            let kind = if part == "$" {
                "positional (i.e. '$')"
            } else {
                "array filter identifier"
            };
            return Err(CommandError::bad_value(format!(
                "Cannot have {kind} element in the first position in path '{text}'"
            )));
        }
        if part.starts_with('$') && !positional && !matches!(part.as_str(), "$ref" | "$id" | "$db") {
            return Err(dollar_prefixed(part, text));
        }
    }
    Ok(path)
}

fn rename(field: &str, from: Path, value: &Bson) -> Result<[(Path, Modifier); 2], CommandError> {
    let Bson::String(to) = value else {
        return Err(CommandError::bad_value(format!(
            "The 'to' field for $rename must be a string: {}",
            show::element(field, value)
        )));
    };
    if to == field {
        return Err(CommandError::bad_value(format!(
            "The source and target field for $rename must differ: {}",
            show::element(field, value)
        )));
    }
    let target = checked_path(to)?;
    let dynamic = |path: &Path| {
        path.parts()
            .iter()
            .any(|part| part == "$" || tree::identifier(part).is_some())
    };
    for (path, which) in [(&from, "source"), (&target, "destination")] {
        if dynamic(path) {
            return Err(CommandError::bad_value(format!(
                "The {which} field for $rename may not be dynamic: {}",
                path.parts().join(".")
            )));
        }
    }
    let source = from.clone();
    Ok([(from, Modifier::RenameFrom), (target, Modifier::RenameTo(source))])
}

/// Each filter speaks of one identifier, which opens all of its paths.
fn parse_array_filters(array_filters: &[Document]) -> Result<BTreeMap<String, Filter>, CommandError> {
    let mut parsed = BTreeMap::new();
    for filter in array_filters {
        let Some(name) = identifier_of(filter) else {
            return Err(CommandError::failed_to_parse(
                "Cannot use an expression without a top-level field name in arrayFilters",
            ));
        };
        let valid = name.chars().all(|c| c.is_ascii_alphanumeric())
            && name.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        if !valid {
            return Err(CommandError::bad_value(format!(
                "Error parsing array filter :: caused by :: The top-level field name must be an alphanumeric string \
                 beginning with a lowercase letter, found '{name}'"
            )));
        }
        if parsed.insert(name.to_owned(), Filter::parse(filter)?).is_some() {
            return Err(CommandError::failed_to_parse(format!(
                "Found multiple array filters with the same top-level field name {name}"
            )));
        }
    }
    Ok(parsed)
}

fn identifier_of(filter: &Document) -> Option<&str> {
    let (name, value) = filter.iter().next()?;
    if !name.starts_with('$') {
        return name.split('.').next();
    }
    identifier_of(value.as_array()?.first()?.as_document()?)
}

/// Every identifier of a path has its filter, and every filter is used.
fn check_array_filters(operators: &Operators, update: &Document) -> Result<(), CommandError> {
    let mut unused: Vec<&String> = operators.array_filters.keys().collect();
    for (path, _) in &operators.modifiers {
        for name in path
            .parts()
            .iter()
            .filter_map(|part| tree::identifier(part))
            .filter(|name| !name.is_empty())
        {
            if !operators.array_filters.contains_key(name) {
                return Err(CommandError::bad_value(format!(
                    "No array filter found for identifier '{name}' in path '{}'",
                    path.parts().join(".")
                )));
            }
            unused.retain(|known| *known != name);
        }
    }
    match unused.first() {
        Some(name) => Err(CommandError::failed_to_parse(format!(
            "The array filter for identifier '{name}' was not used in the update {}",
            show::spaced(update)
        ))),
        None => Ok(()),
    }
}

//! insert, update, delete.

use bson::{Bson, Document, doc};

use super::writer::Writer;
use super::{Context, Result, documents};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::query::filter::Filter;
use crate::query::update::Update;

pub(super) fn insert(d: &mut Deployment, context: &Context<'_>) -> Result {
    let documents = documents::documents(context.body(), "documents")?;
    let mut writer = Writer::new(d, context, documents.len())?;
    let mut n = 0;
    for (i, document) in documents.into_iter().enumerate() {
        let result = match writer.retried(i) {
            Some(_) => Ok(()),
            None => writer
                .prepare(document)
                .and_then(|document| writer.insert(document, i, doc! { "n": 1 })),
        };
        match result {
            Ok(()) => n += 1,
            Err(error) => {
                if writer.failed(i, error)? {
                    break;
                }
            }
        }
    }
    writer.answer(doc! { "n": compact(n) })
}

pub(super) fn update(d: &mut Deployment, context: &Context<'_>) -> Result {
    let updates = documents::documents(context.body(), "updates")?;
    let mut writer = Writer::new(d, context, updates.len())?;
    let (mut n, mut n_modified, mut upserted) = (0, 0, Vec::new());
    for (i, update) in updates.iter().enumerate() {
        let result = match writer.retried(i) {
            Some(outcome) => Ok(outcome),
            None => update_statement(&mut writer, update, i),
        };
        match result {
            Ok(outcome) => {
                n += outcome.get("n").and_then(number).unwrap_or(0);
                n_modified += outcome.get("nModified").and_then(number).unwrap_or(0);
                if let Some(id) = outcome.get("upserted") {
                    let index = i32::try_from(i).unwrap_or(i32::MAX);
                    upserted.push(Bson::from(doc! { "index": index, "_id": id.clone() }));
                }
            }
            Err(error) => {
                if writer.failed(i, error)? {
                    break;
                }
            }
        }
    }
    let mut fields = doc! { "n": compact(n), "nModified": compact(n_modified) };
    if !upserted.is_empty() {
        fields.insert("upserted", upserted);
    }
    writer.answer(fields)
}

fn update_statement(writer: &mut Writer<'_>, statement: &Document, index: usize) -> Result<Document> {
    let filter = Filter::parse(&documents::document(statement, "q")?)?;
    let filters = documents::documents(statement, "arrayFilters")?;
    let update = Update::parse(statement.get("u").unwrap_or(&Bson::Null), &filters)?;
    let multi = documents::flag(statement, "multi");
    if multi && update.is_replacement() {
        return Err(CommandError::failed_to_parse(
            "multi update is not supported for replacement-style update",
        ));
    }
    if multi && writer.is_retryable() {
        return Err(CommandError::invalid_options(
            "Cannot use retryable writes with multi=true",
        ));
    }
    let targets = writer.find(&filter, None, if multi { None } else { Some(1) });
    if targets.is_empty() && documents::flag(statement, "upsert") {
        let document = writer.upserted(&update, &filter)?;
        let outcome = doc! { "n": 1, "nModified": 0, "upserted": crate::catalog::id_of(&document) };
        writer.insert(document, index, outcome.clone())?;
        return Ok(outcome);
    }
    let matched = i32::try_from(targets.len()).unwrap_or(i32::MAX);
    let mut modified = 0;
    for before in targets {
        let updated = writer.updated(&update, &filter, &before)?;
        if writer.update(&before, updated, index, doc! { "n": 1, "nModified": 1 })? {
            modified += 1;
        }
    }
    Ok(doc! { "n": matched, "nModified": modified })
}

pub(super) fn delete(d: &mut Deployment, context: &Context<'_>) -> Result {
    let deletes = documents::documents(context.body(), "deletes")?;
    let mut writer = Writer::new(d, context, deletes.len())?;
    let mut n = 0;
    for (i, statement) in deletes.iter().enumerate() {
        let result = match writer.retried(i) {
            Some(outcome) => Ok(outcome.get("n").and_then(number).unwrap_or(0)),
            None => delete_statement(&mut writer, statement, i),
        };
        match result {
            Ok(deleted) => n += deleted,
            Err(error) => {
                if writer.failed(i, error)? {
                    break;
                }
            }
        }
    }
    writer.answer(doc! { "n": compact(n) })
}

fn delete_statement(writer: &mut Writer<'_>, statement: &Document, index: usize) -> Result<i64> {
    let filter = Filter::parse(&documents::document(statement, "q")?)?;
    let limit = match statement.get("limit").and_then(number) {
        Some(0) if writer.is_retryable() => {
            return Err(CommandError::invalid_options(
                "Cannot use retryable writes with limit=0",
            ));
        }
        Some(0) => None,
        Some(1) => Some(1),
        Some(other) => {
            return Err(CommandError::failed_to_parse(format!(
                "The limit field in delete objects must be 0 or 1. Got {other}"
            )));
        }
        None => {
            return Err(CommandError::new(
                40414,
                "BSON field 'delete.deletes.limit' is missing but a required field",
            ));
        }
    };
    let mut n = 0;
    for before in writer.find(&filter, None, limit) {
        writer.delete(before, index, doc! { "n": 1 })?;
        n += 1;
    }
    Ok(n)
}

/// A count is an int32 while it fits.
pub(super) fn compact(n: i64) -> Bson {
    i32::try_from(n).map_or(Bson::Int64(n), Bson::Int32)
}

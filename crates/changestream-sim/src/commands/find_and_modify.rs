//! findAndModify.

use bson::{Bson, Document, doc};

use super::writer::Writer;
use super::{Context, Result, documents};
use crate::catalog::id_of;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::query::expression::Scope;
use crate::query::filter::Filter;
use crate::query::projection::Projection;
use crate::query::sort::SortPattern;
use crate::query::update::Update;

pub(super) fn find_and_modify(d: &mut Deployment, context: &Context<'_>) -> Result {
    let mut writer = Writer::new(d, context, 1)?;
    let outcome = match writer.retried(0) {
        Some(outcome) => outcome,
        None => once(&mut writer, context.body())?,
    };
    writer.answer(outcome)
}

fn once(writer: &mut Writer<'_>, body: &Document) -> Result<Document> {
    let filter = Filter::parse(&documents::document(body, "query")?)?;
    let sort = documents::document(body, "sort")?;
    let sort = if sort.is_empty() {
        None
    } else {
        Some(SortPattern::parse(&sort)?)
    };
    let target = writer.find(&filter, sort.as_ref(), Some(1)).pop();
    if documents::flag(body, "remove") {
        if body.contains_key("update") || documents::flag(body, "new") {
            return Err(CommandError::failed_to_parse(
                "Cannot specify both an update and remove=true",
            ));
        }
        let Some(before) = target else {
            return Ok(doc! { "lastErrorObject": { "n": 0 }, "value": Bson::Null });
        };
        let outcome = doc! { "lastErrorObject": { "n": 1 }, "value": project(body, &before)? };
        writer.delete(before, 0, outcome.clone())?;
        return Ok(outcome);
    }
    let Some(update) = body.get("update") else {
        return Err(CommandError::failed_to_parse(
            "Either an update or remove=true must be specified",
        ));
    };
    let update = Update::parse(update, &documents::documents(body, "arrayFilters")?)?;
    let new = documents::flag(body, "new");
    let Some(before) = target else {
        return upsert(writer, body, &update, &filter, new);
    };
    let updated = writer.updated(&update, &filter, &before)?;
    let value = project(body, if new { &updated.document } else { &before })?;
    let outcome = doc! { "lastErrorObject": { "n": 1, "updatedExisting": true }, "value": value };
    writer.update(&before, updated, 0, outcome.clone())?;
    Ok(outcome)
}

fn upsert(
    writer: &mut Writer<'_>,
    body: &Document,
    update: &Update,
    filter: &Filter,
    new: bool,
) -> Result<Document> {
    if !documents::flag(body, "upsert") {
        let last = doc! { "n": 0, "updatedExisting": false };
        return Ok(doc! { "lastErrorObject": last, "value": Bson::Null });
    }
    let document = writer.upserted(update, filter)?;
    let last = doc! { "n": 1, "updatedExisting": false, "upserted": id_of(&document) };
    let value = if new {
        project(body, &document)?
    } else {
        Bson::Null
    };
    let outcome = doc! { "lastErrorObject": last, "value": value };
    writer.insert(document, 0, outcome.clone())?;
    Ok(outcome)
}

fn project(body: &Document, document: &Document) -> Result<Bson> {
    match body.get("fields") {
        Some(Bson::Document(spec)) if !spec.is_empty() => {
            let projection = Projection::parse_find(spec)?;
            Ok(Bson::Document(projection.apply(document, Scope::of(document))?))
        }
        _ => Ok(Bson::Document(document.clone())),
    }
}

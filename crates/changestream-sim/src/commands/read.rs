//! find, aggregate, count, distinct.

use std::collections::VecDeque;
use std::sync::Arc;

use bson::raw::RawDocumentBuf;
use bson::{Bson, DateTime, Document, doc};

use super::write::compact;
use super::{Answer, Context, Result, cursor, documents, sessions, watch};
use crate::cursors::{self, Batch, DEFAULT_FIRST_BATCH, Kind};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::query::compare;
use crate::query::expression::Scope;
use crate::query::filter::Filter;
use crate::query::path;
use crate::query::pipeline::{Pipeline, stages_of};
use crate::query::projection::Projection;
use crate::query::sort::SortPattern;
use crate::reply::{Reply, raw};

pub(super) fn find(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let body = context.body();
    if documents::flag(body, "tailable") || documents::flag(body, "awaitData") {
        return Err(CommandError::bad_value(
            "error processing query: tailable cursor requested on non capped collection",
        ));
    }
    if let Some(option) = NOT_THERE.iter().find(|option| documents::flag(body, option)) {
        return Err(CommandError::command_not_supported(format!(
            "the simulated server has no {option}"
        )));
    }
    let filter = Filter::parse(&documents::document(body, "filter")?)?;
    let sort = documents::document(body, "sort")?;
    let projection = documents::document(body, "projection")?;
    let skip = documents::count(body, "skip")?.unwrap_or(0);
    let limit = documents::count(body, "limit")?.filter(|n| *n > 0);
    let mut found = select(d, context, coll, &filter);
    if !sort.is_empty() {
        let pattern = SortPattern::parse(&sort)?;
        found.sort_by(|a, b| pattern.compare(a, b));
    }
    let projection = if projection.is_empty() {
        None
    } else {
        Some(Projection::parse_find(&projection)?)
    };
    let chosen = found
        .iter()
        .skip(usize::try_from(skip).unwrap_or(usize::MAX))
        .take(limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX));
    let results = chosen
        .map(|document| match &projection {
            None => Ok(raw(document)),
            Some(p) => p.apply(document, Scope::of(document)).map(|d| raw(&d)),
        })
        .collect::<Result<VecDeque<RawDocumentBuf>>>()?;
    let single = documents::flag(body, "singleBatch");
    let size = documents::count(body, "batchSize")?;
    let namespace = format!("{}.{coll}", context.db());
    Ok(Answer::Reply(first_batch(
        d, context, results, size, single, &namespace,
    )))
}

pub(super) fn aggregate(d: &mut Deployment, context: &Context<'_>) -> Result {
    let body = context.body();
    let stages = stages_of(body.get("pipeline").unwrap_or(&Bson::Null))?;
    let Some(Bson::Document(cursor)) = body.get("cursor") else {
        return Err(CommandError::failed_to_parse(
            "The 'cursor' option is required, except for aggregate with the explain argument",
        ));
    };
    let size = documents::count(cursor, "batchSize")?;
    // What the generic comment of 4.4 may be, that of an aggregation could not.
    if !d.profile.generic_comment
        && body
            .get("comment")
            .is_some_and(|comment| comment.as_str().is_none())
    {
        return Err(CommandError::new(14, "comment must be of type string"));
    }
    if stages
        .first()
        .is_some_and(|stage| stage.contains_key("$changeStream"))
    {
        return watch::open(d, context, &stages, size);
    }
    if stages.iter().any(|stage| stage.contains_key("$changeStream")) {
        return Err(CommandError::new(
            40602,
            "$changeStream is only valid as the first stage in a pipeline",
        ));
    }
    let now = DateTime::from_millis(d.wall(context.now));
    if let Some((first, rest)) = stages.split_first()
        && let Some(options) = first.get("$listLocalSessions")
    {
        check_list(context, options)?;
        let output = Pipeline::parse_aggregate(rest)?
            .at(now)
            .run(sessions::list_local(d, context))?;
        let namespace = format!("{}.$cmd.aggregate", context.db());
        let results = output.iter().map(raw).collect();
        return Ok(Answer::Reply(first_batch(
            d, context, results, size, false, &namespace,
        )));
    }
    let pipeline = Pipeline::parse_aggregate(&stages)?.at(now);
    let Some(Bson::String(_)) = body.get("aggregate") else {
        return Err(CommandError::invalid_namespace(
            "{aggregate: 1} is not valid for this pipeline; a collection is needed",
        ));
    };
    let coll = documents::collection(context)?;
    let input = select(d, context, coll, &Filter::parse(&Document::new())?);
    let output = pipeline.run(input.iter().map(|d| d.as_ref().clone()).collect())?;
    let results = output.iter().map(raw).collect();
    let namespace = format!("{}.{coll}", context.db());
    Ok(Answer::Reply(first_batch(
        d, context, results, size, false, &namespace,
    )))
}

/// Whether `$listLocalSessions` stands where it may, and asks for what can be told.
fn check_list(context: &Context<'_>, options: &Bson) -> Result<()> {
    let Bson::Document(options) = options else {
        return Err(CommandError::type_mismatch(
            "$listLocalSessions options must be specified in an object",
        ));
    };
    if let Some(Bson::String(_)) = context.body().get("aggregate") {
        return Err(CommandError::invalid_namespace(
            "$listLocalSessions must be run against the database with {aggregate: 1}, not a collection",
        ));
    }
    if options.keys().any(|option| option != "allUsers") {
        return Err(CommandError::command_not_supported(
            "the simulated server's $listLocalSessions has no option but allUsers",
        ));
    }
    Ok(())
}

pub(super) fn count(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let body = context.body();
    let filter = Filter::parse(&documents::document(body, "query")?)?;
    let skip = documents::count(body, "skip")?.unwrap_or(0);
    let limit = documents::count(body, "limit")?
        .filter(|n| *n > 0)
        .unwrap_or(u64::MAX);
    let matching = select(d, context, coll, &filter).len() as u64;
    let n = matching.saturating_sub(skip).min(limit);
    Ok(Answer::Reply(Reply::fields(
        &doc! { "n": compact(i64::try_from(n).unwrap_or(i64::MAX)) },
    )))
}

pub(super) fn distinct(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let body = context.body();
    let key = body
        .get_str("key")
        .map_err(|_| CommandError::new(40414, "BSON field 'distinct.key' is missing but a required field"))?;
    let filter = Filter::parse(&documents::document(body, "query")?)?;
    let parts: Vec<String> = key.split('.').map(str::to_owned).collect();
    let mut values: Vec<Bson> = Vec::new();
    for document in select(d, context, coll, &filter) {
        match path::get(&document, &parts) {
            Some(Bson::Array(items)) => values.extend(items.iter().cloned()),
            Some(value) => values.push(value.clone()),
            None => {}
        }
    }
    values.sort_by(compare::compare);
    values.dedup_by(|a, b| compare::equal(a, b));
    let mut reply = doc! { "values": values };
    if let Some(at) = d.snapshot_time(context) {
        reply.insert("atClusterTime", at);
    }
    Ok(Answer::Reply(Reply::fields(&reply)))
}

fn select(d: &Deployment, context: &Context<'_>, coll: &str, filter: &Filter) -> Vec<Arc<Document>> {
    d.matching(context, coll, filter, None)
}

/// The first batch of results, and a cursor if there are more.
pub(super) fn first_batch(
    d: &mut Deployment,
    context: &Context<'_>,
    mut results: VecDeque<RawDocumentBuf>,
    size: Option<u64>,
    single: bool,
    namespace: &str,
) -> Reply {
    let mut batch = Batch::first(Some(size.unwrap_or(DEFAULT_FIRST_BATCH)));
    batch.as_of(d.snapshot_time(context));
    cursors::take(&mut results, &mut batch);
    let id = if results.is_empty() || single {
        0
    } else {
        cursor::open(d, context, namespace, Kind::Documents(results))
    };
    batch.reply(None, id, namespace)
}

/// Options of find that would change what it gives.
const NOT_THERE: [&str; 2] = ["returnKey", "showRecordId"];

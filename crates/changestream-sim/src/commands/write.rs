//! insert, update, delete, findAndModify.

use std::sync::Arc;

use bson::{Bson, DateTime, Document, doc};

use super::{Answer, Context, Result, documents, sessions};
use crate::catalog::{Catalog, Collection, Retried, id_of};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::member::{Role, object_id};
use crate::oplog::{Change, Op, OpTime, Statement};
use crate::query::expression::Scope;
use crate::query::filter::Filter;
use crate::query::projection::Projection;
use crate::query::sort::SortPattern;
use crate::reply::Reply;
use crate::transactions;
use crate::unique;
use crate::update::Update;

pub(super) fn insert(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let documents = documents::documents(context.body(), "documents")?;
    let mut progress = Progress::new(d, context, documents.len())?;
    for (i, document) in documents.into_iter().enumerate() {
        let result = match progress.retried(d, context, i)? {
            Some(_) => Ok(()),
            None => insert_one(d, context, coll, document, &mut progress, i),
        };
        if result.is_ok() {
            progress.n += 1;
        }
        if progress.failed(i, result)? {
            break;
        }
    }
    progress.answer(d, context, false)
}

fn insert_one(
    d: &mut Deployment,
    context: &Context<'_>,
    coll: &str,
    document: Document,
    progress: &mut Progress,
    index: usize,
) -> Result<()> {
    let document = prepare(d, context, document)?;
    create_if_missing(d, context, coll)?;
    let collection = existing(d, context, coll)?;
    unique::check(collection, context.db(), coll, &document, None)?;
    let uuid = collection.uuid;
    let op = op(
        context,
        coll,
        uuid,
        Change::Insert {
            document: Arc::new(document),
        },
    );
    let statement = progress.statement(context, index, Bson::Document(doc! { "n": 1 }));
    progress.optime = Some(d.write(context, vec![op], statement)?);
    Ok(())
}

pub(super) fn update(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let updates = documents::documents(context.body(), "updates")?;
    let mut progress = Progress::new(d, context, updates.len())?;
    let mut upserted = Vec::new();
    for (i, update) in updates.iter().enumerate() {
        let done = match progress.retried(d, context, i)? {
            Some(outcome) => Ok(outcome),
            None => update_one_statement(d, context, coll, update, &mut progress, i),
        };
        let done = done.map(|outcome| {
            progress.n += outcome.get("n").and_then(number).unwrap_or(0);
            progress.n_modified += outcome.get("nModified").and_then(number).unwrap_or(0);
            if let Some(id) = outcome.get("upserted") {
                let index = i32::try_from(i).unwrap_or(i32::MAX);
                upserted.push(Bson::from(doc! { "index": index, "_id": id.clone() }));
            }
        });
        if progress.failed(i, done)? {
            break;
        }
    }
    progress.upserted = upserted;
    progress.answer(d, context, true)
}

fn update_one_statement(
    d: &mut Deployment,
    context: &Context<'_>,
    coll: &str,
    statement: &Document,
    progress: &mut Progress,
    index: usize,
) -> Result<Document> {
    let filter = Filter::parse(&documents::document(statement, "q")?)?;
    let now = DateTime::from_millis(d.wall(context.now));
    let filters = documents::documents(statement, "arrayFilters")?;
    let update = Update::parse(statement.get("u").unwrap_or(&Bson::Null), &filters, now)?;
    let multi = documents::flag(statement, "multi");
    if multi && update.is_replacement() {
        return Err(CommandError::new(
            9,
            "multi update is not supported for replacement-style update",
        ));
    }
    if multi && progress.retryable {
        return Err(CommandError::new(
            72,
            "Cannot use retryable writes with multi=true",
        ));
    }
    let targets = find(
        d,
        context,
        coll,
        &filter,
        None,
        if multi { None } else { Some(1) },
    );
    if targets.is_empty() && documents::flag(statement, "upsert") {
        let document = update.upsert(&filter)?;
        let document = prepare(d, context, document)?;
        let id = id_of(&document);
        let outcome = doc! { "n": 1, "nModified": 0, "upserted": id };
        upsert(d, context, coll, document, progress, index, outcome.clone())?;
        return Ok(outcome);
    }
    let mut modified = 0;
    let matched = i32::try_from(targets.len()).unwrap_or(i32::MAX);
    for before in targets {
        let outcome = doc! { "n": 1, "nModified": 1 };
        if modify(
            d, context, coll, &filter, &update, &before, progress, index, outcome,
        )?
        .is_some()
        {
            modified += 1;
        }
    }
    Ok(doc! { "n": matched, "nModified": modified })
}

/// Updates a document; none if that changes nothing.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different thing, and there is one caller a command"
)]
fn modify(
    d: &mut Deployment,
    context: &Context<'_>,
    coll: &str,
    filter: &Filter,
    update: &Update,
    before: &Arc<Document>,
    progress: &mut Progress,
    index: usize,
    outcome: Document,
) -> Result<Option<Arc<Document>>> {
    let updated = update.apply(before, filter)?;
    if !crate::query::compare::equal(&id_of(&updated.document), &id_of(before)) {
        return Err(CommandError::immutable_field(
            "Performing an update on the path '_id' would modify the immutable field '_id'",
        ));
    }
    if updated.document == **before {
        return Ok(None);
    }
    check_size(
        &updated.document,
        "Resulting document after update is larger than 16777216",
    )?;
    let collection = existing(d, context, coll)?;
    unique::check(
        collection,
        context.db(),
        coll,
        &updated.document,
        Some(&id_of(before)),
    )?;
    let uuid = collection.uuid;
    let after = Arc::new(updated.document);
    // Until 4.4 a pipeline's outcome is logged as a whole document.
    let (before, logged) = (Arc::clone(before), Arc::clone(&after));
    let change = match updated.description {
        Some(description) if d.profile.truncated_arrays || !update.is_pipeline() => Change::Update {
            before,
            after: logged,
            description,
        },
        Some(_) | None => Change::Replace {
            before,
            after: logged,
        },
    };
    let statement = progress.statement(context, index, Bson::Document(outcome));
    let op = op(context, coll, uuid, change);
    progress.optime = Some(d.write(context, vec![op], statement)?);
    Ok(Some(after))
}

fn upsert(
    d: &mut Deployment,
    context: &Context<'_>,
    coll: &str,
    document: Document,
    progress: &mut Progress,
    index: usize,
    outcome: Document,
) -> Result<()> {
    create_if_missing(d, context, coll)?;
    let collection = existing(d, context, coll)?;
    unique::check(collection, context.db(), coll, &document, None)?;
    let op = op(
        context,
        coll,
        collection.uuid,
        Change::Insert {
            document: Arc::new(document),
        },
    );
    let statement = progress.statement(context, index, Bson::Document(outcome));
    progress.optime = Some(d.write(context, vec![op], statement)?);
    Ok(())
}

pub(super) fn delete(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let deletes = documents::documents(context.body(), "deletes")?;
    let mut progress = Progress::new(d, context, deletes.len())?;
    for (i, statement) in deletes.iter().enumerate() {
        let done = match progress.retried(d, context, i)? {
            Some(outcome) => Ok(outcome.get("n").and_then(number).unwrap_or(0)),
            None => delete_one_statement(d, context, coll, statement, &mut progress, i),
        };
        if let Ok(n) = &done {
            progress.n += n;
        }
        if progress.failed(i, done.map(|_| ()))? {
            break;
        }
    }
    progress.answer(d, context, false)
}

fn delete_one_statement(
    d: &mut Deployment,
    context: &Context<'_>,
    coll: &str,
    statement: &Document,
    progress: &mut Progress,
    index: usize,
) -> Result<i64> {
    let filter = Filter::parse(&documents::document(statement, "q")?)?;
    let limit = match statement.get("limit").and_then(number) {
        Some(0) if progress.retryable => {
            return Err(CommandError::new(72, "Cannot use retryable writes with limit=0"));
        }
        Some(0) => None,
        Some(1) => Some(1),
        Some(other) => {
            return Err(CommandError::new(
                9,
                format!("The limit field in delete objects must be 0 or 1. Got {other}"),
            ));
        }
        None => {
            return Err(CommandError::new(
                40414,
                "BSON field 'delete.deletes.limit' is missing but a required field",
            ));
        }
    };
    let mut n = 0;
    for before in find(d, context, coll, &filter, None, limit) {
        remove(d, context, coll, before, progress, index, doc! { "n": 1 })?;
        n += 1;
    }
    Ok(n)
}

fn remove(
    d: &mut Deployment,
    context: &Context<'_>,
    coll: &str,
    before: Arc<Document>,
    progress: &mut Progress,
    index: usize,
    outcome: Document,
) -> Result<()> {
    let uuid = existing(d, context, coll)?.uuid;
    let op = op(context, coll, uuid, Change::Delete { before });
    let statement = progress.statement(context, index, Bson::Document(outcome));
    progress.optime = Some(d.write(context, vec![op], statement)?);
    Ok(())
}

pub(super) fn find_and_modify(d: &mut Deployment, context: &Context<'_>) -> Result {
    let coll = documents::collection(context)?;
    let mut progress = Progress::new(d, context, 1)?;
    let outcome = match progress.retried(d, context, 0)? {
        Some(outcome) => outcome,
        None => find_and_modify_once(d, context, coll, &mut progress)?,
    };
    progress.finish(d, context, outcome)
}

fn find_and_modify_once(
    d: &mut Deployment,
    context: &Context<'_>,
    coll: &str,
    progress: &mut Progress,
) -> Result<Document> {
    let body = context.body();
    let filter = Filter::parse(&documents::document(body, "query")?)?;
    let sort = documents::document(body, "sort")?;
    let target = find(d, context, coll, &filter, Some(&sort), Some(1)).pop();
    if documents::flag(body, "remove") {
        if body.contains_key("update") || documents::flag(body, "new") {
            return Err(CommandError::new(
                9,
                "Cannot specify both an update and remove=true",
            ));
        }
        let Some(before) = target else {
            return Ok(doc! { "lastErrorObject": { "n": 0 }, "value": Bson::Null });
        };
        let value = project(body, &before)?;
        let outcome = doc! { "lastErrorObject": { "n": 1 }, "value": value };
        remove(d, context, coll, before, progress, 0, outcome.clone())?;
        return Ok(outcome);
    }
    let Some(update) = body.get("update") else {
        return Err(CommandError::new(
            9,
            "Either an update or remove=true must be specified",
        ));
    };
    let now = DateTime::from_millis(d.wall(context.now));
    let update = Update::parse(update, &documents::documents(body, "arrayFilters")?, now)?;
    let new = documents::flag(body, "new");
    let Some(before) = target else {
        if !documents::flag(body, "upsert") {
            let last = doc! { "n": 0, "updatedExisting": false };
            return Ok(doc! { "lastErrorObject": last, "value": Bson::Null });
        }
        let document = prepare(d, context, update.upsert(&filter)?)?;
        let last = doc! { "n": 1, "updatedExisting": false, "upserted": id_of(&document) };
        let value = if new {
            project(body, &document)?
        } else {
            Bson::Null
        };
        let outcome = doc! { "lastErrorObject": last, "value": value };
        upsert(d, context, coll, document, progress, 0, outcome.clone())?;
        return Ok(outcome);
    };
    let shown = if new {
        update.apply(&before, &filter)?.document
    } else {
        before.as_ref().clone()
    };
    let last = doc! { "n": 1, "updatedExisting": true };
    let outcome = doc! { "lastErrorObject": last, "value": project(body, &shown)? };
    modify(
        d,
        context,
        coll,
        &filter,
        &update,
        &before,
        progress,
        0,
        outcome.clone(),
    )?;
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

/// How far a write command has come.
struct Progress {
    n: i64,
    n_modified: i64,
    upserted: Vec<Bson>,
    errors: Vec<Bson>,
    retried: Vec<Bson>,
    ordered: bool,
    retryable: bool,
    optime: Option<OpTime>,
}

impl Progress {
    fn new(d: &Deployment, context: &Context<'_>, statements: usize) -> Result<Self> {
        let body = context.body();
        if !(1..=MAX_STATEMENTS).contains(&statements) {
            return Err(CommandError::new(
                16,
                format!(
                    "Write batch sizes must be between 1 and {MAX_STATEMENTS}. Got {statements} operations."
                ),
            ));
        }
        let retryable = body.contains_key("txnNumber") && !transactions::is_member(context);
        if let (true, Ok(lsid), Some(number)) = (
            retryable,
            body.get_document("lsid"),
            body.get("txnNumber").and_then(number),
        ) {
            let catalog = d.members.get(context.member).map(|m| &m.catalog);
            if let Some(Retried::TooOld(latest)) = catalog.map(|c| c.retried(lsid, number, 0)) {
                return Err(CommandError::transaction_too_old(format!(
                    "Retryable write with txnNumber {number} is prohibited on session because a newer retryable \
                     write with txnNumber {latest} has already started on this session."
                )));
            }
        }
        Ok(Self {
            n: 0,
            n_modified: 0,
            upserted: Vec::new(),
            errors: Vec::new(),
            retried: Vec::new(),
            ordered: body.get_bool("ordered").unwrap_or(true),
            retryable,
            optime: None,
        })
    }

    fn stmt_id(context: &Context<'_>, index: usize) -> i32 {
        let body = context.body();
        let given = body
            .get_array("stmtIds")
            .ok()
            .and_then(|ids| ids.get(index))
            .and_then(number);
        let first = body.get("stmtId").and_then(number).unwrap_or(0);
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        i32::try_from(given.unwrap_or_else(|| first.saturating_add(index))).unwrap_or(i32::MAX)
    }

    /// The outcome of a statement that was executed before.
    fn retried(&mut self, d: &Deployment, context: &Context<'_>, index: usize) -> Result<Option<Document>> {
        if !self.retryable {
            return Ok(None);
        }
        let body = context.body();
        let (Ok(lsid), Some(txn_number)) =
            (body.get_document("lsid"), body.get("txnNumber").and_then(number))
        else {
            return Ok(None);
        };
        let stmt_id = Self::stmt_id(context, index);
        let Some(m) = d.members.get(context.member) else {
            return Ok(None);
        };
        match m.catalog.retried(lsid, txn_number, stmt_id) {
            Retried::Done(Bson::Document(outcome)) => {
                self.retried.push(Bson::Int32(stmt_id));
                self.optime = Some(m.last_applied());
                Ok(Some(outcome.clone()))
            }
            Retried::Done(_) | Retried::New | Retried::TooOld(_) => Ok(None),
        }
    }

    fn statement(&self, context: &Context<'_>, index: usize, outcome: Bson) -> Option<Statement> {
        let body = context.body();
        let lsid = body.get_document("lsid").ok().filter(|_| self.retryable)?.clone();
        let txn_number = body.get("txnNumber").and_then(number)?;
        Some(Statement {
            lsid,
            txn_number,
            stmt_id: Self::stmt_id(context, index),
            outcome,
        })
    }

    /// Notes a statement's failure; true if the command ends there. In a transaction the error is the command's.
    fn failed(&mut self, index: usize, result: Result<()>) -> Result<bool> {
        let Err(error) = result else { return Ok(false) };
        if error.code == 112 || error.code == 251 {
            return Err(error);
        }
        self.errors.push(error.to_write_error(index).into());
        Ok(self.ordered)
    }

    fn answer(self, d: &Deployment, context: &Context<'_>, update: bool) -> Result {
        let mut fields = doc! { "n": compact(self.n) };
        if update {
            fields.insert("nModified", compact(self.n_modified));
            if !self.upserted.is_empty() {
                fields.insert("upserted", self.upserted.clone());
            }
        }
        if !self.errors.is_empty() {
            fields.insert("writeErrors", self.errors.clone());
        }
        self.finish(d, context, fields)
    }

    fn finish(self, d: &Deployment, context: &Context<'_>, mut fields: Document) -> Result {
        let Some(m) = d.members.get(context.member) else {
            return Ok(Answer::Reply(Reply::ok()));
        };
        if !self.retried.is_empty() && d.profile.retried_stmt_ids {
            fields.insert("retriedStmtIds", self.retried);
        }
        if m.role == Role::Standalone || transactions::is_member(context) {
            return Ok(Answer::Reply(Reply::fields(&fields)));
        }
        let optime = self.optime.unwrap_or_else(|| m.last_applied());
        fields.insert("opTime", optime.to_document());
        fields.insert("electionId", m.election_id());
        Ok(Answer::Written(Reply::fields(&fields), optime))
    }
}

/// A count is an int32 while it fits.
pub(super) fn compact(n: i64) -> Bson {
    i32::try_from(n).map_or(Bson::Int64(n), Bson::Int32)
}

/// The documents that match, in the sort's order or that of insertion.
fn find(
    d: &Deployment,
    context: &Context<'_>,
    coll: &str,
    filter: &Filter,
    sort: Option<&Document>,
    limit: Option<usize>,
) -> Vec<Arc<Document>> {
    let catalog: Option<&Catalog> = d.view(context);
    let Some(collection) = catalog.and_then(|c| c.collection(context.db(), coll)) else {
        return Vec::new();
    };
    let sort = sort
        .filter(|s| !s.is_empty())
        .and_then(|s| SortPattern::parse(s).ok());
    let matching = collection.matching(filter);
    let mut found: Vec<Arc<Document>> = match (&sort, limit) {
        (None, Some(limit)) => matching.take(limit).cloned().collect(),
        (Some(_), _) | (None, None) => matching.cloned().collect(),
    };
    if let Some(sort) = sort {
        found.sort_by(|a, b| sort.compare(a, b));
    }
    found.truncate(limit.unwrap_or(usize::MAX));
    found
}

/// The document as it is stored: with its `_id` first.
fn prepare(d: &mut Deployment, context: &Context<'_>, mut document: Document) -> Result<Document> {
    let id = match document.remove("_id") {
        None => Bson::ObjectId(object_id(d.wall(context.now) / 1000, &mut d.random)),
        Some(id @ (Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined)) => {
            let is = documents::type_name(&id);
            return Err(CommandError::new(
                53,
                format!("The '_id' value cannot be of type {is}"),
            ));
        }
        Some(id) => id,
    };
    let mut stored = doc! { "_id": id };
    stored.extend(document);
    check_size(&stored, "object to insert too large. max size: 16777216")?;
    Ok(stored)
}

fn check_size(document: &Document, text: &str) -> Result<()> {
    let size = document.to_vec().map_or(usize::MAX, |bytes| bytes.len());
    if size > MAX_DOCUMENT {
        Err(CommandError::new(17419, text))
    } else {
        Ok(())
    }
}

fn existing<'a>(d: &'a Deployment, context: &Context<'_>, coll: &str) -> Result<&'a Collection> {
    d.view(context)
        .and_then(|c| c.collection(context.db(), coll))
        .ok_or_else(|| CommandError::namespace_not_found("ns does not exist"))
}

/// Creates the collection as the first write to it does.
pub(super) fn create_if_missing(d: &mut Deployment, context: &Context<'_>, coll: &str) -> Result<()> {
    let missing = d
        .view(context)
        .is_some_and(|c| c.collection(context.db(), coll).is_none());
    if missing {
        let uuid = sessions::uuid(d);
        let create = op(
            context,
            coll,
            uuid,
            Change::Create {
                options: Document::new(),
            },
        );
        d.write(context, vec![create], None)?;
    }
    Ok(())
}

pub(super) fn op(context: &Context<'_>, coll: &str, uuid: [u8; 16], change: Change) -> Op {
    Op {
        db: context.db().to_owned(),
        coll: coll.to_owned(),
        uuid: Some(uuid),
        change,
    }
}

/// `maxWriteBatchSize`.
const MAX_STATEMENTS: usize = 100_000;
const MAX_DOCUMENT: usize = 16 << 20;

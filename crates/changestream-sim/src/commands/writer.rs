//! A write command under way: its changes one by one, and what it answers in the end.

use std::sync::Arc;

use bson::{Bson, DateTime, Document, doc};

use super::{Answer, Context, Result, documents, sessions};
use crate::catalog::{Collection, Retried, id_of};
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::keys;
use crate::member::{Role, object_id};
use crate::oplog::{Change, Op, OpTime, Statement};
use crate::query::filter::Filter;
use crate::query::sort::SortPattern;
use crate::query::update::{self, Update, UpdateContext};
use crate::reply::Reply;
use crate::transactions;
use crate::unique;

/// Carries out the statements of one command on one collection.
pub(super) struct Writer<'a> {
    d: &'a mut Deployment,
    context: &'a Context<'a>,
    coll: &'a str,
    /// The session and number of a retryable write.
    retryable: Option<(Document, i64)>,
    ordered: bool,
    errors: Vec<Bson>,
    retried: Vec<Bson>,
    optime: Option<OpTime>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(d: &'a mut Deployment, context: &'a Context<'a>, statements: usize) -> Result<Self> {
        let coll = documents::collection(context)?;
        if !(1..=MAX_STATEMENTS).contains(&statements) {
            return Err(CommandError::new(
                16,
                format!(
                    "Write batch sizes must be between 1 and {MAX_STATEMENTS}. Got {statements} operations."
                ),
            ));
        }
        let body = context.body();
        let numbered = body
            .get("txnNumber")
            .and_then(number)
            .filter(|_| !transactions::is_member(context));
        let retryable = match (body.get_document("lsid"), numbered) {
            (Ok(lsid), Some(number)) => Some((lsid.clone(), number)),
            _ => None,
        };
        let writer = Self {
            d,
            context,
            coll,
            retryable,
            ordered: body.get_bool("ordered").unwrap_or(true),
            errors: Vec::new(),
            retried: Vec::new(),
            optime: None,
        };
        writer.refuse_old_number()?;
        Ok(writer)
    }

    fn refuse_old_number(&self) -> Result<()> {
        let Some((lsid, number)) = &self.retryable else {
            return Ok(());
        };
        match self.d.known_statement(self.context, lsid, *number, 0) {
            Retried::TooOld(latest) => Err(CommandError::transaction_too_old(format!(
                "Retryable write with txnNumber {number} is prohibited on session because a newer retryable write \
                 with txnNumber {latest} has already started on this session."
            ))),
            Retried::New | Retried::Done(_) => Ok(()),
        }
    }

    pub(super) fn is_retryable(&self) -> bool {
        self.retryable.is_some()
    }

    /// The outcome of a statement that was executed before.
    pub(super) fn retried(&mut self, index: usize) -> Option<Document> {
        let (lsid, number) = self.retryable.as_ref()?;
        let stmt_id = self.stmt_id(index);
        let m = self.d.members.get(self.context.member)?;
        let known = self.d.known_statement(self.context, lsid, *number, stmt_id);
        let Retried::Done(Bson::Document(outcome)) = known else {
            return None;
        };
        let outcome = outcome.clone();
        self.retried.push(Bson::Int32(stmt_id));
        self.optime = Some(m.last_applied());
        Some(outcome)
    }

    fn stmt_id(&self, index: usize) -> i32 {
        let body = self.context.body();
        let given = body
            .get_array("stmtIds")
            .ok()
            .and_then(|ids| ids.get(index))
            .and_then(number);
        let first = body.get("stmtId").and_then(number).unwrap_or(0);
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        i32::try_from(given.unwrap_or_else(|| first.saturating_add(index))).unwrap_or(i32::MAX)
    }

    /// Notes a statement's failure; true if the command ends there. What ends a transaction is the command's error.
    pub(super) fn failed(&mut self, index: usize, error: CommandError) -> Result<bool> {
        if matches!(error.code, 112 | 251) {
            return Err(error);
        }
        self.errors.push(error.to_write_error(index).into());
        Ok(self.ordered)
    }

    /// The documents that match, in the sort's order or that of insertion.
    pub(super) fn find(
        &self,
        filter: &Filter,
        sort: Option<&SortPattern>,
        limit: Option<usize>,
    ) -> Vec<Arc<Document>> {
        let mut found = self
            .d
            .matching(self.context, self.coll, filter, limit.filter(|_| sort.is_none()));
        if let Some(sort) = sort {
            found.sort_by(|a, b| sort.compare(a, b));
        }
        found.truncate(limit.unwrap_or(usize::MAX));
        found
    }

    /// Inserts a document as [`prepare`](Self::prepare) made it.
    pub(super) fn insert(&mut self, document: Document, index: usize, outcome: Document) -> Result<()> {
        create_if_missing(self.d, self.context, self.coll)?;
        let collection = self.collection(&document)?;
        unique::check(collection, self.context.db(), self.coll, &document, None)?;
        let uuid = collection.uuid;
        self.write(
            uuid,
            Change::Insert {
                document: Arc::new(document),
            },
            index,
            outcome,
        )
    }

    /// What an update would make of a document.
    pub(super) fn updated(
        &self,
        update: &Update,
        filter: &Filter,
        before: &Document,
    ) -> Result<update::Updated> {
        let context = self
            .update_context()
            .at_position(filter.match_position(before).flatten());
        update.apply(before, &context)
    }

    /// Updates a document; false if that changes nothing.
    pub(super) fn update(
        &mut self,
        before: &Arc<Document>,
        updated: update::Updated,
        index: usize,
        outcome: Document,
    ) -> Result<bool> {
        let update::Updated { document, change } = updated;
        check_size(&document)?;
        let after = Arc::new(document);
        let before = Arc::clone(before);
        let id = id_of(&before);
        let change = match change {
            update::Change::None => return Ok(false),
            update::Change::Replace => Change::Replace {
                before,
                after: Arc::clone(&after),
            },
            update::Change::Update(description) => Change::Update {
                before,
                after: Arc::clone(&after),
                description,
            },
        };
        let collection = self.collection(&after)?;
        unique::check(collection, self.context.db(), self.coll, &after, Some(&id))?;
        let uuid = collection.uuid;
        self.write(uuid, change, index, outcome)?;
        Ok(true)
    }

    /// The document that an upsert inserts.
    pub(super) fn upserted(&mut self, update: &Update, filter: &Filter) -> Result<Document> {
        let document = update.upsert(filter, &self.update_context())?;
        self.prepare(document)
    }

    pub(super) fn delete(&mut self, before: Arc<Document>, index: usize, outcome: Document) -> Result<()> {
        let uuid = self.collection(&before)?.uuid;
        self.write(uuid, Change::Delete { before }, index, outcome)
    }

    /// The document as it is stored: with its `_id` first.
    pub(super) fn prepare(&mut self, mut document: Document) -> Result<Document> {
        let id = match document.remove("_id") {
            None => Bson::ObjectId(object_id(
                self.d.wall(self.context.now) / 1000,
                &mut self.d.random,
            )),
            Some(id) => {
                keys::check_id(&id)?;
                id
            }
        };
        let mut stored = doc! { "_id": id };
        stored.extend(document);
        check_size(&stored)?;
        Ok(stored)
    }

    /// The reply: the fields, then what every write command adds.
    pub(super) fn answer(self, mut fields: Document) -> Result {
        let Some(m) = self.d.members.get(self.context.member) else {
            return Ok(Answer::Reply(Reply::ok()));
        };
        if !self.errors.is_empty() {
            fields.insert("writeErrors", self.errors);
        }
        if !self.retried.is_empty() && self.d.profile.retried_stmt_ids {
            fields.insert("retriedStmtIds", self.retried);
        }
        if m.role == Role::Standalone || transactions::is_member(self.context) {
            return Ok(Answer::Reply(Reply::fields(&fields)));
        }
        let optime = self.optime.unwrap_or_else(|| m.last_applied());
        if m.role == Role::Mongos {
            return Ok(Answer::Written(Reply::fields(&fields), optime));
        }
        fields.insert("opTime", optime.to_document());
        fields.insert("electionId", m.election_id());
        Ok(Answer::Written(Reply::fields(&fields), optime))
    }

    fn update_context(&self) -> UpdateContext {
        let now = DateTime::from_millis(self.d.wall(self.context.now));
        let last = self.d.members.get(self.context.member).map(|m| m.cluster_time);
        UpdateContext::new(
            self.d.profile.dialect(),
            now,
            last.unwrap_or(bson::Timestamp {
                time: 0,
                increment: 0,
            }),
        )
    }

    /// The collection, where that document belongs.
    fn collection(&self, document: &Document) -> Result<&Collection> {
        self.d
            .collection_for(self.context, self.coll, document)
            .ok_or_else(|| CommandError::namespace_not_found("ns does not exist"))
    }

    fn write(&mut self, uuid: [u8; 16], change: Change, index: usize, outcome: Document) -> Result<()> {
        let statement = self.retryable.clone().map(|(lsid, txn_number)| Statement {
            lsid,
            txn_number,
            stmt_id: self.stmt_id(index),
            outcome: Bson::Document(outcome),
        });
        if statement.is_some() {
            super::fail_retryable_write(self.d, self.context)?;
        }
        let op = op(self.context, self.coll, uuid, change);
        self.optime = Some(self.d.write(self.context, vec![op], statement)?);
        Ok(())
    }
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
    Op::new(context.db(), coll, Some(uuid), change)
}

fn check_size(document: &Document) -> Result<()> {
    let size = document.to_vec().map_or(usize::MAX, |bytes| bytes.len());
    if size > MAX_DOCUMENT {
        return Err(CommandError::bad_value(format!(
            "object to insert too large. size in bytes: {size}, max size: {MAX_DOCUMENT}"
        )));
    }
    Ok(())
}

/// `maxWriteBatchSize`.
const MAX_STATEMENTS: usize = 100_000;
const MAX_DOCUMENT: usize = 16 << 20;

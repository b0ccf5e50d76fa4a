//! What a member stores: collections of documents, and what retryable writes were answered with.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{Bson, Document};

use crate::oplog::{Change, Entry, Op, Statement};
use crate::query::filter::Filter;

/// A state of all data. Cloning it shares the documents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    collections: BTreeMap<(String, String), Collection>,
    /// By session: the latest transaction number with its statements.
    retryable: BTreeMap<Vec<u8>, Retryable>,
}

#[derive(Clone, Debug)]
struct Retryable {
    txn_number: i64,
    transaction: bool,
    outcomes: BTreeMap<i32, Bson>,
}

/// What is known of a retryable statement.
pub(crate) enum Retried<'a> {
    /// It was never executed.
    New,
    /// It was executed with this outcome.
    Done(&'a Bson),
    /// The session has moved on to a later number.
    TooOld(i64),
}

impl Catalog {
    pub(crate) fn collection(&self, db: &str, coll: &str) -> Option<&Collection> {
        self.collections.get(&(db.to_owned(), coll.to_owned()))
    }

    pub(crate) fn database(&self, db: &str) -> impl Iterator<Item = (&str, &Collection)> {
        self.collections
            .range((db.to_owned(), String::new())..)
            .take_while(move |((d, _), _)| d == db)
            .map(|((_, c), collection)| (c.as_str(), collection))
    }

    pub(crate) fn databases(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.collections.keys().map(|(db, _)| db.as_str()).collect();
        names.dedup();
        names
    }

    /// Executes what an entry says.
    pub(crate) fn apply(&mut self, entry: &Entry) {
        for op in &entry.ops {
            self.apply_op(op);
        }
        if let Some(statement) = &entry.statement {
            self.remember(statement, entry.transaction);
        }
    }

    pub(crate) fn apply_op(&mut self, op: &Op) {
        let key = (op.db.clone(), op.coll.clone());
        match &op.change {
            Change::Noop | Change::Shard { .. } => {}
            Change::Create { options } => {
                let uuid = op.uuid.unwrap_or_default();
                self.collections
                    .insert(key, Collection::new(uuid, options.clone()));
            }
            Change::Drop => {
                self.collections.remove(&key);
            }
            Change::DropDatabase => self.collections.retain(|(db, _), _| *db != op.db),
            Change::Rename { to_db, to_coll, .. } => {
                if let Some(collection) = self.collections.remove(&key) {
                    self.collections
                        .insert((to_db.clone(), to_coll.clone()), collection);
                }
            }
            Change::Insert { .. }
            | Change::Update { .. }
            | Change::Replace { .. }
            | Change::Delete { .. }
            | Change::CreateIndexes { .. }
            | Change::DropIndexes { .. }
            | Change::Modify { .. } => {
                if let Some(collection) = self.collections.get_mut(&key) {
                    collection.apply(&op.change);
                }
            }
        }
    }

    fn remember(&mut self, statement: &Statement, transaction: bool) {
        let known = self
            .retryable
            .entry(session_key(&statement.lsid))
            .or_insert(Retryable {
                txn_number: statement.txn_number,
                transaction,
                outcomes: BTreeMap::new(),
            });
        if known.txn_number < statement.txn_number {
            known.txn_number = statement.txn_number;
            known.transaction = transaction;
            known.outcomes.clear();
        }
        known
            .outcomes
            .insert(statement.stmt_id, statement.outcome.clone());
    }

    pub(crate) fn retried(&self, lsid: &Document, txn_number: i64, stmt_id: i32) -> Retried<'_> {
        match self.retryable.get(&session_key(lsid)) {
            Some(r) if r.txn_number > txn_number => Retried::TooOld(r.txn_number),
            Some(r) if r.txn_number == txn_number => {
                r.outcomes.get(&stmt_id).map_or(Retried::New, Retried::Done)
            }
            Some(_) | None => Retried::New,
        }
    }

    /// Whether the session's transaction with this number is committed.
    pub(crate) fn committed_transaction(&self, lsid: &Document, txn_number: i64) -> bool {
        self.retryable
            .get(&session_key(lsid))
            .is_some_and(|r| r.transaction && r.txn_number == txn_number)
    }
}

/// What tells sessions apart: the bytes of `lsid.id`.
pub(crate) fn session_key(lsid: &Document) -> Vec<u8> {
    match lsid.get("id") {
        Some(Bson::Binary(id)) => id.bytes.clone(),
        _ => Vec::new(),
    }
}

/// A collection: its documents in the order of insertion, and an index on `_id`.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    pub(crate) uuid: [u8; 16],
    pub(crate) options: Document,
    pub(crate) indexes: Vec<Document>,
    records: BTreeMap<u64, Arc<Document>>,
    by_id: BTreeMap<Vec<u8>, u64>,
    next_record: u64,
}

impl Collection {
    fn new(uuid: [u8; 16], options: Document) -> Self {
        Self {
            uuid,
            options,
            indexes: vec![bson::doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }],
            records: BTreeMap::new(),
            by_id: BTreeMap::new(),
            next_record: 1,
        }
    }

    pub(crate) fn documents(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.records.values()
    }

    /// The documents that match, in the order of insertion; a filter that names the `_id` looks at one.
    pub(crate) fn matching(&self, filter: &Filter) -> impl Iterator<Item = &Arc<Document>> {
        let id = filter
            .equalities()
            .into_iter()
            .find(|(path, _)| path == "_id")
            .map(|(_, id)| id);
        let one = id.as_ref().map(|id| self.by_id(id));
        let all = one.is_none().then(|| self.records.values());
        let found = one.flatten().into_iter().chain(all.into_iter().flatten());
        let filter = filter.clone();
        found.filter(move |document| filter.matches(document))
    }

    pub(crate) fn by_id(&self, id: &Bson) -> Option<&Arc<Document>> {
        self.records.get(self.by_id.get(&id_key(id))?)
    }

    /// Whether changes of it carry images of the documents before and after (6.0).
    pub(crate) fn keeps_images(&self) -> bool {
        self.options
            .get_document("changeStreamPreAndPostImages")
            .is_ok_and(|o| o.get_bool("enabled").unwrap_or(false))
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Insert { document } => self.put(document),
            Change::Update { after, .. } | Change::Replace { after, .. } => self.put(after),
            Change::Delete { before } => {
                if let Some(record) = self.by_id.remove(&id_key(&id_of(before))) {
                    self.records.remove(&record);
                }
            }
            Change::CreateIndexes { indexes } => self.indexes.extend(indexes.iter().cloned()),
            Change::DropIndexes { indexes } => {
                self.indexes
                    .retain(|i| !indexes.iter().any(|d| d.get("name") == i.get("name")));
            }
            Change::Modify { options, .. } => {
                for (key, value) in options {
                    self.options.insert(key, value.clone());
                }
            }
            Change::Noop
            | Change::Create { .. }
            | Change::Drop
            | Change::Rename { .. }
            | Change::DropDatabase
            | Change::Shard { .. } => {}
        }
    }

    fn put(&mut self, document: &Arc<Document>) {
        let next = &mut self.next_record;
        let record = *self.by_id.entry(id_key(&id_of(document))).or_insert_with(|| {
            *next += 1;
            *next
        });
        self.records.insert(record, Arc::clone(document));
    }
}

/// The `_id` of a stored document.
pub(crate) fn id_of(document: &Document) -> Bson {
    document.get("_id").cloned().unwrap_or(Bson::Null)
}

/// Bytes that are equal for `_id`s that the server takes for the same: numbers by value, all else by its encoding.
pub(crate) fn id_key(id: &Bson) -> Vec<u8> {
    let whole = id.as_i32().map(i64::from).or_else(|| id.as_i64());
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only whole numbers in range are cast"
    )]
    let number = whole.or_else(|| {
        id.as_f64()
            .filter(|d| d.fract() == 0.0 && d.abs() < 9e15)
            .map(|d| d as i64)
    });
    if let Some(n) = number {
        let mut key = vec![1];
        key.extend_from_slice(&n.to_be_bytes());
        return key;
    }
    let mut key = vec![2];
    key.extend(bson::doc! { "": id.clone() }.to_vec().unwrap_or_default());
    key
}

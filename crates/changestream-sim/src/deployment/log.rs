//! What a majority has: for tests to hold against what a consumer received.

use std::sync::Arc;

use bson::{Document, Timestamp};

use super::Deployment;
use crate::change_event::Stored;
use crate::keys;
use crate::oplog::{Change, Entry, Op};

/// What a majority has of a log, from some point on.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Committed {
    /// The majority has everything up to here.
    pub up_to: Option<Timestamp>,
    /// The changes, in the order in which they were made.
    pub changes: Vec<LoggedChange>,
}

/// One change as the oplog has it. A majority has it, so no rollback takes it away any more.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoggedChange {
    /// When it was made; all changes of a transaction are made at once.
    pub time: Timestamp,
    /// Which of its transaction's changes it is, from 0.
    pub index: usize,
    /// What it is, by the name that a change event has for it: `insert`, `update`, `replace`, `delete`, `create`, `drop`,
    /// `rename`, `dropDatabase`, `createIndexes`, `dropIndexes`, `modify` or `shardCollection`.
    pub kind: &'static str,
    /// The database.
    pub database: String,
    /// The collection; empty where the whole database is concerned.
    pub collection: String,
    /// The database and the collection that a `rename` leads to.
    pub to: Option<(String, String)>,
    /// What names the document: its `_id`, and the shard key where there is one.
    pub key: Option<Document>,
    /// The document before the change, where there was one.
    pub before: Option<Arc<Document>>,
    /// The document after the change, where there is one.
    pub after: Option<Arc<Document>>,
    /// Whether the collection kept images of documents then, and nobody has removed them since.
    pub has_images: bool,
    /// Whether a transaction made it.
    pub in_transaction: bool,
    /// Whether it only moves a document from shard to shard, which change streams do not show.
    pub from_migrate: bool,
}

impl Deployment {
    /// What a majority has of a shard's log after a moment, or from the start: what every change stream of the deployment
    /// has to agree with. A replica set counts as one shard, 0.
    ///
    /// History that the members [have lost](Self::lose_history) is not there any more.
    ///
    /// ```
    /// # use changestream_sim::Deployment;
    /// let set = Deployment::replica_set(3).build(std::time::Instant::now())?;
    /// assert!(set.committed_changes(0, None).changes.is_empty());
    /// # Ok::<(), changestream_sim::BuildError>(())
    /// ```
    pub fn committed_changes(&self, shard: usize, after: Option<Timestamp>) -> Committed {
        if let Some(cluster) = &self.cluster {
            let set = cluster.shards.get(shard);
            return set.map_or_else(Committed::default, |set| set.committed_changes(0, after));
        }
        let Some(member) = self.members.iter().max_by_key(|member| member.commit_point) else {
            return Committed::default();
        };
        let up_to = member.commit_point.map(|point| point.ts);
        if up_to <= after {
            return Committed {
                up_to,
                changes: Vec::new(),
            };
        }
        let start = after.unwrap_or(Timestamp {
            time: 0,
            increment: 0,
        });
        let entries = member.log.from(start);
        let stored = member.stored();
        let entries = entries
            .skip_while(|entry| entry.optime.ts <= start)
            .take_while(|entry| Some(entry.optime.ts) <= up_to);
        Committed {
            up_to,
            changes: entries.flat_map(|entry| changes(entry, stored)).collect(),
        }
    }
}

fn changes<'a>(entry: &'a Entry, stored: Stored<'a>) -> impl Iterator<Item = LoggedChange> + 'a {
    let ops = entry.ops.iter().enumerate();
    ops.filter_map(move |(index, op)| {
        let (kind, before, after) = images(&op.change)?;
        let of = after.or(before);
        Some(LoggedChange {
            time: entry.optime.ts,
            index,
            kind,
            database: op.db.clone(),
            collection: op.coll.clone(),
            to: target(op),
            key: of.map(|document| keys::document_key(document, op.shard_key.as_deref())),
            before: before.cloned(),
            after: after.cloned(),
            has_images: stored.has_images_of(entry, op),
            in_transaction: entry.transaction,
            from_migrate: op.from_migrate,
        })
    })
}

type Images<'a> = (&'static str, Option<&'a Arc<Document>>, Option<&'a Arc<Document>>);

fn images(change: &Change) -> Option<Images<'_>> {
    Some(match change {
        Change::Noop => return None,
        Change::Insert { document } => ("insert", None, Some(document)),
        Change::Update { before, after, .. } => ("update", Some(before), Some(after)),
        Change::Replace { before, after } => ("replace", Some(before), Some(after)),
        Change::Delete { before } => ("delete", Some(before), None),
        Change::Create { .. } => ("create", None, None),
        Change::Drop => ("drop", None, None),
        Change::Rename { .. } => ("rename", None, None),
        Change::DropDatabase => ("dropDatabase", None, None),
        Change::CreateIndexes { .. } => ("createIndexes", None, None),
        Change::DropIndexes { .. } => ("dropIndexes", None, None),
        Change::Modify { .. } => ("modify", None, None),
        Change::Shard { .. } => ("shardCollection", None, None),
    })
}

fn target(op: &Op) -> Option<(String, String)> {
    if let Change::Rename { to_db, to_coll, .. } = &op.change {
        return Some((to_db.clone(), to_coll.clone()));
    }
    None
}

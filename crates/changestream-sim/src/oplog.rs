//! The oplog: what happened, in one order, with terms.

use std::collections::VecDeque;
use std::sync::Arc;

use bson::{Bson, Document, Timestamp};

use crate::plain_event::Told;
use crate::query::update::UpdateDescription;

/// A point in the oplog: a timestamp and the term of the primary that wrote it. Ordered by term first, as elections
/// compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpTime {
    pub(crate) term: i64,
    pub(crate) ts: Timestamp,
}

impl OpTime {
    pub(crate) fn to_document(self) -> Document {
        bson::doc! { "ts": self.ts, "t": self.term }
    }
}

/// One entry: everything that one write, or one transaction, changed.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) optime: OpTime,
    /// Milliseconds since the Unix epoch.
    pub(crate) wall: i64,
    pub(crate) ops: Vec<Op>,
    pub(crate) statement: Option<Statement>,
    /// Whether the entry commits a transaction.
    pub(crate) transaction: bool,
    /// What streams tell of each of `ops`, encoded once for all that have the same wishes.
    pub(crate) told: Told,
}

/// Which retryable statement, or which transaction, an entry belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) lsid: Document,
    pub(crate) txn_number: i64,
    pub(crate) stmt_id: i32,
    /// What a retry is answered with.
    pub(crate) outcome: Bson,
}

/// One change of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) db: String,
    /// Empty where the change concerns the whole database, or nothing.
    pub(crate) coll: String,
    pub(crate) uuid: Option<[u8; 16]>,
    pub(crate) change: Change,
    /// The shard key of a sharded collection: its fields belong to the document keys.
    pub(crate) shard_key: Option<Arc<Document>>,
    /// It moves data between shards (`fromMigrate`), which change streams do not show.
    pub(crate) from_migrate: bool,
    /// The collection kept images of documents when the change was made.
    pub(crate) images: bool,
}

impl Op {
    /// A change of a collection that is not sharded.
    pub(crate) fn new(db: &str, coll: &str, uuid: Option<[u8; 16]>, change: Change) -> Self {
        Self {
            db: db.to_owned(),
            coll: coll.to_owned(),
            uuid,
            change,
            shard_key: None,
            from_migrate: false,
            images: false,
        }
    }
}

/// What changed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Noop,
    Insert {
        document: Arc<Document>,
    },
    Update {
        before: Arc<Document>,
        after: Arc<Document>,
        description: UpdateDescription,
    },
    Replace {
        before: Arc<Document>,
        after: Arc<Document>,
    },
    Delete {
        before: Arc<Document>,
    },
    Create {
        options: Document,
    },
    Drop,
    Rename {
        to_db: String,
        to_coll: String,
        dropped: Option<[u8; 16]>,
    },
    DropDatabase,
    CreateIndexes {
        indexes: Vec<Document>,
    },
    DropIndexes {
        indexes: Vec<Document>,
    },
    Modify {
        options: Document,
        before: Document,
    },
    /// The collection is sharded from here on; a note, as the servers' own.
    Shard {
        description: Document,
    },
}

/// A member's copy of the oplog. Never empty once the set is initiated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Arc<Entry>>,
    /// The start of the log was cut off, so that resuming before its first entry is impossible.
    truncated: bool,
}

impl Log {
    /// Adds an entry; the oldest gives way where there are more than `limit`.
    pub(crate) fn push(&mut self, entry: Arc<Entry>, limit: usize) {
        self.entries.push_back(entry);
        if self.entries.len() > limit {
            self.entries.pop_front();
            self.truncated = true;
        }
    }

    pub(crate) fn last(&self) -> Option<OpTime> {
        self.entries.back().map(|e| e.optime)
    }

    pub(crate) fn last_entry(&self) -> Option<&Arc<Entry>> {
        self.entries.back()
    }

    pub(crate) fn first_ts(&self) -> Option<Timestamp> {
        self.entries.front().map(|e| e.optime.ts)
    }

    /// Entries at or after a timestamp, in order.
    pub(crate) fn from(&self, ts: Timestamp) -> impl Iterator<Item = &Arc<Entry>> {
        let start = self.entries.partition_point(|e| e.optime.ts < ts);
        self.entries.range(start..)
    }

    /// Entries after a point, in order.
    pub(crate) fn after(&self, point: Option<OpTime>) -> impl Iterator<Item = &Arc<Entry>> {
        let start = point.map_or(0, |p| self.entries.partition_point(|e| e.optime.ts <= p.ts));
        self.entries.range(start..)
    }

    pub(crate) fn contains(&self, point: OpTime) -> bool {
        self.from(point.ts).next().is_some_and(|e| e.optime == point)
    }

    /// Whether what happened at and after this timestamp is still here.
    pub(crate) fn reaches_back_to(&self, ts: Timestamp) -> bool {
        !self.truncated || self.first_ts().is_some_and(|first| first <= ts)
    }

    /// Whether it has everything since the deployment's beginning.
    pub(crate) fn is_whole(&self) -> bool {
        !self.truncated
    }

    /// Drops the entries after a point: a rollback.
    pub(crate) fn roll_back_to(&mut self, point: Option<OpTime>) {
        let keep = point.map_or(0, |p| self.entries.partition_point(|e| e.optime.ts <= p.ts));
        self.entries.truncate(keep);
    }

    /// Drops the entries before a timestamp, except the last: the oplog's cap.
    pub(crate) fn forget_before(&mut self, ts: Timestamp) {
        while self.entries.len() > 1 && self.first_ts().is_some_and(|first| first < ts) {
            self.entries.pop_front();
            self.truncated = true;
        }
    }
}

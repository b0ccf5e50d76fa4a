//! What a consumer has to be given, by the log that a majority has. Nothing here knows of clients, cursors or tokens.

use std::sync::Arc;

use bson::{Bson, Document, Timestamp, doc};
use changestream_core::{ChangeEvent, Scope};
use changestream_sim::{Deployment, LoggedChange};

/// Every change that a majority ever had, shard by shard.
pub(super) struct Log {
    shards: Vec<Shard>,
}

#[derive(Default)]
struct Shard {
    up_to: Option<Timestamp>,
    changes: Vec<LoggedChange>,
}

/// What a stream shows of the log.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) scope: Scope,
    pub(super) filter: Filter,
    pub(super) expanded: bool,
    pub(super) full: Full,
    pub(super) before: bool,
}

/// A pipeline, as far as the model understands it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    All,
    /// Events of these kinds.
    Kinds(Vec<&'static str>),
    /// Events that carry a document with an even number.
    Even,
    /// Events of the collections of that name.
    Collection(&'static str),
    /// All events, without their documents.
    Slim,
}

/// `fullDocument`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Default,
    Lookup,
    WhenAvailable,
}

/// How far in the log a consumer has got.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Nothing before this moment is for it.
    from: Timestamp,
    next: Vec<Next>,
    latest: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    change: usize,
    /// The change's own event is passed; the invalidate event that follows it is not.
    invalidate: bool,
}

/// An event that is due.
struct Due<'a> {
    change: &'a LoggedChange,
    kind: &'static str,
    after: Next,
}

impl Log {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
        }
    }

    /// Takes in what has been committed since.
    pub(super) fn refresh(&mut self, deployment: &Deployment) {
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let new = deployment.committed_changes(index, shard.up_to);
            let last = shard.changes.last().map(|change| change.time);
            for change in &new.changes {
                assert!(
                    Some(change.time) > last,
                    "a majority's log changes behind its end"
                );
            }
            shard.up_to = shard.up_to.max(new.up_to);
            shard.changes.extend(new.changes);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.changes.len()).sum()
    }

    pub(super) fn inserts(&self) -> usize {
        let changes = self.shards.iter().flat_map(|shard| &shard.changes);
        changes
            .filter(|change| change.kind == "insert" && !change.from_migrate)
            .count()
    }

    /// Up to when a majority has everything; of several shards, the latest.
    pub(super) fn up_to(&self) -> Timestamp {
        let times = self.shards.iter().filter_map(|shard| shard.up_to);
        times.max().unwrap_or(ZERO)
    }

    /// When the change of that number was made, of the first shard.
    pub(super) fn time_of(&self, number: usize) -> Option<Timestamp> {
        Some(self.shards.first()?.changes.get(number)?.time)
    }

    pub(super) fn first_shard_len(&self) -> usize {
        self.shards.first().map_or(0, |shard| shard.changes.len())
    }
}

impl View {
    /// The stages behind `$changeStream`.
    pub(super) fn pipeline(&self) -> Vec<Document> {
        match &self.filter {
            Filter::All => Vec::new(),
            Filter::Kinds(kinds) => vec![doc! { "$match": { "operationType": { "$in": kinds.clone() } } }],
            Filter::Even => vec![doc! { "$match": { "fullDocument.even": true } }],
            Filter::Collection(name) => vec![doc! { "$match": { "ns.coll": *name } }],
            Filter::Slim => vec![doc! { "$project": { "fullDocument": 0, "updateDescription": 0 } }],
        }
    }

    fn contains(&self, change: &LoggedChange) -> bool {
        const INTERNAL: [&str; 3] = ["admin", "config", "local"];
        let (db, coll) = (change.database.as_str(), change.collection.as_str());
        if change.from_migrate || coll.starts_with("system.") {
            return false;
        }
        let to = change.to.as_ref().map(|(db, coll)| (db.as_str(), coll.as_str()));
        match &self.scope {
            Scope::Cluster => !INTERNAL.contains(&db),
            Scope::Database { database } => db == database || to.is_some_and(|(to, _)| to == database),
            Scope::Collection { database, collection } => {
                let watched = (database.as_str(), collection.as_str());
                (db, coll) == watched || to == Some(watched)
            }
        }
    }

    fn is_invalidated_by(&self, change: &LoggedChange) -> bool {
        match &self.scope {
            Scope::Cluster => false,
            Scope::Database { .. } => change.kind == "dropDatabase",
            Scope::Collection { .. } => matches!(change.kind, "drop" | "rename"),
        }
    }

    fn shows(&self, change: &LoggedChange, kind: &'static str) -> bool {
        if EXPANDED.contains(&kind) && !self.expanded {
            return false;
        }
        let invalidate = kind == "invalidate";
        match &self.filter {
            Filter::All | Filter::Slim => true,
            Filter::Kinds(kinds) => kinds.contains(&kind),
            Filter::Even => {
                let carried = matches!(kind, "insert" | "replace")
                    || (kind == "update" && self.full == Full::WhenAvailable);
                let is_even = |document: &Arc<Document>| document.get_bool("even").is_ok_and(|even| even);
                !invalidate && carried && change.after.as_ref().is_some_and(is_even)
            }
            Filter::Collection(name) => !invalidate && change.collection == *name,
        }
    }
}

impl Place {
    /// At the first change at or after that moment.
    pub(super) fn new(log: &Log, from: Timestamp) -> Self {
        let next = log.shards.iter().map(|shard| Next {
            change: shard.changes.partition_point(|change| change.time < from),
            invalidate: false,
        });
        Self {
            from,
            next: next.collect(),
            latest: None,
        }
    }

    /// Whether everything is delivered.
    pub(super) fn is_at_the_end(&self, log: &Log, view: &View) -> bool {
        (0..self.next.len()).all(|shard| self.due(log, view, shard).is_none())
    }

    /// An event was delivered: it has to be the one that is due.
    pub(super) fn take(&mut self, log: &Log, view: &View, event: &ChangeEvent) -> Result<(), String> {
        let document = Document::try_from(event.as_raw()).map_err(|error| error.to_string())?;
        let time = document.get_timestamp("clusterTime").ok();
        if time < self.latest {
            return Err(format!("{document} comes after an event of {:?}", self.latest));
        }
        let mut refused = Vec::new();
        for shard in 0..self.next.len() {
            let Some(due) = self.due(log, view, shard) else {
                continue;
            };
            match differs(&due, view, &document) {
                None => {
                    self.next[shard] = due.after;
                    self.latest = time;
                    return Ok(());
                }
                Some(why) => refused.push(format!(
                    "{} of {:?} {:?} at {:?} was due: {why}",
                    due.kind, due.change.collection, due.change.key, due.change.time
                )),
            }
        }
        Err(format!(
            "{} was not due, but {}",
            shortened(&document),
            refused.join(", or ")
        ))
    }

    /// The stream says that it has ended by itself. That has to be because of an invalidate event: one that was
    /// delivered, or one that the filter hides and that comes before anything else that is due.
    pub(super) fn may_end(&mut self, log: &Log, view: &View, last_kind: Option<&str>) -> bool {
        if last_kind == Some("invalidate") {
            return true;
        }
        for shard in 0..self.next.len() {
            let mut next = self.next[shard];
            while let Some(due) = self.candidate(log, view, shard, next) {
                if view.shows(due.change, due.kind) {
                    break;
                }
                next = due.after;
                if due.kind == "invalidate" {
                    self.next[shard] = next;
                    return true;
                }
            }
        }
        false
    }

    fn due<'a>(&self, log: &'a Log, view: &View, shard: usize) -> Option<Due<'a>> {
        let mut next = self.next[shard];
        loop {
            let due = self.candidate(log, view, shard, next)?;
            if view.shows(due.change, due.kind) {
                return Some(due);
            }
            next = due.after;
        }
    }

    /// The next event of the shard, whether the filter shows it or not.
    fn candidate<'a>(&self, log: &'a Log, view: &View, shard: usize, mut next: Next) -> Option<Due<'a>> {
        loop {
            let change = log.shards[shard].changes.get(next.change)?;
            let following = Next {
                change: next.change + 1,
                invalidate: false,
            };
            if change.time < self.from || !view.contains(change) {
                next = following;
                continue;
            }
            let invalidates = view.is_invalidated_by(change);
            let (kind, after) = match (next.invalidate, invalidates) {
                (true, _) => ("invalidate", following),
                (false, false) => (change.kind, following),
                (false, true) => {
                    let invalidate = Next {
                        change: next.change,
                        invalidate: true,
                    };
                    (change.kind, invalidate)
                }
            };
            return Some(Due { change, kind, after });
        }
    }
}

/// In what the event differs from what is due; none if it does not.
fn differs(due: &Due<'_>, view: &View, event: &Document) -> Option<String> {
    let change = due.change;
    let mut wrong = Vec::new();
    let mut expect = |field: &str, expected: Option<Bson>| {
        if event.get(field) != expected.as_ref() {
            wrong.push(format!("{field} is not {expected:?}"));
        }
    };
    expect("operationType", Some(due.kind.into()));
    expect("clusterTime", Some(change.time.into()));
    if due.kind != "invalidate" {
        let mut ns = doc! { "db": change.database.as_str() };
        if !change.collection.is_empty() {
            ns.insert("coll", change.collection.as_str());
        }
        expect("ns", Some(ns.into()));
        expect("documentKey", change.key.clone().map(Bson::from));
        let to = change.to.as_ref();
        expect("to", to.map(|(db, coll)| doc! { "db": db, "coll": coll }.into()));
    }
    if !change.in_transaction {
        expect("txnNumber", None);
    } else if event.get("txnNumber").is_none() {
        wrong.push("it tells of no transaction".to_owned());
    }
    if let Some(why) = wrong_full_document(due, view, event) {
        wrong.push(why);
    }
    if view.before && matches!(due.kind, "update" | "replace" | "delete") {
        let carried = event.get("fullDocumentBeforeChange");
        if !(carried == Some(&Bson::Null) || is(carried, change.before.as_ref())) {
            wrong.push("fullDocumentBeforeChange is another".to_owned());
        }
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

fn wrong_full_document(due: &Due<'_>, view: &View, event: &Document) -> Option<String> {
    let carried = event.get("fullDocument");
    let after = due.change.after.as_ref();
    let right = match (due.kind, view.full) {
        _ if view.filter == Filter::Slim => carried.is_none(),
        ("insert" | "replace", _) => is(carried, after),
        ("update", Full::Default) => carried.is_none(),
        // As it was when it was read: at the change or later, and perhaps gone.
        ("update", Full::Lookup) => match carried {
            Some(Bson::Document(found)) => found.get("_id") == after.and_then(|after| after.get("_id")),
            other => other == Some(&Bson::Null),
        },
        ("update", Full::WhenAvailable) => carried == Some(&Bson::Null) || is(carried, after),
        _ => carried.is_none(),
    };
    (!right).then(|| "fullDocument is another".to_owned())
}

fn is(carried: Option<&Bson>, document: Option<&Arc<Document>>) -> bool {
    match (carried, document) {
        (Some(Bson::Document(carried)), Some(document)) => carried == document.as_ref(),
        (carried, document) => carried.is_none() && document.is_none(),
    }
}

fn shortened(event: &Document) -> String {
    let mut text = event.to_string();
    if text.len() > 600 {
        text.truncate((0..=600).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        text.push_str("...");
    }
    text
}

const EXPANDED: [&str; 5] = [
    "create",
    "createIndexes",
    "dropIndexes",
    "modify",
    "shardCollection",
];

pub(super) const ZERO: Timestamp = Timestamp {
    time: 0,
    increment: 0,
};

/// The moment after that one.
pub(super) fn after(time: Timestamp) -> Timestamp {
    Timestamp {
        time: time.time,
        increment: time.increment.saturating_add(1),
    }
}

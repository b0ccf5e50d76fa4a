//! What a majority has, and what a stream shows of it. Nothing here knows of clients, cursors or tokens.

use std::sync::Arc;

use bson::{Document, Timestamp, doc};
use changestream_core::Scope;
use changestream_sim::{Deployment, LoggedChange};

/// Every change that a majority ever had, shard by shard.
pub(super) struct Log {
    pub(super) shards: Vec<Shard>,
    /// Of changes before this moment, stored images may be gone.
    images_from: Timestamp,
}

/// What a majority of a shard has.
#[derive(Default)]
pub(super) struct Shard {
    up_to: Option<Timestamp>,
    pub(super) changes: Vec<LoggedChange>,
}

/// What a stream shows of the log.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) scope: Scope,
    pub(super) filter: Filter,
    pub(super) expanded: bool,
    pub(super) full: Full,
    pub(super) before: Before,
    /// Whether it asks for events that are too large in pieces.
    pub(super) splits: bool,
    /// The bytes of the largest event, where they are so few that events can be too large.
    pub(super) largest: Option<usize>,
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
    Required,
}

/// `fullDocumentBeforeChange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Off,
    WhenAvailable,
    Required,
}

/// Whether there is something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    There,
    /// It was, and may have been removed before it was read.
    PerhapsThere,
    Missing,
}

impl Log {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            images_from: ZERO,
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

    /// Stored images of what is before this moment are removed.
    pub(super) fn lose_images(&mut self, before: Timestamp) {
        self.images_from = self.images_from.max(before);
    }

    /// Whether there are images of the documents that a change changed.
    pub(super) fn images_of(&self, change: &LoggedChange) -> Is {
        match (change.has_images, change.time >= self.images_from) {
            (true, true) => Is::There,
            (true, false) => Is::PerhapsThere,
            (false, _) => Is::Missing,
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
        let mut stages = match &self.filter {
            Filter::All => Vec::new(),
            Filter::Kinds(kinds) => vec![doc! { "$match": { "operationType": { "$in": kinds.clone() } } }],
            Filter::Even => vec![doc! { "$match": { "fullDocument.even": true } }],
            Filter::Collection(name) => vec![doc! { "$match": { "ns.coll": *name } }],
            Filter::Slim => vec![doc! { "$project": { "fullDocument": 0, "updateDescription": 0 } }],
        };
        if self.splits {
            stages.push(doc! { "$changeStreamSplitLargeEvent": {} });
        }
        stages
    }

    pub(super) fn contains(&self, change: &LoggedChange) -> bool {
        const INTERNAL: [&str; 3] = ["admin", "config", "local"];
        let (db, coll) = (change.database.as_str(), change.collection.as_str());
        if change.from_migrate || coll.starts_with("system.") {
            return false;
        }
        if EXPANDED.contains(&change.kind) && !self.expanded {
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

    pub(super) fn is_invalidated_by(&self, change: &LoggedChange) -> bool {
        match &self.scope {
            Scope::Cluster => false,
            Scope::Database { .. } => change.kind == "dropDatabase",
            Scope::Collection { .. } => matches!(change.kind, "drop" | "rename"),
        }
    }

    /// Whether the filter lets an event through.
    pub(super) fn shows(&self, change: &LoggedChange, kind: &'static str) -> bool {
        let invalidate = kind == "invalidate";
        match &self.filter {
            Filter::All | Filter::Slim => true,
            Filter::Kinds(kinds) => kinds.contains(&kind),
            Filter::Even => {
                let carried = matches!(kind, "insert" | "replace");
                let is_even = |document: &Arc<Document>| document.get_bool("even").is_ok_and(|even| even);
                !invalidate && carried && change.after.as_ref().is_some_and(is_even)
            }
            Filter::Collection(name) => !invalidate && change.collection == *name,
        }
    }

    /// Whether its event needs an image that has to be stored.
    pub(super) fn requires_image(&self, kind: &'static str) -> bool {
        (self.full == Full::Required && kind == "update")
            || (self.before == Before::Required && matches!(kind, "update" | "replace" | "delete"))
    }

    /// Whether its event is larger than servers send in one piece: there, documents are small or nearly as large as that,
    /// so that an event is too large if it carries two large ones.
    pub(super) fn is_too_large(&self, log: &Log, change: &LoggedChange, kind: &'static str) -> Is {
        let Some(largest) = self.largest else {
            return Is::Missing;
        };
        let slim = self.filter == Filter::Slim;
        let full = match (kind, self.full) {
            _ if slim => false,
            ("insert" | "replace", _) | ("update", Full::WhenAvailable | Full::Required) => true,
            _ => false,
        };
        let before = self.before != Before::Off && matches!(kind, "update" | "replace" | "delete");
        let large = |document: &Option<Arc<Document>>| {
            let bytes = document.as_ref().and_then(|document| document.to_vec().ok());
            bytes.is_some_and(|bytes| bytes.len() > largest / 2)
        };
        if !(before && large(&change.after) && large(&change.before)) {
            return Is::Missing;
        }
        match (kind, self.full, log.images_of(change)) {
            // What is looked up is the document of that time, which may have become small or be gone.
            ("update", Full::Lookup, Is::There) if !slim => Is::PerhapsThere,
            ("update", Full::Lookup, image) if !slim => image,
            (_, _, image) if full => image,
            _ => Is::Missing,
        }
    }
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

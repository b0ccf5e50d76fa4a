//! A sharded cluster behind its mongos.
//!
//! Each shard is a replica set of its own, a whole [`Deployment`] with elections, commit point, history and cursors.
//! The members of the outer deployment are the mongos: they have connections, cursors and fail points, but no data.
//! What the config servers know is [`Cluster`]'s own, and never lost. Between a mongos and a shard that it reaches,
//! nothing takes time, and both have the same cluster time from then on; so times are unique in the cluster as long as
//! nobody is cut off.
//!
//! - [`routing`]: which shard has which document.
//! - [`router`]: reads and writes on the shards.
//! - [`transactions`]: one transaction on several shards.
//! - [`merging`]: the shards' change streams as one.

mod admin;
mod merging;
mod router;
mod routing;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bson::{Document, Timestamp};

pub(crate) use admin::check_key;
pub(crate) use merging::MergedStream;
pub(crate) use router::{Point, reachable, targets};
pub(crate) use transactions::Routed;

use crate::catalog::Catalog;
use crate::cursors::Kind;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::member::Member;
use routing::Chunks;

/// The shards, and what the config servers know of them.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) shards: Vec<Deployment>,
    /// Pairs of a mongos and a shard that do not reach each other.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    databases: BTreeMap<String, Database>,
    sharded: BTreeMap<(String, String), Chunks>,
    /// What the command under way has written.
    written: Vec<Point>,
    /// The session of the transaction that the command under way belongs to.
    in_transaction: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
struct Database {
    /// The shard that has its collections, but for sharded ones.
    primary: usize,
    /// `enableSharding` was run.
    enabled: bool,
}

impl Cluster {
    pub(crate) fn new(shards: Vec<Deployment>) -> Self {
        Self {
            shards,
            cut: BTreeSet::new(),
            databases: BTreeMap::new(),
            sharded: BTreeMap::new(),
            written: Vec::new(),
            in_transaction: None,
        }
    }

    /// What the shards do by themselves. They talk to mongos only, so what they say to clients is nothing.
    pub(crate) fn step(&mut self, now: Instant, mongos: &[Member]) {
        for shard in &mut self.shards {
            shard.settle(now);
            shard.forget_outputs();
        }
        self.end_abandoned_cursors(mongos);
    }

    /// The shard's primary, if this mongos reaches it.
    pub(crate) fn primary(&self, mongos: usize, shard: usize) -> Option<&Member> {
        let set = self
            .shards
            .get(shard)
            .filter(|_| !self.cut.contains(&(mongos, shard)))?;
        set.members.get(set.primary_index()?)
    }

    fn primary_mut(&mut self, mongos: usize, shard: usize) -> Option<(&mut Deployment, usize)> {
        let cut = self.cut.contains(&(mongos, shard));
        let set = self.shards.get_mut(shard).filter(|_| !cut)?;
        let primary = set.primary_index()?;
        Some((set, primary))
    }

    /// The shard that a database begins on; databases take turns.
    fn primary_shard(&self, db: &str) -> usize {
        self.databases
            .get(db)
            .map_or_else(|| self.databases.len() % self.shards.len().max(1), |d| d.primary)
    }

    fn database_mut(&mut self, db: &str) -> &mut Database {
        let primary = self.primary_shard(db);
        self.databases.entry(db.to_owned()).or_insert(Database {
            primary,
            enabled: false,
        })
    }

    fn chunks(&self, db: &str, coll: &str) -> Option<&Chunks> {
        self.sharded.get(&(db.to_owned(), coll.to_owned()))
    }

    /// The shard that a document belongs to.
    fn owner(&self, db: &str, coll: &str, document: &Document) -> usize {
        self.chunks(db, coll)
            .map_or_else(|| self.primary_shard(db), |chunks| chunks.owner(document))
    }

    /// A shard's data as a mongos reads it; in a transaction, as that one sees it.
    fn catalog(&self, mongos: usize, shard: usize, majority: bool) -> Option<&Catalog> {
        let primary = self.primary(mongos, shard)?;
        let session = self.in_transaction.as_ref();
        if let Some(transaction) = session.and_then(|session| primary.transactions.get(session)) {
            return Some(&transaction.catalog);
        }
        Some(if majority {
            &primary.committed
        } else {
            &primary.catalog
        })
    }

    /// The latest cluster time of all.
    fn newest(&self, mongos: &[Member]) -> Option<Timestamp> {
        let shards = self.shards.iter().flat_map(|set| &set.members);
        shards.chain(mongos).map(|m| m.cluster_time).max()
    }

    /// A shard's cursor ends when no mongos has the merged one any more.
    fn end_abandoned_cursors(&mut self, mongos: &[Member]) {
        let open = |m: &Member| !m.cursors.is_empty();
        if !self.shards.iter().flat_map(|set| &set.members).any(open) {
            return;
        }
        let mut used = BTreeSet::new();
        for cursor in mongos.iter().flat_map(|m| m.cursors.iter()) {
            match &cursor.kind {
                Kind::Merged(stream) => used.extend(stream.remotes()),
                Kind::Documents(_) | Kind::ChangeStream(_) => {}
            }
        }
        for (shard, set) in self.shards.iter_mut().enumerate() {
            for (member, m) in set.members.iter_mut().enumerate() {
                m.cursors
                    .retain(|cursor| used.contains(&(shard, member, cursor.id)));
            }
        }
    }
}

impl Deployment {
    /// A mongos and the shards that it reaches tell each other the time. What a client says counts if the cluster can
    /// have signed it.
    pub(crate) fn gossip(&mut self, mongos: usize, told: Option<Timestamp>) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let newest = cluster.newest(&self.members);
        let told = told.filter(|told| newest.is_some_and(|newest| *told <= newest));
        let Some(m) = self.members.get_mut(mongos) else {
            return;
        };
        let reached = 0..cluster.shards.len();
        let times = reached
            .clone()
            .filter_map(|shard| Some(cluster.primary(mongos, shard)?.cluster_time));
        let time = times.chain(told).fold(m.cluster_time, Timestamp::max);
        m.cluster_time = time;
        for shard in reached {
            if let Some((set, primary)) = cluster.primary_mut(mongos, shard)
                && let Some(primary) = set.members.get_mut(primary)
            {
                primary.cluster_time = primary.cluster_time.max(time);
            }
        }
    }
}

/// What a mongos says when it has looked for a shard's primary long enough.
pub(crate) fn no_primary(shard: &Deployment) -> CommandError {
    let name = shard.set_name.as_deref().unwrap_or("");
    CommandError::new(
        133,
        format!("Could not find host matching read preference {{ mode: \"primary\" }} for set {name}"),
    )
}

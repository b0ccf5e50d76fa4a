//! Reads as of a moment, outside of transactions: `readConcern: { level: "snapshot" }` (5.0 and later).
//!
//! What the data was is told by the log, from its beginning: it need not be kept for a read that seldom comes. A log
//! whose beginning was dropped knows nothing but the present.

use bson::{Bson, Document, Timestamp};

use crate::catalog::Catalog;
use crate::commands::Context;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::member::Member;
use crate::transactions;

/// Whether the command reads as of a moment, its own transaction's apart.
fn is_asked(context: &Context<'_>) -> bool {
    is_snapshot(context) && !transactions::is_member(context)
}

fn is_snapshot(context: &Context<'_>) -> bool {
    let level = concern(context).and_then(|c| c.get_str("level").ok());
    level == Some("snapshot")
}

fn concern<'a>(context: &Context<'a>) -> Option<&'a Document> {
    context.body().get_document("readConcern").ok()
}

fn wanted(context: &Context<'_>) -> Result<Option<Timestamp>, CommandError> {
    match concern(context).and_then(|c| c.get("atClusterTime")) {
        None => Ok(None),
        Some(Bson::Timestamp(ts)) => Ok(Some(*ts)),
        Some(_) => Err(CommandError::type_mismatch(
            "BSON field 'readConcern.atClusterTime' is the wrong type, expected type 'timestamp'",
        )),
    }
}

impl Deployment {
    /// The moment that the command reads as of, if it does.
    pub(crate) fn snapshot_time(&self, context: &Context<'_>) -> Option<Timestamp> {
        if !is_asked(context) {
            return None;
        }
        let given = wanted(context).ok().flatten();
        let now = self.members.get(context.member)?.cluster_time;
        given.or_else(|| self.readers_of(context).map(|m| m.committed_until(now)).min())
    }

    /// Whether the command can read as of the moment that it names, yet. An error if it never can.
    pub(crate) fn snapshot_is_ready(&self, context: &Context<'_>) -> Result<bool, CommandError> {
        let at = wanted(context)?;
        if at.is_some() && !is_snapshot(context) {
            return Err(CommandError::invalid_options(
                "atClusterTime field can be set only if level is equal to snapshot",
            ));
        }
        let Some(at) = at.filter(|_| is_asked(context)) else {
            return Ok(true);
        };
        let now = self.members.get(context.member).map(|m| m.cluster_time);
        if let Some(now) = now.filter(|now| *now < at) {
            return Err(CommandError::invalid_options(format!(
                "readConcern atClusterTime value must not be greater than the current clusterTime. Requested \
                 clusterTime: {{ ts: Timestamp({}, {}) }}; current clusterTime: {{ ts: Timestamp({}, {}) }}",
                at.time, at.increment, now.time, now.increment
            )));
        }
        if self.readers_of(context).any(|m| !m.remembers(at)) {
            return Err(CommandError::new(
                239,
                format!(
                    "Read timestamp Timestamp({}, {}) is older than the oldest available timestamp.",
                    at.time, at.increment
                ),
            ));
        }
        Ok(self.readers_of(context).all(|m| m.committed_until(at) >= at))
    }

    /// The members whose data it reads: itself, or the primaries behind a mongos.
    fn readers_of<'a>(&'a self, context: &Context<'_>) -> impl Iterator<Item = &'a Member> {
        let mongos = context.member;
        let cluster = self.cluster.as_ref();
        let shards = cluster
            .into_iter()
            .flat_map(move |c| (0..c.shards.len()).filter_map(move |shard| c.primary(mongos, shard)));
        let itself = self.members.get(mongos).filter(|_| cluster.is_none());
        shards.chain(itself)
    }
}

impl Member {
    /// The data as it was at a moment that the majority has passed.
    pub(crate) fn data_at(&self, ts: Timestamp) -> Catalog {
        if self.commit_ts() <= ts {
            return self.committed.clone();
        }
        let mut catalog = Catalog::default();
        for entry in self.log.after(None).take_while(|entry| entry.optime.ts <= ts) {
            catalog.apply(entry);
        }
        catalog
    }

    /// Whether the log tells what the data was then.
    fn remembers(&self, ts: Timestamp) -> bool {
        self.commit_ts() <= ts || self.log.is_whole()
    }

    /// The latest moment, up to now, before which nothing is still to be committed.
    fn committed_until(&self, now: Timestamp) -> Timestamp {
        let commit = self.commit_ts();
        if commit < self.last_applied().ts {
            commit
        } else {
            now.max(commit)
        }
    }
}

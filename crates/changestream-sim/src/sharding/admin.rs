//! What the config servers are told: which databases and collections are sharded, and where chunks are.

use std::sync::Arc;

use bson::{Bson, Document};

use super::routing::{Chunks, is_hashed};
use crate::catalog::Collection;
use crate::commands::Context;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::failpoints::number;
use crate::oplog::{Change, Op};

impl Deployment {
    /// Executes `enableSharding`.
    pub(crate) fn enable_sharding(&mut self, db: &str) {
        if let Some(cluster) = &mut self.cluster {
            cluster.database_mut(db).enabled = true;
        }
    }

    /// Whether collections of the database may be sharded.
    pub(crate) fn sharding_enabled(&self, db: &str) -> bool {
        // From 6.0 on, sharding a collection does without.
        let implied = self.profile.images;
        let cluster = self.cluster.as_ref();
        cluster.is_some_and(|c| implied || c.databases.get(db).is_some_and(|d| d.enabled))
    }

    /// The shard key of a collection, if it is sharded.
    pub(crate) fn shard_key(&self, db: &str, coll: &str) -> Option<Arc<Document>> {
        let chunks = self.cluster.as_ref()?.chunks(db, coll)?;
        Some(Arc::clone(&chunks.key))
    }

    /// Executes `shardCollection` on a collection that exists, with an index for the key. A hashed key spreads an empty
    /// collection over all shards; else it stays on its database's primary shard, in one chunk.
    pub(crate) fn shard_collection(
        &mut self,
        context: &Context<'_>,
        db: &str,
        coll: &str,
        key: &Document,
        empty: bool,
    ) -> Result<(), CommandError> {
        let Some(cluster) = &mut self.cluster else {
            return Ok(());
        };
        let hashed_first = key.values().next().is_some_and(is_hashed);
        let chunks = if empty && hashed_first {
            Chunks::spread(key, cluster.shards.len())
        } else {
            Chunks::on_one(key, cluster.primary_shard(db))
        };
        let shards: Vec<usize> = chunks.shards().collect();
        cluster.sharded.insert((db.to_owned(), coll.to_owned()), chunks);
        for shard in shards {
            self.bring_collection(context, db, coll, shard)?;
        }
        Ok(())
    }

    /// Executes `split`.
    pub(crate) fn split_chunk(
        &mut self,
        db: &str,
        coll: &str,
        middle: &Document,
    ) -> Result<(), CommandError> {
        let chunks = self.chunks_mut(db, coll)?;
        if !chunks.names(middle) {
            return Err(CommandError::bad_value(
                "'middle' has to have all fields of the shard key",
            ));
        }
        if chunks.split(middle) {
            Ok(())
        } else {
            Err(CommandError::new(96, "cannot split where a chunk begins already"))
        }
    }

    /// Executes `moveChunk`: the documents of that one's chunk go to another shard, which no change stream shows.
    pub(crate) fn move_chunk(
        &mut self,
        context: &Context<'_>,
        (db, coll): (&str, &str),
        find: &Document,
        to: &str,
    ) -> Result<(), CommandError> {
        let from = self.chunks_mut(db, coll)?.owner(find);
        let shards = self.cluster.as_ref().map_or(&[][..], |cluster| &cluster.shards);
        let to = shards
            .iter()
            .position(|shard| shard.set_name.as_deref() == Some(to))
            .ok_or_else(|| CommandError::new(70, format!("Shard {to} does not exist")))?;
        if from == to {
            return Ok(());
        }
        self.bring_collection(context, db, coll, to)?;
        let documents = self.chunk_of(context, (db, coll), find, from);
        let uuid = self.collection_on(context, db, coll, from).map(|c| c.uuid);
        for (shard, insert) in [(to, true), (from, false)] {
            for document in &documents {
                let document = Arc::clone(document);
                let change = if insert {
                    Change::Insert { document }
                } else {
                    Change::Delete { before: document }
                };
                self.migrate(context, shard, Op::new(db, coll, uuid, change))?;
            }
        }
        self.chunks_mut(db, coll)?.give(find, to);
        Ok(())
    }

    /// The names of the shards, with their connection strings.
    pub(crate) fn shard_names(&self) -> Vec<(String, String)> {
        let shards = self.cluster.as_ref().map_or(&[][..], |cluster| &cluster.shards);
        shards
            .iter()
            .map(|set| {
                let name = set.set_name.clone().unwrap_or_default();
                let hosts: Vec<&str> = set.members.iter().map(|m| m.address.as_str()).collect();
                let host = format!("{name}/{}", hosts.join(","));
                (name, host)
            })
            .collect()
    }

    fn chunks_mut(&mut self, db: &str, coll: &str) -> Result<&mut Chunks, CommandError> {
        let name = (db.to_owned(), coll.to_owned());
        self.cluster
            .as_mut()
            .and_then(|cluster| cluster.sharded.get_mut(&name))
            .ok_or_else(|| CommandError::new(118, format!("Collection {db}.{coll} is not sharded.")))
    }

    fn chunk_of(
        &self,
        context: &Context<'_>,
        (db, coll): (&str, &str),
        find: &Document,
        shard: usize,
    ) -> Vec<Arc<Document>> {
        let chunks = self.cluster.as_ref().and_then(|cluster| cluster.chunks(db, coll));
        let collection = self.collection_on(context, db, coll, shard);
        let (Some(chunks), Some(collection)) = (chunks, collection) else {
            return Vec::new();
        };
        let all = collection.documents();
        all.filter(|d| chunks.together(d, find)).cloned().collect()
    }

    /// Makes the collection known to a shard that does not have it.
    fn bring_collection(
        &mut self,
        context: &Context<'_>,
        db: &str,
        coll: &str,
        shard: usize,
    ) -> Result<(), CommandError> {
        if self.collection_on(context, db, coll, shard).is_some() {
            return Ok(());
        }
        let Some(original) = self
            .view_of(context, db)
            .and_then(|c| c.collection(db, coll))
            .cloned()
        else {
            return Err(CommandError::namespace_not_found(format!(
                "{db}.{coll} does not exist"
            )));
        };
        let options = original.options.clone();
        let of_its_own = |index: &&Document| !index.get_str("name").is_ok_and(|name| name == "_id_");
        let indexes: Vec<Document> = original.indexes.iter().filter(of_its_own).cloned().collect();
        let uuid = Some(original.uuid);
        self.migrate(
            context,
            shard,
            Op::new(db, coll, uuid, Change::Create { options }),
        )?;
        if !indexes.is_empty() {
            self.migrate(
                context,
                shard,
                Op::new(db, coll, uuid, Change::CreateIndexes { indexes }),
            )?;
        }
        Ok(())
    }

    fn migrate(&mut self, context: &Context<'_>, shard: usize, mut op: Op) -> Result<(), CommandError> {
        op.from_migrate = true;
        self.write_on(context, shard, op, None).map(drop)
    }

    fn collection_on(
        &self,
        context: &Context<'_>,
        db: &str,
        coll: &str,
        shard: usize,
    ) -> Option<&Collection> {
        let cluster = self.cluster.as_ref()?;
        cluster
            .catalog(context.member, shard, false)?
            .collection(db, coll)
    }
}

/// Whether a document is a shard key: fields that are 1, -1 or "hashed", of which at most one.
pub(crate) fn check_key(key: &Document) -> Result<(), CommandError> {
    let ordered = |kind: &Bson| matches!(number(kind), Some(1 | -1));
    let hashed = key.values().filter(|kind| is_hashed(kind)).count();
    if key.is_empty() || hashed > 1 || !key.values().all(|kind| ordered(kind) || is_hashed(kind)) {
        return Err(CommandError::bad_value(format!(
            "Shard key {key} must contain one or more fields, each with 1, or one of them with 'hashed'"
        )));
    }
    Ok(())
}

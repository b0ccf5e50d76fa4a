//! Reads and writes of a mongos on the shards.

use std::collections::BTreeSet;
use std::sync::Arc;

use bson::{Bson, Document};

use super::{Cluster, no_primary};
use crate::catalog::{Catalog, Collection, Retried};
use crate::commands::Context;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::oplog::{Change, Op, OpTime, Statement};
use crate::query::filter::Filter;
use crate::transactions::{is_member, wants_majority};

/// A write on a shard, to be replicated there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) shard: usize,
    /// The member that was primary.
    pub(crate) member: usize,
    pub(crate) optime: OpTime,
}

/// The shards that a command needs.
pub(crate) fn targets(cluster: &Cluster, context: &Context<'_>) -> BTreeSet<usize> {
    let all = || (0..cluster.shards.len()).collect();
    let (body, db, name) = (context.body(), context.db(), context.request.name());
    let Some(Bson::String(coll)) = body.get(name) else {
        return all();
    };
    let streams = |stage: &Bson| {
        stage
            .as_document()
            .is_some_and(|s| s.contains_key("$changeStream"))
    };
    if body
        .get_array("pipeline")
        .is_ok_and(|p| p.first().is_some_and(streams))
    {
        return all();
    }
    let by_filters = |filters: Vec<&Document>| -> BTreeSet<usize> {
        filters
            .into_iter()
            .flat_map(|filter| match Filter::parse(filter) {
                Ok(filter) => cluster.shards_of(db, coll, &filter),
                // The command will say what is wrong.
                Err(_) => BTreeSet::new(),
            })
            .collect()
    };
    let statements = |list: &str| -> Vec<&Document> {
        let list = body.get_array(list).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Bson::as_document).collect()
    };
    let filter = |field: &str| match body.get_document(field) {
        Ok(filter) => by_filters(vec![filter]),
        Err(_) => all(),
    };
    match name {
        _ if cluster.chunks(db, coll).is_none() => BTreeSet::from([cluster.primary_shard(db)]),
        "insert" => statements("documents")
            .into_iter()
            .map(|document| cluster.owner(db, coll, document))
            .collect(),
        "update" => by_filters(
            statements("updates")
                .into_iter()
                .filter_map(|s| s.get_document("q").ok())
                .collect(),
        ),
        "delete" => by_filters(
            statements("deletes")
                .into_iter()
                .filter_map(|s| s.get_document("q").ok())
                .collect(),
        ),
        "find" => filter("filter"),
        "count" | "distinct" | "findAndModify" | "findandmodify" => filter("query"),
        _ => all(),
    }
}

/// Whether the mongos reaches the primaries of all these shards; if not, why not.
pub(crate) fn reachable(
    cluster: &Cluster,
    mongos: usize,
    shards: &BTreeSet<usize>,
) -> Result<(), CommandError> {
    let missing = shards
        .iter()
        .find(|shard| cluster.primary(mongos, **shard).is_none());
    match missing.and_then(|shard| cluster.shards.get(*shard)) {
        Some(set) => Err(no_primary(set)),
        None => Ok(()),
    }
}

impl Cluster {
    /// The shards that may have what matches.
    pub(super) fn shards_of(&self, db: &str, coll: &str, filter: &Filter) -> BTreeSet<usize> {
        let Some(chunks) = self.chunks(db, coll) else {
            return BTreeSet::from([self.primary_shard(db)]);
        };
        let fields: Document = filter.equalities().into_iter().collect();
        if chunks.names(&fields) {
            BTreeSet::from([chunks.owner(&fields)])
        } else {
            chunks.shards().collect()
        }
    }

    /// The shards that have the collection.
    pub(super) fn holders(&self, mongos: usize, db: &str, coll: &str) -> Vec<usize> {
        let has = |shard: &usize| {
            self.catalog(mongos, *shard, false)
                .is_some_and(|c| c.collection(db, coll).is_some())
        };
        (0..self.shards.len()).filter(has).collect()
    }
}

impl Deployment {
    /// Through a mongos: the data of the shard that a database begins on.
    pub(crate) fn routed_view(&self, context: &Context<'_>, db: &str, majority: bool) -> Option<&Catalog> {
        let cluster = self.cluster.as_ref()?;
        cluster.catalog(context.member, cluster.primary_shard(db), majority)
    }

    /// What matches in a collection, wherever it is.
    pub(crate) fn matching(
        &self,
        context: &Context<'_>,
        coll: &str,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Vec<Arc<Document>> {
        let limit = limit.unwrap_or(usize::MAX);
        let find = |catalog: &Catalog| -> Vec<Arc<Document>> {
            let collection = catalog.collection(context.db(), coll);
            collection.map_or_else(Vec::new, |c| c.matching(filter).take(limit).cloned().collect())
        };
        let at = self.snapshot_time(context);
        let Some(cluster) = &self.cluster else {
            let Some(at) = at else {
                return self.view(context).map(find).unwrap_or_default();
            };
            let member = self.members.get(context.member);
            return member.map(|m| find(&m.data_at(at))).unwrap_or_default();
        };
        let shards = cluster.shards_of(context.db(), coll, filter).into_iter();
        if let Some(at) = at {
            return shards
                .filter_map(|shard| cluster.primary(context.member, shard))
                .flat_map(|primary| find(&primary.data_at(at)))
                .collect();
        }
        let majority = wants_majority(context);
        shards
            .filter_map(|shard| cluster.catalog(context.member, shard, majority))
            .flat_map(find)
            .collect()
    }

    /// The collection, as it is where that document belongs.
    pub(crate) fn collection_for(
        &self,
        context: &Context<'_>,
        coll: &str,
        document: &Document,
    ) -> Option<&Collection> {
        let Some(cluster) = &self.cluster else {
            return self.view(context)?.collection(context.db(), coll);
        };
        let shard = cluster.owner(context.db(), coll, document);
        cluster
            .catalog(context.member, shard, false)?
            .collection(context.db(), coll)
    }

    /// All databases.
    pub(crate) fn databases(&self, context: &Context<'_>) -> BTreeSet<String> {
        let Some(cluster) = &self.cluster else {
            let view = self.view(context).map(Catalog::databases).unwrap_or_default();
            return view.into_iter().map(str::to_owned).collect();
        };
        (0..cluster.shards.len())
            .filter_map(|shard| cluster.catalog(context.member, shard, false))
            .flat_map(Catalog::databases)
            .map(str::to_owned)
            .collect()
    }

    /// What is known of a retryable statement, by any shard.
    pub(crate) fn known_statement(
        &self,
        context: &Context<'_>,
        lsid: &Document,
        txn_number: i64,
        stmt_id: i32,
    ) -> Retried<'_> {
        let Some(cluster) = &self.cluster else {
            let m = self.members.get(context.member);
            return m.map_or(Retried::New, |m| m.catalog.retried(lsid, txn_number, stmt_id));
        };
        (0..cluster.shards.len())
            .filter_map(|shard| cluster.catalog(context.member, shard, false))
            .map(|catalog| catalog.retried(lsid, txn_number, stmt_id))
            .find(|known| !matches!(known, Retried::New))
            .unwrap_or(Retried::New)
    }

    /// Carries out changes on the shards that they concern.
    pub(crate) fn route(
        &mut self,
        context: &Context<'_>,
        ops: Vec<Op>,
        statement: Option<Statement>,
    ) -> Result<OpTime, CommandError> {
        let mut last = None;
        for op in ops {
            for (shard, op) in self.parts(context, op, statement.is_some() || is_member(context))? {
                last = Some(self.write_on(context, shard, op, statement.clone())?);
            }
        }
        last.ok_or_else(|| CommandError::new(96, "no shard has the collection"))
    }

    /// What the command under way has written.
    pub(crate) fn take_written(&mut self) -> Vec<Point> {
        self.cluster
            .as_mut()
            .map(|cluster| std::mem::take(&mut cluster.written))
            .unwrap_or_default()
    }

    /// A change, divided among the shards. The config servers learn of it.
    fn parts(
        &mut self,
        context: &Context<'_>,
        mut op: Op,
        retryable: bool,
    ) -> Result<Vec<(usize, Op)>, CommandError> {
        let Some(cluster) = &mut self.cluster else {
            return Ok(Vec::new());
        };
        let chunks = cluster.chunks(&op.db, &op.coll);
        op.shard_key = chunks.map(|chunks| Arc::clone(&chunks.key));
        let holders = cluster.holders(context.member, &op.db, &op.coll);
        let on_holders = |op: Op| holders.into_iter().map(|shard| (shard, op.clone())).collect();
        Ok(match &op.change {
            Change::Noop => Vec::new(),
            Change::Insert { document } => vec![(cluster.owner(&op.db, &op.coll, document), op)],
            Change::Delete { before } => vec![(cluster.owner(&op.db, &op.coll, before), op)],
            Change::Update { before, after, .. } | Change::Replace { before, after } => {
                let (before, after) = (Arc::clone(before), Arc::clone(after));
                if !retryable && chunks.is_some_and(|c| !c.same_key(&before, &after)) {
                    return Err(CommandError::illegal_operation(
                        "Must run update to shard key field in a multi-statement transaction or with \
                         retryWrites: true.",
                    ));
                }
                let from = cluster.owner(&op.db, &op.coll, &before);
                let to = cluster.owner(&op.db, &op.coll, &after);
                if from == to {
                    return Ok(vec![(from, op)]);
                }
                let (mut gone, mut come) = (op.clone(), op);
                gone.change = Change::Delete { before };
                come.change = Change::Insert { document: after };
                vec![(from, gone), (to, come)]
            }
            Change::Create { .. } | Change::Shard { .. } => {
                vec![(cluster.database_mut(&op.db).primary, op)]
            }
            Change::DropDatabase => {
                let primary = cluster.primary_shard(&op.db);
                cluster.databases.remove(&op.db);
                cluster.sharded.retain(|(db, _), _| *db != op.db);
                vec![(primary, op)]
            }
            Change::Drop => {
                cluster.sharded.remove(&(op.db.clone(), op.coll.clone()));
                on_holders(op)
            }
            Change::Rename { to_db, to_coll, .. } => {
                if to_db != &op.db && cluster.primary_shard(to_db) != cluster.primary_shard(&op.db) {
                    return Err(CommandError::illegal_operation(
                        "Source and destination collections must be on same shard",
                    ));
                }
                let target = (to_db.clone(), to_coll.clone());
                cluster.database_mut(to_db);
                cluster.sharded.remove(&target);
                if let Some(chunks) = cluster.sharded.remove(&(op.db.clone(), op.coll.clone())) {
                    cluster.sharded.insert(target, chunks);
                }
                on_holders(op)
            }
            Change::CreateIndexes { .. } | Change::DropIndexes { .. } | Change::Modify { .. } => {
                on_holders(op)
            }
        })
    }

    /// Writes on a shard's primary.
    pub(super) fn write_on(
        &mut self,
        context: &Context<'_>,
        shard: usize,
        op: Op,
        statement: Option<Statement>,
    ) -> Result<OpTime, CommandError> {
        let unknown = || CommandError::new(70, "the shard does not exist");
        if self.write_in_transaction(context, shard, op.clone())? {
            let shard = self
                .cluster
                .as_ref()
                .and_then(|cluster| cluster.primary(context.member, shard));
            return shard.map(|m| m.last_applied()).ok_or_else(unknown);
        }
        let cluster = self.cluster.as_mut().ok_or_else(unknown)?;
        let Some((set, member)) = cluster.primary_mut(context.member, shard) else {
            return Err(cluster.shards.get(shard).map_or_else(unknown, no_primary));
        };
        let optime = set.append(context.now, member, vec![op], statement, false);
        cluster.written.push(Point {
            shard,
            member,
            optime,
        });
        // The next write of the command may go to another shard, and is later.
        self.gossip(context.member, None);
        Ok(optime)
    }
}

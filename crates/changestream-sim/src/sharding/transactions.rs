//! Transactions through a mongos. Each shard that a statement needs takes part with a transaction of its own; they are
//! committed together or not at all.

use std::collections::BTreeSet;

use bson::{Document, doc};

use super::{Point, no_primary, targets};
use crate::catalog::session_key;
use crate::commands::Context;
use crate::deployment::Deployment;
use crate::error::CommandError;
use crate::oplog::{Op, OpTime, Statement};
use crate::transactions::{self, Transaction, none_such};

/// A transaction as its mongos knows it.
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    pub(crate) number: i64,
    participants: BTreeSet<usize>,
    /// The first shard that was written on: it knows whether the transaction was committed.
    recovery: Option<usize>,
    committed: bool,
}

impl Deployment {
    /// Notes which transaction the command under way belongs to.
    pub(crate) fn enter_transaction(&mut self, context: &Context<'_>) {
        if let Some(cluster) = &mut self.cluster {
            let session = context.body().get_document("lsid").ok();
            let member = session.filter(|_| transactions::is_member(context));
            cluster.in_transaction = member.map(session_key);
        }
    }

    /// A mongos starts the command's transaction, or finds it. All shards that it reaches have the snapshot from now.
    pub(crate) fn begin_routed(&mut self, context: &Context<'_>, number: i64) -> Result<(), CommandError> {
        let Some(key) = self.session_under_way() else {
            return Ok(());
        };
        let Some(m) = self.members.get_mut(context.member) else {
            return Ok(());
        };
        let active = m.routed.get(&key).map(|routed| (routed.number, routed.committed));
        if !context.body().get_bool("startTransaction").unwrap_or(false) {
            return match active {
                Some((active, false)) if active == number => Ok(()),
                _ => Err(none_such(number, active.map(|(active, _)| active))),
            };
        }
        transactions::refuse_old(number, active.map(|(active, _)| active))?;
        let routed = Routed {
            number,
            participants: BTreeSet::new(),
            recovery: None,
            committed: false,
        };
        m.routed.insert(key.clone(), routed);
        let shards = self.cluster.as_ref().map_or(0, |cluster| cluster.shards.len());
        for shard in 0..shards {
            self.start_on(context, shard, &key, number);
        }
        Ok(())
    }

    /// The shards that the command needs take part from now on.
    pub(crate) fn take_part(&mut self, context: &Context<'_>) -> Result<(), CommandError> {
        let (Some(key), Some(cluster)) = (self.session_under_way(), &self.cluster) else {
            return Ok(());
        };
        if transactions::ends(context) {
            return Ok(());
        }
        let needed = targets(cluster, context);
        let routed = self.members.get(context.member).and_then(|m| m.routed.get(&key));
        let Some(routed) = routed.cloned() else {
            return Ok(());
        };
        for shard in needed {
            if !routed.participants.contains(&shard) && !self.has_started(context, shard, &key, routed.number)
            {
                self.start_on(context, shard, &key, routed.number);
            }
            if !self.has_started(context, shard, &key, routed.number) {
                return Err(none_such(routed.number, None));
            }
            if let Some(routed) = self.routed_mut(context, &key) {
                routed.participants.insert(shard);
            }
        }
        Ok(())
    }

    /// Does something on a shard in the transaction under way; false if the command belongs to none.
    pub(super) fn write_in_transaction(
        &mut self,
        context: &Context<'_>,
        shard: usize,
        op: Op,
    ) -> Result<bool, CommandError> {
        let Some(key) = self.session_under_way() else {
            return Ok(false);
        };
        let routed = self.routed_mut(context, &key);
        let number = routed.map_or(0, |routed| {
            routed.participants.insert(shard);
            routed.recovery.get_or_insert(shard);
            routed.number
        });
        let primary = self.cluster.as_mut().and_then(|cluster| {
            let (set, member) = cluster.primary_mut(context.member, shard)?;
            set.members.get_mut(member)
        });
        let Some(primary) = primary else {
            return Err(none_such(number, None));
        };
        transactions::change(primary, &key, vec![op]).map(|()| true)
    }

    /// Executes `commitTransaction`: on all participants, or on none.
    pub(crate) fn commit_routed(
        &mut self,
        context: &Context<'_>,
        lsid: &Document,
        statement: &Statement,
    ) -> Result<OpTime, CommandError> {
        let key = session_key(lsid);
        let number = statement.txn_number;
        let nothing = OpTime {
            term: -1,
            ts: bson::Timestamp {
                time: 0,
                increment: 0,
            },
        };
        let routed = self.routed_mut(context, &key).cloned();
        let routed = match routed {
            Some(routed) if routed.number == number && routed.committed => return Ok(nothing),
            Some(routed) if routed.number == number => routed,
            other if self.recovered(context, lsid, number) => {
                drop(other);
                return Ok(nothing);
            }
            other => return Err(none_such(number, other.map(|routed| routed.number))),
        };
        let mut written = Vec::new();
        for shard in &routed.participants {
            let cluster = self.cluster.as_mut().ok_or_else(|| none_such(number, None))?;
            let Some((set, member)) = cluster.primary_mut(context.member, *shard) else {
                return Err(cluster
                    .shards
                    .get(*shard)
                    .map_or_else(|| none_such(number, None), no_primary));
            };
            let primary = set.members.get_mut(member);
            let ops = primary.and_then(|m| transactions::ready(m, &key, number).transpose());
            match ops {
                Some(Ok(ops)) => written.push((*shard, member, ops)),
                Some(Err(error)) => return self.refuse_commit(context, &key, error),
                None => return self.refuse_commit(context, &key, none_such(number, None)),
            }
        }
        let mut last = nothing;
        for (shard, member, ops) in written.into_iter().filter(|(_, _, ops)| !ops.is_empty()) {
            let Some(cluster) = &mut self.cluster else {
                continue;
            };
            let Some(set) = cluster.shards.get_mut(shard) else {
                continue;
            };
            let optime = set.append(context.now, member, ops, Some(statement.clone()), true);
            cluster.written.push(Point {
                shard,
                member,
                optime,
            });
            last = optime;
            // What the next shard writes is later.
            self.gossip(context.member, None);
        }
        self.forget_on_shards(&key);
        if let Some(routed) = self.routed_mut(context, &key) {
            routed.committed = true;
        }
        Ok(last)
    }

    fn refuse_commit(
        &mut self,
        context: &Context<'_>,
        key: &[u8],
        error: CommandError,
    ) -> Result<OpTime, CommandError> {
        self.forget_routed(context, key);
        Err(error)
    }

    /// Executes `abortTransaction`.
    pub(crate) fn abort_routed(
        &mut self,
        context: &Context<'_>,
        lsid: &Document,
        number: i64,
    ) -> Result<(), CommandError> {
        let key = session_key(lsid);
        let routed = self
            .routed_mut(context, &key)
            .map(|routed| (routed.number, routed.committed));
        match routed {
            Some((active, true)) if active == number => Err(transactions::is_committed(number)),
            Some((active, false)) if active == number => {
                self.forget_routed(context, &key);
                Ok(())
            }
            other => Err(none_such(number, other.map(|(active, _)| active))),
        }
    }

    /// The transaction of a session ends without a trace.
    pub(crate) fn forget_routed(&mut self, context: &Context<'_>, key: &[u8]) {
        if let Some(m) = self.members.get_mut(context.member) {
            m.routed.remove(key);
        }
        self.forget_on_shards(key);
    }

    /// What a client needs to ask another mongos for the outcome; none outside of transactions.
    pub(crate) fn recovery_token(&self, context: &Context<'_>) -> Option<Document> {
        let key = self.session_under_way()?;
        let routed = self.members.get(context.member)?.routed.get(&key)?;
        let shards = self.cluster.as_ref().map_or(&[][..], |cluster| &cluster.shards);
        let name = routed
            .recovery
            .and_then(|shard| shards.get(shard)?.set_name.clone());
        Some(name.map_or_else(Document::new, |name| doc! { "recoveryShardId": name }))
    }

    fn session_under_way(&self) -> Option<Vec<u8>> {
        self.cluster.as_ref()?.in_transaction.clone()
    }

    fn routed_mut(&mut self, context: &Context<'_>, key: &[u8]) -> Option<&mut Routed> {
        self.members.get_mut(context.member)?.routed.get_mut(key)
    }

    fn start_on(&mut self, context: &Context<'_>, shard: usize, key: &[u8], number: i64) {
        let primary = self.cluster.as_mut().and_then(|cluster| {
            let (set, member) = cluster.primary_mut(context.member, shard)?;
            set.members.get_mut(member)
        });
        if let Some(m) = primary {
            let transaction = Transaction::new(number, &m.catalog);
            m.transactions.insert(key.to_vec(), transaction);
        }
    }

    fn has_started(&self, context: &Context<'_>, shard: usize, key: &[u8], number: i64) -> bool {
        let cluster = self.cluster.as_ref();
        let primary = cluster.and_then(|cluster| cluster.primary(context.member, shard));
        primary.is_some_and(|m| m.transactions.get(key).is_some_and(|t| t.number == number))
    }

    fn forget_on_shards(&mut self, key: &[u8]) {
        let shards = self.cluster.iter_mut().flat_map(|cluster| &mut cluster.shards);
        for m in shards.flat_map(|set| &mut set.members) {
            m.transactions.remove(key);
        }
    }

    /// Whether the shard that the client names knows that the transaction was committed, through another mongos.
    fn recovered(&self, context: &Context<'_>, lsid: &Document, number: i64) -> bool {
        let token = context.body().get_document("recoveryToken").ok();
        let Some(name) = token.and_then(|token| token.get_str("recoveryShardId").ok()) else {
            return false;
        };
        let Some(cluster) = &self.cluster else {
            return false;
        };
        let shard = cluster
            .shards
            .iter()
            .position(|set| set.set_name.as_deref() == Some(name));
        let primary = shard.and_then(|shard| cluster.primary(context.member, shard));
        primary.is_some_and(|m| m.catalog.committed_transaction(lsid, number))
    }
}

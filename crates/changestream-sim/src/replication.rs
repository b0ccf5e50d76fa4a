//! Replication and elections: who is primary, who has which entries, and what is committed.

use std::sync::Arc;
use std::time::Instant;

use bson::Timestamp;

use crate::catalog::{Catalog, Collection};
use crate::deployment::Deployment;
use crate::member::{Member, Role};
use crate::oplog::{Change, Entry, Op, OpTime, Statement};
use crate::plain_event::{self, Telling, Told};
use crate::profile::Profile;

impl Deployment {
    /// The set is initiated, its first member elected.
    pub(crate) fn initiate(&mut self, now: Instant) {
        if self.cluster.is_some() {
            for m in &mut self.members {
                m.role = Role::Mongos;
            }
            return;
        }
        if self.set_name.is_none() {
            if let Some(m) = self.members.first_mut() {
                m.role = Role::Standalone;
            }
            return;
        }
        for m in &mut self.members {
            m.topology_counter = 4;
        }
        if let Some(first) = self.members.first_mut() {
            first.topology_counter = 3;
        }
        self.append(now, 0, vec![noop()], None, false);
        self.become_primary(now, 0);
        self.replicate(now);
    }

    /// Writes an entry on a member that accepts writes.
    pub(crate) fn append(
        &mut self,
        now: Instant,
        member: usize,
        mut ops: Vec<Op>,
        statement: Option<Statement>,
        transaction: bool,
    ) -> OpTime {
        let wall = self.wall(now);
        let Some(m) = self.members.get_mut(member) else {
            return OpTime {
                term: -1,
                ts: Timestamp {
                    time: 0,
                    increment: 0,
                },
            };
        };
        let seconds = u32::try_from(wall / 1000).unwrap_or(u32::MAX);
        let last = m.cluster_time;
        let ts = if seconds > last.time {
            Timestamp {
                time: seconds,
                increment: 1,
            }
        } else {
            Timestamp {
                time: last.time,
                increment: last.increment + 1,
            }
        };
        m.cluster_time = ts;
        for op in &mut ops {
            let collection = m.catalog.collection(&op.db, &op.coll);
            op.images = collection.is_some_and(Collection::keeps_images);
        }
        let optime = OpTime { term: m.term, ts };
        let entry = Arc::new(Entry {
            optime,
            wall,
            ops,
            statement,
            transaction,
            told: Told::default(),
        });
        m.catalog.apply(&entry);
        if m.role != Role::Standalone {
            m.log.push(entry, self.config.oplog_entries);
        }
        optime
    }

    /// Whether two members exchange heartbeats and entries.
    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        let up = |i: usize| self.members.get(i).is_some_and(Member::is_up);
        up(a) && up(b) && (a == b || !self.cut.contains(&(a.min(b), a.max(b))))
    }

    pub(crate) fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member that takes writes in the latest term.
    pub(crate) fn primary_index(&self) -> Option<usize> {
        if self.cluster.is_some() {
            return self.members.iter().position(Member::is_up);
        }
        let primaries = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, m)| m.accepts_writes());
        primaries.max_by_key(|(_, m)| m.term).map(|(i, _)| i)
    }

    /// Moves entries, commits, and elects, until nothing of that is due.
    pub(crate) fn replicate(&mut self, now: Instant) {
        if let Some(cluster) = &mut self.cluster {
            cluster.step(now, &self.members);
            return;
        }
        if self.set_name.is_none() {
            return;
        }
        let standing = |d: &Self| -> Vec<_> {
            let of = |m: &Member| {
                (
                    m.role,
                    m.term,
                    m.known_primary,
                    m.log.last(),
                    m.commit_point,
                    m.cluster_time,
                )
            };
            d.members.iter().map(of).collect()
        };
        let mut before = standing(self);
        loop {
            self.replication_step(now);
            let after = standing(self);
            if after == before {
                return;
            }
            before = after;
        }
    }

    fn replication_step(&mut self, now: Instant) {
        self.write_noops(now);
        self.learn_terms(now);
        self.hold_elections(now);
        for member in 0..self.members.len() {
            self.pull(now, member);
        }
        self.commit(now);
    }

    /// When something of this is due.
    pub(crate) fn replication_deadlines(&self, now: Instant) -> Vec<Instant> {
        let mut due = Vec::new();
        for shard in self.cluster.iter().flat_map(|cluster| &cluster.shards) {
            due.extend(shard.replication_deadlines(now));
        }
        if self.set_name.is_some() {
            for (i, m) in self.members.iter().enumerate() {
                match m.role {
                    Role::Primary => {
                        due.extend(m.election_due);
                        due.extend(self.noop_due(i));
                        due.extend(self.journal_due(now, m));
                    }
                    Role::Secondary => {
                        due.extend(
                            m.election_due
                                .map(|at| at.max(m.frozen_until.unwrap_or(at)))
                                .filter(|at| *at > now || self.can_stand(now, i)),
                        );
                        due.extend(self.next_entry_due(i));
                    }
                    Role::Standalone | Role::Mongos | Role::Down => {}
                }
            }
        }
        due
    }

    /// The primary that a member follows: the latest among those that it reaches, and none of a term that it knows to be
    /// over.
    fn primary_for(&self, member: usize) -> Option<usize> {
        let term = self.members.get(member)?.term;
        let leads = |m: &Member| m.role == Role::Primary && m.term >= term;
        (0..self.members.len())
            .filter(|p| self.members.get(*p).is_some_and(leads))
            .filter(|p| self.connected(*p, member))
            .max_by_key(|p| self.members.get(*p).map(|m| m.term))
    }

    fn reached(&self, member: usize) -> usize {
        (0..self.members.len())
            .filter(|other| self.connected(member, *other))
            .count()
    }

    fn noop_due(&self, primary: usize) -> Option<Instant> {
        let last = self.members.get(primary)?.log.last_entry()?.wall;
        Some(self.instant_of(last) + self.config.noop_interval)
    }

    fn write_noops(&mut self, now: Instant) {
        for i in 0..self.members.len() {
            let primary = self.members.get(i).is_some_and(|m| m.role == Role::Primary);
            if primary && self.noop_due(i).is_some_and(|due| due <= now) {
                self.append(now, i, vec![noop()], None, false);
            }
        }
    }

    /// Members tell each other of terms: who leads in one that is over stands back, and the others follow who leads in the
    /// latest.
    fn learn_terms(&mut self, now: Instant) {
        for i in 0..self.members.len() {
            self.hear_of_terms(i);
            let known = self.primary_for(i);
            if known.is_none() {
                self.lose_primary(now, i);
                continue;
            }
            let majority_lost = known == Some(i) && self.reached(i) < self.majority();
            let timeout = self.config.election_timeout;
            let Some(m) = self.members.get_mut(i) else {
                continue;
            };
            if m.known_primary != known {
                m.known_primary = known;
                if known != Some(i) {
                    m.topology_changed();
                }
            }
            if majority_lost {
                m.election_due.get_or_insert(now + timeout);
            } else {
                m.election_due = None;
            }
        }
    }

    fn hear_of_terms(&mut self, member: usize) {
        let heard = (0..self.members.len())
            .filter(|other| self.connected(member, *other))
            .filter_map(|other| self.members.get(other))
            .map(|m| m.term)
            .max();
        let Some((m, heard)) = self.members.get_mut(member).zip(heard) else {
            return;
        };
        if m.role == Role::Primary && m.term < heard {
            m.role = Role::Secondary;
            m.known_primary = None;
            m.transactions.clear();
            m.topology_changed();
        }
        m.term = m.term.max(heard);
    }

    fn lose_primary(&mut self, now: Instant, member: usize) {
        // A set of one has nobody to wait for.
        let alone = self.members.len() == 1;
        let timeout = if alone {
            self.config.handoff
        } else {
            self.config.election_timeout
        };
        let Some(m) = self.members.get_mut(member).filter(|m| m.role == Role::Secondary) else {
            return;
        };
        m.election_due.get_or_insert(now + timeout);
    }

    fn hold_elections(&mut self, now: Instant) {
        for i in 0..self.members.len() {
            let Some(m) = self.members.get(i) else {
                continue;
            };
            if m.role == Role::Primary && m.election_due.is_some_and(|due| due <= now) {
                self.stand_back(i);
            }
        }
        let due = (0..self.members.len()).any(|i| {
            let m = self.members.get(i);
            m.is_some_and(|m| m.role == Role::Secondary && m.election_due.is_some_and(|d| d <= now))
                && self.can_stand(now, i)
        });
        if !due {
            return;
        }
        let candidates = (0..self.members.len()).filter(|i| self.can_stand(now, *i));
        // The most advanced wins, among equals the first.
        let best = candidates
            .rev()
            .max_by_key(|i| self.members.get(*i).map(|m| m.last_applied()));
        if let Some(winner) = best {
            self.become_primary(now, winner);
        }
    }

    /// Whether a member may stand for election: alive, not frozen, without a primary, and with a majority that it
    /// reaches and that has nothing newer.
    pub(crate) fn can_stand(&self, now: Instant, member: usize) -> bool {
        let Some(m) = self.members.get(member) else {
            return false;
        };
        let voters = (0..self.members.len()).filter(|v| {
            self.connected(member, *v)
                && self
                    .members
                    .get(*v)
                    .is_some_and(|v| v.last_applied() <= m.last_applied())
        });
        m.role == Role::Secondary
            && m.frozen_until.is_none_or(|until| until <= now)
            && self.primary_for(member).is_none()
            && voters.count() >= self.majority()
    }

    pub(crate) fn become_primary(&mut self, now: Instant, member: usize) {
        let term = (0..self.members.len())
            .filter(|other| self.connected(member, *other))
            .filter_map(|other| self.members.get(other))
            .map(|m| m.term)
            .max()
            .unwrap_or(0)
            + 1;
        let Some(m) = self.members.get_mut(member) else {
            return;
        };
        m.term = term;
        m.role = Role::Primary;
        m.known_primary = Some(member);
        m.election_due = None;
        m.role_changed(&[true, true]);
        self.append(now, member, vec![noop()], None, false);
        self.learn_terms(now);
    }

    /// A primary becomes a secondary; its connections live on, its transactions do not.
    pub(crate) fn stand_back(&mut self, member: usize) {
        let Some(m) = self.members.get_mut(member) else {
            return;
        };
        m.role = Role::Secondary;
        m.known_primary = None;
        m.election_due = None;
        m.transactions.clear();
        m.role_changed(&[false]);
        for (i, other) in self.members.iter_mut().enumerate() {
            if i != member && other.known_primary == Some(member) {
                other.known_primary = None;
            }
        }
    }

    fn next_entry_due(&self, member: usize) -> Option<Instant> {
        let m = self.members.get(member)?;
        let source = self.members.get(self.primary_for(member)?)?;
        let next = source.log.after(m.log.last()).next()?;
        self.instant_of(next.wall).checked_add(m.lag)
    }

    /// A secondary fetches and applies what its primary has.
    fn pull(&mut self, now: Instant, member: usize) {
        let Some(primary) = self.primary_for(member).filter(|p| *p != member) else {
            return;
        };
        let wall = self.wall(now);
        let Some((source, m)) = two(&mut self.members, primary, member) else {
            return;
        };
        if is_apart(m, source) {
            roll_back(m, source);
        }
        if is_apart(m, source) {
            sync_anew(m, source);
        }
        let lag = i64::try_from(m.lag.as_millis()).unwrap_or(i64::MAX);
        let due: Vec<Arc<Entry>> = source
            .log
            .after(m.log.last())
            .take_while(|e| e.wall.saturating_add(lag) <= wall)
            .cloned()
            .collect();
        for entry in due {
            m.catalog.apply(&entry);
            m.log.push(entry, self.config.oplog_entries);
        }
        m.cluster_time = m.cluster_time.max(source.cluster_time);
        source.cluster_time = m.cluster_time;
    }

    /// What a member has, and would still have after a crash. A secondary lags as a whole, a primary's journal behind
    /// its writes.
    fn durable(&self, now: Instant, m: &Member) -> OpTime {
        let last = m.last_applied();
        if m.role != Role::Primary || m.lag.is_zero() {
            return last;
        }
        let wall = self.wall(now);
        let lag = i64::try_from(m.lag.as_millis()).unwrap_or(i64::MAX);
        let journaled = m.log.after(m.commit_point);
        journaled
            .take_while(|e| e.wall.saturating_add(lag) <= wall)
            .last()
            .map_or_else(|| m.commit_point.unwrap_or(last), |e| e.optime)
    }

    /// When a primary's journal has its next entry.
    fn journal_due(&self, now: Instant, m: &Member) -> Option<Instant> {
        if m.lag.is_zero() {
            return None;
        }
        let next = m.log.after(m.commit_point).next()?;
        self.instant_of(next.wall)
            .checked_add(m.lag)
            .filter(|due| *due > now)
    }

    /// The commit point is what a majority has, once that is of the primary's own term.
    fn commit(&mut self, now: Instant) {
        for primary in 0..self.members.len() {
            let Some(p) = self.members.get(primary).filter(|m| m.role == Role::Primary) else {
                continue;
            };
            let mut applied: Vec<OpTime> = (0..self.members.len())
                .filter(|i| self.connected(primary, *i))
                .filter_map(|i| self.members.get(i))
                .map(|m| self.durable(now, m))
                .collect();
            applied.sort_unstable_by(|a, b| b.cmp(a));
            let reached = applied.get(self.majority() - 1).copied();
            let term = p.term;
            let point = reached.filter(|point| point.term == term).max(p.commit_point);
            for i in 0..self.members.len() {
                if self.connected(primary, i) {
                    advance_commit(&mut self.members, i, point, &self.profile);
                }
            }
        }
    }
}

fn advance_commit(members: &mut [Member], member: usize, point: Option<OpTime>, profile: &Profile) {
    let Some(m) = members.get_mut(member) else {
        return;
    };
    let point = point.min(m.log.last());
    if point <= m.commit_point {
        return;
    }
    let newly: Vec<Arc<Entry>> = m
        .log
        .after(m.commit_point)
        .take_while(|e| Some(e.optime) <= point)
        .cloned()
        .collect();
    for entry in newly {
        m.committed.apply(&entry);
        // Now rather than when a reader waits for it.
        plain_event::of(&entry, Telling::default(), profile);
    }
    m.commit_point = point;
}

/// Whether a log does not go on where the source's can be read from.
fn is_apart(m: &Member, source: &Member) -> bool {
    match m.log.last() {
        Some(last) => !source.log.contains(last),
        None => !source.log.is_whole(),
    }
}

/// What comes next is gone from the source's log: a member that was away for too long takes all over, and has no more of the
/// past than the source.
fn sync_anew(m: &mut Member, source: &Member) {
    m.log = source.log.clone();
    m.catalog = source.catalog.clone();
    m.committed = source.committed.clone();
    m.commit_point = source.commit_point;
    m.images_from = source.images_from;
    m.forget_volatile();
}

/// Back to what both have: the committed state, and what follows it in the common part of the logs.
fn roll_back(m: &mut Member, source: &Member) {
    let common = m
        .log
        .after(m.commit_point)
        .take_while(|e| source.log.contains(e.optime))
        .last()
        .map_or(m.commit_point, |e| Some(e.optime));
    m.log.roll_back_to(common);
    let mut catalog: Catalog = m.committed.clone();
    for entry in m.log.after(m.commit_point) {
        catalog.apply(entry);
    }
    m.catalog = catalog;
    m.forget_volatile();
}

fn two<T>(items: &mut [T], a: usize, b: usize) -> Option<(&mut T, &mut T)> {
    items.get_disjoint_mut([a, b]).ok().map(|[a, b]| (a, b))
}

fn noop() -> Op {
    Op::new("", "", None, Change::Noop)
}

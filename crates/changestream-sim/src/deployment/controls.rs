//! What tests do to a deployment: elections, crashes, partitions, lag.

use std::time::{Duration, Instant};

use bson::{Document, Timestamp};

use super::{Deployment, Output};
use crate::member::Role;

impl Deployment {
    /// How many members there are.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// A member's address as clients see it.
    pub fn address(&self, member: usize) -> Option<&str> {
        self.members.get(member).map(|m| m.address.as_str())
    }

    /// The primary's index; of several, that of the latest term.
    pub fn primary(&self) -> Option<usize> {
        self.primary_index()
    }

    /// The connection string, with the replica set's name.
    pub fn uri(&self) -> String {
        if let (true, Some(balancer)) = (self.is_load_balanced(), self.members.first()) {
            return format!("mongodb://{}/?loadBalanced=true", balancer.address);
        }
        let hosts: Vec<&str> = self.members.iter().map(|m| m.address.as_str()).collect();
        let hosts = hosts.join(",");
        match &self.set_name {
            Some(name) => format!("mongodb://{hosts}/?replicaSet={name}"),
            None => format!("mongodb://{hosts}/"),
        }
    }

    /// Whether the mongos are behind a load balancer.
    pub fn is_load_balanced(&self) -> bool {
        self.config.load_balanced && self.cluster.is_some()
    }

    /// The primary steps down and does not stand again for a minute; the others elect after the handoff time. Its
    /// connections and cursors live on, as in every server since 4.2. In a sharded cluster all shards' primaries do.
    pub fn step_down(&mut self, now: Instant) {
        for shard in self.cluster.iter_mut().flat_map(|cluster| &mut cluster.shards) {
            shard.step_down(now);
        }
        if let (Some(primary), None) = (self.primary_index(), &self.cluster) {
            self.step_down_member(now, primary, Duration::from_secs(60));
        }
        self.settle(now);
    }

    /// This member becomes primary now, if it reaches a majority; what it lacks of the old primary's uncommitted
    /// writes is rolled back there. False if it cannot.
    pub fn elect(&mut self, now: Instant, member: usize) -> bool {
        if self.cluster.is_some() {
            return false;
        }
        if self.primary_index() == Some(member) {
            return true;
        }
        let reached = (0..self.members.len())
            .filter(|other| self.connected(member, *other))
            .count();
        let secondary = self
            .members
            .get(member)
            .is_some_and(|m| m.role == Role::Secondary);
        let behind = self.members.get(member).is_some_and(|m| {
            self.members
                .iter()
                .any(|other| m.last_applied() < other.commit_point.unwrap_or_else(|| m.last_applied()))
        });
        if !secondary || reached < self.majority() || behind {
            return false;
        }
        for primary in 0..self.members.len() {
            let is_primary = self.members.get(primary).is_some_and(|m| m.role == Role::Primary);
            if is_primary && self.connected(primary, member) {
                self.stand_back(primary);
            }
        }
        if let Some(m) = self.members.get_mut(member) {
            m.frozen_until = None;
        }
        self.become_primary(now, member);
        self.settle(now);
        true
    }

    /// The member stops at once: its connections end, its cursors and open transactions are lost, its data stays.
    pub fn crash(&mut self, now: Instant, member: usize) {
        let Some(m) = self.members.get_mut(member).filter(|m| m.is_up()) else {
            return;
        };
        m.role = Role::Down;
        m.known_primary = None;
        m.forget_volatile();
        self.output(Output::Close { member });
        self.disconnect_all(member);
        self.settle(now);
    }

    /// A crashed member runs again, as a secondary (a standalone or a mongos as what it was).
    pub fn restart(&mut self, now: Instant, member: usize) {
        let seconds = self.wall(now) / 1000;
        let alone = self.set_name.is_none();
        let mongos = self.cluster.is_some();
        let Some(m) = self.members.get_mut(member).filter(|m| !m.is_up()) else {
            return;
        };
        m.start_again(seconds, &mut self.random);
        if alone {
            m.role = if mongos { Role::Mongos } else { Role::Standalone };
        }
        self.output(Output::Listen { member });
        self.settle(now);
    }

    /// Cuts these members off from the others. Clients still reach every member.
    pub fn partition(&mut self, now: Instant, members: &[usize]) {
        for a in 0..self.members.len() {
            for b in a + 1..self.members.len() {
                if members.contains(&a) != members.contains(&b) {
                    self.cut.insert((a, b));
                }
            }
        }
        self.settle(now);
    }

    /// All members reach each other again, and all mongos all shards.
    pub fn heal(&mut self, now: Instant) {
        self.cut.clear();
        if let Some(cluster) = &mut self.cluster {
            cluster.cut.clear();
        }
        self.settle(now);
    }

    /// From now on the member applies what others wrote this much later, and journals what it writes itself as primary
    /// this much later: a write is committed when a majority has it in its journal.
    pub fn lag(&mut self, now: Instant, member: usize, lag: Duration) {
        if let Some(m) = self.members.get_mut(member) {
            m.lag = lag;
        }
        self.settle(now);
    }

    /// The member does not stand for election for this long.
    pub fn freeze(&mut self, now: Instant, member: usize, duration: Duration) {
        if let Some(m) = self.members.get_mut(member) {
            m.frozen_until = Some(now + duration);
        }
        self.settle(now);
    }

    /// All members forget the oplog before this moment; the last entry always stays. Streams that stand before it
    /// cannot go on, nor be resumed.
    pub fn lose_history(&mut self, now: Instant, before: Timestamp) {
        for shard in self.cluster.iter_mut().flat_map(|cluster| &mut cluster.shards) {
            shard.lose_history(now, before);
        }
        for m in &mut self.members {
            m.log.forget_before(before);
        }
        self.settle(now);
    }

    /// All members remove the stored images of changes before this moment, as `expireAfterSeconds` has them do: streams
    /// that require one of them cannot get past its event. The log stays as it is.
    pub fn lose_images(&mut self, before: Timestamp) {
        for shard in self.cluster.iter_mut().flat_map(|cluster| &mut cluster.shards) {
            shard.lose_images(before);
        }
        for m in &mut self.members {
            m.images_from = m.images_from.max(before);
        }
    }

    /// The wall clock jumps by this many milliseconds, forward or back, everywhere at once. Cluster time never goes back.
    pub fn jump_clock(&mut self, now: Instant, millis: i64) {
        for shard in self.cluster.iter_mut().flat_map(|cluster| &mut cluster.shards) {
            shard.jump_clock(now, millis);
        }
        self.config.epoch_millis = self.config.epoch_millis.saturating_add(millis);
        self.settle(now);
    }

    /// When the primary last wrote.
    pub fn last_write(&self) -> Option<Timestamp> {
        if let Some(cluster) = &self.cluster {
            return cluster.shards.iter().filter_map(Self::last_write).max();
        }
        Some(self.members.get(self.primary_index()?)?.last_applied().ts)
    }

    /// When the majority last wrote: what change streams are delivered up to.
    pub fn committed(&self) -> Option<Timestamp> {
        if let Some(cluster) = &self.cluster {
            return cluster.shards.iter().filter_map(Self::committed).min();
        }
        Some(self.members.get(self.primary_index()?)?.commit_ts())
    }

    /// How many shards there are; none unless the deployment is a sharded cluster.
    pub fn shard_count(&self) -> usize {
        self.cluster.as_ref().map_or(0, |cluster| cluster.shards.len())
    }

    /// Does something to a shard, which is a replica set with all its own controls; nothing if there is none such.
    ///
    /// ```
    /// # use changestream_sim::Deployment;
    /// # let now = std::time::Instant::now();
    /// let mut cluster = Deployment::sharded(2, 1).shard_members(3).build(now)?;
    /// let primary = cluster.on_shard(now, 1, |shard| shard.primary()).flatten();
    /// assert_eq!(primary, Some(0));
    /// # Ok::<(), changestream_sim::BuildError>(())
    /// ```
    pub fn on_shard<T>(&mut self, now: Instant, shard: usize, act: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let set = self.cluster.as_mut()?.shards.get_mut(shard)?;
        let result = act(set);
        self.settle(now);
        Some(result)
    }

    /// Cuts a mongos off from a shard, until [`heal`](Self::heal).
    pub fn cut_off(&mut self, now: Instant, mongos: usize, shard: usize) {
        if let Some(cluster) = &mut self.cluster {
            cluster.cut.insert((mongos, shard));
        }
        self.settle(now);
    }

    /// The ids of a member's open cursors.
    pub fn cursors(&self, member: usize) -> Vec<i64> {
        self.members
            .get(member)
            .map(|m| m.cursors.iter().map(|cursor| cursor.id).collect())
            .unwrap_or_default()
    }

    /// Kills a cursor behind its client's back; false if there is none.
    pub fn kill_cursor(&mut self, now: Instant, member: usize, cursor: i64) -> bool {
        let found = self
            .members
            .get_mut(member)
            .is_some_and(|m| m.cursors.kill(cursor));
        self.settle(now);
        found
    }

    /// Sets a fail point on a member: a `configureFailPoint` command, such as
    /// `{configureFailPoint: "failCommand", mode: {times: 1}, data: {failCommands: ["getMore"], errorCode: 43}}`.
    ///
    /// # Errors
    /// The command is malformed; the text says how.
    pub fn fail_command(
        &mut self,
        member: usize,
        command: &Document,
    ) -> Result<(), crate::error::CommandError> {
        match self.members.get_mut(member) {
            Some(m) => m.fail_points.configure(command).map(drop),
            None => Ok(()),
        }
    }

    /// Ends all connections of a member, as a network failure would.
    pub fn drop_connections(&mut self, now: Instant, member: usize) {
        self.disconnect_all(member);
        self.settle(now);
    }

    /// Whether another member could take over without losing what this one wrote.
    pub(crate) fn has_successor(&self, member: usize) -> bool {
        let Some(m) = self.members.get(member) else {
            return false;
        };
        self.members.iter().enumerate().any(|(i, other)| {
            i != member
                && other.role == Role::Secondary
                && self.connected(member, i)
                && other.last_applied() >= m.last_applied()
        })
    }

    /// A secondary that follows the set's primary.
    pub(crate) fn secondary(&self) -> Option<usize> {
        let primary = self.primary_index()?;
        (0..self.members.len()).find(|member| *member != primary && self.connected(*member, primary))
    }

    pub(crate) fn step_down_member(&mut self, now: Instant, member: usize, frozen: Duration) {
        self.stand_back(member);
        if let Some(m) = self.members.get_mut(member) {
            m.frozen_until = Some(now + frozen);
        }
        let handoff = now + self.config.handoff;
        for i in 0..self.members.len() {
            if i != member
                && self.connected(i, member)
                && let Some(m) = self.members.get_mut(i).filter(|m| m.role == Role::Secondary)
            {
                m.election_due = Some(handoff);
            }
        }
    }
}

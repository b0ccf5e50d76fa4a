//! What goes wrong.

use std::time::Duration;

use bson::{Document, doc};

use super::Simulation;
use super::consumer::State;
use crate::world::Way;

/// Errors that streams resume from (a label says so from server 4.4 on, the list of the specification before).
const RESUMABLE: [i32; 18] = [
    6, 7, 43, 63, 89, 91, 133, 150, 189, 234, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436,
];
/// Errors that end a stream.
const FATAL: [i32; 9] = [2, 13, 50, 136, 237, 260, 280, 286, 11601];

/// What is wrong at the moment, and can be put right.
#[derive(Default)]
pub(super) struct Wrongs {
    crashed: Vec<usize>,
    /// Pairs of a shard and a member of it.
    crashed_in_shards: Vec<(usize, usize)>,
    cut_off: bool,
    partitioned: bool,
    lagging: bool,
    /// History was lost: a stream may end because of it.
    pub(super) lost_history: bool,
}

impl Simulation {
    /// Breaks something. Which kind; none if that cannot be broken now.
    pub(super) fn break_something(&mut self) -> Option<&'static str> {
        match self.chance.below(5) {
            0 | 1 => self.break_network(),
            2 => self.break_member(),
            3 => self.break_command(),
            _ => self.break_time_or_set(),
        }
    }

    fn break_network(&mut self) -> Option<&'static str> {
        let now = self.world.now;
        let member = self.chance.below(self.world.deployment.member_count());
        let network = &mut self.world.network;
        Some(match self.chance.below(10) {
            0 => {
                network.reset(now, member);
                "connections-reset"
            }
            1 | 2 => {
                let way = self.chance.one_of(&[Way::ToClient, Way::ToServer, Way::ToClient]);
                network.break_after(member, way, 1 + self.chance.below(1_000));
                "broken-mid-message"
            }
            3 => {
                network.stall(member, now + self.chance.millis(15_000));
                "stalled"
            }
            4 => {
                network.half_close(now, member);
                "half-closed"
            }
            5 if !self.wrongs.cut_off => {
                self.wrongs.cut_off = true;
                network.cut_off(member);
                "cut-off"
            }
            6 if !self.wrongs.cut_off => {
                self.wrongs.cut_off = true;
                network.cut_off_one_way(member, self.chance.one_of(&[Way::ToClient, Way::ToServer]));
                "cut-off-one-way"
            }
            5..=7 if self.wrongs.cut_off => {
                self.reconnect();
                return None;
            }
            8 => {
                network.conditions.longest_piece = Some(1 + self.chance.below(40));
                "cut-in-pieces"
            }
            _ => {
                network.conditions.longest_piece = None;
                network.conditions.delay = self.chance.millis(30);
                network.conditions.jitter = self.chance.millis(50);
                "delayed"
            }
        })
    }

    fn break_member(&mut self) -> Option<&'static str> {
        let now = self.world.now;
        let deployment = &mut self.world.deployment;
        let members = deployment.member_count();
        let member = self.chance.below(members);
        let crashed = &mut self.wrongs.crashed;
        match self.chance.below(7) {
            0 | 1 if crashed.is_empty() && members > 1 => {
                deployment.crash(now, member);
                crashed.push(member);
                Some("crash")
            }
            0..=2 if !crashed.is_empty() => {
                for member in crashed.drain(..) {
                    deployment.restart(now, member);
                }
                Some("restart")
            }
            3 => {
                deployment.drop_connections(now, member);
                Some("connections-dropped-by-member")
            }
            4 | 5 => {
                let cursors = deployment.cursors(member);
                for cursor in &cursors {
                    deployment.kill_cursor(now, member, *cursor);
                }
                (!cursors.is_empty()).then_some("cursors-killed")
            }
            _ => {
                deployment.crash(now, member);
                deployment.restart(now, member);
                Some("crash-and-restart")
            }
        }
    }

    fn break_command(&mut self) -> Option<&'static str> {
        let member = self.chance.below(self.world.deployment.member_count());
        let times = 1 + self.chance.below(3) as i32;
        let get_more = ["getMore"].as_slice();
        let (commands, fault, kind) = match self.chance.below(9) {
            0..=2 => (
                get_more,
                // The label is the server's word from 4.4 on; this fail point says only what it is told to.
                doc! {
                    "errorCode": self.chance.one_of(&RESUMABLE),
                    "errorLabels": ["ResumableChangeStreamError"],
                },
                "getMore-fails-resumably",
            ),
            3 => (
                get_more,
                doc! { "errorCode": self.chance.one_of(&FATAL) },
                "getMore-fails-fatally",
            ),
            4 => (
                get_more,
                doc! { "closeConnection": true },
                "getMore-closes-the-connection",
            ),
            5 => (
                ["aggregate"].as_slice(),
                doc! { "errorCode": self.chance.one_of(&RESUMABLE) },
                "aggregate-fails-retryably",
            ),
            6 => {
                let code = self.chance.one_of(&FATAL);
                (
                    ["aggregate"].as_slice(),
                    doc! { "errorCode": code },
                    "aggregate-fails-fatally",
                )
            }
            7 => {
                let blocked =
                    doc! { "blockConnection": true, "blockTimeMS": self.chance.below(20_000) as i32 };
                (["getMore", "aggregate"].as_slice(), blocked, "answers-late")
            }
            _ => (
                ["aggregate", "killCursors", "hello"].as_slice(),
                doc! { "closeConnection": true },
                "other-commands-close-the-connection",
            ),
        };
        let mut data = doc! { "failCommands": commands };
        data.extend(fault);
        self.fail_point(member, doc! { "times": times }, data);
        Some(kind)
    }

    fn fail_point(&mut self, member: usize, mode: impl Into<bson::Bson>, data: Document) {
        let point = doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data };
        self.world
            .deployment
            .fail_command(member, &point)
            .expect("the fail point is well formed");
    }

    fn break_time_or_set(&mut self) -> Option<&'static str> {
        match self.chance.below(10) {
            0 => {
                let now = self.world.now;
                let millis = self.chance.below(400_000) as i64 - 60_000;
                self.world.deployment.jump_clock(now, millis);
                Some("clock-jump")
            }
            1 | 2 => {
                let index = self.chance.below(self.consumers.len());
                let consumer = &mut self.consumers[index];
                if matches!(consumer.state, State::Asleep | State::Refused) {
                    return None;
                }
                self.world.put_to_sleep(consumer.id);
                consumer.state = State::Asleep;
                Some("nobody-drives-the-machine")
            }
            3 if self.chance.one_in(3) => self.lose_history(),
            4 if self.chance.one_in(3) => {
                // Long enough for every deadline there is.
                let time = Duration::from_secs(30) + self.chance.millis(60_000);
                self.pass(time);
                Some("long-silence")
            }
            5 if self.servers.profile.images && self.chance.one_in(3) => self.lose_images(),
            _ if self.servers.sharded => self.break_shard(),
            _ => self.break_set(),
        }
    }

    fn break_set(&mut self) -> Option<&'static str> {
        let now = self.world.now;
        let deployment = &mut self.world.deployment;
        let members = deployment.member_count();
        let member = self.chance.below(members);
        if members == 1 {
            return None;
        }
        match self.chance.below(7) {
            0 | 1 => {
                deployment.step_down(now);
                Some("step-down")
            }
            2 => deployment.elect(now, member).then_some("election"),
            3 => {
                self.wrongs.lagging = true;
                deployment.lag(now, member, self.chance.millis(8_000));
                Some("lag")
            }
            4 if !self.wrongs.partitioned => {
                self.wrongs.partitioned = true;
                deployment.partition(now, &[member]);
                Some("partition")
            }
            5 if !self.wrongs.partitioned => {
                // What the primary takes alone is rolled back, if another is elected before it comes back.
                let primary = deployment.primary()?;
                self.wrongs.partitioned = true;
                deployment.partition(now, &[primary]);
                for _ in 0..3 {
                    self.write();
                }
                Some("primary-writes-alone")
            }
            _ if self.wrongs.partitioned => {
                self.wrongs.partitioned = false;
                deployment.heal(now);
                Some("partition-healed")
            }
            _ => None,
        }
    }

    fn break_shard(&mut self) -> Option<&'static str> {
        let now = self.world.now;
        let deployment = &mut self.world.deployment;
        let shard = self.chance.below(deployment.shard_count());
        let down = &mut self.wrongs.crashed_in_shards;
        match self.chance.below(5) {
            0 => {
                deployment.on_shard(now, shard, |set| set.step_down(now));
                Some("shard-step-down")
            }
            1 if down.is_empty() => {
                let primary = deployment.on_shard(now, shard, |set| set.primary()).flatten()?;
                deployment.on_shard(now, shard, |set| set.crash(now, primary));
                down.push((shard, primary));
                Some("shard-crash")
            }
            1 | 2 if !down.is_empty() => {
                for (shard, member) in down.drain(..) {
                    deployment.on_shard(now, shard, |set| set.restart(now, member));
                }
                Some("shard-restart")
            }
            3 if !self.wrongs.partitioned => {
                self.wrongs.partitioned = true;
                let mongos = self.chance.below(deployment.member_count());
                deployment.cut_off(now, mongos, shard);
                Some("mongos-cut-off-from-shard")
            }
            4 if self.wrongs.partitioned => {
                self.wrongs.partitioned = false;
                deployment.heal(now);
                Some("partition-healed")
            }
            _ => None,
        }
    }

    /// Only where every member has everything: one that lacks what is lost would need to be copied anew.
    fn lose_history(&mut self) -> Option<&'static str> {
        let wrongs = &self.wrongs;
        let whole = wrongs.crashed.is_empty() && wrongs.crashed_in_shards.is_empty();
        if !whole || wrongs.partitioned || wrongs.lagging {
            return None;
        }
        let before = self.world.deployment.committed()?;
        self.wrongs.lost_history = true;
        let now = self.world.now;
        self.log.refresh(&self.world.deployment);
        self.world.deployment.lose_history(now, before);
        Some("history-lost")
    }

    /// What was kept of documents as they were is removed; the log stays.
    fn lose_images(&mut self) -> Option<&'static str> {
        let before = self.world.deployment.committed()?;
        self.log.refresh(&self.world.deployment);
        self.world.deployment.lose_images(before);
        self.log.lose_images(before);
        Some("images-lost")
    }

    fn reconnect(&mut self) {
        self.wrongs.cut_off = false;
        for member in 0..self.world.deployment.member_count() {
            self.world.network.reconnect(member);
        }
    }

    /// Puts everything right.
    pub(super) fn heal(&mut self) {
        let now = self.world.now;
        self.reconnect();
        self.world.network.conditions = crate::world::Conditions::default();
        let wrongs = std::mem::take(&mut self.wrongs);
        self.wrongs.lost_history = wrongs.lost_history;
        let deployment = &mut self.world.deployment;
        deployment.heal(now);
        for (shard, member) in wrongs.crashed_in_shards {
            deployment.on_shard(now, shard, |set| set.restart(now, member));
        }
        for member in wrongs.crashed {
            deployment.restart(now, member);
        }
        for member in 0..deployment.member_count() {
            deployment.lag(now, member, Duration::ZERO);
        }
        for member in 0..self.world.deployment.member_count() {
            self.fail_point(member, "off", doc! {});
        }
    }
}

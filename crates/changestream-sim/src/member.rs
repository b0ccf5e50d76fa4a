//! One member: its role, its copy of the data, and what it keeps in memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Document, Timestamp, doc};
use changestream_core::random::Random;

use crate::catalog::Catalog;
use crate::change_event::Stored;
use crate::failpoints::FailPoints;
use crate::open_cursors::OpenCursors;
use crate::oplog::{Log, OpTime};
use crate::sharding::Routed;
use crate::transactions::Transaction;

/// A mongod.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) address: String,
    pub(crate) role: Role,
    pub(crate) log: Log,
    /// Everything that the log says.
    pub(crate) catalog: Catalog,
    /// What the log says up to the commit point.
    pub(crate) committed: Catalog,
    pub(crate) commit_point: Option<OpTime>,
    /// Images of changes before this moment are gone.
    pub(crate) images_from: Timestamp,
    pub(crate) cluster_time: Timestamp,
    pub(crate) term: i64,
    /// The primary as this member knows it.
    pub(crate) known_primary: Option<usize>,
    pub(crate) process_id: ObjectId,
    pub(crate) topology_counter: i64,
    /// What the last change of its role passed through.
    passing: Vec<Passing>,
    /// How late it applies what others wrote.
    pub(crate) lag: Duration,
    /// It does not stand for election before this.
    pub(crate) frozen_until: Option<Instant>,
    /// When it elects a new primary, or (a primary) gives up without its majority.
    pub(crate) election_due: Option<Instant>,
    pub(crate) cursors: OpenCursors,
    pub(crate) transactions: BTreeMap<Vec<u8>, Transaction>,
    /// The sessions that were used here, each with the time when it was last.
    pub(crate) sessions: BTreeMap<Vec<u8>, (Document, Instant)>,
    /// The transactions that clients run through this mongos, by session.
    pub(crate) routed: BTreeMap<Vec<u8>, Routed>,
    pub(crate) fail_points: FailPoints,
    connections: i32,
    requests: i32,
}

/// A standing that lasts no time, between secondary and primary. Only hellos that wait are told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing {
    pub(crate) counter: i64,
    pub(crate) secondary: bool,
    pub(crate) election_id: ObjectId,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// In no replica set.
    Standalone,
    /// A mongos: it has no data of its own.
    Mongos,
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Secondary,
    /// It does not run.
    Down,
}

impl Member {
    pub(crate) fn new(address: String, seconds: i64, random: &mut Random) -> Self {
        Self {
            address,
            role: Role::Secondary,
            log: Log::default(),
            catalog: Catalog::default(),
            committed: Catalog::default(),
            commit_point: None,
            images_from: Timestamp {
                time: 0,
                increment: 0,
            },
            cluster_time: Timestamp {
                time: 0,
                increment: 0,
            },
            term: 0,
            known_primary: None,
            process_id: object_id(seconds, random),
            topology_counter: 0,
            passing: Vec::new(),
            lag: Duration::ZERO,
            frozen_until: None,
            election_due: None,
            cursors: OpenCursors::default(),
            transactions: BTreeMap::new(),
            sessions: BTreeMap::new(),
            routed: BTreeMap::new(),
            fail_points: FailPoints::default(),
            connections: 0,
            requests: 0,
        }
    }

    /// The process starts anew: what was only in memory is gone.
    pub(crate) fn start_again(&mut self, seconds: i64, random: &mut Random) {
        self.role = Role::Secondary;
        self.process_id = object_id(seconds, random);
        self.topology_counter = 0;
        self.passing.clear();
        self.known_primary = None;
        self.frozen_until = None;
        self.election_due = None;
        self.fail_points = FailPoints::default();
        self.connections = 0;
        self.forget_volatile();
    }

    /// Cursors and open transactions end with the process, and with a rollback.
    pub(crate) fn forget_volatile(&mut self) {
        self.cursors.retain(|_| false);
        self.transactions.clear();
        self.routed.clear();
    }

    pub(crate) fn is_up(&self) -> bool {
        self.role != Role::Down
    }

    pub(crate) fn accepts_writes(&self) -> bool {
        matches!(self.role, Role::Primary | Role::Standalone | Role::Mongos)
    }

    pub(crate) fn last_applied(&self) -> OpTime {
        self.log.last().unwrap_or(OpTime {
            term: -1,
            ts: Timestamp {
                time: 0,
                increment: 0,
            },
        })
    }

    pub(crate) fn commit_ts(&self) -> Timestamp {
        self.commit_point.map_or(
            Timestamp {
                time: 0,
                increment: 0,
            },
            |c| c.ts,
        )
    }

    /// What change streams read here, besides the log.
    pub(crate) fn stored(&self) -> Stored<'_> {
        Stored {
            committed: &self.committed,
            images_from: self.images_from,
        }
    }

    /// `electionId` of the term in which this member is primary.
    pub(crate) fn election_id(&self) -> ObjectId {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        bytes[4..].copy_from_slice(&self.term.to_be_bytes());
        ObjectId::from_bytes(bytes)
    }

    pub(crate) fn topology_version(&self) -> Document {
        doc! { "processId": self.process_id, "counter": self.topology_counter }
    }

    pub(crate) fn topology_changed(&mut self) {
        self.topology_counter += 1;
    }

    /// A change of role, through standings that are already secondary or not.
    pub(crate) fn role_changed(&mut self, through: &[bool]) {
        let election_id = self.election_id();
        let counters = self.topology_counter + 1..;
        let passing = counters.zip(through).map(|(counter, secondary)| Passing {
            counter,
            secondary: *secondary,
            election_id,
        });
        self.passing = passing.collect();
        self.topology_counter += i64::try_from(through.len()).unwrap_or(0) + 1;
    }

    /// The standing that came next after that version, if it lasted no time.
    pub(crate) fn passed_after(&self, seen: (ObjectId, i64)) -> Option<Passing> {
        let (process, counter) = seen;
        let next = self.passing.iter().find(|p| p.counter == counter + 1);
        next.filter(|_| process == self.process_id).copied()
    }

    pub(crate) fn next_connection_number(&mut self) -> i32 {
        self.connections = self.connections.wrapping_add(1).max(1);
        self.connections
    }

    pub(crate) fn next_request_id(&mut self) -> i32 {
        self.requests = self.requests.wrapping_add(1).max(1);
        self.requests
    }
}

/// An ObjectId of this second.
pub(crate) fn object_id(seconds: i64, random: &mut Random) -> ObjectId {
    let mut bytes = [0; 12];
    random.fill(&mut bytes);
    let seconds = u32::try_from(seconds).unwrap_or(0);
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

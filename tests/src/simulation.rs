//! Whole deployments and several streams through a storm of faults, decided by one seed.
//!
//! Writers insert numbered documents while members crash, step down, lag and lose each other, connections break in the
//! middle of a message, cursors vanish and getMores fail. Then everything heals, and what each stream has delivered is
//! compared with what the deployment has kept: no gap, no repeat, nothing that was rolled back, in order.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bson::{Document, doc};
use changestream_core::random::Random;
use changestream_core::wire::Compressor;
use changestream_core::{ChangeEvent, Error, ResumePolicy, Scope, Update, WatchOptions};
use changestream_sim::Deployment;

use crate::world::{StreamId, World};

/// What a run survived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Documents that the deployment kept.
    pub kept: usize,
    /// Documents that were written and rolled back.
    pub rolled_back: usize,
    /// Events delivered, over all streams.
    pub delivered: u64,
    /// Resumes, over all streams.
    pub resumes: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Adds another run's figures.
    pub fn add(&mut self, other: &Self) {
        self.kept += other.kept;
        self.rolled_back += other.rolled_back;
        self.delivered += other.delivered;
        self.resumes += other.resumes;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} documents kept, {} rolled back, {} events delivered, {} resumes; faults:",
            self.kept, self.rolled_back, self.delivered, self.resumes
        )?;
        for (kind, count) in &self.faults {
            write!(f, " {kind} {count}")?;
        }
        Ok(())
    }
}

/// Runs the world of that seed.
///
/// # Panics
/// A stream lost, repeated or invented an event, ended, or got stuck: the message says what.
pub fn run(seed: u64) -> Report {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Simulation::new(Chance::Seed(Box::new(Random::new(bytes))), bytes).run()
}

/// Runs a world whose faults, writes and consumers these bytes decide, one after the other; it ends when they do.
///
/// # Panics
/// As [`run`].
pub fn play(script: &[u8]) -> Report {
    Simulation::new(Chance::Script(script.iter().copied().collect()), [0; 32]).run()
}

/// What decides.
enum Chance {
    Seed(Box<Random>),
    /// The bytes that are left.
    Script(VecDeque<u8>),
}

impl Chance {
    /// A number below `bound`. A script spends a byte on it, or two where one does not reach.
    fn below(&mut self, bound: usize) -> usize {
        match self {
            Self::Seed(random) => random.below(bound),
            Self::Script(bytes) => {
                let mut next = || usize::from(bytes.pop_front().unwrap_or(0));
                let number = if bound > 256 { next() << 8 | next() } else { next() };
                number % bound
            }
        }
    }

    fn turns(&mut self) -> usize {
        match self {
            Self::Seed(random) => 30 + random.below(60),
            Self::Script(bytes) => bytes.len(),
        }
    }

    fn is_spent(&self) -> bool {
        match self {
            Self::Seed(_) => false,
            Self::Script(bytes) => bytes.is_empty(),
        }
    }
}

struct Simulation {
    world: World,
    members: usize,
    random: Chance,
    streams: Vec<Watched>,
    /// The next document's number.
    next: i32,
    /// Members that run, but that streams do not reach.
    cut_off: Vec<usize>,
    crashed: Vec<usize>,
    faults: BTreeMap<&'static str, u64>,
}

/// A stream and what it has to deliver.
struct Watched {
    id: StreamId,
    scope: Scope,
    options: WatchOptions,
    /// Of which collection it is to see the documents; none sees both.
    collection: Option<&'static str>,
    only_even: bool,
    delivered: Vec<i32>,
}

impl Simulation {
    fn new(mut random: Chance, seed: [u8; 32]) -> Self {
        let members = [1, 3, 3, 5][random.below(4)];
        let config = Deployment::replica_set(members).election_timeout(Duration::from_millis(500));
        let mut world = World::new(config, seed);
        if random.below(2) == 0 {
            world.network.conditions.longest_piece = Some(1 + random.below(300));
        }
        world.network.conditions.jitter = Duration::from_micros(random.below(20_000) as u64);
        Self {
            world,
            members,
            random,
            streams: Vec::new(),
            next: 0,
            cut_off: Vec::new(),
            crashed: Vec::new(),
            faults: BTreeMap::new(),
        }
    }

    fn run(mut self) -> Report {
        self.world.insert("shop", "seen", [doc! { "_id": -1 }]);
        for _ in 0..1 + self.random.below(3) {
            self.open_stream();
        }
        for _ in 0..self.random.turns() {
            if self.random.is_spent() {
                break;
            }
            match self.random.below(4) {
                0 => self.write(),
                1 => self.break_something(),
                2 => self.consume(),
                _ => {
                    let time = Duration::from_millis(self.random.below(3_000) as u64);
                    self.world.advance(time);
                }
            }
        }
        self.heal();
        self.judge()
    }

    /// Streams of one deployment compress differently, and some do not.
    fn watch(&mut self, index: usize, scope: &Scope, options: WatchOptions) -> StreamId {
        let compressor = Compressor::ALL.get((self.members + index) % 4);
        let mut uri = self.world.deployment.uri();
        if let Some(compressor) = compressor {
            uri = format!("{uri}&compressors={}", compressor.as_str());
        }
        self.world
            .watch_by(&uri, None, scope, options)
            .expect("the options make sense")
    }

    fn open_stream(&mut self) {
        let only_even = self.random.below(3) == 0;
        let mut options = WatchOptions::default();
        options.prefetch_batches = self.random.below(3);
        options.batch_size = [None, Some(0), Some(1), Some(2), Some(7)][self.random.below(5)];
        options.max_await_time = [None, Some(Duration::from_millis(50))][self.random.below(2)];
        options.resume_policy = ResumePolicy::Forever;
        if only_even {
            options.pipeline = vec![doc! { "$match": { "fullDocument.even": true } }];
        }
        let (scope, collection) = match self.random.below(3) {
            0 => (collection("seen"), Some("seen")),
            1 => (
                Scope::Database {
                    database: "shop".into(),
                },
                None,
            ),
            _ => (Scope::Cluster, None),
        };
        let id = self.watch(self.streams.len(), &scope, options.clone());
        self.world.open(id).expect("the stream opens");
        self.streams.push(Watched {
            id,
            scope,
            options,
            collection,
            only_even,
            delivered: Vec::new(),
        });
    }

    /// Inserts some documents, if there is a primary to take them.
    fn write(&mut self) {
        if self.world.deployment.primary().is_none() {
            return;
        }
        let target = ["seen", "other"][self.random.below(2)];
        let documents: Vec<Document> = (0..1 + self.random.below(8))
            .map(|_| {
                self.next += 1;
                doc! { "_id": self.next, "even": self.next % 2 == 0, "pad": "x".repeat(self.random.below(200)) }
            })
            .collect();
        // Whether it succeeds is seen at the end: a write may be lost with its primary.
        self.world
            .command("shop", doc! { "insert": target, "documents": documents });
    }

    /// A consumer that takes what there is, for a while.
    fn consume(&mut self) {
        let index = self.random.below(self.streams.len());
        for _ in 0..self.random.below(20) {
            let id = self.streams[index].id;
            // A consumer may give up at any moment.
            let patience = Duration::from_millis(self.random.below(4_000) as u64);
            match self.world.next_update_within(id, patience) {
                Some(Ok(Update::Change(event))) => self.take(index, &event),
                Some(Ok(_)) => {}
                Some(Err(end)) => return self.reopen(index, &end),
                None => return,
            }
        }
    }

    /// An end that the specification does not let a stream resume from, but its user can: a new stream goes on from the
    /// token of the error.
    fn reopen(&mut self, index: usize, end: &Error) {
        const CURSOR_KILLED: i32 = 237;
        let stream = &self.streams[index];
        // No policy covers the opening of a stream.
        let unopened = !self.world.machine(stream.id).is_open();
        assert!(
            unopened || end.code() == Some(CURSOR_KILLED),
            "the stream ended: {end}"
        );
        let mut options = stream.options.clone();
        options.resume_after = end.resume_token().cloned();
        assert!(options.resume_after.is_some(), "an error carries the last token");
        let scope = stream.scope.clone();
        self.streams[index].id = self.watch(index, &scope, options);
        *self.faults.entry("reopened").or_default() += 1;
    }

    fn take(&mut self, index: usize, event: &ChangeEvent) {
        let stream = &mut self.streams[index];
        let key = event.document_key().and_then(|key| key.get_i32("_id").ok());
        stream
            .delivered
            .push(key.expect("each event is an insert of a numbered document"));
        let token = self.world.machine(stream.id).resume_token();
        assert!(token.is_some(), "after an event there is a token");
    }

    fn break_something(&mut self) {
        let now = self.world.now;
        let members = self.world.deployment.member_count();
        let member = self.random.below(members);
        let kind = match self.random.below(9) {
            0 if members > 1 && self.crashed.len() < members / 2 && !self.crashed.contains(&member) => {
                self.world.deployment.crash(now, member);
                self.crashed.push(member);
                "crash"
            }
            1 if !self.crashed.is_empty() => {
                let member = self.crashed.swap_remove(0);
                self.world.deployment.restart(now, member);
                "restart"
            }
            2 if members > 1 => {
                self.world.deployment.step_down(now);
                "step-down"
            }
            3 if members > 1 && self.cut_off.is_empty() => {
                self.world.network.cut_off(member);
                self.cut_off.push(member);
                "cut-off"
            }
            4 if !self.cut_off.is_empty() => {
                for member in self.cut_off.drain(..) {
                    self.world.network.reconnect(member);
                }
                "reconnect"
            }
            5 => {
                self.world.network.reset(now, member);
                "reset"
            }
            6 => {
                for cursor in self.world.deployment.cursors(member) {
                    self.world.deployment.kill_cursor(now, member, cursor);
                }
                "killed-cursor"
            }
            7 => {
                self.fail_get_more(member);
                "failed-getMore"
            }
            8 if members > 1 => {
                if self.random.below(2) == 0 {
                    self.world.deployment.partition(now, &[member]);
                } else {
                    self.world.deployment.heal(now);
                }
                "partition-or-heal"
            }
            _ => return,
        };
        *self.faults.entry(kind).or_default() += 1;
    }

    fn fail_get_more(&mut self, member: usize) {
        const RESUMABLE: [i32; 8] = [6, 7, 89, 91, 189, 9001, 11600, 11602];
        let code = RESUMABLE[self.random.below(RESUMABLE.len())];
        let data = if self.random.below(3) == 0 {
            doc! { "failCommands": ["getMore"], "closeConnection": true }
        } else {
            doc! {
                "failCommands": ["getMore"], "errorCode": code, "errorLabels": ["ResumableChangeStreamError"],
            }
        };
        let point = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
        self.world
            .deployment
            .fail_command(member, &point)
            .expect("the fail point is well formed");
    }

    fn heal(&mut self) {
        let now = self.world.now;
        self.world.deployment.heal(now);
        for member in self.crashed.drain(..) {
            self.world.deployment.restart(now, member);
        }
        for member in self.cut_off.drain(..) {
            self.world.network.reconnect(member);
        }
        // Long enough for the last election, also if a member has just stepped down.
        self.world.advance(Duration::from_secs(120));
    }

    fn judge(mut self) -> Report {
        // The last word: each stream has to get to it.
        let last = self.next + 1;
        let last = last + last % 2;
        for name in ["seen", "other"] {
            self.world.run(
                "shop",
                doc! { "insert": name, "documents": [{ "_id": last, "even": true }], "writeConcern": { "w": "majority" } },
            );
        }
        let kept: BTreeMap<&str, Vec<(i32, bool)>> = ["seen", "other"]
            .into_iter()
            .map(|name| (name, self.kept(name)))
            .collect();
        let mut report = Report {
            kept: kept.values().map(Vec::len).sum(),
            faults: self.faults.clone(),
            ..Report::default()
        };
        report.rolled_back = (self.next as usize + 2).saturating_sub(report.kept);
        for index in 0..self.streams.len() {
            let words = if self.streams[index].collection.is_some() {
                1
            } else {
                2
            };
            while self.streams[index]
                .delivered
                .iter()
                .filter(|n| **n == last)
                .count()
                < words
            {
                match self.world.next(self.streams[index].id) {
                    Some(Ok(event)) => self.take(index, &event),
                    Some(Err(end)) => self.reopen(index, &end),
                    None => panic!("stream {index} ended before it had delivered everything"),
                }
            }
            let stream = &self.streams[index];
            let stats = self.world.machine(stream.id).stats();
            report.delivered += stats.events;
            report.resumes += stats.resumes;
            for (name, documents) in &kept {
                if stream.collection.is_some_and(|only| only != *name) {
                    continue;
                }
                let expected: Vec<i32> = documents
                    .iter()
                    .filter(|(_, even)| !stream.only_even || *even)
                    .map(|(n, _)| *n)
                    .collect();
                let delivered: Vec<i32> = stream
                    .delivered
                    .iter()
                    .copied()
                    .filter(|n| stream.collection.is_some() || expected.contains(n))
                    .collect();
                // A stream of both collections sees the last word twice, once in each.
                let delivered = once_at_the_end(delivered, last);
                assert_eq!(delivered, expected, "stream {index} of {name}");
            }
        }
        report
    }

    /// What the deployment kept of a collection, in the order in which it was written, but for what was there before
    /// the streams were opened.
    fn kept(&mut self, name: &str) -> Vec<(i32, bool)> {
        let reply = self
            .world
            .run("shop", doc! { "find": name, "batchSize": 100_000 });
        let batch = reply
            .get_document("cursor")
            .and_then(|cursor| cursor.get_array("firstBatch"))
            .expect("find has a first batch");
        batch
            .iter()
            .filter_map(|document| {
                let document = document.as_document()?;
                let number = document.get_i32("_id").ok()?;
                Some((number, document.get_bool("even").unwrap_or(false)))
            })
            .filter(|(number, _)| *number >= 0)
            .collect()
    }
}

fn once_at_the_end(mut delivered: Vec<i32>, last: i32) -> Vec<i32> {
    let count = delivered.iter().filter(|n| **n == last).count();
    for _ in 1..count {
        if let Some(at) = delivered.iter().position(|n| *n == last) {
            delivered.remove(at);
        }
    }
    delivered
}

fn collection(name: &str) -> Scope {
    Scope::Collection {
        database: "shop".into(),
        collection: name.into(),
    }
}

//! Equal seeds and equal inputs give equal bytes, whatever happens, and however the input's bytes are cut.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, RawDocument, doc};
use bytes::Bytes;
use changestream_core::random::Random;
use changestream_core::wire::{Flags, Message, encode_op_msg, encode_op_query};
use changestream_sim::{ConnectionId, Deployment, Input, Output};

// In quarters, which run at the same time.

#[test]
fn the_same_schedule_gives_the_same_bytes_however_its_input_is_cut_1() {
    compare(0..250);
}

#[test]
fn the_same_schedule_gives_the_same_bytes_however_its_input_is_cut_2() {
    compare(250..500);
}

#[test]
fn the_same_schedule_gives_the_same_bytes_however_its_input_is_cut_3() {
    compare(500..750);
}

#[test]
fn the_same_schedule_gives_the_same_bytes_however_its_input_is_cut_4() {
    compare(750..1000);
}

fn compare(schedules: Range<u64>) {
    let epoch = Instant::now();
    let (mut distinct, mut messages) = (BTreeSet::new(), 0);
    for number in schedules.clone() {
        let once = Schedule::run(number, epoch, Cuts::None);
        same(
            &once,
            &Schedule::run(number, epoch, Cuts::None),
            number,
            "run again",
        );
        same(
            &once,
            &Schedule::run(number, epoch, Cuts::Random),
            number,
            "cut differently",
        );
        let mut hasher = DefaultHasher::new();
        for output in &once {
            if let Output::Transmit { bytes, .. } = output {
                hasher.write(bytes);
                messages += 1;
            }
        }
        distinct.insert(hasher.finish());
    }
    // Otherwise there would have been nothing to compare. Some end early: a lone member crashes.
    let count = schedules.count();
    assert!(messages > 20 * count, "{messages} messages in all");
    assert!(
        distinct.len() > count * 9 / 10,
        "{} different schedules",
        distinct.len()
    );
}

fn same(once: &[Output], again: &[Output], number: u64, how: &str) {
    if once == again {
        return;
    }
    let at = once.iter().zip(again).take_while(|(a, b)| a == b).count();
    panic!(
        "schedule {number}, {how}: output {at} differs:\n{}\n{}",
        show(once.get(at)),
        show(again.get(at))
    );
}

fn show(output: Option<&Output>) -> String {
    if let Some(Output::Transmit { connection, bytes }) = output
        && let Ok(Message::Msg(reply)) = Message::decode(bytes)
    {
        return format!(
            "{connection:?} {:?}",
            RawDocument::from_bytes(&reply.body).map(Document::try_from)
        );
    }
    format!("{output:?}")
}

#[derive(Clone, Copy)]
enum Cuts {
    None,
    Random,
}

/// Random commands of clients, faults and time, on one deployment.
struct Schedule {
    deployment: Deployment,
    /// What happens.
    random: Random,
    /// How input is cut: of no influence on anything else.
    scissors: Option<Random>,
    now: Instant,
    connections: Vec<ConnectionId>,
    cursors: Vec<i64>,
    tokens: Vec<Document>,
    outputs: Vec<Output>,
    request: i32,
}

impl Schedule {
    fn run(number: u64, start: Instant, cuts: Cuts) -> Vec<Output> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        let mut random = Random::new(seed);
        let version = VERSIONS[random.below(VERSIONS.len())];
        let config = Deployment::replica_set(1 + random.below(3))
            .server_version(version)
            .seed(seed);
        let mut schedule = Self {
            deployment: config.oplog_entries(8 + random.below(40)).build(start).unwrap(),
            random,
            scissors: matches!(cuts, Cuts::Random).then(|| Random::new([7; 32])),
            now: start,
            connections: Vec::new(),
            cursors: Vec::new(),
            tokens: Vec::new(),
            outputs: Vec::new(),
            request: 1,
        };
        schedule.connect();
        for _ in 0..STEPS {
            schedule.step();
        }
        schedule.outputs
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.connect(),
            1..=3 => self.disturb(),
            4 | 5 => {
                let millis = self.random.below(6_000) as u64;
                self.now += Duration::from_millis(millis);
                self.deployment.handle_input(self.now, Input::Timeout);
            }
            6 => {
                if let Some(connection) = self.any_connection() {
                    self.connections.retain(|c| *c != connection);
                    self.deployment
                        .handle_input(self.now, Input::Disconnected { connection });
                }
            }
            _ => self.send(),
        }
        self.drain();
    }

    fn connect(&mut self) {
        let member = self.random.below(self.deployment.member_count());
        let connection = self.deployment.new_connection();
        self.connections.push(connection);
        self.deployment
            .handle_input(self.now, Input::Accepted { member, connection });
        self.drain();
    }

    fn disturb(&mut self) {
        let (d, now) = (&mut self.deployment, self.now);
        let member = self.random.below(d.member_count());
        match self.random.below(10) {
            0 => d.step_down(now),
            1 => d.crash(now, member),
            2 | 3 => d.restart(now, member),
            4 => d.partition(now, &[member]),
            5 => d.heal(now),
            6 => drop(d.elect(now, member)),
            7 => d.lag(
                now,
                member,
                Duration::from_millis(self.random.below(3_000) as u64),
            ),
            8 => d.drop_connections(now, member),
            _ => {
                let data = doc! { "failCommands": ["getMore", "insert"], "errorCode": 91 };
                let point =
                    doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
                d.fail_command(member, &point).unwrap();
            }
        }
    }

    /// One to three requests in one go.
    fn send(&mut self) {
        let Some(connection) = self.any_connection() else {
            return self.connect();
        };
        let mut bytes = Vec::new();
        for _ in 0..=self.random.below(3) {
            bytes.extend_from_slice(&self.request());
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let n = match &mut self.scissors {
                None => rest.len(),
                Some(scissors) => 1 + scissors.below(rest.len()),
            };
            let (piece, later) = rest.split_at(n);
            self.deployment.handle_input(
                self.now,
                Input::Received {
                    connection,
                    bytes: piece,
                },
            );
            rest = later;
        }
    }

    fn request(&mut self) -> Bytes {
        self.request += 1;
        if self.random.below(12) == 0 {
            let hello = RawDocumentBuf::try_from(&doc! { "isMaster": 1 }).unwrap();
            return encode_op_query(self.request, "admin.$cmd", &hello);
        }
        let mut command = self.command();
        let db = if command.contains_key("hello") || command.contains_key("isMaster") {
            "admin"
        } else {
            "db"
        };
        command.insert("$db", db);
        let exhaust = command.contains_key("getMore") && self.random.below(8) == 0;
        let flags = if exhaust {
            Flags::EXHAUST_ALLOWED
        } else {
            Flags::NONE
        };
        encode_op_msg(
            self.request,
            0,
            flags,
            &RawDocumentBuf::try_from(&command).unwrap(),
            &[],
        )
    }

    fn command(&mut self) -> Document {
        let id = i32::try_from(self.random.below(12)).unwrap();
        let filter = doc! { "_id": id };
        match self.random.below(14) {
            0 | 1 => doc! { "insert": "c", "documents": [filter], "writeConcern": { "w": 1 } },
            2 => {
                doc! { "insert": "c", "documents": [{ "_id": id, "t": "x".repeat(self.random.below(900)) }] }
            }
            3 => {
                doc! { "update": "c", "updates": [{ "q": filter, "u": { "$set": { "n": id } }, "upsert": true }] }
            }
            4 => doc! { "delete": "c", "deletes": [{ "q": filter, "limit": 1 }] },
            5 if id == 0 => doc! { "drop": "c" },
            5 => doc! { "find": "c", "batchSize": 3 },
            6 => doc! { "isMaster": 1 },
            7 => {
                doc! { "killCursors": "c", "cursors": self.any_cursor().map(Bson::Int64).into_iter().collect::<Vec<_>>() }
            }
            8 | 9 => self.watch(),
            _ => match self.any_cursor() {
                Some(cursor) => {
                    let wait = 1 + i64::try_from(self.random.below(3_000)).unwrap();
                    doc! { "getMore": cursor, "collection": "c", "maxTimeMS": wait }
                }
                None => self.watch(),
            },
        }
    }

    fn watch(&mut self) -> Document {
        let mut options = match self.random.below(3) {
            0 => doc! { "fullDocument": "updateLookup" },
            _ => doc! {},
        };
        if let (Some(token), true) = (self.tokens.last(), self.random.below(2) == 0) {
            options.insert("startAfter", token.clone());
        }
        doc! { "aggregate": "c", "pipeline": [{ "$changeStream": options }], "cursor": {} }
    }

    fn any_cursor(&mut self) -> Option<i64> {
        let latest = self.cursors.len().checked_sub(1 + self.random.below(3))?;
        self.cursors.get(latest).copied()
    }

    fn any_connection(&mut self) -> Option<ConnectionId> {
        let count = self.connections.len();
        (count > 0).then(|| self.connections[self.random.below(count)])
    }

    fn drain(&mut self) {
        loop {
            let output = self.deployment.poll_output(self.now);
            self.outputs.push(output.clone());
            match output {
                Output::Transmit { bytes, .. } => self.learn(&bytes),
                Output::Disconnect { connection } => self.connections.retain(|c| *c != connection),
                Output::Deadline(_) => return,
                Output::Listen { .. } | Output::Close { .. } => {}
            }
        }
    }

    /// Notes cursors and tokens, to use them.
    fn learn(&mut self, bytes: &Bytes) {
        let Ok(Message::Msg(reply)) = Message::decode(bytes) else {
            return;
        };
        let reply = RawDocument::from_bytes(&reply.body).unwrap();
        let Ok(cursor) = reply.get_document("cursor") else {
            return;
        };
        self.cursors
            .extend(cursor.get_i64("id").ok().filter(|id| *id != 0));
        if let Ok(token) = cursor.get_document("postBatchResumeToken") {
            self.tokens.push(Document::try_from(token).unwrap());
        }
    }
}

const STEPS: usize = 30;
const VERSIONS: [&str; 6] = ["4.2", "4.4", "5.0", "6.0", "7.0", "8.0"];

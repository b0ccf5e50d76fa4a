//! A client of bytes for the pure machine, on a fake clock.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use bytes::Bytes;
use changestream_core::wire::{Flags, Message, compressor_of, decompress, encode_op_msg};
use changestream_sim::{Config, ConnectionId, Deployment, Input, Output};

pub struct World {
    pub deployment: Deployment,
    pub start: Instant,
    pub now: Instant,
    pub deadline: Option<Instant>,
    pub received: BTreeMap<ConnectionId, VecDeque<(Flags, Document)>>,
    pub ended: Vec<ConnectionId>,
    /// All bytes that the deployment sent, in order.
    pub sent: Vec<Bytes>,
    next_request: i32,
}

impl World {
    pub fn new(config: Config) -> Self {
        let now = Instant::now();
        let deployment = config.build(now).unwrap();
        let mut world = Self {
            deployment,
            start: now,
            now,
            deadline: None,
            received: BTreeMap::new(),
            ended: Vec::new(),
            sent: Vec::new(),
            next_request: 1,
        };
        world.drain();
        world
    }

    pub fn replica_set(members: usize) -> Self {
        Self::new(Deployment::replica_set(members))
    }

    pub fn connect(&mut self, member: usize) -> ConnectionId {
        let connection = self.deployment.new_connection();
        self.deployment
            .handle_input(self.now, Input::Accepted { member, connection });
        self.drain();
        connection
    }

    /// Sends a command to the database `db` without waiting.
    pub fn send(&mut self, connection: ConnectionId, command: Document) {
        self.send_with(connection, Flags::NONE, command);
    }

    pub fn send_with(&mut self, connection: ConnectionId, flags: Flags, mut command: Document) {
        if !command.contains_key("$db") {
            command.insert("$db", "db");
        }
        let body = RawDocumentBuf::try_from(&command).unwrap();
        let bytes = encode_op_msg(self.next_request, 0, flags, &body, &[]);
        self.next_request += 1;
        self.bytes(connection, &bytes);
    }

    pub fn bytes(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.deployment
            .handle_input(self.now, Input::Received { connection, bytes });
        self.drain();
    }

    pub fn hang_up(&mut self, connection: ConnectionId) {
        self.deployment
            .handle_input(self.now, Input::Disconnected { connection });
        self.received.remove(&connection);
        self.drain();
    }

    /// Sends a command and takes its reply, which must come at once.
    pub fn run(&mut self, connection: ConnectionId, command: Document) -> Document {
        self.send(connection, command);
        self.reply(connection).expect("a reply at once")
    }

    /// The same, and it must succeed.
    pub fn ok(&mut self, connection: ConnectionId, command: Document) -> Document {
        let reply = self.run(connection, command.clone());
        assert_eq!(reply.get_f64("ok").unwrap(), 1.0, "{command} -> {reply}");
        reply
    }

    pub fn admin(&mut self, connection: ConnectionId, mut command: Document) -> Document {
        command.insert("$db", "admin");
        self.ok(connection, command)
    }

    pub fn reply(&mut self, connection: ConnectionId) -> Option<Document> {
        self.reply_with_flags(connection).map(|(_, reply)| reply)
    }

    pub fn reply_with_flags(&mut self, connection: ConnectionId) -> Option<(Flags, Document)> {
        self.received.get_mut(&connection)?.pop_front()
    }

    /// Lets time pass, deadline by deadline.
    pub fn advance(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut steps = 0;
        while let Some(at) = self.deadline.filter(|at| *at <= until) {
            steps += 1;
            assert!(steps < 10_000, "deadlines without end");
            self.now = self.now.max(at);
            self.deployment.handle_input(self.now, Input::Timeout);
            self.drain();
        }
        self.now = until;
        self.deployment.handle_input(self.now, Input::Timeout);
        self.drain();
    }

    pub fn control<T>(&mut self, act: impl FnOnce(&mut Deployment, Instant) -> T) -> T {
        let result = act(&mut self.deployment, self.now);
        self.drain();
        result
    }

    pub fn drain(&mut self) {
        loop {
            match self.deployment.poll_output(self.now) {
                Output::Listen { .. } | Output::Close { .. } => {}
                Output::Transmit { connection, bytes } => {
                    self.sent.push(bytes.clone());
                    let plain = match compressor_of(&bytes) {
                        Some(_) => decompress(&bytes, 1 << 20).unwrap(),
                        None => bytes.clone(),
                    };
                    let (flags, body) = match Message::decode(&plain).unwrap() {
                        Message::Msg(m) => (m.flags, m.body),
                        Message::Reply(r) => (Flags::NONE, r.document),
                        other => panic!("{other:?}"),
                    };
                    let reply = Document::from_reader(&mut &body[..]).unwrap();
                    self.received
                        .entry(connection)
                        .or_default()
                        .push_back((flags, reply));
                }
                Output::Disconnect { connection } => self.ended.push(connection),
                Output::Deadline(deadline) => {
                    self.deadline = deadline;
                    return;
                }
            }
        }
    }

    /// Opens a change stream on `db.c`; its cursor and the reply's cursor document.
    pub fn watch(
        &mut self,
        connection: ConnectionId,
        options: Document,
        stages: Vec<Document>,
    ) -> (i64, Document) {
        let mut pipeline = vec![doc! { "$changeStream": options }];
        pipeline.extend(stages);
        let reply = self.ok(
            connection,
            doc! { "aggregate": "c", "pipeline": pipeline, "cursor": {} },
        );
        let cursor = reply.get_document("cursor").unwrap().clone();
        (cursor.get_i64("id").unwrap(), cursor)
    }

    pub fn insert(&mut self, connection: ConnectionId, id: i32) -> Document {
        self.ok(connection, doc! { "insert": "c", "documents": [{ "_id": id }] })
    }

    /// A getMore on `db.c` that may wait this long; time passes if nothing is there.
    pub fn get_more(&mut self, connection: ConnectionId, cursor: i64, wait: u64) -> Document {
        let millis = i64::try_from(wait).unwrap();
        self.send(
            connection,
            doc! { "getMore": cursor, "collection": "c", "maxTimeMS": millis },
        );
        if let Some(reply) = self.reply(connection) {
            return reply;
        }
        self.advance(Duration::from_millis(wait));
        self.reply(connection).expect("a reply in time")
    }
}

/// The events of a cursor document's batch.
pub fn batch(reply: &Document) -> Vec<Document> {
    let cursor = reply.get_document("cursor").unwrap_or(reply);
    let batch = cursor
        .get_array("nextBatch")
        .or_else(|_| cursor.get_array("firstBatch"))
        .unwrap();
    batch
        .iter()
        .map(|event| event.as_document().unwrap().clone())
        .collect()
}

pub fn ids(reply: &Document) -> Vec<i32> {
    let key = |event: &Document| event.get_document("documentKey").unwrap().get_i32("_id").unwrap();
    batch(reply).iter().map(key).collect()
}

pub fn kinds(reply: &Document) -> Vec<String> {
    batch(reply)
        .iter()
        .map(|e| e.get_str("operationType").unwrap().to_owned())
        .collect()
}

pub fn token(reply: &Document) -> Document {
    let cursor = reply.get_document("cursor").unwrap_or(reply);
    cursor.get_document("postBatchResumeToken").unwrap().clone()
}

pub fn code(reply: &Document) -> i32 {
    assert_eq!(reply.get_f64("ok").unwrap(), 0.0, "{reply}");
    reply.get_i32("code").unwrap()
}

pub fn labels(reply: &Document) -> Vec<String> {
    let labels = reply.get_array("errorLabels").cloned().unwrap_or_default();
    labels.iter().map(|l| l.as_str().unwrap().to_owned()).collect()
}

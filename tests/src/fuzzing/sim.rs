//! The simulated deployment, whose clients say anything.

use std::time::{Duration, Instant};

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use bytes::Bytes;
use changestream_core::wire::{Flags, Message, encode_op_msg, encode_op_query};
use changestream_sim::{ConnectionId, Deployment, Input, Output};

use super::{Choices, epoch, words};

/// Whatever its clients send and its tester orders, the deployment goes on, answers in the protocol, and comes to rest.
///
/// # Panics
/// It does not hold.
pub fn sim(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut run = Run::new(&mut choices);
    run.drain();
    for _ in 0..MOST_STEPS {
        if choices.is_over() {
            return;
        }
        run.step(&mut choices);
        run.drain();
    }
}

const MOST_STEPS: usize = 60;
const CLIENTS: usize = 3;
/// More than anything that fits into an input can cause at one moment.
const MOST_OUTPUTS: usize = 20_000;

struct Run {
    deployment: Deployment,
    now: Instant,
    request: i32,
    /// The last resume tokens seen.
    tokens: Vec<Document>,
}

impl Run {
    fn new(choices: &mut Choices<'_>) -> Self {
        let now = epoch();
        let mut config = match choices.below(4) {
            0 => Deployment::standalone(),
            1 => Deployment::replica_set(3),
            3 => Deployment::sharded(2, 2),
            _ => Deployment::replica_set(1),
        };
        config = config
            .server_version(choices.any(words::VERSIONS))
            .oplog_entries(50);
        if choices.below(8) == 1 {
            config = config.user("alice", "secret");
        }
        let mut deployment = config.build(now).expect("a modelled deployment");
        for number in 0..CLIENTS {
            let member = number % deployment.member_count();
            deployment.handle_input(
                now,
                Input::Accepted {
                    member,
                    connection: ConnectionId(number as u64),
                },
            );
        }
        Self {
            deployment,
            now,
            request: 0,
            tokens: Vec::new(),
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let connection = ConnectionId(choices.any(&[0, 0, 0, 1, 2]));
        match choices.below(12) {
            0 => {
                let bytes = choices.slice();
                self.deployment
                    .handle_input(self.now, Input::Received { connection, bytes });
            }
            1 => {
                self.deployment
                    .handle_input(self.now, Input::Disconnected { connection });
                let member = choices.below(self.deployment.member_count());
                self.deployment
                    .handle_input(self.now, Input::Accepted { member, connection });
            }
            2 | 3 => {
                self.now += Duration::from_millis(choices.below(1 << 16) as u64);
                self.deployment.handle_input(self.now, Input::Timeout);
            }
            4 => self.control(choices),
            5 => {
                let mut command = doc! { choices.any(words::COMMANDS): choices.value(words::COMMAND) };
                command.extend(choices.document(words::COMMAND));
                self.send(connection, command, choices);
            }
            _ => {
                let command = self.command(choices);
                self.send(connection, command, choices);
            }
        }
    }

    fn send(&mut self, connection: ConnectionId, mut command: Document, choices: &mut Choices<'_>) {
        self.request += 1;
        if choices.below(4) == 1 {
            command.extend(in_transaction(choices));
        }
        command
            .entry("$db".to_owned())
            .or_insert_with(|| choices.any(&["d", "d", "d", "admin", "e"]).into());
        let Ok(body) = RawDocumentBuf::try_from(&command) else {
            return;
        };
        let flags = [
            Flags::NONE,
            Flags::NONE,
            Flags::EXHAUST_ALLOWED,
            Flags::MORE_TO_COME,
        ][choices.below(4)];
        let bytes = match choices.below(16) {
            1 => encode_op_query(self.request, "admin.$cmd", &body),
            _ => encode_op_msg(self.request, 0, flags, &body, &[]),
        };
        self.deployment.handle_input(
            self.now,
            Input::Received {
                connection,
                bytes: &bytes,
            },
        );
    }

    /// What administers a sharded cluster.
    fn sharding(choices: &mut Choices<'_>) -> Document {
        let key = doc! { choices.any(&["_id", "a", "b.c"]): choices.any(&[Bson::from("hashed"), 1.into(), 2.into()]) };
        let (namespace, to) = (choices.any(&["d.c", "d.v"]), choices.any(&["sh0", "sh1", "sh2"]));
        let mut command = match choices.below(4) {
            0 => doc! { "enableSharding": "d" },
            1 => doc! { "shardCollection": namespace, "key": key },
            2 => doc! { "split": namespace, "middle": choices.document(words::COMMAND) },
            _ => doc! { "moveChunk": namespace, "find": choices.document(words::COMMAND), "to": to },
        };
        command.insert("$db", "admin");
        command
    }

    /// A command of the right form, of anything.
    fn command(&self, choices: &mut Choices<'_>) -> Document {
        if self.deployment.shard_count() > 0 && choices.below(6) == 1 {
            return Self::sharding(choices);
        }
        let collection = choices.any(&["c", "c", "c", "v"]);
        let mut any = || choices.document(words::COMMAND);
        match any().len() {
            0 => doc! { "insert": collection, "documents": [any(), any()] },
            1 => {
                let (query, update) = (any(), any());
                let update = match choices.below(3) {
                    0 => Bson::Array(vec![update.into(), choices.document(words::COMMAND).into()]),
                    1 => doc! { choices.any(UPDATES): update }.into(),
                    _ => update.into(),
                };
                let filters = [choices.document(words::COMMAND)];
                let update = doc! {
                    "q": query, "u": update, "upsert": choices.flag(), "multi": choices.flag(), "arrayFilters": filters,
                };
                doc! { "update": collection, "updates": [update] }
            }
            2 => doc! { "find": collection, "filter": any(), "projection": any(), "sort": any() },
            3 => {
                doc! { "aggregate": collection, "pipeline": [{ "$changeStream": any() }, any()], "cursor": any() }
            }
            4 => self.follow(collection, choices),
            5 => {
                let (query, update) = (any(), any());
                doc! { "findAndModify": collection, "query": query, "update": { choices.any(UPDATES): update } }
            }
            _ => doc! { "delete": collection, "deletes": [{ "q": any(), "limit": choices.any(&[0, 1]) }] },
        }
    }

    /// A getMore of a cursor that there is, or a stream that resumes from a token that there was.
    fn follow(&self, collection: &str, choices: &mut Choices<'_>) -> Document {
        let cursors = self.deployment.cursors(0);
        if !cursors.is_empty() && choices.flag() {
            return doc! { "getMore": choices.any(&cursors), "collection": collection, "maxTimeMS": 10 };
        }
        let mut stage =
            doc! { "fullDocument": choices.any(&["default", "updateLookup", "whenAvailable", "required"]) };
        if !self.tokens.is_empty() {
            stage.insert(
                choices.any(&["resumeAfter", "startAfter"]),
                choices.any(&self.tokens),
            );
        }
        let target: Bson = choices.any(&[Bson::from(collection), Bson::Int32(1)]);
        doc! { "aggregate": target, "pipeline": [{ "$changeStream": stage }], "cursor": {} }
    }

    fn control(&mut self, choices: &mut Choices<'_>) {
        let (now, deployment) = (self.now, &mut self.deployment);
        let member = choices.below(deployment.member_count());
        match choices.below(11) {
            0 => deployment.step_down(now),
            1 => deployment.crash(now, member),
            2 => deployment.restart(now, member),
            3 => drop(deployment.elect(now, member)),
            4 if deployment.shard_count() > 0 => deployment.cut_off(now, member, choices.below(2)),
            4 => deployment.partition(now, &[member]),
            5 => deployment.heal(now),
            6 => deployment.lag(now, member, Duration::from_millis(u64::from(choices.byte()))),
            7 => deployment.freeze(now, member, Duration::from_secs(u64::from(choices.byte()))),
            8 => {
                let before = Timestamp {
                    time: u32::MAX,
                    increment: choices.byte().into(),
                };
                deployment.lose_history(now, before);
            }
            9 => {
                for cursor in deployment.cursors(member) {
                    deployment.kill_cursor(now, member, cursor);
                }
            }
            _ => {
                let command = doc! {
                    "configureFailPoint": "failCommand", "mode": choices.any(&["alwaysOn", "off"]),
                    "data": choices.document(words::COMMAND),
                };
                let _ = deployment.fail_command(member, &command);
            }
        }
    }

    fn drain(&mut self) {
        for _ in 0..MOST_OUTPUTS {
            match self.deployment.poll_output(self.now) {
                Output::Deadline(at) => {
                    assert!(
                        at.is_none_or(|at| at > self.now),
                        "a deadline that has passed already"
                    );
                    return;
                }
                Output::Transmit { bytes, .. } => self.look_at(&bytes),
                Output::Listen { .. } | Output::Close { .. } | Output::Disconnect { .. } => {}
            }
        }
        panic!("it does not come to rest");
    }

    fn look_at(&mut self, bytes: &Bytes) {
        let body = match Message::decode(bytes).expect("it speaks the protocol") {
            Message::Msg(reply) => reply.body,
            Message::Reply(reply) => reply.document,
            other @ (Message::Query(_) | _) => panic!("no reply: {other:?}"),
        };
        let raw = RawDocumentBuf::from_bytes(body.to_vec()).expect("a document");
        let reply = Document::try_from(raw).expect("a readable document");
        assert!(reply.contains_key("ok"), "{reply}");
        if let Ok(cursor) = reply.get_document("cursor")
            && let Ok(token) = cursor.get_document("postBatchResumeToken")
        {
            self.tokens.truncate(3);
            self.tokens.insert(0, token.clone());
        }
    }
}

const UPDATES: &[&str] = &[
    "$set",
    "$unset",
    "$inc",
    "$push",
    "$pull",
    "$rename",
    "$addToSet",
    "$mul",
    "$bit",
    "$pop",
];

fn in_transaction(choices: &mut Choices<'_>) -> Document {
    let id = bson::Binary {
        subtype: bson::spec::BinarySubtype::Uuid,
        bytes: vec![choices.byte() & 1; 16],
    };
    let mut fields = doc! { "lsid": { "id": id }, "txnNumber": i64::from(choices.byte() & 3) };
    if choices.flag() {
        fields.insert("autocommit", false);
        if choices.flag() {
            fields.insert("startTransaction", true);
        }
    }
    fields
}

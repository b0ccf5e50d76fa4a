//! The simulated server answers recorded requests as the recorded server did: the same fields in the same order, the
//! same errors. What differs from run to run (times, ids, tokens) is not compared.
//!
//! With a mongos, nothing else differs in form. What does in substance: its getMores find events at moments that depend
//! on the recorded shards' no-ops, each second there; ours have nothing to find, since the data is not replayed.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use bytes::Bytes;
use changestream_core::wire::{
    DEFAULT_MAX_MESSAGE_SIZE, Flags, Message, compressor_of, decompress, encode_op_msg,
};
use changestream_sim::{ConnectionId, Deployment, Input, Mechanism, Output};

#[test]
fn recorded_requests_are_answered_in_the_recorded_form() {
    let Some(folder) = changestream_tests::captures() else {
        return;
    };
    let mut compared = 0;
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".wire.jsonl") {
            compared += replay(&name, &file);
        }
    }
    assert!(compared > 100, "only {compared} replies were compared");
}

fn replay(name: &str, file: &Path) -> usize {
    let mut server = Server::new(name);
    let exchanges = exchanges(file);
    let mut compared = 0;
    for (connection, flags, request, recorded) in exchanges {
        let Some(ours) = server.answer(connection, flags, request.clone(), &recorded) else {
            continue;
        };
        compare(name, &request, &recorded, &ours);
        compared += 1;
    }
    compared
}

fn compare(name: &str, request: &Document, recorded: &Document, ours: &Document) {
    let at = format!("{name}: {request}\nrecorded {recorded}\nours {ours}");
    assert_eq!(keys(recorded), keys(ours), "{at}");
    for field in ["ok", "errmsg", "code", "codeName", "errorLabels"] {
        let text = recorded.get_str(field).unwrap_or("");
        // The cursor's number is in the text.
        if !text.starts_with("cursor id") {
            assert_eq!(recorded.get(field), ours.get(field), "{at}");
        }
    }
    if let (Ok(a), Ok(b)) = (recorded.get_document("cursor"), ours.get_document("cursor")) {
        assert_eq!(keys(a), keys(b), "{at}");
        assert_eq!(a.get("ns"), b.get("ns"), "{at}");
        let ended = |cursor: &Document| cursor.get_i64("id").is_ok_and(|id| id == 0);
        assert_eq!(ended(a), ended(b), "{at}");
    }
    assert_eq!(types(recorded), types(ours), "{at}");
}

/// The types of a reply's fields, those of documents in it included; of arrays, that they are arrays.
fn types(reply: &Document) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in reply {
        found.push(format!("{name}: {:?}", value.element_type()));
        if let (Some(inner), false) = (value.as_document(), name == "postBatchResumeToken") {
            found.extend(types(inner).into_iter().map(|inner| format!("{name}.{inner}")));
        }
    }
    found
}

fn keys(document: &Document) -> Vec<&str> {
    document.keys().map(String::as_str).collect()
}

/// Requests with their first replies, in the order of the requests.
///
/// What a replica set answers by a stream of replies is left out; a mongos does that for its hello alone.
fn exchanges(file: &Path) -> Vec<(u64, Flags, Document, Document)> {
    let mongos = is_sharded(file.file_name().unwrap().to_str().unwrap());
    let mut open: Vec<(u64, i32, Flags, Document, Option<Document>)> = Vec::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(bytes) = line["bytes"].as_str() else {
            continue;
        };
        let mut frame = Bytes::from(BASE64.decode(bytes).unwrap());
        if compressor_of(&frame).is_some() {
            frame = decompress(&frame, DEFAULT_MAX_MESSAGE_SIZE).unwrap();
        }
        let message = Message::decode(&frame).unwrap();
        let (body, flags) = match &message {
            Message::Msg(m) => (&m.body, m.flags),
            Message::Query(q) => (&q.query, Flags::NONE),
            Message::Reply(r) => (&r.document, Flags::NONE),
            _ => continue,
        };
        let mut document = Document::from_reader(&mut &body[..]).unwrap();
        if matches!(message, Message::Query(_)) {
            // Handshakes, which the machine is asked by OP_MSG: their replies are the same.
            document.insert("$db", "admin");
        }
        let connection = line["conn"].as_u64().unwrap();
        let plain = !flags.contains(Flags::EXHAUST_ALLOWED);
        if line["dir"] == "c2s" && (plain || mongos) {
            open.push((connection, message.request_id(), flags, document, None));
        } else if line["dir"] == "s2c" {
            let to = message.response_to();
            let request = open
                .iter_mut()
                .find(|(c, id, _, _, reply)| *c == connection && *id == to && reply.is_none());
            if let Some(request) = request {
                assert!(
                    !mongos || !flags.contains(Flags::MORE_TO_COME),
                    "a mongos that streams"
                );
                request.4 = Some(document);
            }
        }
    }
    open.into_iter()
        .filter_map(|(c, _, flags, request, reply)| Some((c, flags, request, reply?)))
        .collect()
}

fn is_sharded(name: &str) -> bool {
    name.starts_with("sharded")
}

struct Server {
    /// Whether commands need a user, which the recorded client becomes by a proof for another server's nonce.
    authenticates: bool,
    deployment: Deployment,
    now: Instant,
    connections: BTreeMap<u64, ConnectionId>,
    /// Recorded cursor ids to ours.
    cursors: BTreeMap<i64, i64>,
}

impl Server {
    fn new(name: &str) -> Self {
        if is_sharded(name) {
            return Self::mongos();
        }
        let now = Instant::now();
        let config = match name.split('.').next() {
            Some("standalone") => Deployment::standalone(),
            Some("step-down") => Deployment::replica_set(3),
            _ => Deployment::replica_set(1),
        };
        let authenticates = name.starts_with("auth-");
        let config = if authenticates {
            let users = config.user_with("sha1", "pencil", &[Mechanism::ScramSha1]);
            let users = users.user_with("sha256", "pencil", &[Mechanism::ScramSha256]);
            users.user("both", "pencil")
        } else {
            config
        };
        let deployment = config.build(now).unwrap();
        Self {
            authenticates,
            deployment,
            now,
            connections: BTreeMap::new(),
            cursors: BTreeMap::new(),
        }
    }

    /// Two shards, as recorded.
    fn mongos() -> Self {
        let now = Instant::now();
        let mut server = Self {
            authenticates: false,
            deployment: Deployment::sharded(2, 1).build(now).unwrap(),
            now,
            connections: BTreeMap::new(),
            cursors: BTreeMap::new(),
        };
        for command in [
            doc! { "enableSharding": "capdb", "$db": "admin" },
            doc! { "shardCollection": "capdb.c", "key": { "k": "hashed" }, "$db": "admin" },
        ] {
            let reply = server.run(u64::MAX, Flags::NONE, &command);
            assert_eq!(reply.get_f64("ok").unwrap(), 1.0, "{reply}");
        }
        server
    }

    /// Our reply, if the request can be asked without the recorded server's data.
    fn answer(
        &mut self,
        connection: u64,
        flags: Flags,
        mut request: Document,
        recorded: &Document,
    ) -> Option<Document> {
        let name = request.keys().next()?.clone();
        match name.as_str() {
            "saslStart" => {}
            _ if self.authenticates && !name.eq_ignore_ascii_case("ismaster") => {
                // A proof that fails, and what is refused without one.
                recorded.get_i32("code").ok()?;
            }
            "ismaster" | "isMaster" => {
                if recorded.get_bool("ismaster").is_ok_and(|primary| !primary) {
                    return None;
                }
            }
            "aggregate" if recorded.contains_key("code") => {}
            "aggregate" => {
                let last = self.deployment.last_write();
                let stage = request.get_array_mut("pipeline").ok()?.first_mut()?;
                let options = stage.as_document_mut()?.get_document_mut("$changeStream").ok()?;
                if let (true, Some(last), Some(start)) = (
                    self.deployment.shard_count() > 0,
                    last,
                    options.get_mut("startAtOperationTime"),
                ) {
                    *start = last.into();
                    let ours = self.run(connection, flags, &request);
                    return Some(self.know_cursor(recorded, ours));
                }
                if ["resumeAfter", "startAfter", "startAtOperationTime"]
                    .iter()
                    .any(|o| options.contains_key(o))
                {
                    return None;
                }
            }
            "getMore" => {
                let ours = *self.cursors.get(&request.get_i64("getMore").ok()?)?;
                let id = recorded.get_document("cursor").ok()?.get_i64("id").ok()?;
                if id == 0 {
                    return None;
                }
                request.insert("getMore", ours);
            }
            "killCursors" | "endSessions" => {}
            _ => return None,
        }
        let ours = self.run(connection, flags, &request);
        Some(self.know_cursor(recorded, ours))
    }

    fn know_cursor(&mut self, recorded: &Document, ours: Document) -> Document {
        let id = |reply: &Document| reply.get_document("cursor").ok()?.get_i64("id").ok();
        if let (Some(recorded), Some(ours)) = (id(recorded), id(&ours)) {
            self.cursors.insert(recorded, ours);
        }
        ours
    }

    fn run(&mut self, connection: u64, flags: Flags, request: &Document) -> Document {
        let connection = match self.connections.get(&connection) {
            Some(id) => *id,
            None => {
                let id = self.deployment.new_connection();
                self.deployment.handle_input(
                    self.now,
                    Input::Accepted {
                        member: 0,
                        connection: id,
                    },
                );
                self.connections.insert(connection, id);
                id
            }
        };
        let body = RawDocumentBuf::try_from(request).unwrap();
        let bytes = encode_op_msg(1, 0, flags, &body, &[]);
        self.deployment.handle_input(
            self.now,
            Input::Received {
                connection,
                bytes: &bytes,
            },
        );
        for _ in 0..100 {
            match self.deployment.poll_output(self.now) {
                Output::Transmit { bytes, .. } => {
                    let Message::Msg(reply) = Message::decode(&bytes).unwrap() else {
                        panic!("no OP_MSG")
                    };
                    assert!(
                        self.deployment.shard_count() == 0 || reply.flags == Flags::NONE,
                        "a mongos that streams"
                    );
                    return Document::from_reader(&mut &reply.body[..]).unwrap();
                }
                Output::Deadline(at) => {
                    self.now = at.unwrap_or(self.now + Duration::from_secs(1)).max(self.now);
                    self.deployment.handle_input(self.now, Input::Timeout);
                }
                Output::Listen { .. } | Output::Close { .. } | Output::Disconnect { .. } => {}
            }
        }
        panic!("no reply to {request}");
    }
}

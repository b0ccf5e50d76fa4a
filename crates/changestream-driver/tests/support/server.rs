//! A scripted server, bytes in and bytes out: one replica set of one member, one stream of changes.

use bson::{Document, RawDocument, RawDocumentBuf, Timestamp, doc, oid::ObjectId};
use bytes::Bytes;
use changestream_core::wire::{self, Flags, Message};

/// The connection string of the only member.
pub const URI: &str = "mongodb://db1/?replicaSet=rs0";

/// What the server knows, does and has heard.
pub struct Server {
    /// The member's address, as it calls itself.
    pub me: String,
    /// How many changes there are. Change `n` has the token `{_data: "n"}`, counted from 1.
    pub changes: usize,
    /// How many of them a batch may have.
    pub batch: usize,
    /// How many bytes of payload each change carries.
    pub payload: usize,
    /// Whether an invalidate event follows the last change.
    pub invalidate: bool,
    /// Fails aggregate commands by this code.
    pub fail_aggregate: Option<i32>,
    /// Every command heard, but hello.
    pub commands: Vec<Document>,
    position: usize,
    killed: bool,
    next_request: i32,
}

/// What a request gets.
#[derive(Debug)]
pub enum Answer {
    Reply(Bytes),
    /// Nothing yet: ask again when there are changes, or the await time is over.
    Hold,
    /// Nothing at all.
    Silence,
}

impl Server {
    pub fn new(changes: usize) -> Self {
        Self {
            me: "db1:27017".to_owned(),
            changes,
            batch: 100,
            payload: 0,
            invalidate: false,
            fail_aggregate: None,
            commands: Vec::new(),
            position: 0,
            killed: false,
            next_request: 1_000,
        }
    }

    /// The names of the commands heard, but hello.
    pub fn heard(&self) -> Vec<&str> {
        self.commands.iter().filter_map(name).collect()
    }

    /// Answers a request that is heard for the first time.
    pub fn hear(&mut self, frame: &Bytes) -> Answer {
        let message = Message::decode(frame).unwrap();
        if let Message::Msg(msg) = &message {
            let command = document(&msg.body);
            if !matches!(name(&command), Some("hello" | "isMaster" | "ismaster")) {
                self.commands.push(command);
            }
        }
        self.answer(frame, false)
    }

    /// Answers a request that was held; `time_out` says that its await time is over.
    pub fn answer(&mut self, frame: &Bytes, time_out: bool) -> Answer {
        let request = Message::decode(frame).unwrap();
        self.next_request += 1;
        match &request {
            Message::Query(query) => Answer::Reply(wire::encode_op_reply(
                self.next_request,
                query.request_id,
                &raw(&self.hello()),
            )),
            Message::Msg(msg) => {
                let Some(reply) = self.run(&document(&msg.body), time_out) else {
                    return Answer::Hold;
                };
                if msg.flags.contains(Flags::MORE_TO_COME) {
                    return Answer::Silence;
                }
                Answer::Reply(wire::encode_op_msg(
                    self.next_request,
                    msg.request_id,
                    Flags::NONE,
                    &raw(&reply),
                    &[],
                ))
            }
            _ => panic!("a client does not send {request:?}"),
        }
    }

    fn run(&mut self, command: &Document, time_out: bool) -> Option<Document> {
        match name(command)? {
            "hello" | "isMaster" | "ismaster" => Some(self.hello()),
            "aggregate" => Some(self.aggregate(command)),
            "killCursors" => {
                self.killed = true;
                Some(doc! { "ok": 1 })
            }
            "getMore" if self.killed => {
                Some(doc! { "ok": 0, "code": 237, "codeName": "CursorKilled", "errmsg": "killed" })
            }
            "getMore" => {
                let batch = self.take();
                if batch.is_empty() && !time_out && !self.at_end() {
                    return None;
                }
                Some(self.cursor("nextBatch", batch))
            }
            _ => Some(doc! { "ok": 1 }),
        }
    }

    fn aggregate(&mut self, command: &Document) -> Document {
        if let Some(code) = self.fail_aggregate {
            return doc! { "ok": 0, "code": code, "codeName": "Failed", "errmsg": "as the script says" };
        }
        self.killed = false;
        let stage = &command.get_array("pipeline").unwrap()[0];
        let stage = stage
            .as_document()
            .unwrap()
            .get_document("$changeStream")
            .unwrap();
        let token = ["resumeAfter", "startAfter"]
            .iter()
            .find_map(|name| stage.get_document(name).ok());
        self.position = token.map_or(0, |token| token.get_str("_data").unwrap().parse().unwrap());
        let empty = command.get_document("cursor").unwrap().get("batchSize").is_some();
        let batch = if empty { Vec::new() } else { self.take() };
        self.cursor("firstBatch", batch)
    }

    /// The next changes.
    fn take(&mut self) -> Vec<Document> {
        let last = self.changes + usize::from(self.invalidate);
        let batch: Vec<_> = (self.position + 1..=last)
            .take(self.batch)
            .map(|n| self.change(n))
            .collect();
        self.position += batch.len();
        batch
    }

    fn change(&self, n: usize) -> Document {
        if n > self.changes {
            return doc! { "_id": token(n), "operationType": "invalidate", "clusterTime": time() };
        }
        doc! {
            "_id": token(n),
            "operationType": "insert",
            "clusterTime": time(),
            "ns": { "db": "shop", "coll": "orders" },
            "documentKey": { "_id": n as i64 },
            "fullDocument": { "_id": n as i64, "text": "x".repeat(self.payload) },
        }
    }

    fn at_end(&self) -> bool {
        self.invalidate && self.position > self.changes
    }

    fn cursor(&self, field: &str, batch: Vec<Document>) -> Document {
        let id = if self.at_end() { 0_i64 } else { 7_000 };
        doc! {
            "cursor": { field: batch, "id": id, "ns": "shop.orders", "postBatchResumeToken": token(self.position) },
            "ok": 1,
            "operationTime": time(),
        }
    }

    fn hello(&self) -> Document {
        doc! {
            "helloOk": true,
            "isWritablePrimary": true,
            "ismaster": true,
            "secondary": false,
            "setName": "rs0",
            "setVersion": 1,
            "electionId": ObjectId::from_bytes([1; 12]),
            "hosts": [&self.me],
            "primary": &self.me,
            "me": &self.me,
            "maxBsonObjectSize": 16 << 20,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 21,
            "readOnly": false,
            "ok": 1,
        }
    }
}

/// The number of the change that this token belongs to.
pub fn number(token: &changestream_core::ResumeToken) -> usize {
    token
        .as_document()
        .unwrap()
        .get_str("_data")
        .unwrap()
        .parse()
        .unwrap()
}

fn token(n: usize) -> Document {
    doc! { "_data": n.to_string() }
}

fn time() -> Timestamp {
    Timestamp {
        time: 1_700_000_000,
        increment: 1,
    }
}

fn name(command: &Document) -> Option<&str> {
    command.keys().next().map(String::as_str)
}

fn document(bytes: &Bytes) -> Document {
    RawDocument::from_bytes(bytes).unwrap().try_into().unwrap()
}

fn raw(document: &Document) -> RawDocumentBuf {
    document.try_into().unwrap()
}

//! Makes happen to the simulated deployment what happened to the recorded one: its writes, by the events that tell of
//! them, elections, lost cursors and failing commands, by what the replies say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bson::{Bson, Document, Timestamp, doc};

use crate::server::Server;

pub(crate) struct Director {
    /// Every recorded event by its token, hence in order.
    events: BTreeMap<String, Document>,
    written: BTreeMap<String, (Instant, Timestamp)>,
    /// Documents that a recorded client inserts.
    inserted: Vec<Document>,
    /// The last token of each recorded cursor.
    tokens: BTreeMap<i64, Bson>,
    transactions: i64,
    done: BTreeSet<i32>,
}

impl Director {
    pub(crate) fn new<'a>(replies: impl Iterator<Item = &'a Document>, inserted: Vec<Document>) -> Self {
        let mut events = BTreeMap::new();
        for event in replies.flat_map(batch) {
            if let Some(token) = token(event) {
                events.insert(token, event.clone());
            }
        }
        Self {
            events,
            written: BTreeMap::new(),
            inserted,
            tokens: BTreeMap::new(),
            transactions: 0,
            done: BTreeSet::new(),
        }
    }

    /// When we wrote what the recorded server wrote at that time or next after it.
    pub(crate) fn time_of(&self, server: &Server, recorded: Timestamp) -> Timestamp {
        let at = |event: &Document| event.get_timestamp("clusterTime").ok();
        let next = self.events.iter().find(|(_, event)| at(event) >= Some(recorded));
        let ours = next
            .and_then(|(token, _)| self.written.get(token))
            .map(|(_, ts)| *ts);
        ours.or_else(|| server.deployment.last_write())
            .unwrap_or(recorded)
    }

    /// What spoils a request before it is sent. `ours` is our cursor.
    pub(crate) fn before(
        &self,
        server: &mut Server,
        member: usize,
        name: &str,
        ours: Option<i64>,
        reply: Option<&Document>,
    ) {
        let Some(reply) = reply else {
            let data = doc! { "failCommands": [name], "closeConnection": true };
            return fail(server, member, data);
        };
        let code = reply.get_i32("code").unwrap_or(0);
        if reply
            .get_str("errmsg")
            .is_ok_and(|text| text.contains("failCommand"))
        {
            return fail(server, member, doc! { "failCommands": [name], "errorCode": code });
        }
        if let (43, Some(cursor)) = (code, ours) {
            let now = server.now();
            server.deployment.kill_cursor(now, member, cursor);
        }
    }

    /// A recorded client's insert was sent.
    pub(crate) fn inserted(&mut self, server: &Server, documents: &[Bson]) {
        let Some(ts) = server.deployment.last_write() else {
            return;
        };
        for (token, event) in &self.events {
            let full = event.get("fullDocument");
            if full.is_some_and(|full| documents.contains(full)) {
                self.written.insert(token.clone(), (server.now(), ts));
            }
        }
    }

    /// The writes that the reply tells of, and their commit.
    pub(crate) fn prepare(&mut self, server: &mut Server, request: &Document, reply: &Document) {
        let told: Vec<String> = batch(reply).filter_map(token).collect();
        let mut until = None;
        if let Some(last) = told.last() {
            let mut due = told.clone();
            let full = is_full(request, reply);
            if let (true, Ok(ts)) = (full, reply.get_timestamp("operationTime")) {
                let known = |event: &Document| event.get_timestamp("clusterTime").is_ok_and(|at| at <= ts);
                due.extend(
                    self.events
                        .iter()
                        .filter(|(_, e)| known(e))
                        .map(|(t, _)| t.clone()),
                );
            }
            for token in &due {
                self.write(server, token);
            }
            let last = if full {
                due.iter().max().unwrap_or(last)
            } else {
                last
            };
            until = self.written.get(last).map(|(at, _)| *at);
            let beyond =
                position(reply).is_some_and(|(_, token)| data(token) > told.last().map(String::as_str));
            if server.is_sharded() && beyond {
                // All shards were past the last event.
                until = Some(server.write_elsewhere());
            }
        } else if self.has_moved(request, reply) {
            until = Some(server.write_elsewhere());
        }
        let code = reply.get_i32("code").unwrap_or(0);
        if matches!(code, 280 | 10334) && self.done.insert(code) {
            until = Some(write_trouble(server, code));
        }
        if let Some(until) = until {
            server.commit(until);
        }
    }

    /// What lets a mongos hand out what it has: writes on the shards that hold it back, the one behind all others first.
    pub(crate) fn release(&self, server: &mut Server, connection: u64) {
        for _ in 0..server.deployment.shard_count() {
            let until = server.write_behind();
            server.commit(until);
            if server.has_reply(connection) {
                return;
            }
        }
    }

    /// The members' roles are as this hello says.
    pub(crate) fn elect(&self, server: &mut Server, member: usize, hello: &Document) {
        let (Ok(primary), false) = (hello.get_bool("ismaster"), hello.contains_key("msg")) else {
            return;
        };
        // One that is elected says so before it takes writes.
        let elected = hello.get_bool("secondary").is_ok_and(|s| s) && hello.contains_key("electionId");
        let primary = primary || elected;
        if !hello.contains_key("setName") || primary == (server.deployment.primary() == Some(member)) {
            return;
        }
        let now = server.now();
        server.commit(now);
        if primary {
            assert!(
                server.deployment.elect(now, member),
                "member {member} cannot be elected"
            );
        } else {
            server.deployment.step_down(now);
        }
    }

    /// Remembers a recorded cursor's token.
    pub(crate) fn pass(&mut self, reply: &Document) {
        if let Some((id, token)) = position(reply) {
            self.tokens.insert(id, token.clone());
        }
    }

    /// Whether a getMore's token is another than the cursor's last.
    fn has_moved(&self, request: &Document, reply: &Document) -> bool {
        let Some((id, token)) = position(reply).filter(|_| request.contains_key("getMore")) else {
            return false;
        };
        self.tokens.get(&id).is_some_and(|before| before != token)
    }

    fn write(&mut self, server: &mut Server, token: &str) {
        let Some(event) = self
            .events
            .get(token)
            .filter(|_| !self.written.contains_key(token))
            .cloned()
        else {
            return;
        };
        let by_client = |full: &Document| self.inserted.contains(full);
        if event.get_document("fullDocument").is_ok_and(by_client) {
            return;
        }
        let commands = self.commands(&event);
        let mut at = None;
        for command in commands {
            at = Some(server.write(command));
        }
        if let Some(at) = at.or_else(|| self.written.values().max().copied()) {
            self.written.insert(token.to_owned(), at);
        }
    }

    /// What the event tells of; several commands for the last event of a transaction.
    fn commands(&mut self, event: &Document) -> Vec<Document> {
        let Some(number) = event.get("txnNumber") else {
            return command(event).into_iter().collect();
        };
        let same = |other: &&Document| {
            other.get("txnNumber") == Some(number) && other.get("lsid") == event.get("lsid")
        };
        let of_one: Vec<Document> = self.events.values().filter(same).cloned().collect();
        if of_one.first() != Some(event) {
            return Vec::new();
        }
        self.transactions += 1;
        let id = bson::Binary {
            subtype: bson::spec::BinarySubtype::Uuid,
            bytes: vec![7; 16],
        };
        let session = doc! { "lsid": { "id": id }, "txnNumber": self.transactions, "autocommit": false };
        let mut commands: Vec<Document> = of_one.iter().filter_map(command).collect();
        commands.push(doc! { "commitTransaction": 1, "$db": "admin" });
        for (index, command) in commands.iter_mut().enumerate() {
            command.extend(session.clone());
            if index == 0 {
                command.insert("startTransaction", true);
            }
        }
        commands
    }
}

/// The events of a reply.
pub(crate) fn batch(reply: &Document) -> impl Iterator<Item = &Document> {
    let cursor = reply.get_document("cursor").ok();
    let batch = cursor.and_then(|c| {
        c.get_array("firstBatch")
            .or_else(|_| c.get_array("nextBatch"))
            .ok()
    });
    batch.into_iter().flatten().filter_map(Bson::as_document)
}

fn position(reply: &Document) -> Option<(i64, &Bson)> {
    let cursor = reply.get_document("cursor").ok()?;
    Some((cursor.get_i64("id").ok()?, cursor.get("postBatchResumeToken")?))
}

fn token(event: &Document) -> Option<String> {
    data(event.get("_id")?).map(str::to_owned)
}

fn data(token: &Bson) -> Option<&str> {
    token.as_document()?.get_str("_data").ok()
}

/// Whether the batch ends because it may have no more, so that others may have waited.
fn is_full(request: &Document, reply: &Document) -> bool {
    let size = |d: &Document| {
        d.get_i32("batchSize")
            .ok()
            .or_else(|| d.get_i64("batchSize").ok()?.try_into().ok())
    };
    let limit = match request.get_document("cursor") {
        Ok(cursor) => Some(size(cursor).unwrap_or(101)),
        Err(_) => size(request),
    };
    let count = batch(reply).count();
    limit.is_some_and(|limit| i32::try_from(count).is_ok_and(|count| count >= limit))
}

fn command(event: &Document) -> Option<Document> {
    let ns = event.get_document("ns").ok()?;
    let (db, coll) = (ns.get_str("db").ok()?, ns.get_str("coll").unwrap_or(""));
    let key = event.get_document("documentKey").cloned().unwrap_or_default();
    let full = event.get_document("fullDocument").cloned().unwrap_or_default();
    Some(match event.get_str("operationType").ok()? {
        "insert" => doc! { "insert": coll, "documents": [full], "$db": db },
        "replace" => doc! { "update": coll, "updates": [{ "q": key, "u": full }], "$db": db },
        "delete" => doc! { "delete": coll, "deletes": [{ "q": key, "limit": 1 }], "$db": db },
        "update" => {
            let told = event.get_document("updateDescription").ok()?;
            let removed = told.get_array("removedFields").cloned().unwrap_or_default();
            let removed: Document = removed
                .iter()
                .filter_map(|field| Some((field.as_str()?.to_owned(), Bson::from(""))))
                .collect();
            let set = told.get_document("updatedFields").cloned().unwrap_or_default();
            let mut update = Document::new();
            for (operator, fields) in [("$set", set), ("$unset", removed)] {
                if !fields.is_empty() {
                    update.insert(operator, fields);
                }
            }
            doc! { "update": coll, "updates": [{ "q": key, "u": update }], "$db": db }
        }
        "drop" => doc! { "drop": coll, "$db": db },
        "dropDatabase" => doc! { "dropDatabase": 1, "$db": db },
        "rename" => {
            let to = event.get_document("to").ok()?;
            let to = format!("{}.{}", to.get_str("db").ok()?, to.get_str("coll").ok()?);
            doc! { "renameCollection": format!("{db}.{coll}"), "to": to, "$db": "admin" }
        }
        "invalidate" => return None,
        other => panic!("the director cannot make a {other:?} happen"),
    })
}

fn fail(server: &mut Server, member: usize, data: Document) {
    let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
    server.deployment.fail_command(member, &command).unwrap();
}

/// The write whose event the recorded stream could not deliver.
fn write_trouble(server: &mut Server, code: i32) -> Instant {
    let half = "x".repeat(9_000_000);
    if code == 280 {
        return server
            .write(doc! { "insert": "c", "documents": [{ "_id": 1 }], "$db": "capdb" })
            .0;
    }
    // Half in the document, half in the description: together too large.
    let document = doc! { "_id": 1, "big": "" };
    server.write(doc! { "insert": "c", "documents": [document], "$db": "capdb" });
    let update = doc! { "$set": { "big": half } };
    server
        .write(doc! { "update": "c", "updates": [{ "q": { "_id": 1 }, "u": update }], "$db": "capdb" })
        .0
}

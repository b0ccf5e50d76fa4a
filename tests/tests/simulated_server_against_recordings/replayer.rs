//! Asks the simulated deployment what was recorded, in the words of its own run: its cursor ids, tokens and times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document};
use changestream_core::auth::scram::{Hash, Scram, ScramKeys};
use changestream_tests::capture::{Entry, Happening, Plain, Record, Scenario, Side};
use md5::Digest as _;

use crate::director::{Director, batch};
use crate::explained::Difference;
use crate::server::{self, Server};
use crate::shape;

/// What a scenario's replay has shown.
pub(crate) struct Outcome {
    pub(crate) differences: Vec<Difference>,
    pub(crate) compared: usize,
    /// Recorded replies without a request.
    pub(crate) left: usize,
}

pub(crate) struct Replayer<'a> {
    scenario: &'a Scenario,
    server: Server,
    director: Director,
    members: Vec<u16>,
    /// The request under way on each connection.
    open: BTreeMap<u64, Open>,
    cursors: BTreeMap<i64, i64>,
    tokens: BTreeMap<String, Document>,
    /// What each member last said of its topology.
    topology: BTreeMap<usize, Bson>,
    cluster_time: Option<Bson>,
    conversations: BTreeMap<u64, (Hash, String, String)>,
    password: String,
    outcome: Outcome,
}

struct Open {
    name: String,
    request: Document,
    answered: bool,
}

impl<'a> Replayer<'a> {
    pub(crate) fn new(scenario: &'a Scenario) -> Self {
        let replies = || messages(scenario, Side::Server).map(|(_, plain)| &plain.body);
        let hello = replies().find(|reply| reply.contains_key("ismaster")).unwrap();
        let inserts = messages(scenario, Side::Client).filter(|(_, plain)| plain.body.contains_key("insert"));
        let inserted = inserts
            .flat_map(|(_, plain)| {
                plain
                    .sequences
                    .get_array("documents")
                    .cloned()
                    .unwrap_or_default()
            })
            .filter_map(|document| document.as_document().cloned());
        let members: BTreeSet<u16> = scenario.records.iter().map(|record| record.member).collect();
        let password = scenario.log.iter().find_map(|entry| match entry {
            Entry::Mark(mark) => Some(mark.as_document()?.get_str("password").ok()?.to_owned()),
            _ => None,
        });
        Self {
            scenario,
            server: server::build(&scenario.name, hello),
            director: Director::new(replies(), inserted.collect()),
            members: members.into_iter().collect(),
            open: BTreeMap::new(),
            cursors: BTreeMap::new(),
            tokens: BTreeMap::new(),
            topology: BTreeMap::new(),
            cluster_time: None,
            conversations: BTreeMap::new(),
            password: password.unwrap_or_default(),
            outcome: Outcome {
                differences: Vec::new(),
                compared: 0,
                left: 0,
            },
        }
    }

    pub(crate) fn run(mut self) -> Outcome {
        for (index, record) in self.scenario.records.iter().enumerate() {
            self.server.advance(record.at);
            let connection = record.connection;
            match &record.happening {
                Happening::Opened => {
                    let member = self.member(record);
                    self.server.open(connection, member);
                }
                Happening::Refused => {}
                Happening::Closed(side) => self.closed(connection, *side),
                Happening::Message(Side::Client, plain) => self.ask(index, record, plain),
                Happening::Message(Side::Server, plain) => self.hear(record, plain),
            }
        }
        self.outcome
    }

    fn member(&self, record: &Record) -> usize {
        self.members.iter().position(|m| *m == record.member).unwrap_or(0)
    }

    fn closed(&mut self, connection: u64, side: Side) {
        let waits = self.open.get(&connection).filter(|open| !open.answered);
        if let (Side::Server, Some(open)) = (side, waits) {
            let name = open.name.clone();
            if !self.server.is_closed(connection) {
                self.differ(
                    &name,
                    "",
                    "the recorded connection ended, ours did not".to_owned(),
                );
            }
            self.outcome.compared += 1;
        }
        if let Some(open) = self.open.remove(&connection) {
            let further = self.server.has_reply(connection);
            if further && !matches!(open.name.as_str(), "ismaster" | "isMaster" | "hello") {
                self.differ(&open.name, "", "a further reply of ours".to_owned());
            }
        }
        self.server.close(connection);
    }

    fn ask(&mut self, index: usize, record: &Record, plain: &Plain) {
        let member = self.member(record);
        let mut request = plain.body.clone();
        request.extend(plain.sequences.clone());
        let name = request.keys().next().cloned().unwrap();
        let answer = self.answer_to(index, record.connection);
        let cursor = request
            .get_i64("getMore")
            .ok()
            .and_then(|id| self.cursors.get(&id))
            .copied();
        let hello = matches!(name.as_str(), "ismaster" | "isMaster" | "hello");
        if !hello {
            let reply = answer.map(|(_, plain)| &plain.body);
            self.director
                .before(&mut self.server, member, &name, cursor, reply);
        }
        if let Some((at, reply)) = answer
            && !hello
            && (name != "getMore" || at.saturating_sub(record.at) < AWAITED || is_empty(&reply.body))
        {
            self.director.prepare(&mut self.server, &request, &reply.body);
        }
        let asked = self.translate(record.connection, member, request.clone());
        self.server.send(record.connection, plain.flags, &asked);
        if let Ok(documents) = request.get_array("documents") {
            self.director.inserted(&self.server, documents);
        }
        let open = Open {
            name,
            request,
            answered: false,
        };
        self.open.insert(record.connection, open);
    }

    /// When and how the request was first answered.
    fn answer_to(&self, index: usize, connection: u64) -> Option<(Duration, &'a Plain)> {
        let mut after = self.scenario.records.iter().skip(index + 1);
        let next = after.find(|record| record.connection == connection)?;
        match &next.happening {
            Happening::Message(Side::Server, plain) => Some((next.at, plain)),
            _ => None,
        }
    }

    fn hear(&mut self, record: &Record, plain: &Plain) {
        let (connection, member) = (record.connection, self.member(record));
        let Some(open) = self.open.get_mut(&connection) else {
            self.outcome.left += 1;
            return;
        };
        open.answered = true;
        let (name, request) = (open.name.clone(), open.request.clone());
        let recorded = &plain.body;
        if recorded.contains_key("ismaster") {
            self.director.elect(&mut self.server, member, recorded);
        } else if !self.server.has_reply(connection) {
            self.director.prepare(&mut self.server, &request, recorded);
            if batch(recorded).next().is_some() && !self.server.has_reply(connection) {
                self.director.release(&mut self.server, connection);
            }
        }
        self.director.pass(recorded);
        self.outcome.compared += 1;
        let Some((flags, ours)) = self.server.reply(connection) else {
            return self.differ(&name, "", "no reply of ours".to_owned());
        };
        if flags != plain.flags {
            let what = format!("flags: recorded {:?}, ours {flags:?}", plain.flags);
            self.differ(&name, "", what);
        }
        for (path, what) in shape::differences(recorded, &ours) {
            self.differ(&name, &path, what);
        }
        self.learn(connection, member, &request, recorded, &ours);
    }

    fn differ(&mut self, command: &str, path: &str, what: String) {
        self.outcome.differences.push(Difference {
            scenario: self.scenario.name.clone(),
            command: command.to_owned(),
            path: path.to_owned(),
            what,
        });
    }

    /// What stands for what from now on.
    fn learn(
        &mut self,
        connection: u64,
        member: usize,
        request: &Document,
        recorded: &Document,
        ours: &Document,
    ) {
        if let (Ok(theirs), Ok(our)) = (recorded.get_document("cursor"), ours.get_document("cursor")) {
            if let (Ok(a), Ok(b)) = (theirs.get_i64("id"), our.get_i64("id")) {
                self.cursors.insert(a, b);
            }
            self.learn_token(
                theirs.get("postBatchResumeToken"),
                our.get("postBatchResumeToken"),
            );
            for (a, b) in batch(recorded).zip(batch(ours)) {
                self.learn_token(a.get("_id"), b.get("_id"));
            }
        }
        if let Some(version) = ours.get("topologyVersion") {
            self.topology.insert(member, version.clone());
        }
        if let Some(time) = ours.get("$clusterTime") {
            self.cluster_time = Some(time.clone());
        }
        let started = request.get_document("speculativeAuthenticate").ok();
        let answered = ours.get_document("speculativeAuthenticate").ok();
        let (start, answer) = match (started, answered) {
            (Some(start), Some(answer)) => (start, answer),
            _ => (request, ours),
        };
        if let (Ok(mechanism), Ok(first), Ok(server_first)) = (
            start.get_str("mechanism"),
            start.get_binary_generic("payload"),
            answer.get_binary_generic("payload"),
        ) {
            let hash = if mechanism == "SCRAM-SHA-1" {
                Hash::Sha1
            } else {
                Hash::Sha256
            };
            let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
            let conversation = (hash, text(first), text(server_first));
            self.conversations.insert(connection, conversation);
        }
    }

    fn learn_token(&mut self, recorded: Option<&Bson>, ours: Option<&Bson>) {
        let document = |token: Option<&Bson>| token?.as_document().cloned();
        if let (Some(recorded), Some(ours)) = (document(recorded), document(ours))
            && let Ok(data) = recorded.get_str("_data")
        {
            self.tokens.insert(data.to_owned(), ours);
        }
    }

    /// The request in the words of our run.
    fn translate(&self, connection: u64, member: usize, mut request: Document) -> Document {
        for value in [request.get_mut("getMore")].into_iter().flatten() {
            self.translate_cursor(value);
        }
        for value in request.get_array_mut("cursors").into_iter().flatten() {
            self.translate_cursor(value);
        }
        let stages = request.get_array_mut("pipeline").ok();
        let first = stages.and_then(|stages| stages.first_mut()?.as_document_mut());
        if let Some(Ok(options)) = first.map(|stage| stage.get_document_mut("$changeStream")) {
            for option in ["resumeAfter", "startAfter"] {
                let data = options
                    .get_document(option)
                    .ok()
                    .and_then(|token| token.get_str("_data").ok());
                if let Some(ours) = data.and_then(|data| self.tokens.get(data)).cloned() {
                    options.insert(option, ours);
                }
            }
            if let Ok(recorded) = options.get_timestamp("startAtOperationTime") {
                options.insert(
                    "startAtOperationTime",
                    self.director.time_of(&self.server, recorded),
                );
            }
        }
        if let (Some(value), Some(ours)) = (request.get_mut("topologyVersion"), self.topology.get(&member)) {
            *value = ours.clone();
        }
        match (request.contains_key("$clusterTime"), &self.cluster_time) {
            (true, Some(ours)) => drop(request.insert("$clusterTime", ours.clone())),
            (true, None) => drop(request.remove("$clusterTime")),
            (false, _) => {}
        }
        if request.contains_key("saslContinue") {
            self.prove(connection, &mut request);
        }
        request
    }

    fn translate_cursor(&self, value: &mut Bson) {
        if let Some(ours) = value.as_i64().and_then(|id| self.cursors.get(&id)) {
            *value = Bson::Int64(*ours);
        }
    }

    /// The recorded client's proof, for our server's nonce and salt.
    fn prove(&self, connection: u64, request: &mut Document) {
        let Some((hash, client_first, server_first)) = self.conversations.get(&connection) else {
            return;
        };
        let attribute = |name: &str| {
            let attributes = client_first.trim_start_matches("n,,").split(',');
            attributes
                .filter_map(|a| a.strip_prefix(name))
                .next()
                .unwrap()
                .to_owned()
        };
        let (user, nonce) = (attribute("n="), attribute("r="));
        let password = match hash {
            Hash::Sha1 => {
                let digest = md5::Md5::digest(format!("{user}:mongo:{}", self.password));
                digest.iter().map(|byte| format!("{byte:02x}")).collect()
            }
            _ => self.password.clone(),
        };
        let scram = Scram::new(*hash, &user, nonce);
        let (client_final, _) = scram
            .answer(server_first.as_bytes(), |hash, salt, iterations| {
                Ok(ScramKeys::derive(hash, password.as_bytes(), salt, iterations))
            })
            .unwrap();
        let payload = Binary {
            subtype: BinarySubtype::Generic,
            bytes: client_final.into(),
        };
        request.insert("payload", payload);
    }
}

/// A batch without events: its getMore waited for nothing, whatever moved meanwhile.
fn is_empty(reply: &Document) -> bool {
    reply.contains_key("cursor") && batch(reply).next().is_none()
}

fn messages(scenario: &Scenario, of: Side) -> impl Iterator<Item = (&Record, &Plain)> {
    scenario
        .records
        .iter()
        .filter_map(move |record| match &record.happening {
            Happening::Message(side, plain) if *side == of => Some((record, plain)),
            _ => None,
        })
}

/// A getMore that took longer waited for what it brought.
const AWAITED: Duration = Duration::from_millis(25);

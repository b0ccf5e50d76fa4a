//! The scripted server: answers each command with the recorded reply to the recorded command of its place.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use bytes::Bytes;
use changestream_core::wire::{
    Compressor, DEFAULT_MAX_MESSAGE_SIZE, Flags, FrameReader, Message, compress, compressor_of, decompress,
    encode_op_msg, encode_op_reply,
};

use super::{ScramServer, differences};
use crate::capture::{Entry, Happening, Scenario};
use crate::recorded_stream::{Exchange, Outcome, RecordedStream, exchanges, integer};

/// The server's side of one recorded stream: pure, on whatever connections the client opens, named by the caller.
///
/// Commands are matched by order within their kind, killCursors by cursor. A command that differs from its recorded
/// counterpart is answered all the same, and the difference kept.
#[derive(Debug)]
pub struct Peer<'a> {
    scenario: &'a Scenario,
    stream: &'a RecordedStream,
    exchanges: Vec<Exchange>,
    aggregates: VecDeque<&'a Exchange>,
    get_mores: VecDeque<&'a Exchange>,
    /// Index of the last record that was played.
    played: usize,
    connections: BTreeMap<u64, Connection>,
    lsid: Option<Bson>,
    killed: Vec<i64>,
    last_batch: Option<usize>,
    differences: Vec<String>,
    session_changes: Vec<String>,
    next_request_id: i32,
}

#[derive(Debug)]
struct Connection {
    member: u16,
    reader: FrameReader,
    /// A SCRAM conversation, and the connection of the recording that it follows.
    scram: Option<(ScramServer, u64)>,
}

/// What the server does after a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Sends these bytes, so long after the request.
    Send {
        /// A whole message.
        bytes: Bytes,
        /// The recorded delay.
        after: Duration,
    },
    /// Closes the connection, so long after the request.
    Close {
        /// The recorded delay.
        after: Duration,
    },
}

impl<'a> Peer<'a> {
    /// A server that plays this stream of that scenario.
    pub fn new(scenario: &'a Scenario, stream: &'a RecordedStream) -> Self {
        Self {
            scenario,
            stream,
            exchanges: exchanges(scenario),
            aggregates: stream.aggregates.iter().collect(),
            get_mores: stream.get_mores.iter().collect(),
            played: 0,
            connections: BTreeMap::new(),
            lsid: None,
            killed: Vec::new(),
            last_batch: None,
            differences: Vec::new(),
            session_changes: Vec::new(),
            next_request_id: 1,
        }
    }

    /// Opens a connection to the member at this port; false if the member refuses it at this point of the recording.
    pub fn connect(&mut self, connection: u64, member: u16) -> bool {
        let horizon = self.horizon();
        let known = self.scenario.records[..horizon].iter().rev();
        let mut of_member = known.filter(|record| record.member == member);
        let refused = of_member.find(|record| !matches!(record.happening, Happening::Message(..)));
        if refused.is_some_and(|record| matches!(record.happening, Happening::Refused)) {
            return false;
        }
        if !self.scenario.records.iter().any(|record| record.member == member) {
            self.differences.push(format!(
                "connects to port {member}, which the recorded client never did"
            ));
            return false;
        }
        self.connections.insert(
            connection,
            Connection {
                member,
                reader: FrameReader::new(),
                scram: None,
            },
        );
        true
    }

    /// Takes bytes from the client, and tells what the server does.
    pub fn receive(&mut self, connection: u64, mut bytes: &[u8]) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(open) = self.connections.get_mut(&connection) {
            match open.reader.next_frame() {
                Ok(Some(frame)) => answers.extend(self.answer_frame(connection, &frame)),
                Ok(None) if bytes.is_empty() => break,
                Ok(None) => {
                    let buffer = open.reader.buffer();
                    let len = buffer.len().min(bytes.len());
                    buffer[..len].copy_from_slice(&bytes[..len]);
                    open.reader.filled(len);
                    bytes = &bytes[len..];
                }
                Err(error) => {
                    self.differences
                        .push(format!("sends what is no message: {error}"));
                    break;
                }
            }
        }
        answers
    }

    /// The client closed the connection.
    pub fn disconnected(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }

    /// How many events the last batch had that was sent.
    pub fn last_batch(&self) -> Option<usize> {
        self.last_batch
    }

    /// Whether every recorded command of the stream was asked for.
    pub fn is_exhausted(&self) -> bool {
        self.aggregates.is_empty() && self.get_mores.is_empty()
    }

    /// In what the client's commands differ from the recorded ones so far.
    pub fn differences(&self) -> &[String] {
        &self.differences
    }

    /// The commands that left the session of those before: none may. The recorded client itself drops its session after
    /// a network error.
    pub fn session_changes(&self) -> &[String] {
        &self.session_changes
    }

    /// What was recorded and never asked for; call at the end.
    pub fn left_over(&self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        for exchange in self.aggregates.iter().chain(&self.get_mores) {
            left.push(format!("never sends the recorded {}", exchange.request));
        }
        if let Some(cursor) = self.stream.last_cursor()
            && self
                .stream
                .kill_cursors
                .iter()
                .any(|exchange| killed_cursor(&exchange.request) == Some(cursor))
            && !self.killed.contains(&cursor)
        {
            left.push(format!(
                "never kills the cursor {cursor}, which the recorded client did"
            ));
        }
        left
    }

    fn answer_frame(&mut self, connection: u64, frame: &Bytes) -> Vec<Answer> {
        let compressor = compressor_of(frame).and_then(Compressor::from_id);
        let message = match compressor {
            Some(_) => decompress(frame, DEFAULT_MAX_MESSAGE_SIZE).and_then(|frame| Message::decode(&frame)),
            None => Message::decode(frame),
        };
        let (request_id, body, legacy) = match message {
            Ok(Message::Msg(m)) => (m.request_id, m.body, false),
            Ok(Message::Query(m)) => (m.request_id, m.query, true),
            Ok(_) => return self.differ("sends a reply"),
            Err(error) => return self.differ(&format!("sends what is no message: {error}")),
        };
        let Ok(request) = Document::from_reader(&body[..]) else {
            return self.differ("sends an invalid document");
        };
        let outcome = self.answer(connection, &request, compressor);
        let (body, after) = match outcome {
            Outcome::Reply { body, after, .. } => (body, after),
            Outcome::Disconnected { after } => {
                self.connections.remove(&connection);
                return vec![Answer::Close { after }];
            }
            Outcome::Unanswered => return Vec::new(),
        };
        let Ok(body) = RawDocumentBuf::try_from(&body) else {
            return self.differ("cannot be answered: the recorded reply does not encode");
        };
        self.next_request_id += 1;
        let bytes = if legacy {
            encode_op_reply(self.next_request_id, request_id, &body)
        } else {
            encode_op_msg(self.next_request_id, request_id, Flags::NONE, &body, &[])
        };
        let compressed = compressor.and_then(|compressor| compress(&bytes, compressor, None));
        let bytes = compressed.unwrap_or(bytes);
        vec![Answer::Send { bytes, after }]
    }

    fn answer(&mut self, connection: u64, request: &Document, compressor: Option<Compressor>) -> Outcome {
        let name = request.keys().next().map_or("", String::as_str);
        match name {
            "hello" | "isMaster" | "ismaster" => self.hello(connection, name, request),
            "saslStart" => self.sasl_start(connection, request),
            "saslContinue" => self.sasl_continue(connection, request),
            "aggregate" => {
                let exchange = self.aggregates.pop_front();
                self.play(request, compressor, exchange)
            }
            "getMore" => {
                let exchange = self.get_mores.pop_front();
                self.play(request, compressor, exchange)
            }
            "killCursors" => self.kill_cursors(request),
            "endSessions" => now(doc! { "ok": 1.0 }),
            _ => {
                self.differences.push(format!("sends an unexpected {request}"));
                now(
                    doc! { "ok": 0.0, "errmsg": format!("no such command: '{name}'"), "code": 59, "codeName": "CommandNotFound" },
                )
            }
        }
    }

    /// The next recorded command of the same kind decides.
    fn play(
        &mut self,
        request: &Document,
        compressor: Option<Compressor>,
        exchange: Option<&'a Exchange>,
    ) -> Outcome {
        self.check_session(request);
        let Some(exchange) = exchange else {
            self.differences
                .push(format!("sends one command more than recorded: {request}"));
            return Outcome::Unanswered;
        };
        if compressor != exchange.compressor {
            let recorded = exchange.compressor;
            self.differences
                .push(format!("compresses by {compressor:?}, recorded is {recorded:?}"));
        }
        self.differences
            .extend(differences(request, &exchange.request, RUN_SPECIFIC));
        self.played = exchange.at;
        self.last_batch = exchange.cursor().map(|_| exchange.batch().count());
        exchange.outcome.clone()
    }

    /// One session for all commands of a stream (change-streams specification).
    fn check_session(&mut self, request: &Document) {
        let lsid = request.get("lsid").cloned();
        if lsid.is_none() {
            self.differences.push(format!("sends no lsid with {request}"));
        } else if self.lsid.is_some() && self.lsid != lsid {
            self.session_changes
                .push(format!("changes its session with {request}"));
        }
        self.lsid = lsid;
    }

    fn kill_cursors(&mut self, request: &Document) -> Outcome {
        let cursor = killed_cursor(request);
        self.killed.extend(cursor);
        let recorded = self
            .stream
            .kill_cursors
            .iter()
            .find(|e| killed_cursor(&e.request) == cursor);
        match recorded {
            Some(exchange) => {
                self.differences
                    .extend(differences(request, &exchange.request, RUN_SPECIFIC));
                exchange.outcome.clone()
            }
            // Whether a cursor that an error has ended is killed is left to the client.
            None => now(
                doc! { "cursorsKilled": [], "cursorsNotFound": [cursor], "cursorsAlive": [], "cursorsUnknown": [], "ok": 1.0 },
            ),
        }
    }

    /// What the member said last before the point that the stream has reached; with authentication and compression, if
    /// they are asked for.
    fn hello(&mut self, connection: u64, name: &str, request: &Document) -> Outcome {
        let Some(member) = self.connections.get(&connection).map(|open| open.member) else {
            return Outcome::Unanswered;
        };
        let speculative = request.get_document("speculativeAuthenticate").ok();
        let of_member = |e: &&Exchange| e.member == member && is_hello(e.command()) && e.reply().is_some();
        let all: Vec<&Exchange> = self.exchanges.iter().filter(of_member).collect();
        let offers = |hello: &Document| {
            hello
                .get_array("compression")
                .is_ok_and(|names| !names.is_empty())
        };
        let fits = |e: &&&Exchange| {
            e.request.contains_key("speculativeAuthenticate") == speculative.is_some()
                && offers(&e.request) == offers(request)
        };
        let horizon = self.horizon();
        let fitting: Vec<&Exchange> = all.iter().filter(fits).copied().collect();
        let candidates = if fitting.is_empty() { all } else { fitting };
        let before = candidates
            .iter()
            .rev()
            .find(|e| self.was_answered_before(e, horizon))
            .or_else(|| candidates.first())
            .copied();
        let Some((exchange, reply)) = before.and_then(|e| Some((e.clone(), e.reply()?.clone()))) else {
            return Outcome::Unanswered;
        };
        if name == "hello"
            && !exchange.request.contains_key("hello")
            && reply.get_bool("helloOk").ok() != Some(true)
        {
            return now(
                doc! { "ok": 0.0, "errmsg": "no such command: 'hello'", "code": 59, "codeName": "CommandNotFound" },
            );
        }
        now(self.with_speculation(connection, reply, speculative, &exchange))
    }

    fn with_speculation(
        &mut self,
        id: u64,
        mut reply: Document,
        ours: Option<&Document>,
        recorded: &Exchange,
    ) -> Document {
        let Some(mut answer) = reply
            .remove("speculativeAuthenticate")
            .and_then(|a| a.as_document().cloned())
        else {
            return reply;
        };
        let theirs = recorded.request.get_document("speculativeAuthenticate").ok();
        let scram = ours.and_then(|ours| {
            let mechanism = ours.get_str("mechanism").ok()?;
            if theirs?.get_str("mechanism").ok()? != mechanism {
                return None;
            }
            ScramServer::new(mechanism, &payload(ours)?, &payload(theirs?)?, &payload(&answer)?)
        });
        if let (Some(scram), Some(open)) = (scram, self.connections.get_mut(&id)) {
            answer.insert("payload", binary(scram.server_first()));
            open.scram = Some((scram, recorded.connection));
            reply.insert("speculativeAuthenticate", answer);
        }
        reply
    }

    fn sasl_start(&mut self, connection: u64, request: &Document) -> Outcome {
        let mechanism = request.get("mechanism");
        let recorded = self
            .exchanges
            .iter()
            .find(|e| e.command() == "saslStart" && e.request.get("mechanism") == mechanism);
        let Some(exchange) = recorded.cloned() else {
            self.differences.push(format!(
                "starts an authentication that was not recorded: {mechanism:?}"
            ));
            return Outcome::Unanswered;
        };
        let Outcome::Reply {
            mut body,
            after,
            more,
        } = exchange.outcome.clone()
        else {
            return exchange.outcome;
        };
        let scram = (|| {
            let mechanism = mechanism?.as_str()?;
            ScramServer::new(
                mechanism,
                &payload(request)?,
                &payload(&exchange.request)?,
                &payload(&body)?,
            )
        })();
        if let (Some(scram), Some(open)) = (scram, self.connections.get_mut(&connection)) {
            body.insert("payload", binary(scram.server_first()));
            open.scram = Some((scram, exchange.connection));
        }
        Outcome::Reply { body, after, more }
    }

    /// The recorded reply, with a signature for this conversation in place of the recorded one; a refusal stays one.
    fn sasl_continue(&mut self, connection: u64, request: &Document) -> Outcome {
        let scram = self
            .connections
            .get(&connection)
            .and_then(|open| open.scram.as_ref());
        let Some((scram, followed)) = scram else {
            return self.refuse_authentication("goes on with an authentication that did not start");
        };
        let recorded = self
            .exchanges
            .iter()
            .find(|e| e.command() == "saslContinue" && e.connection == *followed);
        let Some(Outcome::Reply { body, after, more }) = recorded.map(|e| e.outcome.clone()) else {
            return self.refuse_authentication("goes on with an authentication that was not recorded");
        };
        if body.get("ok").and_then(integer) != Some(1) {
            return Outcome::Reply { body, after, more };
        }
        let (user, password) = self.credential();
        let signed = payload(request).and_then(|last| scram.server_final(&last, &user, &password));
        let Some(signed) = signed else {
            return self.refuse_authentication("does not prove that it knows the password");
        };
        let mut body = body;
        body.insert("payload", binary(&signed));
        Outcome::Reply { body, after, more }
    }

    /// The user and password that the first mark tells.
    fn credential(&self) -> (String, String) {
        let mark = self.scenario.log.iter().find_map(|entry| match entry {
            Entry::Mark(mark) => mark.as_document(),
            Entry::Event { .. } | Entry::Idle { .. } | Entry::Error(_) => None,
        });
        let text = |key: &str| {
            mark.and_then(|mark| mark.get_str(key).ok())
                .unwrap_or_default()
                .to_owned()
        };
        (text("user"), text("password"))
    }

    fn refuse_authentication(&mut self, why: &str) -> Outcome {
        self.differences.push(why.to_owned());
        now(
            doc! { "ok": 0.0, "errmsg": "Authentication failed.", "code": 18, "codeName": "AuthenticationFailed" },
        )
    }

    fn differ(&mut self, what: &str) -> Vec<Answer> {
        self.differences.push(what.to_owned());
        Vec::new()
    }

    /// An awaited hello is asked long before it is answered: the answer's time counts.
    fn was_answered_before(&self, exchange: &Exchange, horizon: usize) -> bool {
        let time = |at: usize| self.scenario.records.get(at).map(|record| record.at);
        match &exchange.outcome {
            Outcome::Reply { after, .. } => {
                let answered = time(exchange.at).map(|asked| asked + *after);
                exchange.at < horizon && time(horizon).is_none_or(|limit| answered <= Some(limit))
            }
            Outcome::Disconnected { .. } | Outcome::Unanswered => false,
        }
    }

    /// The record up to which the world has come: the next aggregate finds the members as they were just before it.
    fn horizon(&self) -> usize {
        self.aggregates
            .front()
            .map_or(self.played + 1, |exchange| exchange.at)
    }
}

fn is_hello(command: &str) -> bool {
    matches!(command, "hello" | "isMaster" | "ismaster")
}

fn killed_cursor(request: &Document) -> Option<i64> {
    integer(request.get_array("cursors").ok()?.first()?)
}

fn payload(document: &Document) -> Option<String> {
    String::from_utf8(document.get_binary_generic("payload").ok()?.clone()).ok()
}

fn binary(text: &str) -> Bson {
    let bytes = text.as_bytes().to_vec();
    Bson::Binary(bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes,
    })
}

fn now(body: Document) -> Outcome {
    Outcome::Reply {
        body,
        after: Duration::ZERO,
        more: Vec::new(),
    }
}

/// What differs from run to run, or follows from how the client reached the server.
const RUN_SPECIFIC: &[&str] = &["lsid", "$clusterTime", "$readPreference"];

//! Finds the change streams in a recorded scenario: their commands, their options, their share of the log.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document};
use changestream_core::wire::{Compressor, Flags};
use changestream_core::{
    FullDocument, FullDocumentBeforeChange, ReadConcern, ReadPreference, ReadPreferenceMode, ResumeToken,
    Scope, WatchOptions,
};

use crate::capture::{Entry, Happening, Plain, Record, Scenario, Side};

/// A request of the recorded client and what became of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Index of the request among the scenario's records.
    pub at: usize,
    /// The port that the client had dialled.
    pub member: u16,
    /// The connection's number in the recording.
    pub connection: u64,
    /// The command.
    pub request: Document,
    /// Whether it allowed exhaust replies.
    pub exhaust: bool,
    /// By what the request was compressed.
    pub compressor: Option<Compressor>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Reply {
        /// With this document.
        body: Document,
        /// So long after the request.
        after: Duration,
        /// The further replies of an exhaust command.
        more: Vec<Document>,
    },
    /// The server closed the connection instead.
    Disconnected {
        /// So long after the request.
        after: Duration,
    },
    /// Nothing more happened, or the client went away.
    Unanswered,
}

impl Exchange {
    /// The command's name.
    pub fn command(&self) -> &str {
        self.request.keys().next().map_or("", String::as_str)
    }

    /// The first reply.
    pub fn reply(&self) -> Option<&Document> {
        match &self.outcome {
            Outcome::Reply { body, .. } => Some(body),
            Outcome::Disconnected { .. } | Outcome::Unanswered => None,
        }
    }

    /// The cursor of the first reply, if it has one.
    pub fn cursor(&self) -> Option<&Document> {
        self.reply()?.get_document("cursor").ok()
    }

    /// The cursor's id in the last reply; 0 once the server has closed it.
    fn last_cursor_id(&self) -> Option<i64> {
        let last = match &self.outcome {
            Outcome::Reply { body, more, .. } => more.last().unwrap_or(body),
            Outcome::Disconnected { .. } | Outcome::Unanswered => return None,
        };
        integer(last.get_document("cursor").ok()?.get("id")?)
    }

    /// The documents of the reply's batch.
    pub fn batch(&self) -> impl Iterator<Item = &Document> {
        let batch = self.cursor().and_then(|cursor| {
            let first = cursor.get_array("firstBatch");
            first.or_else(|_| cursor.get_array("nextBatch")).ok()
        });
        batch.into_iter().flatten().filter_map(Bson::as_document)
    }

    /// Whether the specification lets a stream resume after this outcome of a getMore: the connection is gone, or the
    /// reply says so.
    fn is_resumable(&self) -> bool {
        let Some(reply) = self.reply() else {
            return matches!(self.outcome, Outcome::Disconnected { .. });
        };
        let labels = reply.get_array("errorLabels").ok().into_iter().flatten();
        let labelled = labels
            .filter_map(Bson::as_str)
            .any(|label| label == "ResumableChangeStreamError");
        labelled || reply.get_i32("code").ok() == Some(CURSOR_NOT_FOUND)
    }
}

/// One change stream of a scenario, with all its resumes.
#[derive(Clone, Debug, Default)]
pub struct RecordedStream {
    /// The aggregate that opened it, then those that resumed it.
    pub aggregates: Vec<Exchange>,
    /// Its getMores, of all its cursors.
    pub get_mores: Vec<Exchange>,
    /// Its killCursors.
    pub kill_cursors: Vec<Exchange>,
    /// Its share of the expected log.
    pub log: Vec<Entry>,
}

impl RecordedStream {
    /// The scope that the opening aggregate has.
    pub fn scope(&self) -> Scope {
        let Some(opening) = self.opening() else {
            return Scope::Cluster;
        };
        let database = opening.get_str("$db").unwrap_or_default().to_owned();
        if let Ok(collection) = opening.get_str("aggregate") {
            return Scope::Collection {
                database,
                collection: collection.to_owned(),
            };
        }
        match self
            .stage()
            .and_then(|stage| stage.get_bool("allChangesForCluster").ok())
        {
            Some(true) => Scope::Cluster,
            Some(false) | None => Scope::Database { database },
        }
    }

    /// The options that make a client send the commands that were recorded.
    pub fn options(&self) -> WatchOptions {
        let mut options = WatchOptions::default();
        options.prefetch_batches = 0;
        let (Some(opening), Some(stage)) = (self.opening(), self.stage()) else {
            return options;
        };
        let stages = opening.get_array("pipeline").into_iter().flatten();
        options.pipeline = stages.skip(1).filter_map(Bson::as_document).cloned().collect();
        for (key, value) in stage {
            stage_option(&mut options, key, value);
        }
        let batch_size = opening
            .get_document("cursor")
            .ok()
            .and_then(|cursor| integer(cursor.get("batchSize")?));
        options.batch_size = batch_size.and_then(|size| u32::try_from(size).ok());
        options.collation = opening.get_document("collation").ok().cloned();
        options.comment = opening.get("comment").cloned();
        let concern = opening
            .get_document("readConcern")
            .ok()
            .and_then(|concern| concern.get_str("level").ok());
        options.read_concern = concern.map(ReadConcern::new);
        options.read_preference = self.read_preference();
        let await_time = self
            .get_mores
            .first()
            .and_then(|exchange| integer(exchange.request.get("maxTimeMS")?));
        options.max_await_time = await_time
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis);
        options
    }

    /// Whether it was read by exhaust replies, which only a raw client asks for.
    pub fn is_exhaust(&self) -> bool {
        self.get_mores.iter().any(|exchange| exchange.exhaust)
    }

    /// The cursor that was open when the recording left the stream; none if the server had closed it.
    pub fn last_cursor(&self) -> Option<i64> {
        let last = self
            .aggregates
            .iter()
            .chain(&self.get_mores)
            .max_by_key(|exchange| exchange.at)?;
        last.last_cursor_id().filter(|id| *id != 0)
    }

    /// `primaryPreferred` is what a direct connection sends by itself.
    fn read_preference(&self) -> Option<ReadPreference> {
        let mode = self
            .opening()?
            .get_document("$readPreference")
            .ok()?
            .get_str("mode")
            .ok()?;
        let mode = ReadPreferenceMode::from_name(mode)?;
        (mode != ReadPreferenceMode::PrimaryPreferred).then(|| ReadPreference::new(mode))
    }

    fn opening(&self) -> Option<&Document> {
        self.aggregates.first().map(|exchange| &exchange.request)
    }

    fn stage(&self) -> Option<&Document> {
        change_stream_stage(self.opening()?)
    }

    /// Whether this aggregate takes up the stream after a resumable error. Its session may be another one: the recorded
    /// client drops a session after a network error.
    fn is_resumed_by(&self, request: &Document) -> bool {
        let Some(opening) = self.opening() else {
            return false;
        };
        let last = self
            .aggregates
            .iter()
            .chain(&self.get_mores)
            .max_by_key(|exchange| exchange.at);
        let failed = last.is_some_and(|exchange| exchange.command() == "getMore" && exchange.is_resumable());
        let same = |key: &str| opening.get(key) == request.get(key);
        let stages = |command: &Document| -> Vec<Bson> {
            command
                .get_array("pipeline")
                .into_iter()
                .flatten()
                .skip(1)
                .cloned()
                .collect()
        };
        failed && ["aggregate", "$db"].into_iter().all(same) && stages(opening) == stages(request)
    }

    fn owns_cursor(&self, id: i64) -> bool {
        self.aggregates.iter().any(|exchange| {
            exchange.cursor().and_then(|cursor| integer(cursor.get("id")?)) == Some(id) && id != 0
        })
    }
}

fn stage_option(options: &mut WatchOptions, key: &str, value: &Bson) {
    let token = || ResumeToken::try_from(value.as_document()?.clone()).ok();
    match (key, value) {
        ("allChangesForCluster", _) => {}
        ("fullDocument", Bson::String(value)) => {
            options.full_document = Some(FullDocument::from(value.as_str()))
        }
        ("fullDocumentBeforeChange", Bson::String(value)) => {
            options.full_document_before_change = Some(FullDocumentBeforeChange::from(value.as_str()));
        }
        ("resumeAfter", Bson::Document(_)) => options.resume_after = token(),
        ("startAfter", Bson::Document(_)) => options.start_after = token(),
        ("startAtOperationTime", Bson::Timestamp(time)) => options.start_at_operation_time = Some(*time),
        ("showExpandedEvents", Bson::Boolean(value)) => options.show_expanded_events = Some(*value),
        (_, value) => {
            options.extra_stage_options.insert(key, value.clone());
        }
    }
}

/// Every request of the scenario with what became of it, in order.
pub fn exchanges(scenario: &Scenario) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    // Which exchange the reply to this number on this connection belongs to.
    let mut awaited: BTreeMap<(u64, i32), usize> = BTreeMap::new();
    for (at, record) in scenario.records.iter().enumerate() {
        match &record.happening {
            Happening::Message(Side::Client, request) => {
                awaited.insert((record.connection, request.request_id), exchanges.len());
                exchanges.push(asked(at, record, request));
            }
            Happening::Message(Side::Server, reply) => {
                let Some(index) = awaited.remove(&(record.connection, reply.response_to)) else {
                    continue;
                };
                if reply.flags.contains(Flags::MORE_TO_COME) {
                    awaited.insert((record.connection, reply.request_id), index);
                }
                let exchange = &mut exchanges[index];
                let after = record.at.saturating_sub(scenario.records[exchange.at].at);
                answered(exchange, reply, after);
            }
            Happening::Closed(side) => {
                let lost = awaited
                    .iter()
                    .filter(|((connection, _), _)| *connection == record.connection);
                for (_, index) in lost.filter(|_| *side == Side::Server) {
                    let exchange = &mut exchanges[*index];
                    if exchange.outcome == Outcome::Unanswered {
                        let after = record.at.saturating_sub(scenario.records[exchange.at].at);
                        exchange.outcome = Outcome::Disconnected { after };
                    }
                }
                awaited.retain(|key, _| key.0 != record.connection);
            }
            Happening::Opened | Happening::Refused => {}
        }
    }
    exchanges
}

fn asked(at: usize, record: &Record, request: &Plain) -> Exchange {
    Exchange {
        at,
        member: record.member,
        connection: record.connection,
        request: request.body.clone(),
        exhaust: request.flags.contains(Flags::EXHAUST_ALLOWED),
        compressor: request.compressor,
        outcome: Outcome::Unanswered,
    }
}

fn answered(exchange: &mut Exchange, reply: &Plain, after: Duration) {
    match &mut exchange.outcome {
        Outcome::Reply { more, .. } => more.push(reply.body.clone()),
        outcome @ (Outcome::Unanswered | Outcome::Disconnected { .. }) => {
            *outcome = Outcome::Reply {
                body: reply.body.clone(),
                after,
                more: Vec::new(),
            };
        }
    }
}

/// The change streams of a scenario, in the order in which they were opened, each with its share of the log.
pub fn streams(scenario: &Scenario) -> Vec<RecordedStream> {
    let mut streams: Vec<RecordedStream> = Vec::new();
    for exchange in exchanges(scenario) {
        match exchange.command() {
            "aggregate" if change_stream_stage(&exchange.request).is_some() => {
                match streams
                    .iter_mut()
                    .find(|stream| stream.is_resumed_by(&exchange.request))
                {
                    Some(stream) => stream.aggregates.push(exchange),
                    None => streams.push(RecordedStream {
                        aggregates: vec![exchange],
                        ..RecordedStream::default()
                    }),
                }
            }
            "getMore" => {
                let id = exchange.request.get("getMore").and_then(integer).unwrap_or(0);
                if let Some(stream) = streams.iter_mut().find(|stream| stream.owns_cursor(id)) {
                    stream.get_mores.push(exchange);
                }
            }
            "killCursors" => {
                let cursors = exchange.request.get_array("cursors").ok();
                let id = cursors.and_then(|cursors| integer(cursors.first()?)).unwrap_or(0);
                if let Some(stream) = streams.iter_mut().find(|stream| stream.owns_cursor(id)) {
                    stream.kill_cursors.push(exchange);
                }
            }
            _ => {}
        }
    }
    if streams.is_empty() {
        // What failed before a stream was opened, such as authentication, is still what opening one must report.
        streams.push(RecordedStream::default());
    }
    share_log(&mut streams, &scenario.log);
    streams
}

/// Gives each stream the part of the log that can only be its own, and else stays with the stream that spoke last.
fn share_log(streams: &mut [RecordedStream], log: &[Entry]) {
    let mut sources: Vec<Source> = streams.iter().map(Source::new).collect();
    let mut current = 0;
    for entry in log {
        let order = (current..sources.len()).chain(0..current);
        let owner = match entry {
            Entry::Event { event, .. } => order.clone().find(|i| sources[*i].take_event(event)),
            Entry::Error(error) => order.clone().find(|i| sources[*i].take_error(error.code)),
            Entry::Idle { token } => order.clone().find(|i| sources[*i].knows(token.as_ref())),
            Entry::Mark(_) => None,
        };
        current = owner.unwrap_or(current);
        if let Some(stream) = streams.get_mut(current) {
            stream.log.push(entry.clone());
        }
    }
}

/// What a recorded stream can deliver.
struct Source {
    /// Tokens of events not delivered yet, last first.
    events: Vec<Option<Bson>>,
    errors: Vec<Option<i32>>,
    tokens: Vec<Bson>,
}

impl Source {
    fn new(stream: &RecordedStream) -> Self {
        let mut all: Vec<&Exchange> = stream.aggregates.iter().chain(&stream.get_mores).collect();
        all.sort_by_key(|exchange| exchange.at);
        let mut events: Vec<_> = all
            .iter()
            .flat_map(|e| e.batch())
            .map(|event| event.get("_id").cloned())
            .collect();
        let marks = all
            .iter()
            .filter_map(|e| e.cursor()?.get("postBatchResumeToken").cloned());
        let tokens = events.iter().flatten().cloned().chain(marks).collect();
        events.reverse();
        let errors = all
            .iter()
            .filter_map(|e| e.reply())
            .filter(|reply| reply.contains_key("code"));
        Self {
            events,
            errors: errors.map(|reply| reply.get_i32("code").ok()).collect(),
            tokens,
        }
    }

    fn take_event(&mut self, event: &Document) -> bool {
        let id = event.get("_id").cloned();
        let Some(at) = self.events.iter().rposition(|known| *known == id) else {
            return false;
        };
        self.events.truncate(at);
        true
    }

    fn take_error(&mut self, code: Option<i32>) -> bool {
        let found = self.errors.iter().position(|known| *known == code);
        found.map(|at| self.errors.remove(at)).is_some()
    }

    fn knows(&self, token: Option<&Bson>) -> bool {
        token.is_some_and(|token| self.tokens.contains(token))
    }
}

/// The stage's options, if the command opens a change stream.
fn change_stream_stage(command: &Document) -> Option<&Document> {
    let first = command.get_array("pipeline").ok()?.first()?.as_document()?;
    first.get_document("$changeStream").ok()
}

/// A whole number of whatever numeric type.
pub fn integer(value: &Bson) -> Option<i64> {
    let whole = |n: f64| (n.fract() == 0.0 && n.abs() < 9e15).then_some(n as i64);
    let wide = value.as_i64().or_else(|| value.as_i32().map(i64::from));
    wide.or_else(|| value.as_f64().and_then(whole))
}

/// CursorNotFound (change-streams specification, "Resumable Error").
const CURSOR_NOT_FOUND: i32 = 43;

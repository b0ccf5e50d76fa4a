//! One machine, and the servers' ends of its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use changestream_core::client::{
    ClientMachine, ClientSettings, ConnectionId, Deadline, Demand, Disconnected, Input, LookupId, Output,
    Snapshot,
};
use changestream_core::connection::ClientMetadata;
use changestream_core::dns::{Answer, DnsFault, Question};
use changestream_core::monitoring::Event;
use changestream_core::wire::{Flags, Message, encode_op_msg, encode_op_reply};
use changestream_core::{
    ClientOptions, CommandOptions, ConnectionString, Error, RunCommand, Scope, ServerApi, Update,
    WatchOptions,
};

pub(crate) struct Network {
    pub(crate) machine: ClientMachine,
    pub(crate) now: Instant,
    /// What the machine waits for.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) updates: Vec<Update>,
    /// The answers to commands.
    pub(crate) replies: Vec<Result<Document, Error>>,
    pub(crate) closed: Option<Result<(), Error>>,
    /// Every output, in words and bytes.
    pub(crate) transcript: Vec<String>,
    /// Connections that were ordered and not given up.
    pub(crate) links: BTreeMap<ConnectionId, Link>,
    /// Look-ups that are not answered.
    pub(crate) lookups: BTreeMap<LookupId, Question>,
    /// Requests that no server has taken yet.
    requests: Vec<Request>,
    /// Requests that are not answered.
    awaited: BTreeSet<(ConnectionId, i32)>,
    /// Whether the consumer wants something that it has not got.
    demanding: bool,
    trying: bool,
    /// What was told to whoever watches, if anybody does.
    pub(crate) events: Vec<Event>,
    /// Whether nobody asks for it for the moment.
    pub(crate) deaf: bool,
    /// How many bytes a server sends at once.
    pub(crate) piece: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) address: String,
    pub(crate) open: bool,
}

/// A request that a server has received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) connection: ConnectionId,
    pub(crate) address: String,
    pub(crate) command: Document,
    id: i32,
    is_legacy: bool,
}

impl Request {
    pub(crate) fn name(&self) -> &str {
        self.command.keys().next().unwrap()
    }
}

impl Network {
    /// A stream on one collection, by that connection string, that fetches nothing ahead.
    pub(crate) fn new(uri: &str) -> Self {
        Self::with(uri, None, without_prefetch())
    }

    pub(crate) fn with(uri: &str, snapshot: Option<Snapshot>, options: WatchOptions) -> Self {
        Self::at(epoch(), uri, snapshot, options)
    }

    pub(crate) fn at(now: Instant, uri: &str, snapshot: Option<Snapshot>, options: WatchOptions) -> Self {
        Self::by(settings(uri), now, snapshot, options)
    }

    /// A stream that is watched.
    pub(crate) fn monitored(uri: &str) -> Self {
        Self::by(settings(uri).with_monitoring(), epoch(), None, without_prefetch())
    }

    /// A stream of a client that declares an API version.
    pub(crate) fn declaring(uri: &str, api: ServerApi) -> Self {
        let mut uri: ConnectionString = uri.parse().unwrap();
        uri.options.server_api = Some(api);
        let settings = ClientSettings::new(uri.options, ClientMetadata::new()).unwrap();
        Self::by(settings, epoch(), None, without_prefetch())
    }

    fn by(settings: ClientSettings, now: Instant, snapshot: Option<Snapshot>, options: WatchOptions) -> Self {
        let scope = Scope::Collection {
            database: "shop".into(),
            collection: "orders".into(),
        };
        let machine =
            ClientMachine::new(Arc::new(settings), snapshot, &scope, options, [3; 32], now).unwrap();
        let mut network = Self::around(machine, now);
        network.settle();
        network
    }

    /// A machine that runs commands, watched.
    pub(crate) fn for_commands(uri: &str, change: impl FnOnce(&mut ClientOptions)) -> Self {
        let mut uri: ConnectionString = uri.parse().unwrap();
        change(&mut uri.options);
        let settings = ClientSettings::new(uri.options, ClientMetadata::new()).unwrap();
        Self::for_commands_of(Arc::new(settings.with_monitoring()))
    }

    pub(crate) fn for_commands_of(settings: Arc<ClientSettings>) -> Self {
        let now = epoch();
        let machine = ClientMachine::for_commands(settings, None, [3; 32], now).unwrap();
        let mut network = Self::around(machine, now);
        network.settle();
        network
    }

    pub(crate) fn run(&mut self, command: Document, options: CommandOptions) {
        let command = RunCommand::new("shop", &command, options).unwrap();
        self.input(Input::Command(Box::new(command)));
    }

    fn around(machine: ClientMachine, now: Instant) -> Self {
        Self {
            machine,
            now,
            deadline: None,
            updates: Vec::new(),
            replies: Vec::new(),
            closed: None,
            transcript: Vec::new(),
            links: BTreeMap::new(),
            lookups: BTreeMap::new(),
            requests: Vec::new(),
            awaited: BTreeSet::new(),
            demanding: false,
            trying: false,
            events: Vec::new(),
            deaf: false,
            piece: usize::MAX,
        }
    }

    /// A stream that is open at `a:1`, the primary of a set that has `b:1` as a secondary.
    pub(crate) fn attached() -> Self {
        let mut network = Self::new("mongodb://a:1,b:1/?replicaSet=rs");
        network.answer_hello("a:1", &primary("a:1", 1));
        network.open_at("a:1");
        network
    }

    /// As [`attached`](Self::attached), with a getMore in flight.
    pub(crate) fn waiting() -> (Self, Request) {
        let mut network = Self::attached();
        network.demand(Demand::Next);
        let get_more = network.expect("a:1", "getMore");
        (network, get_more)
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.machine.handle_input(self.now, input);
        self.settle();
    }

    pub(crate) fn demand(&mut self, demand: Demand) {
        self.demanding = demand != Demand::None;
        self.trying = demand == Demand::TryNext;
        self.input(Input::Demand(demand));
    }

    pub(crate) fn close(&mut self, milliseconds: u64) {
        let deadline = self.now + Duration::from_millis(milliseconds);
        self.input(Input::Close { deadline });
    }

    /// Lets time pass without anyone looking.
    pub(crate) fn sleep(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    /// Lets time pass, and tells the machine at each of its deadlines, as an adapter does.
    #[track_caller]
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        while self.closed.is_none() && self.deadline.is_some_and(|deadline| deadline.at <= end) {
            self.wake();
        }
        self.now = end;
        self.input(Input::Timeout);
    }

    /// Jumps to the deadline: the machine has to say something then, or to name a later one.
    #[track_caller]
    pub(crate) fn wake(&mut self) {
        let deadline = self.deadline.expect("a deadline");
        let outputs = self.transcript.len();
        self.now = self.now.max(deadline.at);
        self.input(Input::Timeout);
        let later = self.deadline.is_none_or(|next| next.at > self.now);
        assert!(
            later || self.transcript.len() > outputs,
            "a deadline of {:?} passes, nothing comes of it, and it stays",
            deadline.reason
        );
    }

    /// Takes everything that the machine has to say, and checks what has to hold whenever it is drained.
    pub(crate) fn settle(&mut self) {
        loop {
            let output = self.machine.poll_output();
            if !self.deaf {
                self.events.extend(iter::from_fn(|| self.machine.poll_event()));
            }
            if !matches!(output, Output::Wait(_)) {
                let words = match &output {
                    Output::Transmit { connection, bytes } => format!("{connection:?} {bytes:?}"),
                    other => format!("{other:?}"),
                };
                self.transcript.push(words);
            }
            match output {
                Output::Resolve { lookup, question } => {
                    self.lookups.insert(lookup, question);
                }
                Output::Connect { connection, address } => {
                    let address = address.to_string();
                    self.links.insert(connection, Link { address, open: false });
                }
                Output::Transmit { connection, bytes } => self.transmitted(connection, &bytes),
                Output::Disconnect { connection } => {
                    assert!(self.links.remove(&connection).is_some(), "given up twice");
                    assert!(self.machine.read_buffer(connection).is_none());
                    self.requests.retain(|request| request.connection != connection);
                    self.awaited.retain(|(busy, _)| *busy != connection);
                }
                Output::Credentials { request, .. } => panic!("nobody here has {request:?}"),
                Output::Update(update) => {
                    assert!(self.demanding, "{update:?} comes uncalled");
                    self.demanding = self.try_goes_on(&update);
                    self.updates.push(update);
                }
                Output::Reply(result) => {
                    self.replies
                        .push(result.map(|reply| reply.to_document().unwrap()));
                }
                Output::Wait(deadline) => {
                    self.deadline = deadline;
                    let owed = !self.awaited.is_empty() || self.links.values().any(|link| !link.open);
                    let content = !self.demanding && self.machine.is_open();
                    assert!(
                        deadline.is_some() || owed || content,
                        "nothing will ever happen: {:?}",
                        self.machine
                    );
                    return;
                }
                Output::Closed(result) => {
                    assert!(self.links.is_empty(), "closed with connections");
                    self.closed = Some(result);
                    self.deadline = None;
                    return;
                }
            }
        }
    }

    /// Only some updates satisfy a try.
    fn try_goes_on(&self, update: &Update) -> bool {
        self.trying
            && !matches!(
                update,
                Update::Change(_) | Update::Idle(_) | Update::Invalidated { .. }
            )
    }

    fn transmitted(&mut self, connection: ConnectionId, bytes: &bytes::Bytes) {
        let link = self
            .links
            .get(&connection)
            .expect("bytes for a connection that is given up");
        assert!(link.open, "bytes for a connection that is not open");
        let (id, body, is_legacy) = match Message::decode(bytes).unwrap() {
            Message::Msg(m) => (m.request_id, m.body, false),
            Message::Query(m) => (m.request_id, m.query, true),
            other => panic!("a client sends no {other:?}"),
        };
        self.awaited.insert((connection, id));
        self.requests.push(Request {
            connection,
            address: link.address.clone(),
            command: bson::deserialize_from_slice(&body).unwrap(),
            id,
            is_legacy,
        });
    }

    /// Answers the look-up of these records, the oldest first, such as `SRV records of _mongodb._tcp.host`.
    #[track_caller]
    pub(crate) fn resolve(&mut self, question: &str, result: Result<Answer, DnsFault>) {
        let mut found = self
            .lookups
            .iter()
            .filter(|(_, asked)| asked.to_string() == question);
        let Some((&lookup, _)) = found.next() else {
            panic!("no look-up of {question}: {:?}", self.lookups)
        };
        self.lookups.remove(&lookup);
        self.input(Input::Resolved { lookup, result });
    }

    /// The connection that leads there; the only one.
    #[track_caller]
    pub(crate) fn link(&self, address: &str) -> ConnectionId {
        let mut found = self.links.iter().filter(|(_, link)| link.address == address);
        let Some((id, _)) = found.next() else {
            panic!("no connection to {address}, but {:?}", self.links)
        };
        assert!(found.next().is_none(), "two connections to {address}");
        *id
    }

    pub(crate) fn addresses(&self) -> Vec<&str> {
        self.links.values().map(|link| link.address.as_str()).collect()
    }

    /// Any request that no server has taken, the oldest first.
    pub(crate) fn take_request(&mut self) -> Option<Request> {
        (!self.requests.is_empty()).then(|| self.requests.remove(0))
    }

    #[track_caller]
    pub(crate) fn connect(&mut self, address: &str) {
        let connection = self.link(address);
        self.links.get_mut(&connection).unwrap().open = true;
        self.input(Input::Connected { connection });
    }

    #[track_caller]
    pub(crate) fn disconnect(&mut self, address: &str) {
        let connection = self.link(address);
        let reason = Disconnected {
            message: format!("{address} is gone"),
            timed_out: false,
        };
        self.input(Input::Disconnected { connection, reason });
    }

    /// The next request to that server.
    #[track_caller]
    pub(crate) fn expect(&mut self, address: &str, name: &str) -> Request {
        let Some(at) = self.requests.iter().position(|r| r.address == address) else {
            panic!("no {name} at {address}: {:?}, {:?}", self.requests, self.closed)
        };
        let request = self.requests.remove(at);
        assert_eq!(request.name(), name, "{}", request.command);
        request
    }

    #[track_caller]
    pub(crate) fn expect_no_request(&self) {
        assert!(self.requests.is_empty(), "{:?}", self.requests);
    }

    pub(crate) fn answer(&mut self, request: &Request, reply: &Document) {
        let body = RawDocumentBuf::try_from(reply).unwrap();
        let bytes = if request.is_legacy {
            encode_op_reply(9, request.id, &body)
        } else {
            encode_op_msg(9, request.id, Flags::NONE, &body, &[])
        };
        self.receive(request.connection, &bytes);
        self.awaited.remove(&(request.connection, request.id));
    }

    /// As [`answer`](Self::answer), but what the machine has to say to it is not taken yet.
    pub(crate) fn answer_unpolled(&mut self, request: &Request, reply: &Document) {
        let connection = request.connection;
        let body = RawDocumentBuf::try_from(reply).unwrap();
        let bytes = encode_op_msg(9, request.id, Flags::NONE, &body, &[]);
        let buffer = self.machine.read_buffer(connection).unwrap();
        let len = bytes.len();
        buffer[..len].copy_from_slice(&bytes);
        self.machine
            .handle_input(self.now, Input::Received { connection, len });
        self.awaited.remove(&(connection, request.id));
    }

    pub(crate) fn receive(&mut self, connection: ConnectionId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(buffer) = self.machine.read_buffer(connection) else {
                return;
            };
            let len = bytes.len().min(buffer.len()).min(self.piece);
            buffer[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            self.input(Input::Received { connection, len });
        }
    }

    /// Accepts the connection to that server and answers its hello, or its hello over a connection that stands.
    #[track_caller]
    pub(crate) fn answer_hello(&mut self, address: &str, reply: &Document) {
        if !self.links[&self.link(address)].open {
            self.connect(address);
        }
        let at = self.requests.iter().position(|r| r.address == address);
        let hello = self.requests.remove(at.expect("a hello"));
        assert!(["hello", "isMaster"].contains(&hello.name()), "{}", hello.command);
        self.answer(&hello, reply);
    }

    /// Answers the aggregate there with an empty batch.
    #[track_caller]
    pub(crate) fn open_at(&mut self, address: &str) -> Request {
        let aggregate = self.expect(address, "aggregate");
        self.answer(&aggregate, &first_batch(7));
        aggregate
    }

    #[track_caller]
    pub(crate) fn expect_error(&self) -> &Error {
        match &self.closed {
            Some(Err(error)) => error,
            other => panic!("not failed: {other:?}, waits for {:?}", self.deadline),
        }
    }

    #[track_caller]
    pub(crate) fn expect_alive(&self) {
        assert!(self.closed.is_none(), "{:?}", self.closed);
    }
}

fn settings(uri: &str) -> ClientSettings {
    let uri: ConnectionString = uri.parse().unwrap();
    ClientSettings::new(uri.options, ClientMetadata::new()).unwrap()
}

pub(crate) fn without_prefetch() -> WatchOptions {
    let mut options = WatchOptions::default();
    options.prefetch_batches = 0;
    options
}

#[allow(clippy::disallowed_methods, reason = "one epoch for the fake clock")]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

/// A primary of the set of `a:1`, `b:1` and `c:1`, by that election.
pub(crate) fn primary(me: &str, election: u8) -> Document {
    let mut hello = member(me);
    hello.insert("isWritablePrimary", true);
    hello.insert("ismaster", true);
    hello.insert("electionId", ObjectId::from_bytes([election; 12]));
    hello.insert("setVersion", 1);
    hello
}

pub(crate) fn secondary(me: &str) -> Document {
    let mut hello = member(me);
    hello.insert("secondary", true);
    hello
}

fn member(me: &str) -> Document {
    let hosts: &[&str] = if ["a:1", "b:1"].contains(&me) {
        &["a:1", "b:1"]
    } else {
        &[me]
    };
    let mut hello = doc! { "setName": "rs", "me": me, "hosts": hosts };
    hello.extend(common());
    hello
}

pub(crate) fn mongos() -> Document {
    let mut hello = doc! { "isWritablePrimary": true, "msg": "isdbgrid" };
    hello.extend(common());
    hello
}

pub(crate) fn standalone() -> Document {
    let mut hello = doc! { "isWritablePrimary": true };
    hello.extend(common());
    hello
}

fn common() -> Document {
    doc! {
        "helloOk": true, "minWireVersion": 0, "maxWireVersion": 21, "logicalSessionTimeoutMinutes": 30,
        "maxMessageSizeBytes": 48_000_000, "ok": 1.0,
    }
}

pub(crate) fn first_batch(id: i64) -> Document {
    batch("firstBatch", id, &[], "t0")
}

pub(crate) fn next_batch(id: i64, events: &[&str]) -> Document {
    batch("nextBatch", id, events, events.last().unwrap_or(&"t1"))
}

fn batch(name: &str, id: i64, events: &[&str], token: &str) -> Document {
    let events: Vec<Bson> = events
        .iter()
        .map(|event| Bson::Document(doc! { "_id": { "_data": *event }, "operationType": "insert" }))
        .collect();
    doc! {
        "cursor": { name: events, "id": id, "ns": "shop.orders", "postBatchResumeToken": { "_data": token } },
        "operationTime": Timestamp { time: 100, increment: 1 }, "ok": 1.0,
    }
}

pub(crate) fn failure(code: i32, labels: &[&str]) -> Document {
    doc! { "ok": 0.0, "code": code, "codeName": "Name", "errmsg": "message", "errorLabels": labels }
}

pub(crate) fn ok() -> Document {
    doc! { "ok": 1.0 }
}

pub(crate) const RESUMABLE: &[&str] = &["ResumableChangeStreamError"];

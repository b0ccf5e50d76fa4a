//! A connection and the server's end of it, without a network.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::disallowed_methods, reason = "one epoch for the fake clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf, doc};
use bytes::Bytes;
use changestream_core::auth::{Credential, CredentialRequest};
use changestream_core::client::Disconnected;
use changestream_core::connection::{
    ClientMetadata, Connection, ConnectionOutput, ConnectionSettings, PART_SIZE, Reply, Request,
};
use changestream_core::random::Random;
use changestream_core::wire::{Flags, Message, compressor_of, decompress, encode_op_msg, encode_op_reply};
use changestream_core::{Error, ServerAddress};

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, the clock, and what the connection has put out beside bytes.
pub struct World {
    pub connection: Connection,
    pub now: Instant,
    pub events: Vec<Event>,
    /// What the client has sent and the server has not read.
    pub sent: Vec<Sent>,
    next_reply_id: i32,
}

#[derive(Debug)]
pub enum Event {
    Hello(Bytes, Duration),
    Ready,
    Asked(CredentialRequest),
    Events(i32, Bytes),
    Reply(Reply),
    Refused(Reply),
    Failed(Error),
}

/// A request of the client's.
#[derive(Clone, Debug)]
pub struct Sent {
    pub id: i32,
    pub bytes: Bytes,
    pub command: Document,
    pub is_legacy: bool,
    pub flags: Flags,
    /// The number of the compressor that it came compressed by.
    pub compressor: Option<u8>,
}

impl World {
    pub fn new(settings: ConnectionSettings) -> Self {
        Self::with_hello_ok(settings, false)
    }

    pub fn with_hello_ok(settings: ConnectionSettings, hello_ok: bool) -> Self {
        let now = Instant::now();
        let random = Random::new([5; 32]);
        Self {
            connection: Connection::new(Arc::new(settings), address(), hello_ok, random, now),
            now,
            events: Vec::new(),
            sent: Vec::new(),
            next_reply_id: 70,
        }
    }

    /// Connected, hello answered, no credential, ready.
    pub fn ready() -> Self {
        let mut world = Self::new(settings(None));
        world.greet(&hello_reply());
        world.authenticate();
        assert!(world.connection.is_ready());
        world.events.clear();
        world
    }

    pub fn connect(&mut self) -> Sent {
        self.connection.handle_connected(self.now);
        self.request()
    }

    /// Connects and answers hello.
    pub fn greet(&mut self, reply: &Document) {
        let hello = self.connect();
        self.answer(&hello, reply);
    }

    pub fn authenticate(&mut self) {
        self.connection.authenticate(self.now);
        self.drain();
    }

    pub fn send(&mut self, command: &Document, exhaust_allowed: bool, timeout: Option<u64>) -> i32 {
        let request = Request {
            body: raw(command),
            exhaust_allowed,
            in_parts: false,
            reply_timeout: timeout.map(Duration::from_millis),
        };
        let id = self.connection.send(self.now, request);
        self.drain();
        id
    }

    /// The one request that the client has sent.
    pub fn request(&mut self) -> Sent {
        self.drain();
        assert_eq!(self.sent.len(), 1, "{:?}", self.sent);
        self.sent.remove(0)
    }

    /// Answers a request in its own operation. Returns the reply's number.
    pub fn answer(&mut self, request: &Sent, reply: &Document) -> i32 {
        let id = self.reply_id();
        let bytes = if request.is_legacy {
            encode_op_reply(id, request.id, &raw(reply))
        } else {
            encode_op_msg(id, request.id, Flags::NONE, &raw(reply), &[])
        };
        self.receive(&bytes);
        id
    }

    /// Sends an OP_MSG to the client. Returns its number.
    pub fn reply(&mut self, response_to: i32, flags: Flags, reply: &Document) -> i32 {
        let id = self.reply_id();
        self.receive(&encode_op_msg(id, response_to, flags, &raw(reply), &[]));
        id
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        receive(&mut self.connection, self.now, bytes);
        self.drain();
    }

    pub fn disconnect(&mut self, message: &str, timed_out: bool) {
        let reason = Disconnected {
            message: message.to_owned(),
            timed_out,
        };
        self.connection.handle_disconnected(self.now, reason);
        self.drain();
    }

    pub fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.connection.handle_timeout(self.now);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.connection.poll_output() {
            match output {
                ConnectionOutput::Transmit(bytes) => self.sent.push(Sent::read(bytes)),
                ConnectionOutput::Hello { body, round_trip } => {
                    self.events.push(Event::Hello(body, round_trip));
                }
                ConnectionOutput::Ready => self.events.push(Event::Ready),
                ConnectionOutput::Credentials(request) => self.events.push(Event::Asked(request)),
                ConnectionOutput::Events { request_id, events } => {
                    self.events.push(Event::Events(request_id, events));
                }
                ConnectionOutput::Reply(reply) => self.events.push(Event::Reply(reply)),
                ConnectionOutput::Refused(reply) => self.events.push(Event::Refused(reply)),
                ConnectionOutput::Failed(error) => self.events.push(Event::Failed(error)),
            }
        }
    }

    /// The error that the connection has failed with: its last event, and its last word.
    pub fn failure(&mut self) -> Error {
        let Some(Event::Failed(error)) = self.events.pop() else {
            panic!("not failed: {:?}", self.events);
        };
        self.assert_silent();
        error
    }

    /// Nothing makes a failed connection say anything.
    pub fn assert_silent(&mut self) {
        let now = self.now + Duration::from_secs(1000);
        self.connection.handle_connected(now);
        receive(&mut self.connection, now, &[9; 100]);
        self.connection.authenticate(now);
        self.connection.answer(now, Err(Error::authentication("late")));
        self.connection.check(now);
        self.connection.handle_timeout(now);
        let gone = Disconnected {
            message: "again".to_owned(),
            timed_out: true,
        };
        self.connection.handle_disconnected(now, gone);
        let request = Request {
            body: raw(&doc! { "ping": 1 }),
            exhaust_allowed: false,
            in_parts: false,
            reply_timeout: Some(Duration::ZERO),
        };
        self.connection.send(now, request);
        assert!(self.connection.poll_output().is_none());
        assert_eq!(self.connection.deadline(), None);
        assert!(!self.connection.is_ready() && !self.connection.is_idle());
        assert!(!self.connection.read_buffer().is_empty());
    }

    pub fn replies(&mut self) -> Vec<Reply> {
        let replies = self.events.drain(..).map(|event| match event {
            Event::Reply(reply) => reply,
            other => panic!("not a reply: {other:?}"),
        });
        replies.collect()
    }

    fn reply_id(&mut self) -> i32 {
        self.next_reply_id += 1;
        self.next_reply_id
    }
}

impl Sent {
    pub fn read(bytes: Bytes) -> Self {
        let compressor = compressor_of(&bytes);
        let plain = match compressor {
            Some(_) => decompress(&bytes, 1 << 20).unwrap(),
            None => bytes.clone(),
        };
        let (id, body, is_legacy, flags) = match Message::decode(&plain).unwrap() {
            Message::Msg(m) => (m.request_id, m.body, false, m.flags),
            Message::Query(m) => {
                assert_eq!(m.namespace, "admin.$cmd");
                (m.request_id, m.query, true, Flags::NONE)
            }
            other => panic!("a client sends no {other:?}"),
        };
        Self {
            id,
            bytes,
            command: document(&body),
            is_legacy,
            flags,
            compressor,
        }
    }
}

/// Writes bytes into the lent buffer, as far as it goes, again and again.
pub fn receive(connection: &mut Connection, now: Instant, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let lent = connection.read_buffer();
        let len = bytes.len().min(lent.len());
        lent[..len].copy_from_slice(&bytes[..len]);
        connection.handle_received(now, len);
        bytes = &bytes[len..];
    }
}

pub fn settings(credential: Option<Credential>) -> ConnectionSettings {
    ConnectionSettings {
        app_name: None,
        credential,
        load_balanced: false,
        tls: false,
        connect_timeout: CONNECT_TIMEOUT,
        metadata: ClientMetadata::new().into(),
        server_api: None,
        compressors: Vec::new(),
        zlib_level: None,
        part_size: PART_SIZE,
    }
}

pub fn address() -> ServerAddress {
    ServerAddress::tcp("db1.example.com", 27017)
}

/// A primary's answer to hello.
pub fn hello_reply() -> Document {
    doc! {
        "ismaster": true, "helloOk": true, "maxMessageSizeBytes": 48_000_000,
        "minWireVersion": 0, "maxWireVersion": 21, "ok": 1.0,
    }
}

pub fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

pub fn document(bytes: &[u8]) -> Document {
    bson::deserialize_from_slice(bytes).unwrap()
}

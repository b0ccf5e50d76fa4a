//! What streams hold: little while they wait, and of what comes in no more than they must.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::System;
use std::future::{Pending, Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bson::raw::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr};
use bson::{Timestamp, rawdoc};
use changestream_core::event::ChangeStreamDocument;
use changestream_core::wire::{Flags, HEADER_LEN, Message, encode_op_msg, encode_op_reply};
use changestream_driver::{ChangeEvent, ChangeStream, Client, Endpoint, Runtime};
use futures_io::{AsyncRead, AsyncWrite};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts for all of the process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn an_idle_stream_of_a_client_holds_little() {
    let _alone = alone();
    let canned = Canned::new(Script::Idle);
    let client = canned.client("mongodb://127.0.0.1:27017/?directConnection=true");
    let _first = waiting(&client);
    let mut streams = Vec::with_capacity(STREAMS);
    let before = held();
    streams.extend((0..STREAMS).map(|_| Box::new(waiting(&client))));
    let each = (held() - before) / STREAMS;
    assert!(each <= IDLE, "{each} bytes a stream");
}

#[test]
fn an_idle_stream_of_a_replica_set_shares_what_is_known_of_the_other_members() {
    let _alone = alone();
    let canned = Canned::new(Script::Idle).with_members(9);
    let client = canned.client("mongodb://127.0.0.1:27017/?replicaSet=rs0");
    let _first = waiting(&client);
    let mut streams = Vec::with_capacity(STREAMS);
    let before = held();
    streams.extend((0..STREAMS).map(|_| Box::new(waiting(&client))));
    let each = (held() - before) / STREAMS;
    assert!(each <= IDLE + 8 * MEMBER, "{each} bytes a stream");
}

#[test]
fn a_stream_that_got_a_large_batch_holds_little_again_when_it_waits() {
    let _alone = alone();
    let canned = Canned::new(Script::OneBatch {
        events: 160,
        size: 100_000,
    });
    let client = canned.client("mongodb://127.0.0.1:27017/?directConnection=true");
    let before = held();
    let mut stream = client.collection("shop", "orders").watch().start().unwrap();
    for _ in 0..160 {
        let Poll::Ready(Some(Ok(_))) = poll(&mut stream) else {
            panic!("there are more events");
        };
        // The server holds the reply until it is read, the stream a part of it.
        let held = held() - before;
        assert!(held <= 160 * 100_200 + (512 << 10), "{held} bytes");
    }
    assert!(poll(&mut stream).is_pending());
    let left = held() - before;
    assert!(left <= 64 << 10, "{left} bytes");
}

#[test]
fn an_exhaust_cursor_gets_no_further_ahead_of_a_slow_consumer_than_a_part_of_one_reply() {
    let _alone = alone();
    let (events, size) = (100, 10_000);
    let canned = Canned::new(Script::Endless { events, size });
    let client = canned.client("mongodb://127.0.0.1:27017/?directConnection=true");
    let mut stream = client
        .collection("shop", "orders")
        .watch()
        .exhaust(true)
        .start()
        .unwrap();
    let before = held();
    for _ in 0..20 * events {
        let Poll::Ready(Some(Ok(event))) = poll(&mut stream) else {
            panic!("there are more events");
        };
        let held = held() - before;
        assert!(held <= events * (size + 200) + (512 << 10), "{held} bytes");
        drop(event);
    }
}

#[test]
fn a_document_is_decoded_without_growing_step_by_step() {
    let _alone = alone();
    for fields in [3, 4, 7, 8, 100, 500] {
        let mut document = RawDocumentBuf::new();
        for field in 0..fields {
            let name = bson::raw::CString::try_from(format!("field{field}")).unwrap();
            document.append(name, "text");
        }
        let event = ChangeEvent::from_raw(rawdoc! { "_id": token(1), "fullDocument": document }).unwrap();
        let decoded = || {
            event
                .decode::<ChangeStreamDocument>()
                .unwrap()
                .full_document
                .unwrap()
        };
        assert_eq!(decoded().len(), fields);
        let before = ALLOCATOR.stats();
        let made = decoded();
        let change = ALLOCATOR.stats() - before;
        // A name and a text for each; the table, the place for the fields, and what else there is in the event.
        assert!(
            change.allocations <= 2 * made.len() + 4,
            "{fields} fields, {change:?}"
        );
        assert_eq!(change.reallocations, 0, "{fields} fields");
    }
}

type Stream = ChangeStream<Canned>;

fn waiting(client: &Client<Canned>) -> Stream {
    let mut stream = client.collection("shop", "orders").watch().start().unwrap();
    assert!(poll(&mut stream).is_pending());
    assert!(stream.is_open());
    stream
}

/// Polls until the stream has an event, or waits for what never comes.
fn poll(stream: &mut Stream) -> Poll<Option<Result<ChangeEvent, changestream_driver::Error>>> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if let Poll::Ready(item) = stream.poll_event(&mut context) {
            return Poll::Ready(item);
        }
    }
    Poll::Pending
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that are allocated.
fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// A runtime whose sockets are a server: what is written is answered at once, or never.
#[derive(Clone, Copy)]
struct Canned {
    script: Script,
    members: u16,
}

/// What the server answers getMores with.
#[derive(Clone, Copy)]
enum Script {
    /// A few times nothing, then it waits.
    Idle,
    /// One batch, then as above.
    OneBatch { events: usize, size: usize },
    /// One batch after the other, without being asked again.
    Endless { events: usize, size: usize },
}

impl Canned {
    fn new(script: Script) -> Self {
        Self { script, members: 1 }
    }

    fn with_members(self, members: u16) -> Self {
        Self { members, ..self }
    }

    fn client(self, uri: &str) -> Client<Self> {
        let parsed: changestream_driver::ConnectionString = uri.parse().unwrap();
        Client::with_mode(self, parsed.options).unwrap()
    }

    fn hello(self) -> RawDocumentBuf {
        let mut hosts = RawArrayBuf::new();
        (0..self.members).for_each(|member| hosts.push(format!("127.0.0.1:{}", 27017 + member)));
        rawdoc! {
            "helloOk": true, "ismaster": true, "isWritablePrimary": true, "setName": "rs0", "setVersion": 1,
            "hosts": hosts, "primary": "127.0.0.1:27017", "me": "127.0.0.1:27017",
            "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30, "minWireVersion": 0, "maxWireVersion": 21, "ok": 1.0,
        }
    }
}

impl Runtime for Canned {
    type Connection = Wire;
    type Lookup = Ready<io::Result<Vec<SocketAddr>>>;
    type Connect = Ready<io::Result<Wire>>;
    type Timer = Pending<()>;

    fn lookup(&self, _: &str, _: u16) -> Self::Lookup {
        ready(Err(io::ErrorKind::NotFound.into()))
    }

    fn connect(&self, endpoint: &Endpoint) -> Self::Connect {
        let is_server = matches!(endpoint, Endpoint::Tcp(address) if address.port() == 27017);
        let refused = || Err(io::ErrorKind::ConnectionRefused.into());
        ready(if is_server {
            Ok(Wire::new(*self))
        } else {
            refused()
        })
    }

    fn sleep_until(&self, _: Instant) -> Self::Timer {
        std::future::pending()
    }
}

/// One connection. It holds nothing but the reply that is being read.
struct Wire {
    server: Canned,
    reply: Vec<u8>,
    read: usize,
    /// A request that came before that reply was read to its end.
    next: Option<Vec<u8>>,
    get_mores: usize,
    /// The number of the request that is answered without end.
    endless: Option<i32>,
}

impl Wire {
    fn new(server: Canned) -> Self {
        Self {
            server,
            reply: Vec::new(),
            read: 0,
            next: None,
            get_mores: 0,
            endless: None,
        }
    }

    fn answer(&mut self, request: &[u8]) {
        let decoded = Message::decode(&request.to_vec().into()).unwrap();
        let id = decoded.request_id();
        if let Message::Query(_) = decoded {
            self.reply = encode_op_reply(1, id, &self.server.hello()).into();
            return;
        }
        let body = RawDocument::from_bytes(&request[HEADER_LEN + 5..]).unwrap();
        let name = body
            .iter_elements()
            .next()
            .unwrap()
            .unwrap()
            .key()
            .as_str()
            .to_owned();
        let cursor = match name.as_str() {
            "hello" | "isMaster" => {
                self.reply = encode_op_msg(1, id, Flags::NONE, &self.server.hello(), &[]).into();
                return;
            }
            "aggregate" => rawdoc! { "firstBatch": [], "id": 7_i64, "ns": "shop.orders" },
            "getMore" => {
                self.get_mores += 1;
                match (self.server.script, self.get_mores) {
                    (Script::Endless { .. }, _) => {
                        self.endless = Some(id);
                        return;
                    }
                    (Script::OneBatch { events, size }, 1) => batch(events, size),
                    (Script::Idle | Script::OneBatch { .. }, 2..=5) => batch(0, 0),
                    (Script::Idle, 1) => batch(0, 0),
                    (Script::Idle | Script::OneBatch { .. }, _) => return,
                }
            }
            other => panic!("{other}"),
        };
        self.reply = encode_op_msg(1, id, Flags::NONE, &reply(cursor), &[]).into();
    }

    fn go_on(&mut self) {
        if let (Some(id), Script::Endless { events, size }) = (self.endless, self.server.script) {
            let next = id.wrapping_add(1);
            let body = reply(batch(events, size));
            self.reply = encode_op_msg(next, id, Flags::MORE_TO_COME, &body, &[]).into();
            self.endless = Some(next);
        }
    }
}

fn batch(events: usize, size: usize) -> RawDocumentBuf {
    let mut array = RawArrayBuf::new();
    for number in 0..events {
        array.push(rawdoc! { "_id": token(number), "operationType": "insert", "pad": "p".repeat(size) });
    }
    rawdoc! { "nextBatch": array, "postBatchResumeToken": token(events), "id": 7_i64, "ns": "shop.orders" }
}

fn token(number: usize) -> RawDocumentBuf {
    rawdoc! { "_data": format!("826B4A2700{number:08X}2B022C0100296E5A1004B718C387BFEF4941A52B864C44A77628") }
}

/// With what a replica set gossips.
fn reply(cursor: RawDocumentBuf) -> RawDocumentBuf {
    let time = Timestamp {
        time: 1_800_000_000,
        increment: 1,
    };
    let hash = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: vec![7; 20],
    };
    let mut reply = rawdoc! { "cursor": cursor, "ok": 1.0 };
    reply.append(
        cstr!("$clusterTime"),
        rawdoc! { "clusterTime": time, "signature": { "hash": hash, "keyId": 7_i64 } },
    );
    reply.append(cstr!("operationTime"), time);
    reply
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.reply.is_empty() {
            self.go_on();
        }
        let rest = &self.reply[self.read..];
        let len = rest.len().min(buffer.len());
        if len == 0 {
            return Poll::Pending;
        }
        buffer[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        if self.read == self.reply.len() {
            self.reply = Vec::new();
            self.read = 0;
            if let Some(request) = self.next.take() {
                self.answer(&request);
            }
        }
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.reply.is_empty() {
            self.answer(bytes);
        } else {
            self.next = Some(bytes.to_vec());
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const STREAMS: usize = 100;

/// The most bytes of an idle stream, all of it, on a runtime whose sockets and timers are nothing.
const IDLE: usize = 6400;

/// And for each member beside the one that it reads from.
const MEMBER: usize = 320;

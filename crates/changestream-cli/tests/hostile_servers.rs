//! The program against servers that want to harm it: bounded memory and processor time, a clear message, no panic.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod peers;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bson::raw::{RawArrayBuf, cstr};
use bson::{Document, RawDocumentBuf, doc};
use changestream_core::wire::{self, Flags};
use peers::{member, peer, reply, requests, tail, wait_for_the_end};

#[test]
fn a_hello_of_a_million_hosts() {
    let hosts: Vec<String> = (0..1_000_000).map(|n| format!("10.0.{n}:27017")).collect();
    let hello = hello_with(doc! { "setName": "rs", "hosts": hosts });
    let address = saying_hello(hello);
    tail(&address, "&serverSelectionTimeoutMS=5000", &[]).is(10, &[&address, "legal are 16 to"]);
}

/// As many as fit into the longest hello that is read. On each of their ports nobody listens.
#[test]
fn a_hello_of_forty_thousand_hosts() {
    let hosts: Vec<String> = (0..40_000)
        .map(|n| format!("127.1.{}.{}:1", n / 250, n % 250 + 1))
        .collect();
    let address = peer(move |mut socket| {
        let me = socket.local_addr().unwrap().to_string();
        let mut all = hosts.clone();
        all.push(me.clone());
        for (id, request) in requests(&socket.try_clone().unwrap()) {
            let hello = hello_with(doc! {
                "setName": "rs", "hosts": &all, "me": &me, "isWritablePrimary": false, "ismaster": false, "secondary": true,
            });
            let _ = socket.write_all(&reply(id, &request, &hello));
        }
    });
    let outcome = tail(&address, "&replicaSet=rs&serverSelectionTimeoutMS=5000", &[]);
    outcome.is(10, &[&address]);
    assert!(
        outcome.said.len() < 5000,
        "{} bytes are no message for people",
        outcome.said.len()
    );
}

#[test]
fn a_hello_of_a_million_fields() {
    let mut hello = hello_with(doc! {});
    for n in 0..1_000_000 {
        hello.insert(format!("f{n}"), n);
    }
    hello.insert("setName", 7);
    let address = saying_hello(hello);
    tail(&address, "&replicaSet=rs&serverSelectionTimeoutMS=5000", &[])
        .is(10, &[&address, "legal are 16 to"]);
}

/// `is` sees to it that there is one line.
#[test]
fn an_error_that_would_write_over_the_terminal() {
    let address = member("aggregate", |mut socket, id, request| {
        let error = doc! { "ok": 0, "code": 13, "codeName": "\u{1b}[2J", "errmsg": "a\r\nall is well \u{1b}]0;b\u{7}" };
        let _ = socket.write_all(&reply(id, request, &error));
        wait_for_the_end(socket);
    });
    let outcome = tail(&address, "", &[]);
    outcome.is(14, &[&address, "a\\r\\nall is well"]);
    assert!(!outcome.said.contains(['\u{1b}', '\u{7}', '\r']), "{outcome:?}");
}

#[test]
fn an_endless_stream_of_replies_to_one_request() {
    let address = member("aggregate", |mut socket, id, _| {
        let body = RawDocumentBuf::try_from(&cursor(1, [])).unwrap();
        let endless = wire::encode_op_msg(1, id, Flags::MORE_TO_COME, &body, &[]);
        while socket.write_all(&endless).is_ok() {}
    });
    tail(&address, "", &[]).is(13, &[&address, "moreToCome"]);
}

#[test]
fn replies_to_requests_that_were_never_sent() {
    let address = member("aggregate", |mut socket, id, request| {
        let _ = socket.write_all(&reply(id.wrapping_add(77), request, &cursor(1, [])));
        wait_for_the_end(socket);
    });
    tail(&address, "", &[]).is(13, &[&address, "request"]);
}

#[test]
fn a_compressed_message_that_inflates_to_two_gigabytes() {
    let zeros = deflated_zeros(1 << 20);
    let address = compressing(move |id| compressed(id, i32::MAX, &zeros));
    tail(&address, "&compressors=zlib", &[]).is(13, &[&address, "2147483647"]);
}

#[test]
fn a_compressed_message_that_inflates_to_more_than_it_says() {
    let zeros = deflated_zeros(40_000_000);
    let address = compressing(move |id| compressed(id, 100, &zeros));
    tail(&address, "&compressors=zlib", &[]).is(13, &[&address, "zlib"]);
}

#[test]
fn a_scram_exchange_of_two_billion_iterations() {
    let address = member("saslStart", |mut socket, id, request| {
        let first = request.get_binary_generic("payload").unwrap();
        let nonce = String::from_utf8_lossy(first);
        let nonce = nonce.split("r=").last().unwrap();
        let payload = format!("r={nonce}server,s=c2FsdHNhbHRzYWx0c2FsdA==,i=2147483647");
        let _ = socket.write_all(&reply(id, request, &sasl(payload.as_bytes(), false)));
        wait_for_the_end(socket);
    });
    let with_password = format!("ada:hunter2@{address}");
    let outcome = tail(
        &with_password,
        "&authMechanism=SCRAM-SHA-256&authSource=admin",
        &[],
    );
    outcome.is(11, &[&address, "iterations"]);
}

#[test]
fn a_server_that_does_not_know_the_password() {
    let address = peer(|mut socket| {
        let me = socket.local_addr().unwrap().to_string();
        for (id, request) in requests(&socket.try_clone().unwrap()) {
            let answer = match request.keys().next().unwrap().as_str() {
                "saslStart" => {
                    let first = request.get_binary_generic("payload").unwrap();
                    let nonce = String::from_utf8_lossy(first);
                    let nonce = nonce.split("r=").last().unwrap();
                    let payload = format!("r={nonce}server,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096");
                    sasl(payload.as_bytes(), false)
                }
                "saslContinue" => sasl(b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", true),
                "aggregate" => panic!("it talks to a server that did not prove who it is"),
                _ => hello_with(doc! { "setName": "rs", "hosts": [&me], "me": &me }),
            };
            let _ = socket.write_all(&reply(id, &request, &answer));
        }
    });
    let with_password = format!("ada:hunter2@{address}");
    let outcome = tail(
        &with_password,
        "&authMechanism=SCRAM-SHA-256&authSource=admin",
        &[],
    );
    outcome.is(11, &[&address, "signature is wrong"]);
}

#[test]
fn a_reply_nested_beyond_sense() {
    let address = member("aggregate", |mut socket, id, _| {
        let body = RawDocumentBuf::from_bytes(nested(20_000)).unwrap();
        let _ = socket.write_all(&wire::encode_op_msg(1, id, Flags::NONE, &body, &[]));
        wait_for_the_end(socket);
    });
    tail(&address, "", &[]).is(14, &[&address]);
}

#[test]
fn an_event_nested_beyond_sense() {
    let address = member("aggregate", |mut socket, id, request| {
        let nested = RawDocumentBuf::from_bytes(nested(20_000)).unwrap();
        let mut event = RawDocumentBuf::new();
        event.append(
            cstr!("_id"),
            RawDocumentBuf::try_from(&doc! { "_data": "82" }).unwrap(),
        );
        event.append(cstr!("operationType"), "insert");
        event.append(cstr!("fullDocument"), nested);
        let mut batch = RawArrayBuf::new();
        batch.push(event);
        let mut cursor = RawDocumentBuf::new();
        cursor.append(cstr!("id"), 1_i64);
        cursor.append(cstr!("ns"), "d.c");
        cursor.append(cstr!("firstBatch"), batch);
        let mut body = RawDocumentBuf::new();
        body.append(cstr!("cursor"), cursor);
        body.append(cstr!("ok"), 1);
        let _ = (
            request,
            socket.write_all(&wire::encode_op_msg(1, id, Flags::NONE, &body, &[])),
        );
        wait_for_the_end(socket);
    });
    tail(&address, "", &[]).is(13, &["nests deeper"]);
}

/// Servers do not do that; whoever consumes gets what is sent, and the client's memory does not grow.
#[test]
fn a_cursor_that_returns_the_same_event_for_ever() {
    let address = member("aggregate", |mut socket, id, request| {
        let same = [event("8201")];
        let _ = socket.write_all(&reply(id, request, &cursor(1, same.clone())));
        for (id, request) in requests(&socket.try_clone().unwrap()) {
            let _ = socket.write_all(&reply(id, &request, &next_batch(1, same.clone())));
        }
    });
    let outcome = tail(&address, "", &["--max-events", "2000"]);
    assert_eq!(outcome.printed.lines().count(), 2000, "{outcome:?}");
}

/// Each attempt waits longer than the one before it, so that few happen, and the stream goes on when it can.
#[test]
fn a_primary_that_flaps_with_every_answer() {
    let getmores = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&getmores);
    let address = peer(move |mut socket| {
        let me = socket.local_addr().unwrap().to_string();
        for (id, request) in requests(&socket.try_clone().unwrap()) {
            let answer = match request.keys().next().unwrap().as_str() {
                "getMore" if seen.fetch_add(1, Ordering::Relaxed) < ATTEMPTS => stepped_down(),
                "getMore" => next_batch(1, [event("8201")]),
                "aggregate" => cursor(1, []),
                _ => hello_with(doc! { "setName": "rs", "hosts": [&me], "me": &me }),
            };
            let _ = socket.write_all(&reply(id, &request, &answer));
        }
    });
    let outcome = tail(&address, "", &["--max-events", "1"]);
    assert_eq!(outcome.printed.lines().count(), 1, "{outcome:?}");
    assert!(getmores.load(Ordering::Relaxed) > ATTEMPTS, "{outcome:?}");
    // 1 s, and 2 s: the third and the fourth attempt.
    assert!(outcome.took > Duration::from_millis(500), "{outcome:?}");
}

/// So many attempts fail before the stream goes on.
const ATTEMPTS: usize = 5;

fn stepped_down() -> Document {
    doc! {
        "ok": 0, "code": 189, "codeName": "PrimarySteppedDown", "errmsg": "primary stepped down",
        "errorLabels": ["ResumableChangeStreamError"],
    }
}

fn hello_with(more: Document) -> Document {
    let mut hello = doc! {
        "ok": 1, "isWritablePrimary": true, "ismaster": true, "helloOk": true, "minWireVersion": 0,
        "maxWireVersion": 21, "logicalSessionTimeoutMinutes": 30, "maxBsonObjectSize": 16_777_216,
        "maxMessageSizeBytes": 48_000_000,
    };
    hello.extend(more);
    hello
}

/// A peer that answers everything with this.
fn saying_hello(hello: Document) -> String {
    let body = RawDocumentBuf::try_from(&hello).unwrap();
    let messages = [
        wire::encode_op_reply(1, 0, &body),
        wire::encode_op_msg(1, 0, Flags::NONE, &body, &[]),
    ]
    .map(|message| message.to_vec());
    peer(move |mut socket: TcpStream| {
        for (id, request) in requests(&socket.try_clone().unwrap()) {
            let [legacy, modern] = &messages;
            let message = if request.contains_key("$db") {
                modern
            } else {
                legacy
            };
            // The header's third field tells which request is answered.
            let parts = [&message[..8], &id.to_le_bytes(), &message[12..]];
            let _ = parts.iter().try_for_each(|part| socket.write_all(part));
        }
    })
}

/// A member that agrees on zlib and answers the aggregate with this.
fn compressing(answer: impl Fn(i32) -> Vec<u8> + Send + Sync + Clone + 'static) -> String {
    peer(move |mut socket| {
        let me = socket.local_addr().unwrap().to_string();
        for _ in 0..2 {
            let mut reader = wire::FrameReader::new();
            let Some((id, request)) = next_request(&mut socket, &mut reader) else {
                return;
            };
            let hello = doc! { "setName": "rs", "hosts": [&me], "me": &me, "compression": ["zlib"] };
            let bytes = match request {
                Some(request) => reply(id, &request, &hello_with(hello)),
                None => answer(id),
            };
            let _ = socket.write_all(&bytes);
        }
        wait_for_the_end(socket);
    })
}

/// The next request's number, and the request unless it is compressed.
fn next_request(socket: &mut TcpStream, reader: &mut wire::FrameReader) -> Option<(i32, Option<Document>)> {
    loop {
        if let Some(frame) = reader.next_frame().ok()? {
            let id = i32::from_le_bytes(frame.get(4..8)?.try_into().ok()?);
            let code = i32::from_le_bytes(frame.get(12..16)?.try_into().ok()?);
            if code == OP_COMPRESSED {
                return Some((id, None));
            }
            let body = match wire::Message::decode(&frame).ok()? {
                wire::Message::Msg(message) => message.body.to_vec(),
                wire::Message::Query(message) => message.query.to_vec(),
                _ => return None,
            };
            let request = RawDocumentBuf::from_bytes(body).ok()?.try_into().ok()?;
            return Some((id, Some(request)));
        }
        let read = socket.read(reader.buffer()).ok().filter(|read| *read > 0)?;
        reader.filled(read);
    }
}

fn event(token: &str) -> Document {
    doc! {
        "_id": { "_data": token }, "operationType": "insert", "ns": { "db": "d", "coll": "c" },
        "documentKey": { "_id": 1 }, "fullDocument": { "_id": 1 },
    }
}

fn cursor(id: i64, events: impl IntoIterator<Item = Document>) -> Document {
    let events: Vec<Document> = events.into_iter().collect();
    doc! { "ok": 1, "cursor": {
        "id": id, "ns": "d.c", "firstBatch": events, "postBatchResumeToken": { "_data": "8200" },
    } }
}

fn next_batch(id: i64, events: impl IntoIterator<Item = Document>) -> Document {
    let events: Vec<Document> = events.into_iter().collect();
    doc! { "ok": 1, "cursor": {
        "id": id, "ns": "d.c", "nextBatch": events, "postBatchResumeToken": { "_data": "8201" },
    } }
}

fn sasl(payload: &[u8], done: bool) -> Document {
    let payload = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: payload.to_vec(),
    };
    doc! { "ok": 1, "conversationId": 1, "payload": payload, "done": done }
}

/// An OP_COMPRESSED message in which there is an OP_MSG of that length, as it says, by zlib.
fn compressed(to: i32, len: i32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let total = i32::try_from(16 + 9 + body.len()).unwrap();
    for field in [total, 1, to, OP_COMPRESSED, OP_MSG, len] {
        message.extend(field.to_le_bytes());
    }
    message.push(ZLIB);
    message.extend(body);
    message
}

fn deflated_zeros(len: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; len]).unwrap();
    encoder.finish().unwrap()
}

/// `{a: {a: {a: …}}}`.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = vec![5, 0, 0, 0, 0];
    for _ in 0..depth {
        let mut outer = Vec::with_capacity(bytes.len() + 8);
        outer.extend(i32::try_from(bytes.len() + 8).unwrap().to_le_bytes());
        outer.extend([3, b'a', 0]);
        outer.append(&mut bytes);
        outer.push(0);
        bytes = outer;
    }
    bytes
}

const OP_MSG: i32 = 2013;
const OP_COMPRESSED: i32 = 2012;
const ZLIB: u8 = 2;

//! Replies that are handed over in parts: the connection machine, from bytes to events.

#![allow(clippy::wildcard_enum_match_arm, reason = "tests panic on all else")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bson::raw::{RawArrayBuf, RawDocumentBuf};
use bson::{Bson, Document, doc, rawdoc};
use bytes::Bytes;
use changestream_core::ErrorKind;
use changestream_core::connection::Request;
use changestream_core::random::Random;
use changestream_core::wire::{Compressor, Flags, compress, encode_op_msg};
use support::{Event, World, receive, settings};

/// A connection that holds so much of a reply at once, and a getMore on it that may be answered in parts.
fn asking(part_size: usize, exhaust_allowed: bool) -> (World, i32) {
    let mut settings = settings(None);
    settings.part_size = part_size;
    let mut world = World::new(settings);
    world.greet(&support::hello_reply());
    world.authenticate();
    world.events.clear();
    let request = ask(&mut world, exhaust_allowed);
    (world, request)
}

fn ask(world: &mut World, exhaust_allowed: bool) -> i32 {
    let request = Request {
        exhaust_allowed,
        in_parts: true,
        ..Request::new(rawdoc! { "getMore": 1_i64, "collection": "c", "$db": "d" })
    };
    let id = world.connection.send(world.now, request);
    world.drain();
    world.sent.clear();
    id
}

/// Events with so many bytes of ballast.
fn events(ballast: &[usize]) -> Vec<Document> {
    let event = |(number, size): (usize, &usize)| {
        doc! { "_id": { "_data": format!("{number:08x}") }, "n": number as i64, "ballast": "x".repeat(*size) }
    };
    ballast.iter().enumerate().map(event).collect()
}

fn array(events: &[Document]) -> Bson {
    events.iter().cloned().map(Bson::from).collect::<Vec<_>>().into()
}

/// As mongod answers: the batch first.
fn reply(events: &[Document]) -> Document {
    let cursor = doc! { "nextBatch": array(events), "postBatchResumeToken": { "_data": "t" }, "id": 1_i64, "ns": "d.c" };
    doc! { "cursor": cursor, "ok": 1.0, "operationTime": 5 }
}

/// As some mongos do: other fields first.
fn reply_with_batch_last(events: &[Document]) -> Document {
    let cursor = doc! { "id": 1_i64, "ns": "d.c", "postBatchResumeToken": { "_data": "t" }, "nextBatch": array(events) };
    doc! { "operationTime": 5, "$clusterTime": { "a": [1, 2] }, "cursor": cursor, "ok": 1.0 }
}

fn message(id: i32, to: i32, flags: Flags, reply: &Document) -> Bytes {
    encode_op_msg(id, to, flags, &RawDocumentBuf::try_from(reply).unwrap(), &[])
}

/// The events that came before their reply, the reply as it would be with them, and how much of it came last.
fn put_together(world: &mut World, request: i32) -> (Vec<Document>, Document, usize) {
    let mut early = Vec::new();
    for event in world.events.drain(..) {
        match event {
            Event::Events(to, elements) => {
                assert_eq!(to, request);
                early.extend(read_elements(&elements));
            }
            Event::Reply(reply) => {
                assert_eq!(reply.request_id, request);
                let mut whole = support::document(&reply.body);
                let cursor = whole.get_document_mut("cursor").unwrap();
                let late = cursor.get_array("nextBatch").unwrap();
                let all: Vec<Bson> = early
                    .iter()
                    .cloned()
                    .map(Bson::from)
                    .chain(late.clone())
                    .collect();
                let late = late.len();
                cursor.insert("nextBatch", all);
                return (early, whole, late);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no reply")
}

fn read_elements(elements: &[u8]) -> Vec<Document> {
    let mut bytes = (elements.len() as i32 + 5).to_le_bytes().to_vec();
    bytes.extend_from_slice(elements);
    bytes.push(0);
    let array = RawDocumentBuf::from_bytes(bytes).unwrap();
    let documents = array.iter().map(|element| {
        let (_, value) = element.unwrap();
        value.as_document().unwrap().try_into().unwrap()
    });
    documents.collect()
}

/// Lets bytes arrive, so many at once at most. How large the largest buffer was.
fn arrive(world: &mut World, bytes: &[u8], at_once: usize) -> usize {
    let mut largest = 0;
    for piece in bytes.chunks(at_once) {
        let mut rest = piece;
        while !rest.is_empty() {
            let lent = world.connection.read_buffer();
            largest = largest.max(lent.len());
            let len = rest.len().min(lent.len());
            lent[..len].copy_from_slice(&rest[..len]);
            world.connection.handle_received(world.now, len);
            rest = &rest[len..];
        }
    }
    world.drain();
    largest
}

/// Numbers by a seed.
struct Draw(Random);

impl Draw {
    fn new(seed: u8, round: u8) -> Self {
        let mut whole = [seed; 32];
        whole[0] = round;
        Self(Random::new(whole))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0.next_u64() as usize % limit
    }

    fn ballast(&mut self) -> Vec<usize> {
        let most = [40, 2000][self.below(2)];
        (0..self.below(40)).map(|_| self.below(most)).collect()
    }
}

#[test]
fn parts_and_reply_together_are_what_the_server_sent() {
    let mut in_parts = 0;
    for round in 0..=u8::MAX {
        let mut draw = Draw::new(1, round);
        let events = events(&draw.ballast());
        let most = [300, 5000][draw.below(2)];
        let (part_size, at_once) = (draw.below(most), 1 + draw.below(most));
        let (mut world, request) = asking(part_size, false);
        let sent = match draw.below(2) {
            0 => reply_with_batch_last(&events),
            _ => reply(&events),
        };
        arrive(&mut world, &message(9, request, Flags::NONE, &sent), at_once);
        let (early, whole, late) = put_together(&mut world, request);
        assert_eq!(whole, sent, "round {round}");
        assert!(
            late > 0 || events.is_empty(),
            "round {round}: the last event comes with the end of its reply"
        );
        assert!(world.connection.is_idle());
        in_parts += usize::from(!early.is_empty());
    }
    assert!(in_parts > 100, "{in_parts}");
}

#[test]
fn whatever_arrives_nothing_panics_and_no_length_is_believed() {
    for round in 0..=u8::MAX {
        let mut draw = Draw::new(2, round);
        let part_size = draw.below(400);
        let (mut world, request) = asking(part_size, false);
        let mut bytes = message(9, request, Flags::NONE, &reply(&events(&draw.ballast()))).to_vec();
        for _ in 0..draw.below(4) {
            let at = draw.below(bytes.len().min(600));
            bytes[at] = draw.below(256) as u8;
        }
        arrive(&mut world, &bytes, 37);
    }
}

#[test]
fn events_of_a_large_reply_come_before_its_end_and_in_little_memory() {
    let (mut world, request) = asking(10_000, false);
    let events = events(&[500; 100]);
    let bytes = message(9, request, Flags::NONE, &reply(&events));
    let (most, last) = bytes.split_at(bytes.len() - 1);
    let largest = arrive(&mut world, most, 4096);
    assert!(largest <= 10_000, "{largest} bytes at once");
    let parts = world.events.len();
    assert!(
        parts >= bytes.len() / 10_000 - 1,
        "{parts} parts of {} bytes",
        bytes.len()
    );
    arrive(&mut world, last, 1);
    let (early, _, late) = put_together(&mut world, request);
    assert_eq!(early.len() + late, 100);
    assert!(late * 500 <= 10_000, "{late} events came last");
}

#[test]
fn memory_is_used_again_once_the_events_in_it_are_gone() {
    let (mut world, request) = asking(10_000, false);
    let bytes = message(9, request, Flags::NONE, &reply(&events(&[500; 100])));
    let mut rest = &bytes[..];
    let mut places = std::collections::BTreeSet::new();
    while !rest.is_empty() {
        let lent = world.connection.read_buffer();
        let len = rest.len().min(lent.len());
        lent[..len].copy_from_slice(&rest[..len]);
        world.connection.handle_received(world.now, len);
        rest = &rest[len..];
        world.drain();
        for event in world.events.drain(..) {
            if let Event::Events(_, elements) = event {
                places.insert(elements.as_ptr() as usize / 10_000 * 10_000);
            }
        }
    }
    assert!(places.len() <= 2, "{places:?}");
}

#[test]
fn an_event_that_is_larger_than_a_part_is_held_whole() {
    let (mut world, request) = asking(1000, false);
    let events = events(&[10, 50_000, 10, 20_000, 10]);
    let bytes = message(9, request, Flags::NONE, &reply(&events));
    let largest = arrive(&mut world, &bytes, 700);
    assert!(largest < 60_000, "{largest}");
    let (early, whole, _) = put_together(&mut world, request);
    assert!(early.len() >= 3, "{}", early.len());
    assert_eq!(whole, reply(&events));
}

#[test]
fn replies_of_an_exhaust_cursor_come_in_parts_too() {
    let (mut world, request) = asking(1000, true);
    let sent = reply(&events(&[300; 10]));
    arrive(&mut world, &message(9, request, Flags::MORE_TO_COME, &sent), 500);
    let (early, whole, _) = put_together(&mut world, request);
    assert!(!early.is_empty() && whole == sent);
    arrive(&mut world, &message(10, 9, Flags::NONE, &sent), 500);
    let (early, whole, _) = put_together(&mut world, request);
    assert!(!early.is_empty() && whole == sent);
    assert!(world.connection.is_idle());
}

#[test]
fn the_reply_behind_one_that_came_in_parts_is_a_reply_of_its_own() {
    let (mut world, first) = asking(1000, false);
    let second = ask(&mut world, false);
    let sent = [reply(&events(&[300; 10])), reply(&events(&[20; 10]))];
    let mut bytes = message(9, first, Flags::NONE, &sent[0]).to_vec();
    bytes.extend_from_slice(&message(10, second, Flags::NONE, &sent[1]));
    arrive(&mut world, &bytes, 700);
    let all = std::mem::take(&mut world.events);
    let of_first = all
        .iter()
        .position(|event| matches!(event, Event::Reply(_)))
        .unwrap()
        + 1;
    let mut all = all.into_iter();
    world.events = all.by_ref().take(of_first).collect();
    assert_eq!(put_together(&mut world, first).1, sent[0]);
    world.events = all.collect();
    assert_eq!(put_together(&mut world, second).1, sent[1]);
}

#[test]
fn what_cannot_be_taken_apart_comes_whole() {
    let sent = reply(&events(&[300; 10]));
    let raw = RawDocumentBuf::try_from(&sent).unwrap();
    let first_batch = {
        let mut reply = sent.clone();
        let cursor = reply.get_document_mut("cursor").unwrap();
        let batch = cursor.remove("nextBatch").unwrap();
        cursor.insert("firstBatch", batch);
        reply
    };
    let no_documents = {
        let numbers: RawArrayBuf = (0..500).map(bson::RawBson::Int32).collect();
        rawdoc! { "cursor": { "nextBatch": numbers, "id": 1_i64 }, "ok": 1 }
    };
    let whole = |bytes: &dyn Fn(i32) -> Bytes, why: &str| {
        let (mut world, request) = asking(1000, false);
        arrive(&mut world, &bytes(request), 700);
        assert!(
            matches!(world.events[..], [Event::Reply(_)]),
            "{why}: {:?}",
            world.events
        );
    };
    whole(
        &|to| encode_op_msg(9, to, Flags::CHECKSUM_PRESENT, &raw, &[]),
        "a checksum",
    );
    whole(
        &|to| message(9, to, Flags::NONE, &first_batch),
        "an aggregate's reply",
    );
    whole(
        &|to| encode_op_msg(9, to, Flags::NONE, &no_documents, &[]),
        "no documents",
    );
    whole(
        &|to| message(9, to, Flags::NONE, &doc! { "ok": 0, "errmsg": "x".repeat(9000) }),
        "an error",
    );
    let (mut world, _) = asking(1000, false);
    world.events.clear();
    let other = world.send(&doc! { "getMore": 1_i64 }, false, None);
    arrive(&mut world, &message(9, other, Flags::NONE, &sent), 700);
    assert!(
        matches!(world.events[..], [Event::Reply(_)]),
        "not asked for in parts"
    );
}

#[test]
fn compressed_replies_come_whole() {
    let mut settings = settings(None);
    settings.part_size = 100;
    settings.compressors = vec![Compressor::Zlib];
    let mut world = World::new(settings);
    let mut hello = support::hello_reply();
    hello.insert("compression", vec!["zlib"]);
    world.greet(&hello);
    world.authenticate();
    world.events.clear();
    let request = ask(&mut world, false);
    let plain = message(9, request, Flags::NONE, &reply(&events(&[300; 10])));
    let bytes = compress(&plain, Compressor::Zlib, None).unwrap();
    assert!(bytes.len() > 100);
    arrive(&mut world, &bytes, 50);
    assert!(
        matches!(world.events[..], [Event::Reply(_)]),
        "{:?}",
        world.events
    );
}

#[test]
fn a_length_that_does_not_fit_is_an_error_as_in_a_whole_reply() {
    let (mut world, request) = asking(1000, false);
    let mut bytes = message(9, request, Flags::NONE, &reply(&events(&[300; 10]))).to_vec();
    // The array says that it is longer than the cursor.
    let array = 16 + 5 + 4 + 8 + 4 + 11;
    bytes[array + 1] += 40;
    receive(&mut world.connection, world.now, &bytes);
    world.drain();
    assert!(
        matches!(world.events[..], [Event::Reply(_)]),
        "{:?}",
        world.events
    );
}

#[test]
fn events_that_came_before_the_connection_broke_are_there() {
    let (mut world, request) = asking(1000, false);
    let bytes = message(9, request, Flags::NONE, &reply(&events(&[300; 10])));
    arrive(&mut world, &bytes[..2500], 700);
    assert!(!world.events.is_empty());
    world.disconnect("cut", false);
    let error = world.failure();
    assert!(matches!(error.kind(), ErrorKind::Network { .. }));
    assert!(
        world
            .events
            .iter()
            .all(|event| matches!(event, Event::Events(..)))
    );
}

#[test]
fn what_is_left_of_a_reply_is_read_at_once_when_its_request_is_forgotten() {
    let (mut world, first) = asking(1000, false);
    ask(&mut world, false);
    let bytes = message(9, first, Flags::NONE, &reply(&events(&[300; 100])));
    arrive(&mut world, &bytes[..1500], 700);
    assert!(!world.events.is_empty());
    world.connection.forget(first);
    let lent = world.connection.read_buffer().len();
    arrive(&mut world, &bytes[1500..1500 + lent], lent);
    assert!(world.connection.read_buffer().len() > 20_000, "the whole rest");
}

#[test]
fn a_reply_with_much_before_its_batch_comes_whole() {
    let (mut world, request) = asking(10_000, false);
    let mut sent = reply(&[]);
    let cursor = sent.get_document_mut("cursor").unwrap();
    cursor.remove("nextBatch");
    cursor.insert("junk", "x".repeat(9000));
    cursor.insert("nextBatch", array(&events(&[0; 2000])));
    arrive(&mut world, &message(9, request, Flags::NONE, &sent), 5000);
    assert!(
        matches!(world.events[..], [Event::Reply(_)]),
        "each part would copy it"
    );
}

#[test]
fn a_request_that_is_forgotten_gets_no_parts() {
    let (mut world, request) = asking(1000, false);
    let bytes = message(9, request, Flags::NONE, &reply(&events(&[300; 10])));
    arrive(&mut world, &bytes[..1500], 700);
    let before = world.events.len();
    world.connection.forget(request);
    arrive(&mut world, &bytes[1500..], 700);
    assert_eq!(world.events.len(), before);
    assert!(world.connection.is_idle());
}

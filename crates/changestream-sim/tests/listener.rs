//! The deployment on the loopback.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::wildcard_enum_match_arm,
    reason = "tests, over real sockets"
)]

use std::io::{Read, Write};
use std::net::TcpStream;

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use bytes::Bytes;
use changestream_core::wire::{Flags, FrameReader, Message, encode_op_msg};
use changestream_sim::Deployment;

fn request(stream: &mut TcpStream, command: &Document) -> Document {
    let body = RawDocumentBuf::try_from(command).unwrap();
    stream
        .write_all(&encode_op_msg(1, 0, Flags::NONE, &body, &[]))
        .unwrap();
    let mut reader = FrameReader::new();
    let frame: Bytes = loop {
        if let Some(frame) = reader.next_frame().unwrap() {
            break frame;
        }
        let n = stream.read(reader.buffer()).unwrap();
        assert_ne!(n, 0, "the connection ended");
        reader.filled(n);
    };
    let Message::Msg(reply) = Message::decode(&frame).unwrap() else {
        panic!("no OP_MSG")
    };
    Document::from_reader(&mut &reply.body[..]).unwrap()
}

#[test]
fn a_client_on_a_socket_writes_watches_and_sees_the_end() {
    let deployment = Deployment::replica_set(3).start().unwrap();
    let mut c = TcpStream::connect(deployment.address(0).unwrap()).unwrap();
    let hello = request(&mut c, &doc! { "isMaster": 1, "$db": "admin" });
    assert!(hello.get_bool("ismaster").unwrap());
    assert_eq!(hello.get_str("me").unwrap(), deployment.address(0).unwrap());
    let pipeline = vec![doc! { "$changeStream": {} }];
    let opened = request(
        &mut c,
        &doc! { "aggregate": "c", "pipeline": pipeline, "cursor": {}, "$db": "db" },
    );
    let cursor = opened.get_document("cursor").unwrap().get_i64("id").unwrap();
    request(
        &mut c,
        &doc! { "insert": "c", "documents": [{ "_id": 1 }], "$db": "db" },
    );
    let more = request(
        &mut c,
        &doc! { "getMore": cursor, "collection": "c", "$db": "db" },
    );
    assert_eq!(
        more.get_document("cursor")
            .unwrap()
            .get_array("nextBatch")
            .unwrap()
            .len(),
        1
    );
    assert!(
        deployment
            .commands()
            .iter()
            .any(|command| command.name == "getMore")
    );
    drop(deployment);
    assert_eq!(c.read(&mut [0; 16]).unwrap_or(0), 0);
}

#[test]
fn a_waiting_get_more_is_answered_in_time_and_a_crash_ends_connections() {
    let deployment = Deployment::replica_set(1).start().unwrap();
    let mut c = TcpStream::connect(deployment.address(0).unwrap()).unwrap();
    let pipeline = vec![doc! { "$changeStream": {} }];
    let opened = request(
        &mut c,
        &doc! { "aggregate": "c", "pipeline": pipeline, "cursor": {}, "$db": "db" },
    );
    let cursor = opened.get_document("cursor").unwrap().get_i64("id").unwrap();
    let waiting = doc! { "getMore": cursor, "collection": "c", "maxTimeMS": 20, "$db": "db" };
    let more = request(&mut c, &waiting);
    assert!(
        more.get_document("cursor")
            .unwrap()
            .get_array("nextBatch")
            .unwrap()
            .is_empty()
    );
    deployment.crash(0);
    assert_eq!(c.read(&mut [0; 16]).unwrap_or(0), 0);
}

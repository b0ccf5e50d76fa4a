//! The simulated server apart from change streams: hello, writes, sessions, errors, bytes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bson::{Binary, Document, doc, spec::BinarySubtype};
use changestream_core::wire::{Flags, encode_op_msg, encode_op_query};
use changestream_sim::Deployment;
use world::{World, batch, code, ids, labels};

fn lsid(n: u8) -> Document {
    doc! { "id": Binary { subtype: BinarySubtype::Uuid, bytes: vec![n; 16] } }
}

#[cfg(feature = "zlib")]
#[test]
fn a_compressed_request_is_answered_so_if_that_was_agreed_upon_and_ends_the_connection_if_not() {
    use changestream_core::wire::{compress, compressor_of};
    use changestream_sim::Compressor;
    let mut w = World::new(Deployment::replica_set(1).compressors([Compressor::Zlib]));
    let ping = bson::rawdoc! { "ping": 1, "$db": "admin" };
    let compressed = compress(
        &encode_op_msg(1, 0, Flags::NONE, &ping, &[]),
        Compressor::Zlib,
        None,
    )
    .unwrap();

    let c = w.connect(0);
    assert!(!w.admin(c, doc! { "isMaster": 1 }).contains_key("compression"));
    w.bytes(c, &compressed);
    assert_eq!(w.ended, [c]);

    let c = w.connect(0);
    let hello = w.admin(c, doc! { "isMaster": 1, "compression": ["zstd", "zlib"] });
    assert_eq!(hello.get_array("compression").unwrap(), &vec!["zlib".into()]);
    w.bytes(c, &compressed);
    assert_eq!(compressor_of(w.sent.last().unwrap()), Some(2));
    assert_eq!(w.reply(c).unwrap().get_f64("ok").unwrap(), 1.0);
    w.ok(c, doc! { "ping": 1 });
    assert_eq!(compressor_of(w.sent.last().unwrap()), None);
    let hello = w.admin(c, doc! { "isMaster": 1 });
    assert!(
        hello.contains_key("compression"),
        "what was agreed upon is said again"
    );
}

#[cfg(not(feature = "zlib"))]
#[test]
#[allow(clippy::disallowed_methods, reason = "an epoch for a test")]
fn a_compressor_that_is_not_built_in_is_refused() {
    let error = Deployment::replica_set(1)
        .compressors([changestream_sim::Compressor::Zlib])
        .build(std::time::Instant::now())
        .unwrap_err();
    assert!(error.to_string().contains("turn the feature `zlib` on"));
}

#[test]
fn hello_says_who_is_who_in_the_servers_order() {
    let mut w = World::replica_set(3);
    let (primary, secondary) = (w.connect(0), w.connect(1));
    let hello = w.admin(primary, doc! { "isMaster": 1, "helloOk": true });
    let keys: Vec<&str> = hello.keys().map(String::as_str).collect();
    let expected = "topologyVersion hosts setName setVersion ismaster secondary primary me electionId lastWrite \
                    maxBsonObjectSize maxMessageSizeBytes maxWriteBatchSize localTime \
                    logicalSessionTimeoutMinutes connectionId minWireVersion maxWireVersion readOnly ok \
                    $clusterTime operationTime";
    assert_eq!(keys, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        hello.get_object_id("electionId").unwrap().to_hex(),
        "7fffffff0000000000000001"
    );
    let other = w.admin(secondary, doc! { "isMaster": 1 });
    assert!(!other.get_bool("ismaster").unwrap());
    assert!(other.get_bool("secondary").unwrap());
    assert_eq!(code(&w.run(primary, doc! { "hello": 1, "$db": "admin" })), 59);
}

#[test]
fn the_legacy_query_is_answered_in_its_own_form() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    let query = RawDocumentBuf::try_from(&doc! { "isMaster": 1 }).unwrap();
    w.bytes(c, &encode_op_query(7, "admin.$cmd", &query));
    assert!(w.reply(c).unwrap().get_bool("ismaster").unwrap());
}

#[test]
fn a_streamed_hello_follows_each_change_and_repeats_in_time() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    let first = w.admin(c, doc! { "isMaster": 1 });
    let version = first.get_document("topologyVersion").unwrap().clone();
    let command = doc! { "isMaster": 1, "topologyVersion": version, "maxAwaitTimeMS": 500, "$db": "admin" };
    w.send_with(c, Flags::EXHAUST_ALLOWED, command);
    assert!(w.reply(c).is_none());
    w.advance(Duration::from_millis(500));
    let (flags, repeated) = w.reply_with_flags(c).unwrap();
    assert!(flags.contains(Flags::MORE_TO_COME));
    assert!(repeated.get_bool("ismaster").unwrap());
    w.control(|d, now| d.step_down(now));
    // As a server that steps down: first neither, then a secondary.
    for secondary in [false, true] {
        let (_, changed) = w.reply_with_flags(c).unwrap();
        assert!(!changed.get_bool("ismaster").unwrap());
        assert_eq!(changed.get_bool("secondary").unwrap(), secondary);
        assert_eq!(changed.contains_key("electionId"), !secondary);
    }
    assert!(w.reply(c).is_none());
}

#[test]
fn an_election_raises_term_and_election_id() {
    let mut w = World::replica_set(3);
    assert!(w.control(|d, now| d.elect(now, 2)));
    let c = w.connect(2);
    let hello = w.admin(c, doc! { "isMaster": 1 });
    assert_eq!(
        hello.get_object_id("electionId").unwrap().to_hex(),
        "7fffffff0000000000000002"
    );
    let old = w.connect(0);
    assert_eq!(
        code(&w.run(old, doc! { "insert": "c", "documents": [{}] })),
        10107
    );
    assert_eq!(code(&w.run(old, doc! { "find": "c" })), 13435);
}

#[test]
fn a_retried_write_is_answered_and_not_repeated_even_after_a_fail_over() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    let write = doc! { "insert": "c", "documents": [{ "a": 1 }], "lsid": lsid(1), "txnNumber": 1_i64 };
    assert_eq!(w.ok(c, write.clone()).get_i32("n").unwrap(), 1);
    assert_eq!(w.ok(c, write.clone()).get_i32("n").unwrap(), 1);
    w.control(|d, now| d.elect(now, 1));
    let c = w.connect(1);
    assert_eq!(w.ok(c, write).get_i32("n").unwrap(), 1);
    assert_eq!(w.ok(c, doc! { "count": "c" }).get_i32("n").unwrap(), 1);
}

#[test]
fn a_duplicate_key_is_told_as_the_server_tells_it() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    w.insert(c, 1);
    let reply = w.ok(c, doc! { "insert": "c", "documents": [{ "_id": 1 }] });
    let error = reply.get_array("writeErrors").unwrap()[0].as_document().unwrap();
    assert_eq!(error.get_i32("code").unwrap(), 11000);
    assert_eq!(
        error.get_str("errmsg").unwrap(),
        "E11000 duplicate key error collection: db.c index: _id_ dup key: { _id: 1 }"
    );
}

#[test]
fn a_majority_write_waits_for_the_majority_or_its_timeout() {
    let mut w = World::replica_set(3);
    for member in [1, 2] {
        w.control(|d, now| d.lag(now, member, Duration::from_secs(1)));
    }
    let c = w.connect(0);
    let write = |id: i32, wtimeout: i32| {
        let concern = doc! { "w": "majority", "wtimeout": wtimeout };
        doc! { "insert": "c", "documents": [{ "_id": id }], "writeConcern": concern }
    };
    w.send(c, write(1, 0));
    assert!(w.reply(c).is_none());
    w.advance(Duration::from_millis(999));
    assert!(w.reply(c).is_none());
    w.advance(Duration::from_millis(1));
    assert!(w.reply(c).is_some());
    w.send(c, write(2, 100));
    w.advance(Duration::from_millis(100));
    let reply = w.reply(c).unwrap();
    assert_eq!(
        reply
            .get_document("writeConcernError")
            .unwrap()
            .get_i32("code")
            .unwrap(),
        64
    );
}

#[test]
fn a_transaction_is_seen_as_one_or_not_at_all() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    let part = |id: i32, start: bool| {
        let mut insert = doc! {
            "insert": "c", "documents": [{ "_id": id }], "lsid": lsid(9), "txnNumber": 4_i64, "autocommit": false,
        };
        if start {
            insert.insert("startTransaction", true);
        }
        insert
    };
    w.ok(c, part(1, true));
    w.ok(c, part(2, false));
    assert!(ids(&w.get_more(c, cursor, 10)).is_empty());
    let end = doc! { "commitTransaction": 1, "lsid": lsid(9), "txnNumber": 4_i64, "autocommit": false };
    w.admin(c, end.clone());
    w.admin(c, end);
    let reply = w.get_more(c, cursor, 10);
    assert_eq!(ids(&reply), [1, 2]);
    let events = batch(&reply);
    assert_eq!(events[0].get("clusterTime"), events[1].get("clusterTime"));
    assert_eq!(events[0].get_i64("txnNumber").unwrap(), 4);
    let keys: Vec<&str> = events[0].keys().take(5).map(String::as_str).collect();
    assert_eq!(keys, ["_id", "operationType", "clusterTime", "txnNumber", "lsid"]);

    w.ok(c, {
        let mut p = part(3, true);
        p.insert("txnNumber", 5_i64);
        p
    });
    w.admin(
        c,
        doc! { "abortTransaction": 1, "lsid": lsid(9), "txnNumber": 5_i64, "autocommit": false },
    );
    assert_eq!(w.ok(c, doc! { "count": "c" }).get_i32("n").unwrap(), 3);
    let late = w.run(c, {
        let mut p = part(4, false);
        p.insert("txnNumber", 5_i64);
        p
    });
    assert_eq!(code(&late), 251);
    assert_eq!(labels(&late), ["TransientTransactionError"]);
}

#[test]
fn with_users_nothing_goes_without_authentication() {
    let mut w = World::new(Deployment::replica_set(1).user("u", "p"));
    let c = w.connect(0);
    w.admin(c, doc! { "isMaster": 1, "saslSupportedMechs": "admin.u" });
    let refused = w.run(c, doc! { "aggregate": "c", "pipeline": [], "cursor": {} });
    assert_eq!(code(&refused), 13);
    assert_eq!(
        refused.get_str("errmsg").unwrap(),
        "command aggregate requires authentication"
    );
}

#[test]
fn an_unknown_command_is_named() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    let refused = w.run(c, doc! { "frobnicate": 1 });
    assert_eq!(code(&refused), 59);
    assert_eq!(
        refused.get_str("errmsg").unwrap(),
        "no such command: 'frobnicate'"
    );
}

#[test]
fn a_standalone_has_no_change_streams_and_no_times() {
    let mut w = World::new(Deployment::standalone());
    let c = w.connect(0);
    w.insert(c, 1);
    let refused = w.run(
        c,
        doc! { "aggregate": "c", "pipeline": [{ "$changeStream": {} }], "cursor": {} },
    );
    assert_eq!(
        refused,
        doc! {
            "ok": 0.0,
            "errmsg": "The $changeStream stage is only supported on replica sets",
            "code": 40573,
            "codeName": "Location40573",
        }
    );
}

#[test]
fn fail_commands_close_block_and_count() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    let fail = |w: &mut World, data: Document| {
        let c = w.connect(0);
        let mode = doc! { "times": 1 };
        w.admin(
            c,
            doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data },
        );
    };
    fail(
        &mut w,
        doc! { "failCommands": ["ping"], "blockConnection": true, "blockTimeMS": 50 },
    );
    w.send(c, doc! { "ping": 1 });
    assert!(w.reply(c).is_none());
    w.advance(Duration::from_millis(50));
    assert!(w.reply(c).is_some());
    fail(&mut w, doc! { "failCommands": ["ping"], "closeConnection": true });
    w.send(c, doc! { "ping": 1 });
    assert_eq!(w.ended, [c]);
}

#[test]
fn exhaust_get_mores_stream_until_the_stream_ends() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    w.insert(c, 0);
    let writer = w.connect(0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    let command = doc! { "getMore": cursor, "collection": "c", "maxTimeMS": 300 };
    w.send_with(c, Flags::EXHAUST_ALLOWED, command);
    w.insert(writer, 1);
    let (flags, reply) = w.reply_with_flags(c).unwrap();
    assert!(flags.contains(Flags::MORE_TO_COME));
    assert_eq!(ids(&reply), [1]);
    w.advance(Duration::from_millis(300));
    assert!(ids(&w.reply(c).unwrap()).is_empty());
    w.ok(writer, doc! { "drop": "c" });
    let (flags, _) = w.reply_with_flags(c).unwrap();
    assert_eq!(flags, Flags::NONE);
}

#[test]
fn a_reply_does_not_depend_on_how_its_request_was_cut() {
    let run = |cut: usize| {
        let mut w = World::replica_set(1);
        let c = w.connect(0);
        let body = RawDocumentBuf::try_from(&doc! { "isMaster": 1, "$db": "admin" }).unwrap();
        let bytes = encode_op_msg(1, 0, Flags::CHECKSUM_PRESENT, &body, &[]);
        for chunk in bytes.chunks(cut) {
            w.bytes(c, chunk);
        }
        w.sent
    };
    let whole = run(4096);
    assert_eq!(whole.len(), 1);
    for cut in 1..70 {
        assert_eq!(run(cut), whole);
    }
}

#[test]
fn broken_bytes_end_the_connection_and_nothing_else() {
    let mut w = World::replica_set(1);
    let body = RawDocumentBuf::try_from(&doc! { "ping": 1, "$db": "admin" }).unwrap();
    let good = encode_op_msg(1, 0, Flags::CHECKSUM_PRESENT, &body, &[]).to_vec();
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let c = w.connect(0);
            let mut bad = good.clone();
            bad[at] ^= flip;
            w.bytes(c, &bad);
            w.bytes(c, &[0xff; 64]);
        }
    }
    let c = w.connect(0);
    w.admin(c, doc! { "ping": 1 });
}

#[test]
fn a_document_nested_too_deep_is_refused_without_recursion() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    let mut bytes = vec![5, 0, 0, 0, 0];
    for _ in 0..100_000 {
        let mut outer = i32::try_from(bytes.len() + 8).unwrap().to_le_bytes().to_vec();
        outer.extend([3, b'a', 0]);
        outer.append(&mut bytes);
        outer.push(0);
        bytes = outer;
        if bytes.len() > 20_000 {
            break;
        }
    }
    let body = RawDocumentBuf::from_bytes(bytes).unwrap();
    w.bytes(c, &encode_op_msg(1, 0, Flags::NONE, &body, &[]));
    assert_eq!(w.ended, [c]);
}

#[test]
fn equal_seeds_and_inputs_give_equal_bytes() {
    let run = |seed: u8| {
        let mut w = World::new(Deployment::replica_set(3).seed([seed; 32]));
        let c = w.connect(0);
        w.insert(c, 0);
        let (cursor, _) = w.watch(c, doc! {}, vec![]);
        w.ok(c, doc! { "insert": "c", "documents": [{ "x": 1 }] });
        w.get_more(c, cursor, 10);
        w.control(|d, now| d.step_down(now));
        w.advance(Duration::from_secs(30));
        let c = w.connect(w.deployment.primary().unwrap());
        w.insert(c, 5);
        w.sent
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

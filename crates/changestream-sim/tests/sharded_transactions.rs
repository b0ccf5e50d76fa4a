//! Transactions through a mongos: on one shard, and over both.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use changestream_sim::{ConnectionId, Deployment};
use world::{World, batch, code, labels};

/// Two shards, two mongos, a no-op each second; `db.c` is sharded by hashed `k`, `db.one` is on one shard.
fn cluster() -> (World, ConnectionId, ConnectionId) {
    let mut w = World::new(Deployment::sharded(2, 2).noop_interval(Duration::from_secs(1)));
    let (a, b) = (w.connect(0), w.connect(1));
    w.admin(a, doc! { "enableSharding": "db" });
    w.admin(a, doc! { "shardCollection": "db.c", "key": { "k": "hashed" } });
    w.ok(a, doc! { "create": "one" });
    (w, a, b)
}

fn session() -> Document {
    let id = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: vec![7; 16],
    };
    doc! { "id": id }
}

/// The command as a part of the session's transaction of that number.
fn member(mut command: Document, number: i64, first: bool) -> Document {
    command.extend(doc! { "lsid": session(), "txnNumber": number, "autocommit": false });
    if first {
        command.insert("startTransaction", true);
    }
    command
}

fn end(w: &mut World, connection: ConnectionId, name: &str, number: i64) -> Document {
    let mut command = member(doc! { name: 1 }, number, false);
    command.insert("$db", "admin");
    w.run(connection, command)
}

fn insert_all(ids: std::ops::Range<i32>) -> Document {
    let documents: Vec<Document> = ids.map(|id| doc! { "_id": id, "k": id }).collect();
    doc! { "insert": "c", "documents": documents }
}

fn events(w: &mut World, connection: ConnectionId, cursor: i64, n: usize) -> Vec<Document> {
    let mut found = Vec::new();
    for _ in 0..50 {
        found.extend(batch(&w.get_more(connection, cursor, 500)));
        if found.len() >= n {
            return found;
        }
    }
    panic!("{} of {n} events", found.len());
}

fn count(w: &mut World, connection: ConnectionId) -> i32 {
    w.ok(connection, doc! { "count": "c" }).get_i32("n").unwrap()
}

fn kinds(events: &[Document]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event.get_str("operationType").unwrap())
        .collect()
}

#[test]
fn a_transaction_over_two_shards_is_one_unit() {
    let (mut w, a, b) = cluster();
    let (cursor, _) = w.watch(b, doc! {}, vec![]);
    let reply = w.ok(a, member(insert_all(0..8), 1, true));
    assert_eq!(reply.get_i32("n").unwrap(), 8);
    let recovery = reply.get_document("recoveryToken").unwrap();
    assert!(recovery.get_str("recoveryShardId").unwrap().starts_with("sh"));
    w.ok(
        a,
        member(
            doc! { "update": "c", "updates": [{ "q": { "_id": 3 }, "u": { "$set": { "x": 1 } } }] },
            1,
            false,
        ),
    );

    // It sees its own writes; nobody else does, and no stream.
    let inside = w.ok(a, member(doc! { "find": "c" }, 1, false));
    assert_eq!(batch(&inside).len(), 8);
    assert_eq!((count(&mut w, a), count(&mut w, b)), (0, 0));
    w.advance(Duration::from_secs(2));
    assert_eq!(batch(&w.get_more(b, cursor, 100)), []);

    assert_eq!(end(&mut w, a, "commitTransaction", 1).get_f64("ok").unwrap(), 1.0);
    assert_eq!(count(&mut w, b), 8);
    let events = events(&mut w, b, cursor, 9);
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "insert").count(), 8);
    let times: std::collections::BTreeSet<_> = events
        .iter()
        .map(|e| e.get_timestamp("clusterTime").unwrap())
        .collect();
    assert_eq!(times.len(), 2, "one entry on each shard");
    for event in &events {
        assert_eq!(event.get_i64("txnNumber").unwrap(), 1);
        assert_eq!(event.get_document("lsid").unwrap().get("id"), session().get("id"));
        let keys: Vec<&str> = event.keys().map(String::as_str).take(5).collect();
        assert_eq!(keys, ["_id", "operationType", "clusterTime", "txnNumber", "lsid"]);
    }
}

#[test]
fn a_transaction_on_one_shard_comes_in_its_order() {
    let (mut w, a, _) = cluster();
    let reply = w.ok(
        a,
        doc! {
            "aggregate": "one", "pipeline": [{ "$changeStream": {} }], "cursor": {},
        },
    );
    let cursor = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
    w.ok(
        a,
        member(
            doc! { "insert": "one", "documents": [{ "_id": 1 }, { "_id": 2 }] },
            1,
            true,
        ),
    );
    w.ok(
        a,
        member(
            doc! { "delete": "one", "deletes": [{ "q": { "_id": 1 }, "limit": 1 }] },
            1,
            false,
        ),
    );
    end(&mut w, a, "commitTransaction", 1);
    w.advance(Duration::from_secs(2));
    let reply = w.ok(a, doc! { "getMore": cursor, "collection": "one" });
    let events = batch(&reply);
    assert_eq!(kinds(&events), ["insert", "insert", "delete"]);
    let time = |event: &Document| event.get_timestamp("clusterTime").unwrap();
    assert!(events.iter().all(|event| time(event) == time(&events[0])));
}

#[test]
fn an_aborted_transaction_leaves_nothing() {
    let (mut w, a, b) = cluster();
    let (cursor, _) = w.watch(b, doc! {}, vec![]);
    w.ok(a, member(insert_all(0..8), 1, true));
    assert_eq!(end(&mut w, a, "abortTransaction", 1).get_f64("ok").unwrap(), 1.0);
    let late = end(&mut w, a, "commitTransaction", 1);
    assert_eq!(
        (code(&late), labels(&late)),
        (251, vec!["TransientTransactionError".to_owned()])
    );
    w.ok(a, doc! { "insert": "c", "documents": [{ "_id": 9, "k": 9 }] });
    let events = events(&mut w, b, cursor, 1);
    assert_eq!(kinds(&events), ["insert"]);
    assert!(!events[0].contains_key("txnNumber"));
    assert_eq!(count(&mut w, b), 1);
}

#[test]
fn a_conflict_on_one_shard_ends_the_transaction_on_all() {
    let (mut w, a, b) = cluster();
    w.ok(a, insert_all(0..8));
    w.ok(a, member(insert_all(10..18), 1, true));
    w.ok(
        b,
        doc! { "update": "c", "updates": [{ "q": { "_id": 3 }, "u": { "$set": { "x": 1 } } }] },
    );
    let update = doc! { "update": "c", "updates": [{ "q": { "_id": 3 }, "u": { "$set": { "x": 2 } } }] };
    let reply = w.run(a, member(update, 1, false));
    assert_eq!(
        (code(&reply), labels(&reply)),
        (112, vec!["TransientTransactionError".to_owned()])
    );
    assert_eq!(code(&end(&mut w, a, "commitTransaction", 1)), 251);
    assert_eq!(count(&mut w, b), 8);
}

#[test]
fn a_commit_can_be_repeated_and_recovered_by_another_mongos() {
    let (mut w, a, b) = cluster();
    let reply = w.ok(a, member(insert_all(0..8), 1, true));
    let token = reply.get_document("recoveryToken").unwrap().clone();
    for _ in 0..2 {
        assert_eq!(end(&mut w, a, "commitTransaction", 1).get_f64("ok").unwrap(), 1.0);
    }
    assert_eq!(code(&end(&mut w, b, "commitTransaction", 1)), 251);
    let mut again = member(doc! { "commitTransaction": 1, "recoveryToken": token }, 1, false);
    again.insert("$db", "admin");
    assert_eq!(w.run(b, again).get_f64("ok").unwrap(), 1.0);
    assert_eq!(code(&end(&mut w, a, "abortTransaction", 1)), 256);
    assert_eq!(count(&mut w, a), 8);
}

#[test]
fn an_election_on_a_shard_ends_the_transactions_that_were_there() {
    let config = Deployment::sharded(2, 1)
        .shard_members(3)
        .noop_interval(Duration::from_secs(1));
    let mut w = World::new(config);
    let a = w.connect(0);
    w.admin(a, doc! { "enableSharding": "db" });
    w.admin(a, doc! { "shardCollection": "db.c", "key": { "k": "hashed" } });
    w.ok(a, member(insert_all(0..8), 1, true));
    w.control(|d, now| d.on_shard(now, 1, |shard| shard.elect(now, 2)));
    let reply = end(&mut w, a, "commitTransaction", 1);
    assert_eq!(
        (code(&reply), labels(&reply)),
        (251, vec!["TransientTransactionError".to_owned()])
    );
    assert_eq!(count(&mut w, a), 0);
    assert_eq!(
        reply.get("errmsg").map(Bson::element_type),
        Some(bson::spec::ElementType::String)
    );
}

#[test]
fn the_shard_key_of_a_document_can_change_in_a_transaction() {
    let (mut w, a, b) = cluster();
    w.ok(a, insert_all(0..8));
    let (cursor, _) = w.watch(b, doc! {}, vec![]);
    for (number, k) in (1_i64..).zip([100, 101, 102, 103]) {
        let update =
            doc! { "update": "c", "updates": [{ "q": { "k": 0, "_id": 0 }, "u": { "$set": { "k": k } } }] };
        w.ok(a, member(update, number, true));
        end(&mut w, a, "commitTransaction", number);
        let back =
            doc! { "update": "c", "updates": [{ "q": { "k": k, "_id": 0 }, "u": { "$set": { "k": 0 } } }] };
        w.ok(a, member(back, number + 100, true));
        end(&mut w, a, "abortTransaction", number + 100);
        w.ok(
            a,
            doc! { "delete": "c", "deletes": [{ "q": { "k": k }, "limit": 1 }] },
        );
        w.ok(a, insert_all(0..1));
    }
    let events = events(&mut w, b, cursor, 12);
    let kinds = kinds(&events);
    // To another shard it goes by a delete and an insert.
    assert!(
        kinds.contains(&"update") && kinds.iter().filter(|kind| **kind == "delete").count() > 4,
        "{kinds:?}"
    );
    assert_eq!(count(&mut w, a), 8);
}

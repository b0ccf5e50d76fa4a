//! `readConcern: snapshot` outside of transactions: reads as of a moment.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use bson::{Document, Timestamp, doc};
use changestream_sim::{ConnectionId, Deployment};
use world::{World, batch, code};

fn snapshot(mut command: Document, at: Option<Timestamp>) -> Document {
    let mut concern = doc! { "level": "snapshot" };
    if let Some(at) = at {
        concern.insert("atClusterTime", at);
    }
    command.insert("readConcern", concern);
    command
}

fn found(reply: &Document) -> Vec<(i32, i32)> {
    let documents = batch(reply);
    let pair = |d: &Document| (d.get_i32("_id").unwrap(), d.get_i32("v").unwrap_or(0));
    documents.iter().map(pair).collect()
}

fn at_cluster_time(reply: &Document) -> Timestamp {
    let cursor = reply.get_document("cursor").unwrap();
    cursor.get_timestamp("atClusterTime").unwrap()
}

/// Writes of every kind after a first read, whose moment is returned.
fn changed_after_a_read(w: &mut World, c: ConnectionId) -> Timestamp {
    w.ok(
        c,
        doc! { "insert": "c", "documents": [{ "_id": 1, "v": 1 }, { "_id": 2, "v": 2 }] },
    );
    let first = w.ok(c, snapshot(doc! { "find": "c" }, None));
    assert_eq!(found(&first), [(1, 1), (2, 2)]);
    let at = at_cluster_time(&first);
    w.ok(
        c,
        doc! { "update": "c", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "v": 10 } } }] },
    );
    w.ok(
        c,
        doc! { "delete": "c", "deletes": [{ "q": { "_id": 2 }, "limit": 1 }] },
    );
    w.ok(c, doc! { "insert": "c", "documents": [{ "_id": 3, "v": 3 }] });
    at
}

#[test]
fn a_read_sees_the_data_of_its_moment_whatever_was_written_since() {
    let mut w = World::new(Deployment::replica_set(3).server_version("5.0"));
    let c = w.connect(0);
    let at = changed_after_a_read(&mut w, c);

    let then = w.ok(c, snapshot(doc! { "find": "c" }, Some(at)));
    assert_eq!((found(&then), at_cluster_time(&then)), (vec![(1, 1), (2, 2)], at));
    let now = w.ok(c, snapshot(doc! { "find": "c" }, None));
    assert_eq!(found(&now), [(1, 10), (3, 3)]);
    assert!(at_cluster_time(&now) > at);
    let pipeline = doc! { "aggregate": "c", "pipeline": [{ "$match": { "v": 2 } }], "cursor": {} };
    let then = w.ok(c, snapshot(pipeline, Some(at)));
    assert_eq!((found(&then), at_cluster_time(&then)), (vec![(2, 2)], at));
    let then = w.ok(c, snapshot(doc! { "distinct": "c", "key": "v" }, Some(at)));
    assert_eq!(then.get_array("values").unwrap(), &vec![1.into(), 2.into()]);
    assert_eq!(then.get_timestamp("atClusterTime").unwrap(), at);
    let plain = w.ok(c, doc! { "find": "c" });
    assert!(
        !plain
            .get_document("cursor")
            .unwrap()
            .contains_key("atClusterTime")
    );
}

#[test]
fn a_mongos_reads_all_shards_as_of_one_moment() {
    let mut w = World::new(Deployment::sharded(2, 1).server_version("6.0"));
    let c = w.connect(0);
    w.admin(c, doc! { "enableSharding": "db" });
    w.admin(c, doc! { "shardCollection": "db.c", "key": { "_id": 1 } });
    w.admin(c, doc! { "split": "db.c", "middle": { "_id": 2 } });
    w.admin(c, doc! { "moveChunk": "db.c", "find": { "_id": 2 }, "to": "sh1" });
    let at = changed_after_a_read(&mut w, c);
    let then = w.ok(c, snapshot(doc! { "find": "c", "sort": { "_id": 1 } }, Some(at)));
    assert_eq!((found(&then), at_cluster_time(&then)), (vec![(1, 1), (2, 2)], at));
}

#[test]
fn a_moment_that_no_majority_has_reached_is_waited_for() {
    let mut w = World::new(Deployment::replica_set(3).server_version("7.0"));
    let c = w.connect(0);
    w.control(|d, now| d.partition(now, &[0]));
    let insert = doc! { "insert": "c", "documents": [{ "_id": 1, "v": 1 }], "writeConcern": { "w": 1 } };
    let written = w.ok(c, insert);
    let at = written.get_timestamp("operationTime").unwrap();
    w.send(c, snapshot(doc! { "find": "c" }, Some(at)));
    assert!(w.reply(c).is_none());
    w.control(|d, now| d.heal(now));
    w.advance(std::time::Duration::from_secs(1));
    assert_eq!(found(&w.reply(c).unwrap()), [(1, 1)]);
}

#[test]
fn what_cannot_be_read_so_is_refused() {
    let mut w = World::new(Deployment::replica_set(1).server_version("8.0"));
    let c = w.connect(0);
    let at = changed_after_a_read(&mut w, c);
    let later = Timestamp {
        time: at.time + 1000,
        increment: 1,
    };
    assert_eq!(code(&w.run(c, snapshot(doc! { "find": "c" }, Some(later)))), 72);
    assert_eq!(code(&w.run(c, snapshot(doc! { "count": "c" }, None))), 72);
    let local = doc! { "find": "c", "readConcern": { "level": "local", "atClusterTime": at } };
    assert_eq!(code(&w.run(c, local)), 72);
    let now = w.now;
    let end = Timestamp {
        increment: at.increment + 100,
        ..at
    };
    w.deployment.lose_history(now, end);
    assert_eq!(code(&w.run(c, snapshot(doc! { "find": "c" }, Some(at)))), 239);

    let mut old = World::new(Deployment::replica_set(1).server_version("4.4"));
    let c = old.connect(0);
    assert_eq!(code(&old.run(c, snapshot(doc! { "find": "c" }, None))), 72);
}

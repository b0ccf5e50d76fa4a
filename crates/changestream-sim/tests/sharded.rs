//! What a client of a mongos sees.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use bson::{Bson, Document, Timestamp, doc};
use changestream_core::wire::Flags;
use changestream_sim::{ConnectionId, Deployment};
use world::{World, batch, code, ids, kinds, labels, token};

/// Two shards, two mongos, a no-op each second; `db.c` is sharded by hashed `k`.
fn cluster() -> (World, ConnectionId, ConnectionId) {
    cluster_of(Deployment::sharded(2, 2))
}

fn cluster_of(config: changestream_sim::Config) -> (World, ConnectionId, ConnectionId) {
    let mut world = World::new(config.noop_interval(Duration::from_secs(1)));
    let (a, b) = (world.connect(0), world.connect(1));
    world.admin(a, doc! { "enableSharding": "db" });
    world.admin(a, doc! { "shardCollection": "db.c", "key": { "k": "hashed" } });
    (world, a, b)
}

fn insert(world: &mut World, connection: ConnectionId, ids: impl IntoIterator<Item = i32>) {
    let documents: Vec<Document> = ids.into_iter().map(|id| doc! { "_id": id, "k": id }).collect();
    world.ok(connection, doc! { "insert": "c", "documents": documents });
}

/// getMore until this many events have come.
fn events(world: &mut World, connection: ConnectionId, cursor: i64, n: usize) -> Vec<Document> {
    let mut found = Vec::new();
    for _ in 0..100 {
        let reply = world.get_more(connection, cursor, 500);
        assert_eq!(reply.get_f64("ok").unwrap(), 1.0, "{reply}");
        found.extend(batch(&reply));
        if found.len() >= n {
            return found;
        }
    }
    panic!("{} of {n} events", found.len());
}

fn id_of(event: &Document) -> i32 {
    event.get_document("documentKey").unwrap().get_i32("_id").unwrap()
}

fn keys(document: &Document) -> Vec<&str> {
    document.keys().map(String::as_str).collect()
}

/// The `_id`s of all documents of `db.c`.
fn find_all(world: &mut World, connection: ConnectionId) -> Vec<i32> {
    let reply = world.ok(
        connection,
        doc! { "find": "c", "sort": { "_id": 1 }, "batchSize": 1000 },
    );
    let found = batch(&reply);
    found.iter().map(|d| d.get_i32("_id").unwrap()).collect()
}

#[test]
fn a_mongos_greets_as_one() {
    let (mut world, a, _) = cluster();
    let hello = world.admin(a, doc! { "isMaster": 1 });
    assert_eq!(
        keys(&hello),
        [
            "ismaster",
            "msg",
            "maxBsonObjectSize",
            "maxMessageSizeBytes",
            "maxWriteBatchSize",
            "localTime",
            "logicalSessionTimeoutMinutes",
            "connectionId",
            "maxWireVersion",
            "minWireVersion",
            "topologyVersion",
            "ok",
            "operationTime",
            "$clusterTime"
        ]
    );
    assert_eq!(hello.get_str("msg").unwrap(), "isdbgrid");
    assert_eq!(
        world.deployment.uri(),
        "mongodb://127.0.0.1:27017,127.0.0.1:27018/"
    );
    assert_eq!(world.deployment.member_count(), 2);
    assert_eq!(world.deployment.shard_count(), 2);
}

#[test]
fn documents_are_spread_over_shards_and_found_again() {
    let (mut world, a, b) = cluster();
    insert(&mut world, a, 0..40);
    assert_eq!(find_all(&mut world, b), (0..40).collect::<Vec<_>>());
    let n = world.ok(b, doc! { "count": "c" }).get_i32("n").unwrap();
    assert_eq!(n, 40);
    // Without one shard, about half of the documents can still be found by their shard key.
    let now = world.now;
    world.deployment.cut_off(now, 0, 1);
    let mut here = 0;
    for k in 0..40 {
        world.send(a, doc! { "find": "c", "filter": { "k": k } });
        match world.reply(a) {
            Some(reply) => here += batch(&reply).len(),
            None => {
                world.advance(Duration::from_secs(15));
                assert_eq!(code(&world.reply(a).unwrap()), 133);
            }
        }
    }
    assert!((8..32).contains(&here), "{here} of 40 on one shard");
}

#[test]
fn the_first_batch_is_empty_and_the_document_key_has_the_shard_key() {
    let (mut world, a, _) = cluster();
    let before = world
        .admin(a, doc! { "ping": 1 })
        .get_timestamp("operationTime")
        .unwrap();
    insert(&mut world, a, [1]);
    world.advance(Duration::from_secs(2));
    let (cursor, first) = world.watch(a, doc! { "startAtOperationTime": before }, vec![]);
    assert!(batch(&first).is_empty());
    assert_eq!(keys(&first), ["firstBatch", "postBatchResumeToken", "id", "ns"]);
    let reply = world.get_more(a, cursor, 500);
    let more = reply.get_document("cursor").unwrap();
    assert_eq!(keys(more), ["id", "ns", "nextBatch", "postBatchResumeToken"]);
    let key = batch(&reply)[0].get_document("documentKey").unwrap().clone();
    assert_eq!(key, doc! { "k": 1, "_id": 1 });
    assert_eq!(keys(&key), ["k", "_id"]);
}

#[test]
fn an_event_waits_until_every_shard_is_past_it() {
    let (mut world, a, _) = cluster();
    world.advance(Duration::from_millis(100));
    let (cursor, first) = world.watch(a, doc! {}, vec![]);
    insert(&mut world, a, [1]);
    // The other shard is idle: it says nothing before its next no-op.
    let reply = world.get_more(a, cursor, 500);
    assert!(batch(&reply).is_empty());
    assert_eq!(token(&reply), token(&first));
    let reply = world.get_more(a, cursor, 1500);
    assert_eq!(ids(&reply), [1]);
}

#[test]
fn events_come_in_the_order_of_time_whatever_shard_they_are_of() {
    let (mut world, a, b) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    for i in 0..30 {
        let through = if i % 3 == 0 { b } else { a };
        insert(&mut world, through, [i]);
        world.advance(Duration::from_millis(70));
    }
    let events = events(&mut world, a, cursor, 30);
    assert_eq!(
        events.iter().map(id_of).collect::<Vec<_>>(),
        (0..30).collect::<Vec<_>>()
    );
    let times: Vec<Timestamp> = events
        .iter()
        .map(|e| e.get_timestamp("clusterTime").unwrap())
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn any_token_resumes_on_the_other_mongos_without_gap_or_repeat() {
    let (mut world, a, b) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    insert(&mut world, a, 0..20);
    let seen = events(&mut world, a, cursor, 20);
    for (i, event) in seen.iter().enumerate() {
        let after = event.get_document("_id").unwrap().clone();
        for option in ["resumeAfter", "startAfter"] {
            let (cursor, first) = world.watch(b, doc! { option: after.clone() }, vec![]);
            assert_eq!(token(&first), after);
            let rest = seen.get(i + 1..).unwrap();
            if !rest.is_empty() {
                assert_eq!(events(&mut world, b, cursor, rest.len()), rest);
            }
        }
    }
}

#[test]
fn a_small_batch_leaves_the_rest_for_the_next_and_its_token_between() {
    let (mut world, a, _) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    insert(&mut world, a, 0..300);
    world.advance(Duration::from_secs(3));
    let mut found = Vec::new();
    while found.len() < 300 {
        let reply = world.ok(a, doc! { "getMore": cursor, "collection": "c", "batchSize": 7 });
        found.extend(batch(&reply));
        if found.len() < 300 {
            let last = found.last().unwrap().get_document("_id").unwrap();
            assert_eq!(&token(&reply), last);
        }
    }
    assert_eq!(
        found.iter().map(id_of).collect::<Vec<_>>(),
        (0..300).collect::<Vec<_>>()
    );
    let whole = world
        .watch(
            a,
            doc! { "resumeAfter": found[0].get_document("_id").unwrap().clone() },
            vec![],
        )
        .0;
    let reply = world.ok(a, doc! { "getMore": whole, "collection": "c" });
    assert_eq!(ids(&reply).len(), 299);
}

#[test]
fn the_token_of_an_idle_stream_follows_the_slowest_shard() {
    let (mut world, a, _) = cluster();
    let (cursor, first) = world.watch(a, doc! {}, vec![]);
    let mut last = token(&first);
    for _ in 0..5 {
        world.advance(Duration::from_secs(1));
        let reply = world.get_more(a, cursor, 1);
        let next = token(&reply);
        assert!(next.get_str("_data").unwrap() > last.get_str("_data").unwrap());
        last = next;
    }
}

#[test]
fn a_lost_history_and_an_unknown_token_are_told_by_the_first_get_more() {
    let (mut world, a, _) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    insert(&mut world, a, 0..10);
    let seen = events(&mut world, a, cursor, 10);
    let after = seen[0].get_document("_id").unwrap().clone();
    // A stream whose events are no longer all there.
    let (unknown, _) = world.watch(a, doc! { "resumeAfter": forged(&after) }, vec![]);
    let error = world.get_more(a, unknown, 500);
    assert_eq!(
        (code(&error), labels(&error)),
        (280, vec!["NonResumableChangeStreamError".to_owned()])
    );
    world.advance(Duration::from_secs(5));
    let last = world.deployment.last_write().unwrap();
    let now = world.now;
    world.deployment.lose_history(now, last);
    let (lost, _) = world.watch(a, doc! { "resumeAfter": after }, vec![]);
    let error = world.get_more(a, lost, 500);
    assert_eq!(
        (code(&error), labels(&error)),
        (286, vec!["NonResumableChangeStreamError".to_owned()])
    );
    assert!(
        error
            .get_str("errmsg")
            .unwrap()
            .starts_with("Error on remote shard sh"),
        "{error}"
    );
    assert_eq!(
        keys(&error),
        [
            "ok",
            "errmsg",
            "code",
            "codeName",
            "errorLabels",
            "operationTime",
            "$clusterTime"
        ]
    );
    // The cursor is gone with its error.
    assert_eq!(code(&world.get_more(a, lost, 500)), 43);
}

/// The token of an event that never was, at the same time.
fn forged(token: &Document) -> Document {
    let data = token.get_str("_data").unwrap();
    let (start, end) = data.split_at(40);
    let digit = if end.starts_with('0') { '1' } else { '0' };
    doc! { "_data": format!("{start}{digit}{}", end.get(1..).unwrap()) }
}

#[test]
fn a_mongos_does_not_stream_replies() {
    let (mut world, a, _) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    insert(&mut world, a, 0..3);
    world.advance(Duration::from_secs(2));
    world.send_with(
        a,
        Flags::EXHAUST_ALLOWED,
        doc! { "getMore": cursor, "collection": "c" },
    );
    let (flags, reply) = world.reply_with_flags(a).unwrap();
    assert_eq!((flags, ids(&reply)), (Flags::NONE, vec![0, 1, 2]));
    world.advance(Duration::from_secs(5));
    assert!(world.reply(a).is_none());
}

#[test]
fn a_cursor_is_known_to_its_mongos_only() {
    let (mut world, a, b) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    let get_more = doc! { "getMore": cursor, "collection": "c", "maxTimeMS": 1 };
    let error = world.run(b, get_more.clone());
    assert_eq!(
        (code(&error), error.get_str("codeName").unwrap()),
        (43, "CursorNotFound")
    );
    assert_eq!(world.deployment.cursors(0), [cursor]);
    let reply = world.ok(b, doc! { "killCursors": "c", "cursors": [cursor] });
    assert_eq!(
        reply.get_array("cursorsNotFound").unwrap(),
        &[Bson::Int64(cursor)]
    );
    let on_shards = |world: &mut World| -> usize {
        let now = world.now;
        (0..2)
            .map(|s| {
                world
                    .deployment
                    .on_shard(now, s, |set| set.cursors(0).len())
                    .unwrap()
            })
            .sum()
    };
    assert_eq!(on_shards(&mut world), 2);
    let reply = world.ok(a, doc! { "killCursors": "c", "cursors": [cursor] });
    assert_eq!(reply.get_array("cursorsKilled").unwrap(), &[Bson::Int64(cursor)]);
    assert_eq!(code(&world.run(a, get_more)), 43);
    assert_eq!(on_shards(&mut world), 0);
}

#[test]
fn a_cursor_belongs_to_its_session() {
    let (mut world, a, _) = cluster();
    let lsid = doc! { "id": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] } };
    let reply = world.ok(
        a,
        doc! { "aggregate": "c", "pipeline": [{ "$changeStream": {} }], "cursor": {}, "lsid": lsid.clone() },
    );
    let cursor = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
    let get_more = doc! { "getMore": cursor, "collection": "c", "maxTimeMS": 1 };
    assert_eq!(code(&world.run(a, get_more)), 50736);
    world.ok(a, doc! { "endSessions": [lsid] });
    assert!(world.deployment.cursors(0).is_empty());
}

#[test]
fn a_mongos_that_crashed_comes_back_without_its_cursors() {
    let (mut world, a, b) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    insert(&mut world, b, [1]);
    world.control(|d, now| d.crash(now, 0));
    assert_eq!(world.ended, [a]);
    insert(&mut world, b, [2]);
    world.control(|d, now| d.restart(now, 0));
    let again = world.connect(0);
    assert_eq!(code(&world.get_more(again, cursor, 1)), 43);
    assert_eq!(find_all(&mut world, again), [1, 2]);
}

#[test]
fn a_fail_point_is_its_mongos_own() {
    let (mut world, a, b) = cluster();
    let fail = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": { "failCommands": ["aggregate"], "errorCode": 6 } };
    world.deployment.fail_command(0, &fail).unwrap();
    let aggregate = doc! { "aggregate": "c", "pipeline": [{ "$changeStream": {} }], "cursor": {} };
    world.ok(b, aggregate.clone());
    let error = world.run(a, aggregate.clone());
    assert_eq!(
        (code(&error), labels(&error)),
        (6, vec!["ResumableChangeStreamError".to_owned()])
    );
    world.ok(a, aggregate);
}

#[test]
fn a_mongos_cut_off_from_a_shard_fails_its_streams_and_waits_for_the_shard() {
    let (mut world, a, b) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    let (other, _) = world.watch(b, doc! {}, vec![]);
    world.control(|d, now| d.cut_off(now, 0, 1));
    let error = world.get_more(a, cursor, 500);
    assert_eq!(
        (code(&error), labels(&error)),
        (6, vec!["ResumableChangeStreamError".to_owned()])
    );
    assert!(batch(&world.get_more(b, other, 1)).is_empty());
    let aggregate = doc! { "aggregate": "c", "pipeline": [{ "$changeStream": {} }], "cursor": {} };
    world.send(a, aggregate.clone());
    world.advance(Duration::from_secs(14));
    assert!(world.reply(a).is_none());
    world.advance(Duration::from_secs(1));
    let error = world.reply(a).unwrap();
    assert_eq!(
        (code(&error), labels(&error)),
        (133, vec!["ResumableChangeStreamError".to_owned()])
    );
    world.send(a, aggregate);
    world.control(Deployment::heal);
    assert_eq!(world.reply(a).unwrap().get_f64("ok").unwrap(), 1.0);
}

#[test]
fn a_stream_survives_a_shards_step_down_but_not_the_crash_of_its_member() {
    let (mut world, a, _) = cluster_of(Deployment::sharded(2, 2).shard_members(3));
    let (cursor, first) = world.watch(a, doc! {}, vec![]);
    insert(&mut world, a, 0..5);
    world.control(Deployment::step_down);
    world.advance(Duration::from_secs(1));
    insert(&mut world, a, 5..10);
    let seen = events(&mut world, a, cursor, 10);
    assert_eq!(
        seen.iter().map(id_of).collect::<Vec<_>>(),
        (0..10).collect::<Vec<_>>()
    );
    world.control(|d, now| d.on_shard(now, 0, |shard| shard.crash(now, 0)));
    let error = world.get_more(a, cursor, 500);
    assert_eq!(
        (code(&error), labels(&error)),
        (6, vec!["ResumableChangeStreamError".to_owned()])
    );
    let (cursor, _) = world.watch(a, doc! { "resumeAfter": token(&first) }, vec![]);
    assert_eq!(events(&mut world, a, cursor, 10), seen);
}

#[test]
fn events_of_writes_that_no_majority_has_are_not_shown() {
    let (mut world, a, _) = cluster_of(
        Deployment::sharded(2, 2)
            .shard_members(3)
            .election_timeout(Duration::from_secs(60)),
    );
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    for shard in 0..2 {
        world.control(|d, now| d.on_shard(now, shard, |set| set.partition(now, &[0])));
    }
    world.send(
        a,
        doc! { "insert": "c", "documents": [{ "_id": 1, "k": 1 }], "writeConcern": { "w": "majority", "wtimeout": 5000 } },
    );
    world.advance(Duration::from_secs(5));
    let reply = world.reply(a).unwrap();
    assert_eq!(
        reply
            .get_document("writeConcernError")
            .unwrap()
            .get_i32("code")
            .unwrap(),
        64
    );
    assert!(batch(&world.get_more(a, cursor, 500)).is_empty());
    for shard in 0..2 {
        world.control(|d, now| d.on_shard(now, shard, |set| set.heal(now)));
    }
    assert_eq!(
        events(&mut world, a, cursor, 1)
            .iter()
            .map(id_of)
            .collect::<Vec<_>>(),
        [1]
    );
}

#[test]
fn updates_and_deletes_carry_the_shard_key_too() {
    let (mut world, a, _) = cluster();
    let (cursor, _) = world.watch(a, doc! { "fullDocument": "updateLookup" }, vec![]);
    insert(&mut world, a, [1]);
    world.ok(
        a,
        doc! { "update": "c", "updates": [{ "q": { "k": 1 }, "u": { "$set": { "x": 1 } } }] },
    );
    world.ok(
        a,
        doc! { "findAndModify": "c", "query": { "_id": 1 }, "update": { "k": 1, "y": 2 } },
    );
    world.ok(
        a,
        doc! { "delete": "c", "deletes": [{ "q": { "_id": 1 }, "limit": 1 }] },
    );
    let seen = events(&mut world, a, cursor, 4);
    let kinds: Vec<_> = seen.iter().map(|e| e.get_str("operationType").unwrap()).collect();
    assert_eq!(kinds, ["insert", "update", "replace", "delete"]);
    for event in &seen {
        assert_eq!(
            event.get_document("documentKey").unwrap(),
            &doc! { "k": 1, "_id": 1 }
        );
    }
}

#[test]
fn a_changed_shard_key_moves_the_document_as_a_delete_and_an_insert() {
    let (mut world, a, _) = cluster();
    insert(&mut world, a, [0]);
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    let update =
        |k: i32| doc! { "update": "c", "updates": [{ "q": { "_id": 0 }, "u": { "$set": { "k": k } } }] };
    let refused = world.ok(a, update(1));
    let error = refused.get_array("writeErrors").unwrap()[0]
        .as_document()
        .unwrap();
    assert_eq!(error.get_i32("code").unwrap(), 20);
    let lsid = doc! { "id": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] } };
    for k in 1..=20 {
        let mut command = update(k);
        command.insert("lsid", lsid.clone());
        command.insert("txnNumber", i64::from(k));
        let first = world.ok(a, command.clone());
        // A retry changes nothing.
        assert_eq!(
            world.ok(a, command).get_i32("n").unwrap(),
            first.get_i32("n").unwrap()
        );
    }
    world.advance(Duration::from_secs(2));
    let reply = world.get_more(a, cursor, 500);
    let moves = kinds(&reply).iter().filter(|k| *k == "delete").count();
    assert!(
        moves > 0 && kinds(&reply).len() == 20 + moves,
        "{:?}",
        kinds(&reply)
    );
    assert_eq!(find_all(&mut world, a), [0]);
}

#[test]
fn a_ranged_collection_stays_on_one_shard_until_chunks_move_which_no_stream_shows() {
    let (mut world, a, b) = cluster();
    world.admin(a, doc! { "shardCollection": "db.r", "key": { "k": 1 } });
    let documents: Vec<_> = (0..10).map(|k| doc! { "_id": k, "k": k }).collect();
    let reply = world.ok(
        a,
        doc! { "aggregate": "r", "pipeline": [{ "$changeStream": {} }], "cursor": {} },
    );
    let cursor = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
    world.ok(a, doc! { "insert": "r", "documents": documents });
    world.admin(a, doc! { "split": "db.r", "middle": { "k": 5 } });
    let shards = world.admin(a, doc! { "listShards": 1 });
    assert_eq!(shards.get_array("shards").unwrap().len(), 2);
    world.admin(a, doc! { "moveChunk": "db.r", "find": { "k": 7 }, "to": "sh1" });
    world.ok(
        b,
        doc! { "update": "r", "updates": [{ "q": { "k": 7 }, "u": { "$set": { "x": 1 } } }] },
    );
    world.ok(b, doc! { "delete": "r", "deletes": [{ "q": {}, "limit": 0 }] });
    world.advance(Duration::from_secs(2));
    let reply = world.ok(a, doc! { "getMore": cursor, "collection": "r" });
    let count = |kind: &str| kinds(&reply).iter().filter(|k| *k == kind).count();
    assert_eq!((count("insert"), count("update"), count("delete")), (10, 1, 10));
    assert_eq!(kinds(&reply).len(), 21);
    assert_eq!(world.ok(a, doc! { "count": "r" }).get_i32("n").unwrap(), 0);
}

#[test]
fn a_dropped_collection_is_dropped_on_each_shard_and_ends_the_stream_once() {
    let (mut world, a, _) = cluster();
    let (cursor, _) = world.watch(a, doc! {}, vec![]);
    let reply = world.ok(
        a,
        doc! { "aggregate": 1, "pipeline": [{ "$changeStream": {} }], "cursor": {} },
    );
    let whole = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
    insert(&mut world, a, [1]);
    world.ok(a, doc! { "drop": "c" });
    world.advance(Duration::from_secs(2));
    let reply = world.get_more(a, cursor, 500);
    assert_eq!(kinds(&reply), ["insert", "drop", "invalidate"]);
    assert_eq!(reply.get_document("cursor").unwrap().get_i64("id").unwrap(), 0);
    let end = batch(&reply)[2].get_document("_id").unwrap().clone();
    let reply = world.ok(a, doc! { "getMore": whole, "collection": "$cmd.aggregate" });
    assert_eq!(kinds(&reply), ["insert", "drop", "drop"]);
    let refused = world.run(
        a,
        doc! { "aggregate": "c", "pipeline": [{ "$changeStream": { "resumeAfter": end.clone() } }], "cursor": {} },
    );
    assert_eq!(code(&refused), 260);
    world.watch(a, doc! { "startAfter": end }, vec![]);
}

#[test]
fn an_unsharded_collection_has_the_id_alone_for_its_key() {
    let (mut world, a, _) = cluster();
    world.ok(a, doc! { "insert": "u", "documents": [{ "_id": 1, "k": 1 }] });
    let reply = world.ok(
        a,
        doc! { "aggregate": "u", "pipeline": [{ "$changeStream": {} }], "cursor": {} },
    );
    let cursor = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
    world.ok(
        a,
        doc! { "update": "u", "updates": [{ "q": {}, "u": { "$set": { "x": 1 } } }] },
    );
    world.advance(Duration::from_secs(2));
    let reply = world.ok(a, doc! { "getMore": cursor, "collection": "u" });
    assert_eq!(
        batch(&reply)[0].get_document("documentKey").unwrap(),
        &doc! { "_id": 1 }
    );
    let error = world.run(
        a,
        doc! { "moveChunk": "db.u", "find": {}, "to": "sh0", "$db": "admin" },
    );
    assert_eq!(code(&error), 118);
}

#[test]
fn a_sharded_cluster_is_started_on_the_loopback() {
    let running = Deployment::sharded(2, 2).start().unwrap();
    let uri = running.uri();
    assert!(
        uri.starts_with("mongodb://127.0.0.1:") && uri.matches(',').count() == 1,
        "{uri}"
    );
    assert!(!uri.contains("replicaSet"));
}

#[test]
fn events_of_one_time_on_two_shards_are_all_there_and_each_can_be_resumed_after() {
    let (mut world, a, b) = cluster();
    // Databases take turns: db is on the first shard, other on the second.
    world.ok(
        b,
        doc! { "insert": "u", "documents": [{ "_id": -1 }], "$db": "other" },
    );
    world.ok(a, doc! { "create": "u" });
    let watch = |world: &mut World, options: Document| {
        let mut stage = doc! { "allChangesForCluster": true };
        stage.extend(options);
        let command =
            doc! { "aggregate": 1, "pipeline": [{ "$changeStream": stage }], "cursor": {}, "$db": "admin" };
        let reply = world.ok(a, command);
        reply.get_document("cursor").unwrap().get_i64("id").unwrap()
    };
    let follow = |world: &mut World, cursor: i64| {
        let command =
            doc! { "getMore": cursor, "collection": "$cmd.aggregate", "maxTimeMS": 1, "$db": "admin" };
        batch(&world.ok(a, command))
    };
    let cursor = watch(&mut world, doc! {});
    // Each mongos has a shard of its own, so that nobody tells the shards each other's time.
    world.control(|d, now| d.cut_off(now, 0, 1));
    world.control(|d, now| d.cut_off(now, 1, 0));
    world.advance(Duration::from_millis(1050));
    for id in 0..5 {
        world.ok(a, doc! { "insert": "u", "documents": [{ "_id": id }] });
        world.ok(
            b,
            doc! { "insert": "u", "documents": [{ "_id": id }], "$db": "other" },
        );
    }
    world.control(Deployment::heal);
    world.advance(Duration::from_secs(3));
    let events = follow(&mut world, cursor);
    assert_eq!(events.len(), 10);
    let times: Vec<Timestamp> = events
        .iter()
        .map(|e| e.get_timestamp("clusterTime").unwrap())
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(times.windows(2).any(|pair| pair[0] == pair[1]), "{times:?}");
    for (i, event) in events.iter().enumerate() {
        let after = event.get_document("_id").unwrap().clone();
        let cursor = watch(&mut world, doc! { "resumeAfter": after });
        let rest = events.get(i + 1..).unwrap();
        if !rest.is_empty() {
            assert_eq!(follow(&mut world, cursor), rest);
        }
    }
}

#[test]
fn that_a_collection_is_sharded_is_an_event_where_expanded_events_are_wanted() {
    let config = Deployment::sharded(2, 1).server_version("8.0");
    let mut world = World::new(config.noop_interval(Duration::from_secs(1)));
    let a = world.connect(0);
    world.ok(a, doc! { "create": "s" });
    let open = |world: &mut World, options: Document| {
        let stages = vec![doc! { "$changeStream": options }];
        let reply = world.ok(a, doc! { "aggregate": 1, "pipeline": stages, "cursor": {} });
        reply.get_document("cursor").unwrap().get_i64("id").unwrap()
    };
    let plain = open(&mut world, doc! {});
    let expanded = open(&mut world, doc! { "showExpandedEvents": true });
    world.admin(a, doc! { "shardCollection": "db.s", "key": { "_id": 1 } });
    let mut of = |cursor: i64| {
        let get_more = doc! { "getMore": cursor, "collection": "$cmd.aggregate", "maxTimeMS": 3000 };
        world.send(a, get_more);
        world.advance(Duration::from_secs(3));
        batch(&world.reply(a).unwrap())
    };
    let told = of(expanded);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].get_str("operationType").unwrap(), "shardCollection");
    assert!(told[0].contains_key("collectionUUID"));
    let description = doc! {
        "shardKey": { "_id": 1 },
        "unique": false,
        "numInitialChunks": 0_i64,
        "presplitHashedZones": false,
    };
    assert_eq!(
        told[0].get_document("operationDescription").unwrap(),
        &description
    );
    assert_eq!(of(plain), Vec::<Document>::new());
}

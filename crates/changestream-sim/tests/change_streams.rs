//! Change streams of the simulated deployment.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use bson::{Bson, Document, doc};
use changestream_sim::Deployment;
use world::{World, batch, code, ids, kinds, labels, token};

#[test]
fn a_collections_life_is_told_in_the_servers_words_and_order() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    w.insert(c, 1);
    w.ok(
        c,
        doc! { "update": "c", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "a": 2 } } }] },
    );
    w.ok(
        c,
        doc! { "update": "c", "updates": [{ "q": { "_id": 1 }, "u": { "z": 9 } }] },
    );
    w.ok(
        c,
        doc! { "delete": "c", "deletes": [{ "q": { "_id": 1 }, "limit": 1 }] },
    );
    let reply = w.get_more(c, cursor, 100);
    assert_eq!(kinds(&reply), ["insert", "update", "replace", "delete"]);
    let events = batch(&reply);
    let keys: Vec<&str> = events[1].keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "_id",
            "operationType",
            "clusterTime",
            "ns",
            "documentKey",
            "updateDescription"
        ]
    );
    assert_eq!(
        events[1].get_document("updateDescription").unwrap(),
        &doc! { "updatedFields": { "a": 2 }, "removedFields": [] }
    );
    assert_eq!(
        events[2].get_document("fullDocument").unwrap(),
        &doc! { "_id": 1, "z": 9 }
    );
    assert_eq!(&token(&reply), events[3].get_document("_id").unwrap());

    w.ok(c, doc! { "drop": "c" });
    let last = w.get_more(c, cursor, 100);
    assert_eq!(kinds(&last), ["drop", "invalidate"]);
    assert_eq!(last.get_document("cursor").unwrap().get_i64("id").unwrap(), 0);
    assert_eq!(code(&w.run(c, doc! { "getMore": cursor, "collection": "c" })), 43);
}

#[test]
fn an_idle_streams_token_moves_with_other_collections_and_with_no_ops() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    let (cursor, first) = w.watch(c, doc! {}, vec![]);
    w.ok(c, doc! { "insert": "other", "documents": [{ "_id": 1 }] });
    let second = w.get_more(c, cursor, 100);
    assert!(batch(&second).is_empty());
    let data = |d: &Document| d.get_str("_data").unwrap().to_owned();
    assert!(data(&token(&second)) > data(&token(&first)));
    w.advance(Duration::from_secs(11));
    let third = w.get_more(c, cursor, 100);
    assert!(data(&token(&third)) > data(&token(&second)));
    assert!(data(&token(&third)).ends_with("2B0229296E04"));
}

#[test]
fn only_what_a_majority_has_is_delivered_and_what_it_lacks_is_rolled_back() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    w.control(|d, now| d.partition(now, &[0]));
    w.insert(c, 1);
    assert_eq!(ids(&w.get_more(c, cursor, 100)), [0; 0]);
    w.advance(Duration::from_secs(15));
    let new = w.deployment.primary().unwrap();
    assert_ne!(new, 0);
    let c2 = w.connect(new);
    w.insert(c2, 2);
    w.control(|d, now| d.heal(now));
    let found = w.ok(
        c,
        doc! { "find": "c", "$readPreference": { "mode": "secondary" } },
    );
    let found: Vec<i32> = batch(&found).iter().map(|d| d.get_i32("_id").unwrap()).collect();
    assert_eq!(found, [0, 2]);
}

#[test]
fn a_stream_resumes_after_an_event_on_another_member() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    w.insert(c, 1);
    w.insert(c, 2);
    let seen = batch(&w.get_more(c, cursor, 100));
    let after = seen[0].get_document("_id").unwrap().clone();
    w.control(|d, now| d.crash(now, 0));
    assert!(w.ended.contains(&c));
    w.advance(Duration::from_secs(11));
    let c = w.connect(w.deployment.primary().unwrap());
    let (_, again) = w.watch(c, doc! { "resumeAfter": after }, vec![]);
    assert_eq!(ids(&again), [2]);
}

#[test]
fn an_invalidated_stream_goes_on_with_start_after_only() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    w.ok(c, doc! { "drop": "c" });
    let token = token(&w.get_more(c, cursor, 100));
    w.insert(c, 1);
    let refused = w.run(
        c,
        doc! { "aggregate": "c", "pipeline": [{ "$changeStream": { "resumeAfter": token.clone() } }], "cursor": {} },
    );
    assert_eq!(code(&refused), 260);
    let (_, again) = w.watch(c, doc! { "startAfter": token }, vec![]);
    assert_eq!(ids(&again), [1]);
}

#[test]
fn the_cursor_of_an_invalidated_stream_ends_when_the_server_looks_behind_the_last_event() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    let (filtered, _) = w.watch(c, doc! {}, vec![doc! { "$match": { "operationType": "insert" } }]);
    w.ok(c, doc! { "drop": "c" });
    let one = |cursor: i64| doc! { "getMore": cursor, "collection": "c", "batchSize": 1 };
    let id = |reply: &Document| reply.get_document("cursor").unwrap().get_i64("id").unwrap();
    let drop = w.ok(c, one(cursor));
    let invalidate = w.ok(c, one(cursor));
    assert_eq!(
        (kinds(&drop), kinds(&invalidate)),
        (vec!["drop".to_owned()], vec!["invalidate".to_owned()])
    );
    assert_eq!(
        (id(&drop), id(&invalidate)),
        (cursor, cursor),
        "the batch is full"
    );
    let end = w.ok(c, one(cursor));
    assert_eq!((batch(&end).len(), id(&end)), (0, 0));
    assert_eq!(token(&end), token(&invalidate));

    let unseen = w.ok(c, one(filtered));
    assert_eq!((batch(&unseen).len(), id(&unseen)), (0, 0));
    assert_eq!(token(&unseen), token(&invalidate));
}

#[test]
fn an_invalidated_stream_goes_on_where_large_events_are_split_too() {
    let mut w = World::new(Deployment::replica_set(1).server_version("7.0"));
    let c = w.connect(0);
    w.insert(c, 0);
    let split = || vec![doc! { "$changeStreamSplitLargeEvent": {} }];
    let (cursor, _) = w.watch(c, doc! {}, split());
    w.ok(c, doc! { "drop": "c" });
    let token = token(&w.get_more(c, cursor, 100));
    w.insert(c, 1);
    let (cursor, first) = w.watch(c, doc! { "startAfter": token }, split());
    assert_eq!(ids(&first), [1]);
    assert_ne!(cursor, 0);
}

#[test]
fn a_token_from_before_the_oplog_is_refused_as_history_lost() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    w.insert(c, 0);
    let (_, first) = w.watch(c, doc! {}, vec![]);
    let old = token(&first);
    w.insert(c, 1);
    w.insert(c, 2);
    w.insert(c, 3);
    let last = w.deployment.last_write().unwrap();
    w.control(|d, now| d.lose_history(now, last));
    let refused = w.run(
        c,
        doc! { "aggregate": "c", "pipeline": [{ "$changeStream": { "resumeAfter": old } }], "cursor": {} },
    );
    assert_eq!(code(&refused), 286);
    assert_eq!(labels(&refused), ["NonResumableChangeStreamError"]);
}

#[test]
fn an_event_whose_id_the_pipeline_took_away_ends_the_stream() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![doc! { "$project": { "_id": 0 } }]);
    w.insert(c, 1);
    let failed = w.run(c, doc! { "getMore": cursor, "collection": "c" });
    assert_eq!(code(&failed), 280);
    let keys: Vec<&str> = failed.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "errorLabels",
            "operationTime",
            "ok",
            "errmsg",
            "code",
            "codeName",
            "$clusterTime"
        ]
    );
    assert!(failed.get_str("errmsg").unwrap().ends_with("but found: {}"));
    assert_eq!(code(&w.run(c, doc! { "getMore": cursor, "collection": "c" })), 43);
}

#[test]
fn batches_have_a_hundred_and_one_events_first_and_what_was_asked_for_then() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    w.insert(c, -1);
    let at = w.deployment.last_write().unwrap();
    for id in 0..250 {
        w.insert(c, id);
    }
    let at = bson::Timestamp {
        time: at.time,
        increment: at.increment + 1,
    };
    let (cursor, first) = w.watch(c, doc! { "startAtOperationTime": at }, vec![]);
    assert_eq!(ids(&first), (0..101).collect::<Vec<_>>());
    assert_eq!(token(&first), *batch(&first)[100].get_document("_id").unwrap());
    let next = w.ok(c, doc! { "getMore": cursor, "collection": "c", "batchSize": 40 });
    assert_eq!(ids(&next), (101..141).collect::<Vec<_>>());
    let rest = w.ok(c, doc! { "getMore": cursor, "collection": "c" });
    assert_eq!(ids(&rest), (141..250).collect::<Vec<_>>());
}

#[test]
fn an_empty_first_batch_is_answered_at_once_with_a_cursor() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    let reply = w.ok(
        c,
        doc! { "aggregate": 1, "pipeline": [{ "$changeStream": {} }], "cursor": { "batchSize": 0 } },
    );
    let cursor = reply.get_document("cursor").unwrap();
    assert_eq!(cursor.get_str("ns").unwrap(), "db.$cmd.aggregate");
    assert!(batch(&reply).is_empty());
    assert_ne!(cursor.get_i64("id").unwrap(), 0);
}

#[test]
fn scopes_tell_what_belongs_to_them() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    let open = |w: &mut World, db: &str, all: bool| {
        let options = if all {
            doc! { "allChangesForCluster": true }
        } else {
            doc! {}
        };
        let reply = w.ok(
            c,
            doc! { "aggregate": 1, "pipeline": [{ "$changeStream": options }], "cursor": {}, "$db": db },
        );
        reply.get_document("cursor").unwrap().get_i64("id").unwrap()
    };
    let cluster = open(&mut w, "admin", true);
    let database = open(&mut w, "db", false);
    w.insert(c, 1);
    w.ok(
        c,
        doc! { "insert": "x", "documents": [{ "_id": 2 }], "$db": "elsewhere" },
    );
    w.ok(c, doc! { "dropDatabase": 1 });
    let more = |w: &mut World, cursor: i64, db: &str| {
        w.ok(
            c,
            doc! { "getMore": cursor, "collection": "$cmd.aggregate", "$db": db },
        )
    };
    assert_eq!(
        kinds(&more(&mut w, cluster, "admin")),
        ["insert", "insert", "drop", "dropDatabase"]
    );
    assert_eq!(
        kinds(&more(&mut w, database, "db")),
        ["insert", "drop", "dropDatabase", "invalidate"]
    );
}

#[test]
fn a_waiting_get_more_wakes_with_the_event_and_outlives_a_step_down() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    w.send(
        c,
        doc! { "getMore": cursor, "collection": "c", "maxTimeMS": 60_000 },
    );
    assert!(w.reply(c).is_none());
    w.control(|d, now| d.step_down(now));
    w.advance(Duration::from_secs(1));
    let primary = w.deployment.primary().unwrap();
    assert_ne!(primary, 0);
    let c2 = w.connect(primary);
    assert!(w.reply(c).is_none());
    w.insert(c2, 1);
    assert_eq!(ids(&w.reply(c).unwrap()), [1]);
    assert_eq!(code(&w.run(c, doc! { "insert": "c", "documents": [{}] })), 10107);
}

#[test]
fn six_zero_has_images_wall_time_and_expanded_events() {
    let mut w = World::new(Deployment::replica_set(1).server_version("6.0"));
    let c = w.connect(0);
    w.ok(
        c,
        doc! { "create": "c", "changeStreamPreAndPostImages": { "enabled": true } },
    );
    let options = doc! {
        "showExpandedEvents": true,
        "fullDocument": "required",
        "fullDocumentBeforeChange": "whenAvailable",
    };
    let (cursor, _) = w.watch(c, options, vec![]);
    w.insert(c, 1);
    w.ok(
        c,
        doc! { "update": "c", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "a": 2 } } }] },
    );
    w.ok(
        c,
        doc! { "createIndexes": "c", "indexes": [{ "key": { "a": 1 }, "name": "a_1" }] },
    );
    let reply = w.get_more(c, cursor, 100);
    assert_eq!(kinds(&reply), ["insert", "update", "createIndexes"]);
    let update = &batch(&reply)[1];
    assert_eq!(
        update.get_document("fullDocument").unwrap(),
        &doc! { "_id": 1, "a": 2 }
    );
    assert_eq!(
        update.get_document("fullDocumentBeforeChange").unwrap(),
        &doc! { "_id": 1 }
    );
    assert!(matches!(update.get("wallTime"), Some(Bson::DateTime(_))));
    assert!(
        update
            .get_document("updateDescription")
            .unwrap()
            .contains_key("truncatedArrays")
    );
}

#[test]
fn resumable_codes_are_labelled_on_get_more_and_not_found_is_not() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    w.insert(c, 0);
    for (code, labelled) in [
        (6, true),
        (91, true),
        (13436, true),
        (43, false),
        (280, false),
        (237, false),
    ] {
        let (cursor, _) = w.watch(c, doc! {}, vec![]);
        w.admin(
            c,
            doc! {
                "configureFailPoint": "failGetMoreAfterCursorCheckout",
                "mode": { "times": 1 },
                "data": { "errorCode": code },
            },
        );
        let failed = w.run(c, doc! { "getMore": cursor, "collection": "c" });
        assert_eq!(world::code(&failed), code);
        assert_eq!(
            labels(&failed).contains(&"ResumableChangeStreamError".to_owned()),
            labelled,
            "{code}"
        );
    }
}

#[test]
fn a_large_event_ends_the_stream_unless_it_is_split() {
    let mut w = World::new(Deployment::replica_set(1).server_version("7.0"));
    let c = w.connect(0);
    w.ok(
        c,
        doc! { "create": "c", "changeStreamPreAndPostImages": { "enabled": true } },
    );
    let pad = |n: usize| "x".repeat(n * 1_000_000);
    w.ok(
        c,
        doc! { "insert": "c", "documents": [{ "_id": 1, "pad": pad(9) }] },
    );
    let options = doc! { "fullDocument": "required", "fullDocumentBeforeChange": "required" };
    let (plain, _) = w.watch(c, options.clone(), vec![]);
    let stage = doc! { "$changeStreamSplitLargeEvent": {} };
    let (split, _) = w.watch(c, options.clone(), vec![stage.clone()]);
    w.ok(
        c,
        doc! { "update": "c", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "a": 1 } } }] },
    );
    assert_eq!(
        code(&w.run(c, doc! { "getMore": plain, "collection": "c" })),
        10334
    );
    let first = w.ok(c, doc! { "getMore": split, "collection": "c" });
    let fragment = batch(&first).remove(0);
    assert_eq!(
        fragment.get_document("splitEvent").unwrap(),
        &doc! { "fragment": 1, "of": 2 }
    );
    assert_eq!(batch(&first).len(), 1);
    let after = fragment.get_document("_id").unwrap().clone();
    let mut resumed = options;
    resumed.insert("resumeAfter", after);
    let (_, again) = w.watch(c, resumed, vec![stage]);
    let fragment = batch(&again).remove(0);
    assert_eq!(
        fragment.get_document("splitEvent").unwrap(),
        &doc! { "fragment": 2, "of": 2 }
    );
}

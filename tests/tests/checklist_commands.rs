//! The behaviour checklist: the shape of commands, and which options the server gets to judge.
//!
//! Not here:
//! - "wrong types refused" (pymongo test_watch): the types of `WatchOptions` leave no room for them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bson::{Bson, Document, doc};
use changestream_core::event::OperationType;
use changestream_core::{
    FullDocument, FullDocumentBeforeChange, ReadConcern, ResumeToken, Scope, WatchOptions,
};
use changestream_sim::Deployment;
use changestream_tests::world::{World, collection, database, document, exact, key_of, stage};

/// What opening a stream with these options fails with.
#[track_caller]
fn refusal(world: &mut World, options: WatchOptions) -> (i32, String) {
    let stream = world.watch(&collection("shop", "orders"), options);
    let error = world.open(stream).unwrap_err();
    let said = error.server_error().expect("the server refused").clone();
    assert_eq!(world.commands_named("aggregate").len(), 1);
    (said.code, said.message)
}

/// pymongo test_watch: options arrive as they were given.
#[test]
fn every_option_arrives_where_it_belongs() {
    let mut world = World::new(Deployment::replica_set(1).server_version("6.0"), [1; 32]);
    let mut options = exact();
    options.pipeline = vec![doc! { "$match": { "fullDocument.total": { "$gt": 100 } } }];
    options.full_document = Some(FullDocument::WhenAvailable);
    options.full_document_before_change = Some(FullDocumentBeforeChange::WhenAvailable);
    options.show_expanded_events = Some(true);
    options.batch_size = Some(7);
    options.max_await_time = Some(Duration::from_millis(250));
    options.collation = Some(doc! { "locale": "simple" });
    options.comment = Some(Bson::from(doc! { "who": "auditor" }));
    options.read_concern = Some(ReadConcern::new("majority"));
    let stream = world.watching(&collection("shop", "orders"), options);
    world.try_nothing(stream);
    let mut aggregate = world.last_command("aggregate");
    let mut get_more = world.last_command("getMore");
    for command in [&mut aggregate, &mut get_more] {
        command.remove("lsid").unwrap();
        command.remove("$clusterTime").unwrap();
    }
    assert_eq!(
        aggregate,
        doc! {
            "aggregate": "orders",
            "pipeline": [
                { "$changeStream": {
                    "fullDocument": "whenAvailable",
                    "fullDocumentBeforeChange": "whenAvailable",
                    "showExpandedEvents": true,
                } },
                { "$match": { "fullDocument.total": { "$gt": 100 } } },
            ],
            "collation": { "locale": "simple" },
            "comment": { "who": "auditor" },
            "cursor": { "batchSize": 7 },
            "readConcern": { "level": "majority" },
            "$db": "shop",
        }
    );
    let cursor = get_more.remove("getMore").unwrap();
    assert!(cursor.as_i64().is_some());
    assert_eq!(
        get_more,
        doc! {
            "collection": "orders",
            "batchSize": 7,
            "maxTimeMS": 250i64,
            "comment": { "who": "auditor" },
            "$db": "shop",
        }
    );
}

/// pymongo test_full_pipeline: `$changeStream` is the first stage, the user's come after it.
#[test]
fn the_change_stream_stage_is_first_and_exactly_what_was_asked_for() {
    let user = [
        doc! { "$project": { "ns": 0 } },
        doc! { "$match": { "operationType": "insert" } },
    ];
    for (scope, expected) in [
        (collection("shop", "orders"), doc! {}),
        (database("shop"), doc! {}),
        (Scope::Cluster, doc! { "allChangesForCluster": true }),
    ] {
        let mut world = World::replica_set();
        let mut options = exact();
        options.pipeline = user.to_vec();
        world.watching(&scope, options);
        let aggregate = world.last_command("aggregate");
        assert_eq!(stage(&aggregate), &expected);
        let pipeline = aggregate.get_array("pipeline").unwrap();
        assert_eq!(pipeline[1..], user.clone().map(Bson::from));
        assert_eq!(aggregate.get_document("cursor").unwrap(), &doc! {});
    }
}

/// A pipeline that the server does not take is the server's to refuse.
#[test]
fn an_unsupported_stage_is_the_servers_to_refuse() {
    for stage in [
        doc! { "$foo": 1 },
        doc! { "$changeStream": {} },
        doc! { "$sort": { "_id": 1 } },
    ] {
        let mut world = World::replica_set();
        let mut options = exact();
        options.pipeline = vec![stage.clone()];
        refusal(&mut world, options);
        let aggregate = world.last_command("aggregate");
        assert_eq!(aggregate.get_array("pipeline").unwrap()[1], Bson::from(stage));
    }
}

/// pymongo test_watch: fullDocument updateLookup.
#[test]
fn an_update_lookup_brings_the_document_as_it_is_now() {
    let mut world = World::replica_set();
    world.insert_orders(0..1);
    let mut options = exact();
    options.full_document = Some(FullDocument::UpdateLookup);
    let stream = world.watching(&collection("shop", "orders"), options);
    let update =
        |set: Document| doc! { "update": "orders", "updates": [{ "q": { "_id": 0 }, "u": { "$set": set } }] };
    world.run("shop", update(doc! { "total": 5 }));
    world.run("shop", update(doc! { "paid": true }));
    let event = world.event(stream);
    let full: Document = event.full_document_as().unwrap().unwrap();
    assert_eq!(full, doc! { "_id": 0, "total": 5, "paid": true });
    let changed: Document = event
        .update_description()
        .unwrap()
        .updated_fields()
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(changed, doc! { "total": 5 });
    world.run("shop", update(doc! { "total": 6 }));
    world.run(
        "shop",
        doc! { "delete": "orders", "deletes": [{ "q": {}, "limit": 0 }] },
    );
    // The second and the third update: what they updated may be gone when they are read.
    world.event(stream);
    assert!(world.event(stream).full_document().is_null());
}

/// pymongo test_watch and test_resume_after: a stream accepts the token of another, and its own.
#[test]
fn a_new_stream_goes_on_where_an_old_one_stood() {
    for start_after in [false, true] {
        let mut world = World::replica_set();
        let first = world.watching(&collection("shop", "orders"), exact());
        world.insert_orders(0..5);
        assert_eq!(world.keys(first, 2), [0, 1]);
        let token = world.machine(first).resume_token().unwrap().clone();
        world.close(first);
        let mut options = WatchOptions::default();
        if start_after {
            options.start_after = Some(token);
        } else {
            options.resume_after = Some(token);
        }
        let second = world.watching(&collection("shop", "orders"), options);
        assert_eq!(world.keys(second, 3), [2, 3, 4]);
    }
}

/// pymongo test_batch_size_is_honored.
#[test]
fn the_batch_size_is_in_the_aggregate_and_in_every_get_more() {
    for prefetch in [0, 1, 3] {
        let mut world = World::replica_set();
        let mut options = WatchOptions::default();
        options.prefetch_batches = prefetch;
        options.batch_size = Some(2);
        let stream = world.watching(&collection("shop", "orders"), options);
        world.insert_orders(0..10);
        assert_eq!(world.keys(stream, 10), (0..10).collect::<Vec<_>>());
        let aggregate = world.last_command("aggregate");
        assert_eq!(
            aggregate.get_document("cursor").unwrap(),
            &doc! { "batchSize": 2 }
        );
        let get_mores = world.commands_named("getMore");
        assert!(get_mores.len() >= 5);
        assert!(
            get_mores
                .iter()
                .all(|get_more| get_more.get("batchSize") == Some(&Bson::Int32(2)))
        );
    }
}

/// Command shape: a batch size of 0 opens a stream at once, and is no size for a getMore.
#[test]
fn a_batch_size_of_zero_is_for_the_aggregate_only() {
    let mut world = World::replica_set();
    let mut options = exact();
    options.start_at_operation_time = world.deployment.last_write();
    options.batch_size = Some(0);
    world.insert_orders(0..3);
    let stream = world.watching(&collection("shop", "orders"), options);
    assert!(!world.machine(stream).has_buffered());
    assert!(world.machine(stream).resume_token().is_some());
    assert_eq!(world.keys(stream, 3), [0, 1, 2]);
    assert_eq!(
        world.last_command("aggregate").get_document("cursor").unwrap(),
        &doc! { "batchSize": 0 }
    );
    assert!(!world.last_command("getMore").contains_key("batchSize"));
}

/// pymongo test_start_at_operation_time: earlier events are delivered.
#[test]
fn a_stream_can_start_at_an_operation_time_that_has_passed() {
    let mut world = World::replica_set();
    let ping = world.run("admin", doc! { "ping": 1 });
    let time = ping.get_timestamp("operationTime").unwrap();
    world.insert_orders(0..3);
    let mut options = WatchOptions::default();
    options.start_at_operation_time = Some(time);
    let stream = world.watching(&collection("shop", "orders"), options);
    assert_eq!(world.keys(stream, 3), [0, 1, 2]);
}

/// Spec text: two start options at once are sent, and the server's error is passed on.
#[test]
fn start_options_that_exclude_each_other_are_the_servers_to_refuse() {
    let mut world = World::replica_set();
    let stream = world.watching(&collection("shop", "orders"), exact());
    let token: ResumeToken = world.machine(stream).resume_token().unwrap().clone();
    world.close(stream);
    let time = world.deployment.last_write();
    for (resume, start, at) in [
        (true, true, false),
        (true, false, true),
        (false, true, true),
        (true, true, true),
    ] {
        world.advance(Duration::from_secs(1));
        world.forget_commands();
        let mut options = exact();
        options.resume_after = resume.then(|| token.clone());
        options.start_after = start.then(|| token.clone());
        options.start_at_operation_time = time.filter(|_| at);
        let (code, _) = refusal(&mut world, options);
        assert!(matches!(code, 40674 | 50865), "{code}");
        let sent = stage(&world.last_command("aggregate")).clone();
        assert_eq!(sent.contains_key("resumeAfter"), resume);
        assert_eq!(sent.contains_key("startAfter"), start);
        assert_eq!(sent.contains_key("startAtOperationTime"), at);
    }
}

/// pymongo test_unknown_full_document.
#[test]
fn an_unknown_value_of_full_document_is_the_servers_to_refuse() {
    let mut world = World::replica_set();
    let mut options = exact();
    options.full_document = Some(FullDocument::from("notValidatedByTheClient"));
    let (code, message) = refusal(&mut world, options);
    assert_eq!(code, 2);
    assert!(message.contains("notValidatedByTheClient"));
}

/// pymongo test_read_concern.
#[test]
fn a_local_read_concern_is_the_servers_to_refuse_and_majority_is_fine() {
    for prefix in ["readConcernLevel=local", "readConcernLevel=majority"] {
        let mut world = World::replica_set();
        let uri = format!("{}&{prefix}", world.deployment.uri());
        let stream = world
            .watch_by(&uri, None, &collection("shop", "orders"), exact())
            .unwrap();
        let opened = world.open(stream);
        let level = world
            .last_command("aggregate")
            .get_document("readConcern")
            .unwrap()
            .clone();
        if prefix.ends_with("local") {
            assert_eq!(opened.unwrap_err().code(), Some(72));
            assert_eq!(level, doc! { "level": "local" });
        } else {
            opened.unwrap();
            assert_eq!(level, doc! { "level": "majority" });
        }
    }
}

/// Command shape: a standalone is the server's to refuse, and the error says what to do.
#[test]
fn a_standalone_is_the_servers_to_refuse() {
    let mut world = World::new(Deployment::standalone(), [1; 32]);
    let stream = world.watch(&collection("shop", "orders"), exact());
    let error = world.open(stream).unwrap_err();
    assert_eq!(error.code(), Some(40573));
    assert!(error.to_string().contains("replica set"));
}

/// Command shape: system collections and internal databases are the server's to refuse.
#[test]
fn internal_namespaces_are_the_servers_to_refuse() {
    for scope in [
        collection("shop", "system.profile"),
        database("admin"),
        collection("local", "oplog.rs"),
    ] {
        let mut world = World::replica_set();
        let stream = world.watch(&scope, exact());
        assert_eq!(world.open(stream).unwrap_err().code(), Some(73));
    }
}

/// Command shape: a getMore names the namespace of the cursor, as the server said it.
#[test]
fn a_get_more_names_the_servers_namespace() {
    for (scope, db, coll) in [
        (collection("shop", "orders.of.today"), "shop", "orders.of.today"),
        (database("shop"), "shop", "$cmd.aggregate"),
        (Scope::Cluster, "admin", "$cmd.aggregate"),
    ] {
        let mut world = World::replica_set();
        let stream = world.watching(&scope, exact());
        world.try_nothing(stream);
        let get_more = world.last_command("getMore");
        assert_eq!(
            (
                get_more.get_str("$db").unwrap(),
                get_more.get_str("collection").unwrap()
            ),
            (db, coll)
        );
        world.close(stream);
        world.advance(Duration::from_secs(1));
        let kill = world.last_command("killCursors");
        assert_eq!(
            (kill.get_str("$db").unwrap(), kill.get_str("killCursors").unwrap()),
            (db, coll)
        );
    }
}

/// The same where the server's name for the cursor is not what one would have guessed.
#[test]
fn the_servers_namespace_counts_and_not_the_streams_own() {
    let mut world = World::replica_set();
    world.rewrite_replies(|reply| {
        if let Ok(cursor) = reply.get_document_mut("cursor") {
            cursor.insert("ns", "elsewhere.a.b");
        }
    });
    let stream = world.watching(&collection("shop", "orders"), exact());
    // The simulated server does not know its cursor by that name.
    world.failure(stream);
    let get_more = world.last_command("getMore");
    assert_eq!(get_more.get_str("$db").unwrap(), "elsewhere");
    assert_eq!(get_more.get_str("collection").unwrap(), "a.b");
}

/// Command shape: the await time is the getMores' only, and without one the server's default holds.
#[test]
fn the_await_time_is_on_get_more_only() {
    for (time, millis) in [(None, 1000), (Some(Duration::from_millis(300)), 300)] {
        let mut world = World::replica_set();
        let mut options = exact();
        options.max_await_time = time;
        let stream = world.watching(&collection("shop", "orders"), options);
        let start = world.now;
        world.try_nothing(stream);
        let waited = world.now - start;
        assert!(
            waited >= Duration::from_millis(millis) && waited < Duration::from_millis(millis + 50),
            "{waited:?}"
        );
        assert!(!world.last_command("aggregate").contains_key("maxTimeMS"));
        assert_eq!(
            world.last_command("getMore").contains_key("maxTimeMS"),
            time.is_some()
        );
    }
}

/// Command shape: a comment goes along with every command of 4.4 and later, and only with the aggregate before.
#[test]
fn a_comment_is_on_every_get_more_from_4_4_on() {
    for (version, comment) in [
        ("4.2", Bson::from("text")),
        ("4.4", "text".into()),
        ("7.0", doc! { "a": 1 }.into()),
    ] {
        let mut world = World::new(Deployment::replica_set(1).server_version(version), [1; 32]);
        let mut options = exact();
        options.comment = Some(comment.clone());
        let stream = world.watching(&collection("shop", "orders"), options);
        world.try_nothing(stream);
        world.try_nothing(stream);
        assert_eq!(world.last_command("aggregate").get("comment"), Some(&comment));
        let expected = (version != "4.2").then_some(&comment);
        let get_mores = world.commands_named("getMore");
        assert_eq!(get_mores.len(), 2);
        assert!(
            get_mores
                .iter()
                .all(|get_more| get_more.get("comment") == expected)
        );
    }
}

/// Rust driver: showExpandedEvents.
#[test]
fn expanded_events_come_only_if_asked_for() {
    for wanted in [false, true] {
        let mut world = World::new(Deployment::replica_set(1).server_version("6.0"), [1; 32]);
        let mut options = exact();
        options.show_expanded_events = Some(wanted);
        let stream = world.watching(&collection("shop", "orders"), options);
        world.run("shop", doc! { "create": "orders" });
        world.insert_orders(0..1);
        let event = world.event(stream);
        let first = event.operation_type().unwrap();
        assert_eq!(
            first,
            if wanted {
                OperationType::Create
            } else {
                OperationType::Insert
            }
        );
        assert_eq!(event.collection_uuid().is_some(), wanted);
        if wanted {
            assert!(event.operation_description().is_some());
            assert_eq!(key_of(&world.event(stream)), 0);
        }
        assert_eq!(document(world.machine(stream).resume_token().unwrap()).len(), 1);
    }
}

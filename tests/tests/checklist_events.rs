//! The behaviour checklist: what events say.
//!
//! Nothing of it is left out here.
#![allow(clippy::unwrap_used, reason = "tests")]

use bson::{Bson, Document, RawDocumentBuf, doc};
use changestream_core::event::{ChangeStreamDocument, OperationType};
use changestream_core::{ChangeEvent, ErrorKind, Scope, Update, WatchOptions};
use changestream_sim::Deployment;
use changestream_tests::world::{
    StreamId, World, batch_of, both, collection, database, document, exact, key_of,
};
use serde::Deserialize;

fn started(scope: &Scope, options: WatchOptions) -> (World, StreamId) {
    let mut world = World::replica_set();
    let stream = world.watching(scope, options);
    (world, stream)
}

fn orders() -> Scope {
    collection("shop", "orders")
}

fn kind(event: &ChangeEvent) -> OperationType {
    event.operation_type().unwrap()
}

fn kinds(world: &mut World, stream: StreamId, count: usize) -> Vec<(OperationType, String)> {
    (0..count)
        .map(|_| {
            let event = world.event(stream);
            let namespace = event.namespace().map(|namespace| namespace.to_string());
            (kind(&event), namespace.unwrap_or_default())
        })
        .collect()
}

fn of(document: &bson::RawDocument) -> Document {
    document.try_into().unwrap()
}

/// pymongo test_change_operations: insert.
#[test]
fn an_insert_event_has_the_document() {
    let (mut world, stream) = started(&orders(), exact());
    world.insert("shop", "orders", [doc! { "_id": 1, "total": 7 }]);
    let event = world.event(stream);
    assert_eq!(kind(&event), OperationType::Insert);
    assert_eq!(event.namespace().unwrap().to_string(), "shop.orders");
    assert_eq!(
        of(event.full_document().present().unwrap()),
        doc! { "_id": 1, "total": 7 }
    );
    assert_eq!(of(event.document_key().unwrap()), doc! { "_id": 1 });
    assert!(event.update_description().is_none());
    assert!(event.cluster_time().is_some());
}

/// pymongo test_change_operations: update; without fullDocument by default.
#[test]
fn an_update_event_says_what_changed_and_has_no_document() {
    let (mut world, stream) = started(&orders(), exact());
    world.insert("shop", "orders", [doc! { "_id": 1, "total": 7, "note": "x" }]);
    let change = doc! { "$set": { "total": 8 }, "$unset": { "note": 1 } };
    world.run(
        "shop",
        doc! { "update": "orders", "updates": [{ "q": { "_id": 1 }, "u": change }] },
    );
    world.event(stream);
    let event = world.event(stream);
    assert_eq!(kind(&event), OperationType::Update);
    assert!(event.full_document().is_absent());
    let description = event.update_description().unwrap();
    assert_eq!(of(description.updated_fields().unwrap()), doc! { "total": 8 });
    assert_eq!(description.removed_fields().collect::<Vec<_>>(), ["note"]);
    assert_eq!(of(event.document_key().unwrap()), doc! { "_id": 1 });
}

/// pymongo test_change_operations: replace, delete.
#[test]
fn a_replace_event_has_the_new_document_and_a_delete_event_none() {
    let (mut world, stream) = started(&orders(), exact());
    world.insert("shop", "orders", [doc! { "_id": 1, "total": 7 }]);
    let new = doc! { "_id": 1, "paid": true };
    world.run(
        "shop",
        doc! { "update": "orders", "updates": [{ "q": { "_id": 1 }, "u": new.clone() }] },
    );
    world.run(
        "shop",
        doc! { "delete": "orders", "deletes": [{ "q": { "_id": 1 }, "limit": 1 }] },
    );
    world.event(stream);
    let replaced = world.event(stream);
    assert_eq!(kind(&replaced), OperationType::Replace);
    assert_eq!(of(replaced.full_document().present().unwrap()), new);
    assert!(replaced.update_description().is_none());
    let deleted = world.event(stream);
    assert_eq!(kind(&deleted), OperationType::Delete);
    assert!(deleted.full_document().is_absent());
    assert_eq!(of(deleted.document_key().unwrap()), doc! { "_id": 1 });
}

/// pymongo test_change_operations: drop, invalidate; after it the stream stays dead.
#[test]
fn after_an_invalidate_event_the_stream_stays_dead() {
    for options in both() {
        let (mut world, stream) = started(&orders(), options);
        world.insert("shop", "orders", [doc! { "_id": 1 }]);
        world.event(stream);
        world.run("shop", doc! { "drop": "orders" });
        let dropped = world.event(stream);
        assert_eq!(kind(&dropped), OperationType::Drop);
        assert_eq!(dropped.namespace().unwrap().to_string(), "shop.orders");
        let invalidated = world.event(stream);
        assert_eq!(kind(&invalidated), OperationType::Invalidate);
        assert!(invalidated.namespace().is_none());
        let Some(Ok(Update::Invalidated { token })) = world.next_update(stream) else {
            panic!("the update that says so")
        };
        assert_eq!(&token, invalidated.resume_token());
        world.insert("shop", "orders", [doc! { "_id": 2 }]);
        for _ in 0..3 {
            assert!(world.next(stream).is_none());
        }
        assert!(!world.machine(stream).is_alive());
        assert_eq!(world.commands_named("aggregate").len(), 1);
    }
}

/// The same for a rename.
#[test]
fn a_rename_says_where_to_and_invalidates() {
    for options in both() {
        let (mut world, stream) = started(&orders(), options);
        world.insert("shop", "orders", [doc! { "_id": 1 }]);
        world.event(stream);
        world.run(
            "admin",
            doc! { "renameCollection": "shop.orders", "to": "shop.old" },
        );
        let renamed = world.event(stream);
        assert_eq!(kind(&renamed), OperationType::Rename);
        assert_eq!(renamed.to().unwrap().to_string(), "shop.old");
        assert_eq!(kind(&world.event(stream)), OperationType::Invalidate);
        assert!(world.next(stream).is_none());
    }
}

/// pymongo test_invalidate_stops_iteration and test_start_after_resume_process_*.
#[test]
fn an_invalidate_token_is_for_start_after_only() {
    for options in both() {
        let (mut world, stream) = started(&orders(), exact());
        world.insert("shop", "orders", [doc! { "_id": 1 }]);
        world.run("shop", doc! { "drop": "orders" });
        let token = loop {
            if let Some(Ok(Update::Invalidated { token })) = world.next_update(stream) {
                break token;
            }
        };
        let mut resuming = options.clone();
        resuming.resume_after = Some(token.clone());
        let refused = world.watch(&orders(), resuming);
        let error = world.open(refused).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidToken(_)), "{error}");
        assert!(error.to_string().contains("start_after"));
        let mut starting = options;
        starting.start_after = Some(token.clone());
        let second = world.watching(&orders(), starting);
        // Resuming without an event, and with one.
        world.kill_all_cursors();
        world.insert("shop", "orders", [doc! { "_id": 2 }]);
        assert_eq!(world.keys(second, 1), [2]);
        world.kill_all_cursors();
        world.insert("shop", "orders", [doc! { "_id": 3 }]);
        assert_eq!(world.keys(second, 1), [3]);
    }
}

/// pymongo TestDatabaseChangeStream test_change_operations and test_drop.
#[test]
fn a_database_stream_sees_each_drop_and_ends_with_the_database() {
    for options in both() {
        let (mut world, stream) = started(&database("shop"), options);
        world.insert("shop", "orders", [doc! { "_id": 1 }]);
        world.insert("shop", "customers", [doc! { "_id": 1 }]);
        world.run("shop", doc! { "drop": "orders" });
        assert_eq!(
            kinds(&mut world, stream, 3),
            [
                (OperationType::Insert, "shop.orders".to_owned()),
                (OperationType::Insert, "shop.customers".to_owned()),
                (OperationType::Drop, "shop.orders".to_owned()),
            ]
        );
        world.run("shop", doc! { "dropDatabase": 1 });
        let rest = kinds(&mut world, stream, 3);
        assert_eq!(rest[0], (OperationType::Drop, "shop.customers".to_owned()));
        assert_eq!(rest[1], (OperationType::DropDatabase, "shop".to_owned()));
        assert_eq!(rest[2].0, OperationType::Invalidate);
        assert!(world.next(stream).is_none());
    }
}

/// pymongo test_isolation.
#[test]
fn a_database_stream_sees_no_other_database() {
    for options in both() {
        let (mut world, stream) = started(&database("shop"), options);
        world.insert("other", "orders", [doc! { "_id": 1 }]);
        world.insert("shopping", "orders", [doc! { "_id": 2 }]);
        world.insert("shop", "orders", [doc! { "_id": 3 }]);
        assert_eq!(world.keys(stream, 1), [3]);
        world.try_nothing(stream);
    }
}

/// pymongo TestClusterChangeStream test_simple.
#[test]
fn a_cluster_stream_sees_all_databases_and_is_never_invalidated() {
    for options in both() {
        let (mut world, stream) = started(&Scope::Cluster, options);
        for database in ["a", "b", "c"] {
            world.insert(database, "orders", [doc! { "_id": 1 }]);
        }
        world.run("b", doc! { "drop": "orders" });
        world.run("c", doc! { "dropDatabase": 1 });
        let seen = kinds(&mut world, stream, 6);
        let expected = [
            (OperationType::Insert, "a.orders"),
            (OperationType::Insert, "b.orders"),
            (OperationType::Insert, "c.orders"),
            (OperationType::Drop, "b.orders"),
            (OperationType::Drop, "c.orders"),
            (OperationType::DropDatabase, "c"),
        ];
        assert_eq!(
            seen,
            expected.map(|(kind, namespace)| (kind, namespace.to_owned()))
        );
        world.insert("d", "orders", [doc! { "_id": 9 }]);
        assert_eq!(world.keys(stream, 1), [9]);
        assert!(world.machine(stream).is_alive());
    }
}

/// pymongo test_raw and test_document_class: events pass through as they came.
#[test]
fn an_event_is_handed_over_byte_for_byte() {
    let (mut world, stream) = started(&orders(), exact());
    let strange = doc! {
        "_id": { "_data": "8201" },
        "z": bson::Uuid::from_bytes([1; 16]),
        "old": bson::Binary { subtype: bson::spec::BinarySubtype::UuidOld, bytes: vec![1; 16] },
        "unknown": [1i64, 1.0, Bson::Undefined, Bson::MinKey],
        "operationType": "somethingNew",
        "ns": { "db": "shop", "coll": "orders", "more": true },
        "a": Bson::Null,
    };
    let sent = strange.clone();
    world.rewrite_replies(move |reply| {
        for event in batch_of(reply).into_iter().flatten() {
            *event = sent.clone().into();
        }
    });
    world.insert("shop", "orders", [doc! { "_id": 1 }]);
    let event = world.event(stream);
    assert_eq!(
        event.as_raw().as_bytes(),
        RawDocumentBuf::try_from(&strange).unwrap().as_bytes()
    );
    assert_eq!(kind(&event), OperationType::Other("somethingNew".to_owned()));
    assert_eq!(event.namespace().unwrap().to_string(), "shop.orders");
}

/// Events: a pipeline may take anything away but `_id`.
#[test]
fn an_event_of_nothing_but_its_id_is_an_event() {
    for mut options in both() {
        options.pipeline = vec![doc! { "$project": { "_id": 1 } }];
        let (mut world, stream) = started(&orders(), options);
        world.insert("shop", "orders", [doc! { "_id": 1 }]);
        let event = world.event(stream);
        assert_eq!(event.as_raw().iter().count(), 1);
        assert_eq!(event.operation_type(), None);
        assert!(
            event.namespace().is_none() && event.document_key().is_none() && event.cluster_time().is_none()
        );
        assert!(event.full_document().is_absent());
        let typed: ChangeStreamDocument<Document> = event.decode().unwrap();
        assert_eq!(typed.operation_type, None);
        assert_eq!(document(event.resume_token()).len(), 1);
    }
}

/// Rust driver: lsid and txnNumber in events of a transaction.
#[test]
fn events_of_a_transaction_carry_its_session_and_number() {
    let (mut world, stream) = started(&orders(), exact());
    world.run("shop", doc! { "create": "orders" });
    let lsid = doc! { "id": bson::Uuid::from_bytes([3; 16]) };
    let in_transaction = |mut command: Document, start: bool| {
        command.extend(doc! { "lsid": lsid.clone(), "txnNumber": 5i64, "autocommit": false });
        if start {
            command.insert("startTransaction", true);
        }
        command
    };
    world.run(
        "shop",
        in_transaction(doc! { "insert": "orders", "documents": [{ "_id": 1 }] }, true),
    );
    world.run(
        "shop",
        in_transaction(doc! { "insert": "orders", "documents": [{ "_id": 2 }] }, false),
    );
    world.try_nothing(stream);
    world.run("admin", in_transaction(doc! { "commitTransaction": 1 }, false));
    let (first, second) = (world.event(stream), world.event(stream));
    for event in [&first, &second] {
        assert_eq!(event.txn_number(), Some(5));
        assert_eq!(of(event.lsid().unwrap()).get("id"), lsid.get("id"));
        let typed: ChangeStreamDocument<Document> = event.decode().unwrap();
        assert_eq!(typed.txn_number, Some(5));
        assert!(typed.lsid.is_some());
    }
    assert_eq!((key_of(&first), key_of(&second)), (1, 2));
    assert_eq!(first.cluster_time(), second.cluster_time());
    assert_ne!(first.resume_token(), second.resume_token());
    // Within a transaction, too, a resume loses and repeats nothing.
    let mut options = exact();
    options.resume_after = Some(first.resume_token().clone());
    let again = world.watching(&orders(), options);
    assert_eq!(world.keys(again, 1), [2]);
}

/// Rust driver: a generic event type.
#[test]
fn an_event_decodes_into_the_users_own_types() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Order {
        #[serde(rename = "_id")]
        id: i32,
        total: f64,
    }
    let (mut world, stream) = started(&orders(), exact());
    world.insert(
        "shop",
        "orders",
        [
            doc! { "_id": 1, "total": 2.5 },
            doc! { "_id": 2, "total": "free" },
        ],
    );
    let event = world.event(stream);
    let expected = Order { id: 1, total: 2.5 };
    assert_eq!(event.full_document_as::<Order>().unwrap().unwrap(), expected);
    let typed: ChangeStreamDocument<Order> = event.decode().unwrap();
    assert_eq!(typed.full_document, Some(expected));
    // A document that does not fit is no reason to end the stream, and says where it is.
    let other = world.event(stream);
    let error = other.full_document_as::<Order>().unwrap_err();
    assert_eq!(error.resume_token(), other.resume_token());
    assert!(world.machine(stream).is_alive());
    world.insert("shop", "orders", [doc! { "_id": 3, "total": 1.0 }]);
    assert_eq!(world.keys(stream, 1), [3]);
}

/// Events: fullDocument and its predecessor from server 6.0 on.
#[test]
fn images_of_before_and_after_arrive_where_the_collection_keeps_them() {
    let mut world = World::new(Deployment::replica_set(1).server_version("6.0"), [1; 32]);
    world.run(
        "shop",
        doc! { "create": "orders", "changeStreamPreAndPostImages": { "enabled": true } },
    );
    world.insert("shop", "orders", [doc! { "_id": 1, "total": 7 }]);
    let mut options = exact();
    options.full_document = Some("required".into());
    options.full_document_before_change = Some("required".into());
    let stream = world.watching(&orders(), options);
    world.run(
        "shop",
        doc! { "update": "orders", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "total": 8 } } }] },
    );
    let event = world.event(stream);
    assert_eq!(
        of(event.full_document_before_change().present().unwrap()),
        doc! { "_id": 1, "total": 7 }
    );
    assert_eq!(
        of(event.full_document().present().unwrap()),
        doc! { "_id": 1, "total": 8 }
    );
    assert!(event.wall_time().is_some());
}

/// Events: an image that is required and not there ends the stream with an error that says what to do.
#[test]
fn a_required_image_that_is_not_there_is_the_end() {
    for mut options in both() {
        let mut world = World::new(Deployment::replica_set(1).server_version("6.0"), [1; 32]);
        options.full_document_before_change = Some("required".into());
        let stream = world.watching(&orders(), options);
        world.insert("shop", "orders", [doc! { "_id": 1 }]);
        world.event(stream);
        world.run(
            "shop",
            doc! { "delete": "orders", "deletes": [{ "q": { "_id": 1 }, "limit": 1 }] },
        );
        let error = world.failure(stream);
        assert!(matches!(error.kind(), ErrorKind::PreImageMissing(_)), "{error}");
        assert_eq!(world.commands_named("aggregate").len(), 1);
    }
}

/// Prose test 19, with images of 10 MB before and after.
#[test]
fn fragments_of_a_split_event_are_handed_over_one_by_one() {
    for version in ["7.0", "8.0"] {
        for mut options in both() {
            let mut world = World::new(Deployment::replica_set(1).server_version(version), [1; 32]);
            world.run(
                "shop",
                doc! { "create": "orders", "changeStreamPreAndPostImages": { "enabled": true } },
            );
            let value = |letter: &str| letter.repeat(10 << 20);
            world.insert("shop", "orders", [doc! { "_id": 1, "value": value("q") }]);
            options.pipeline = vec![doc! { "$changeStreamSplitLargeEvent": {} }];
            options.full_document_before_change = Some("required".into());
            let stream = world.watching(&orders(), options.clone());
            let change = doc! { "$set": { "value": value("z") } };
            world.run(
                "shop",
                doc! { "update": "orders", "updates": [{ "q": { "_id": 1 }, "u": change }] },
            );
            let first = world.event(stream);
            let split = first.split_event().unwrap();
            assert_eq!((split.fragment, split.of, split.is_last()), (1, 2, false));
            assert_eq!(world.token(stream), document(first.resume_token()));
            // A stream that stops between the fragments goes on with the second, and so does one that resumes.
            options.resume_after = Some(first.resume_token().clone());
            let other = world.watching(&orders(), options);
            world.kill_all_cursors();
            for stream in [stream, other] {
                let second = world.event(stream);
                assert_eq!(second.split_event().unwrap().fragment, 2);
                assert!(second.split_event().unwrap().is_last());
                let fields = |event: &ChangeEvent| -> Vec<String> {
                    event
                        .as_raw()
                        .iter()
                        .map(|field| field.unwrap().0.to_string())
                        .collect()
                };
                let common: Vec<_> = fields(&first)
                    .into_iter()
                    .filter(|f| fields(&second).contains(f))
                    .collect();
                assert_eq!(common, ["_id", "splitEvent"]);
                for field in [
                    "updateDescription",
                    "fullDocumentBeforeChange",
                    "documentKey",
                    "operationType",
                ] {
                    assert!(
                        first.get(field).unwrap().is_some() != second.get(field).unwrap().is_some(),
                        "{field}"
                    );
                }
            }
        }
    }
}

/// The same event without the stage is too large, and the error says what to do.
#[test]
fn an_event_that_is_too_large_is_the_end_and_says_what_to_do() {
    let mut world = World::new(Deployment::replica_set(1).server_version("7.0"), [1; 32]);
    world.run(
        "shop",
        doc! { "create": "orders", "changeStreamPreAndPostImages": { "enabled": true } },
    );
    world.insert(
        "shop",
        "orders",
        [doc! { "_id": 1, "value": "q".repeat(10 << 20) }],
    );
    let mut options = exact();
    options.full_document_before_change = Some("required".into());
    let stream = world.watching(&orders(), options);
    let change = doc! { "$set": { "value": "z".repeat(10 << 20) } };
    world.run(
        "shop",
        doc! { "update": "orders", "updates": [{ "q": { "_id": 1 }, "u": change }] },
    );
    let error = world.failure(stream);
    assert!(matches!(error.kind(), ErrorKind::EventTooLarge(_)), "{error}");
    assert!(error.to_string().contains("$changeStreamSplitLargeEvent"));
    assert_eq!(world.commands_named("aggregate").len(), 1);
}

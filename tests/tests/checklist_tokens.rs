//! The behaviour checklist: resume tokens.
//!
//! Not here: servers before 4.0, which have no `startAtOperationTime`. The client refuses servers before 4.2, so that
//! only the stream machine's own test can have one (`before_4_0_a_resume_without_token_is_the_original_command`).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use changestream_core::{ErrorKind, ResumeToken, WatchOptions};
use changestream_tests::world::{
    World, batch_of, both, collection, document, exact, key_of, without_batch_tokens,
};

/// No getMore leaves before the consumer waits for it.
/// A token of before the first of ten inserts.
fn token_before_ten_inserts(world: &mut World) -> ResumeToken {
    let earlier = world.watching(&collection("shop", "orders"), exact());
    world.try_nothing(earlier);
    let token = world.machine(earlier).resume_token().unwrap().clone();
    world.close(earlier);
    world.insert_orders(0..10);
    world.advance(Duration::from_secs(1));
    world.forget_commands();
    token
}

/// Prose test 1.
#[test]
fn the_token_follows_every_event() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders(0..5);
        let mut last = world.token(stream);
        for id in 0..5 {
            let event = world.event(stream);
            assert_eq!(key_of(&event), id);
            let token = world.token(stream);
            assert_ne!(token, last);
            if id < 4 {
                assert_eq!(token, document(event.resume_token()));
            }
            last = token;
        }
    }
}

/// Prose test 2, as a server refuses it.
#[test]
fn an_id_that_the_pipeline_removes_is_the_servers_error_and_the_end() {
    for mut options in both() {
        options.pipeline = vec![doc! { "$project": { "_id": 0 } }];
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders(0..1);
        let error = world.failure(stream);
        assert!(matches!(error.kind(), ErrorKind::TokenNotFound(_)), "{error}");
        assert!(!error.is_resumable());
        assert!(!world.machine(stream).is_alive());
        assert_eq!(world.failure(stream).code(), Some(280));
        assert_eq!(world.commands_named("aggregate").len(), 1);
    }
}

/// Prose test 2, where the server lets it pass.
#[test]
fn an_event_without_id_is_an_error_and_closes_the_stream() {
    for options in both() {
        let fetched_ahead = options.prefetch_batches;
        let (mut world, stream) = World::watching_orders(options);
        world.rewrite_replies(|reply| {
            for event in batch_of(reply).into_iter().flatten() {
                event.as_document_mut().unwrap().remove("_id");
            }
        });
        world.insert_orders(0..1);
        let error = world.failure(stream);
        assert!(matches!(error.kind(), ErrorKind::MissingResumeToken), "{error}");
        assert!(
            error
                .to_string()
                .contains("Cannot provide resume functionality when the resume token is missing")
        );
        assert!(!world.machine(stream).is_alive());
        world.advance(Duration::from_secs(5));
        assert_eq!(world.network.open_connections(), 0);
        assert_eq!(world.commands_named("aggregate").len(), 1);
        // With a getMore under way, a killCursors would have to wait for it; the server sees the client go.
        if fetched_ahead == 0 {
            assert_eq!(world.open_cursors(), 0);
        }
    }
}

/// Prose test 11, an empty batch.
#[test]
fn an_empty_batch_moves_the_token_to_the_servers() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        let before = world.token(stream);
        world.insert("shop", "customers", [doc! { "_id": 1 }]);
        let idle = world.try_nothing(stream);
        let after = world.token(stream);
        assert_ne!(after, before);
        assert_eq!(document(&idle.token.unwrap()), after);
    }
}

/// Prose test 11, a batch that was read to its end.
#[test]
fn the_last_event_of_a_batch_moves_the_token_to_the_servers() {
    let (mut world, stream) = World::watching_orders(exact());
    // No event's token: only the reply's can tell.
    let token = doc! { "_data": "post batch" };
    let sent = token.clone();
    world.rewrite_replies(move |reply| {
        if let Ok(cursor) = reply.get_document_mut("cursor") {
            cursor.insert("postBatchResumeToken", sent.clone());
        }
    });
    world.insert_orders(0..3);
    for _ in 0..2 {
        let event = world.event(stream);
        assert_eq!(world.token(stream), document(event.resume_token()));
    }
    world.event(stream);
    assert_eq!(world.token(stream), token);
}

/// Prose test 12, which is for servers before 4.0.7: no postBatchResumeToken.
#[test]
fn without_a_servers_token_the_last_event_is_the_token_and_an_empty_batch_keeps_it() {
    for options in both() {
        let mut world = World::replica_set();
        world.rewrite_replies(without_batch_tokens);
        let stream = world.watching(&collection("shop", "orders"), options);
        assert_eq!(world.machine(stream).resume_token(), None);
        world.try_nothing(stream);
        assert_eq!(world.machine(stream).resume_token(), None);
        world.insert_orders(0..1);
        let event = world.event(stream);
        assert_eq!(world.token(stream), document(event.resume_token()));
        world.try_nothing(stream);
        assert_eq!(world.token(stream), document(event.resume_token()));
    }
}

/// Spec text: a reply without a token does not erase the one that is known.
#[test]
fn a_reply_that_lost_its_token_does_not_erase_the_known_one() {
    let (mut world, stream) = World::watching_orders(exact());
    world.insert_orders(0..1);
    world.event(stream);
    let token = world.token(stream);
    world.rewrite_replies(without_batch_tokens);
    world.try_nothing(stream);
    assert_eq!(world.token(stream), token);
}

/// Prose test 13.
#[test]
fn within_a_batch_the_token_is_that_of_the_last_event_handed_over() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders(0..4);
        for _ in 0..3 {
            let event = world.event(stream);
            assert_eq!(world.token(stream), document(event.resume_token()));
        }
    }
}

/// Prose test 13, with batches that arrive before they are wanted.
#[test]
fn the_token_follows_the_consumer_and_not_what_was_fetched_ahead() {
    let mut options = WatchOptions::default();
    options.batch_size = Some(2);
    options.prefetch_batches = 3;
    let (mut world, stream) = World::watching_orders(options);
    world.insert_orders(0..10);
    let event = world.event(stream);
    world.advance(Duration::from_millis(900));
    assert!(world.commands_named("getMore").len() > 3);
    assert_eq!(world.token(stream), document(event.resume_token()));
}

/// Prose test 14.
#[test]
fn an_unread_first_batch_leaves_the_token_as_the_user_gave_it() {
    for resume_after in [true, false] {
        for mut options in both() {
            let mut world = World::replica_set();
            let token = token_before_ten_inserts(&mut world);
            if resume_after {
                options.resume_after = Some(token.clone());
            } else {
                options.start_after = Some(token.clone());
            }
            let stream = world.watching(&collection("shop", "orders"), options);
            assert_eq!(world.token(stream), document(&token));
            assert_eq!(world.keys(stream, 10), (0..10).collect::<Vec<_>>());
        }
    }
}

/// Prose test 14, without a token of the user's.
#[test]
fn an_unread_first_batch_without_a_token_to_start_from_has_none() {
    for mut options in both() {
        let mut world = World::replica_set();
        options.start_at_operation_time = world.deployment.last_write();
        world.insert_orders(0..3);
        world.advance(Duration::from_millis(10));
        let stream = world.watching(&collection("shop", "orders"), options);
        assert_eq!(world.machine(stream).resume_token(), None);
        let event = world.event(stream);
        assert_eq!(world.token(stream), document(event.resume_token()));
    }
}

/// Spec text: `operationTime` is kept only if no start option was given, the first batch was empty and the reply had
/// no postBatchResumeToken.
#[test]
fn the_first_operation_time_is_where_a_stream_without_token_resumes() {
    let mut world = World::replica_set();
    world.rewrite_replies(without_batch_tokens);
    let stream = world.watching(&collection("shop", "orders"), exact());
    world.try_nothing(stream);
    world.insert_orders(0..2);
    world.kill_all_cursors();
    assert_eq!(world.keys(stream, 2), [0, 1]);
    let stages = world.stages();
    assert_eq!(stages[0], doc! {});
    assert_eq!(stages[1].keys().collect::<Vec<_>>(), ["startAtOperationTime"]);
}

/// Spec text: the same line, its negative.
#[test]
fn a_token_is_preferred_to_the_first_operation_time() {
    let (mut world, stream) = World::watching_orders(exact());
    let token = world.token(stream);
    world.kill_all_cursors();
    world.try_nothing(stream);
    assert_eq!(world.stages(), [doc! {}, doc! { "resumeAfter": token }]);
}

/// Spec text: the user's `startAtOperationTime` is used again while there is no token, and replaced by the token once
/// there is one.
#[test]
fn the_users_operation_time_gives_way_to_the_token() {
    let mut world = World::replica_set();
    world.rewrite_replies(without_batch_tokens);
    let time = world.deployment.last_write().unwrap();
    // The first reply is of a later time than the user's.
    world.advance(Duration::from_secs(30));
    world.insert("shop", "customers", [doc! { "_id": 1 }]);
    let mut options = exact();
    options.start_at_operation_time = Some(time);
    let stream = world.watching(&collection("shop", "orders"), options);
    world.kill_all_cursors();
    world.try_nothing(stream);
    world.insert_orders(0..1);
    world.event(stream);
    let token = world.token(stream);
    world.kill_all_cursors();
    world.try_nothing(stream);
    assert_eq!(
        world.stages(),
        [
            doc! { "startAtOperationTime": time },
            doc! { "startAtOperationTime": time },
            doc! { "resumeAfter": token },
        ]
    );
}

/// pymongo test_custom_types and test_uuid_subtype: the token is opaque.
#[test]
fn a_token_goes_back_as_it_came_whatever_is_in_it() {
    let uuid = |subtype| Binary {
        subtype,
        bytes: vec![7; 16],
    };
    let token = doc! {
        "_data": uuid(BinarySubtype::Uuid),
        "old": uuid(BinarySubtype::UuidOld),
        "z": 1, "a": 2, "m": { "y": 1i64, "b": 1.0 },
    };
    let (mut world, stream) = World::watching_orders(exact());
    let sent = token.clone();
    world.rewrite_replies(move |reply| {
        for event in batch_of(reply).into_iter().flatten() {
            event.as_document_mut().unwrap().insert("_id", sent.clone());
        }
    });
    world.insert_orders(0..2);
    let event = world.event(stream);
    // Whatever the consumer decodes the event into.
    let _: Document = event.decode().unwrap();
    let _: serde_json::Value = event.decode().unwrap();
    assert_eq!(document(event.resume_token()), token);
    assert_eq!(world.token(stream), token);
    world.event(stream);
    let token = doc! { "z": 1, "old": uuid(BinarySubtype::UuidOld), "a": 2 };
    let sent = token.clone();
    world.rewrite_replies(move |reply| {
        if let Ok(cursor) = reply.get_document_mut("cursor") {
            cursor.insert("postBatchResumeToken", sent.clone());
        }
    });
    world.try_nothing(stream);
    world.stop_rewriting();
    world.kill_all_cursors();
    // The server knows no such token; what it was sent is what counts.
    world.failure(stream);
    let resume = world.stages().pop().unwrap();
    assert_eq!(resume, doc! { "resumeAfter": token });
    let order: Vec<_> = resume.get_document("resumeAfter").unwrap().keys().collect();
    assert_eq!(order, ["z", "old", "a"]);
}

/// The keys of a compound `_id` keep their order (pymongo test_document_id_order).
#[test]
fn a_compound_key_keeps_the_order_of_its_fields() {
    let (mut world, stream) = World::watching_orders(exact());
    world.insert("shop", "orders", [doc! { "_id": { "b": 1, "a": 2, "c": 3 } }]);
    let event = world.event(stream);
    let key: Document = event.document_key().unwrap().try_into().unwrap();
    let order: Vec<_> = key.get_document("_id").unwrap().keys().cloned().collect();
    assert_eq!(order, ["b", "a", "c"]);
    let full: Document = event.full_document_as().unwrap().unwrap();
    assert_eq!(full.get("_id"), key.get("_id"));
    let token = world.token(stream);
    world.kill_all_cursors();
    world.insert_orders(2..3);
    assert_eq!(world.keys(stream, 1), [2]);
    assert_eq!(world.stages()[1], doc! { "resumeAfter": token });
}

//! The behaviour checklist: resuming.
//!
//! Not here:
//! - killCursors on the pinned connection of a load balancer: the simulated deployment is no load balancer.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::time::Duration;

use bson::{Document, doc};
use changestream_core::event::OperationType;
use changestream_core::{
    FullDocument, ReadPreference, ReadPreferenceMode, ResumeToken, Update, WatchOptions,
};
use changestream_sim::Deployment;
use changestream_tests::world::{Tried, World, both, collection, database, document, exact, key_of};

fn without_start(stage: &Document) -> Document {
    let mut stage = stage.clone();
    for field in ["resumeAfter", "startAfter", "startAtOperationTime"] {
        stage.remove(field);
    }
    stage
}

/// The token of an invalidate event of shop.orders, which exists anew.
fn invalidate_token(world: &mut World) -> ResumeToken {
    let stream = world.watching(&collection("shop", "orders"), exact());
    world.insert_orders(0..1);
    world.run("shop", doc! { "drop": "orders" });
    loop {
        let event = world.event(stream);
        if event.operation_type() == Some(OperationType::Invalidate) {
            world.advance(Duration::from_secs(1));
            world.forget_commands();
            return event.resume_token().clone();
        }
    }
}

/// Prose test 3, the cursor is gone.
#[test]
fn a_resumable_error_of_get_more_is_resumed_from_once_with_the_same_options() {
    for mut options in both() {
        options.pipeline = vec![
            doc! { "$match": { "operationType": "insert" } },
            doc! { "$project": { "ns": 0 } },
        ];
        options.full_document = Some(FullDocument::UpdateLookup);
        options.batch_size = Some(2);
        options.comment = Some("mine".into());
        options.collation = Some(doc! { "locale": "simple" });
        options.max_await_time = Some(Duration::from_millis(500));
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders(0..1);
        world.event(stream);
        world.advance(Duration::from_secs(2));
        world.fail_get_more(43);
        world.insert_orders(1..6);
        let (resumes, event) = world.resumes_until_event(stream);
        assert_eq!((resumes, key_of(&event)), (1, 1));
        assert_eq!(world.keys(stream, 4), [2, 3, 4, 5]);
        let aggregates = world.commands_named("aggregate");
        let [first, second] = &aggregates[..] else {
            panic!("{aggregates:?}")
        };
        let stages = world.stages();
        assert_eq!(without_start(&stages[1]), stages[0]);
        assert!(stages[1].contains_key("resumeAfter"));
        let pipeline = |aggregate: &Document| aggregate.get_array("pipeline").unwrap()[1..].to_vec();
        assert_eq!(pipeline(first), pipeline(second));
        for field in ["aggregate", "collation", "comment", "cursor", "lsid", "$db"] {
            assert_eq!(first.get(field), second.get(field), "{field}");
        }
    }
}

/// Prose test 3, cursors killed behind the client's back; pymongo test_resume_on_error.
#[test]
fn a_cursor_killed_behind_the_clients_back_is_opened_anew() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        world.kill_all_cursors();
        assert_eq!(world.keys(stream, 2), [1, 2]);
        for round in 3..6 {
            world.kill_all_cursors();
            world.insert_orders(round..round + 1);
            assert_eq!(world.keys(stream, 1), [round]);
        }
    }
}

/// Prose test 3, a broken connection.
#[test]
fn a_closed_connection_is_resumed_from() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        world.fail(&["getMore"], 1, doc! { "closeConnection": true });
        assert_eq!(world.keys(stream, 2), [1, 2]);
        assert_eq!(world.commands_named("aggregate").len(), 2);
    }
}

/// Prose test 3, a server that says nothing any more.
#[test]
fn a_silent_server_is_given_up_and_resumed_from() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        world.fail(
            &["getMore"],
            1,
            doc! { "blockConnection": true, "blockTimeMS": 3_600_000 },
        );
        assert_eq!(world.keys(stream, 2), [1, 2]);
        assert_eq!(world.commands_named("aggregate").len(), 2);
    }
}

/// Prose test 6.
#[test]
fn a_resume_selects_a_server_by_the_streams_read_preference() {
    for mut options in both() {
        let mut world = World::replica_set();
        options.read_preference = Some(ReadPreference::new(ReadPreferenceMode::Secondary));
        let stream = world.watching(&collection("shop", "orders"), options);
        let primary = world.primary();
        let serving = world.member_of_last("aggregate");
        assert_ne!(serving, primary);
        world.insert_orders(0..1);
        assert_eq!(world.keys(stream, 1), [0]);
        let now = world.now;
        world.deployment.crash(now, serving);
        world.insert_orders(1..2);
        assert_eq!(world.keys(stream, 1), [1]);
        let next = world.member_of_last("aggregate");
        assert_ne!(next, primary);
        assert_ne!(next, serving);
        assert_eq!(
            world
                .last_command("aggregate")
                .get_document("$readPreference")
                .unwrap(),
            &doc! { "mode": "secondary" }
        );
    }
}

/// Prose test 6, where the serving member changes its role: the selection sees the new primary.
#[test]
fn a_resume_after_an_election_goes_to_the_new_primary() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        let old = world.primary();
        let now = world.now;
        world.deployment.crash(now, old);
        assert_eq!(world.keys(stream, 2), [1, 2]);
        assert_ne!(world.member_of_last("aggregate"), old);
        assert_eq!(world.member_of_last("aggregate"), world.primary());
    }
}

/// Prose test 7.
#[test]
fn an_empty_first_batch_keeps_its_cursor() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        let primary = world.primary();
        let cursor = world.deployment.cursors(primary)[0];
        world.try_nothing(stream);
        assert_eq!(world.command_names(), ["aggregate", "getMore"]);
        assert_eq!(world.last_command("getMore").get_i64("getMore").unwrap(), cursor);
    }
}

/// Prose test 8.
#[test]
fn an_error_of_kill_cursors_during_a_resume_is_swallowed() {
    for fault in [
        doc! { "errorCode": 6, "errorLabels": ["ResumableChangeStreamError"] },
        doc! { "errorCode": 43 },
        doc! { "errorCode": 89, "errorLabels": ["ResumableChangeStreamError"] },
    ] {
        for options in both() {
            let (mut world, stream) = World::under_way("4.4", options);
            world.fail(&["getMore", "killCursors"], 2, fault.clone());
            let (_, event) = world.resumes_until_event(stream);
            assert_eq!(key_of(&event), 1);
            assert_eq!(world.keys(stream, 1), [2]);
        }
    }
}

/// Prose test 8, the connection breaks at the killCursors: the resume needs another one, and that is all.
#[test]
fn a_connection_that_breaks_at_kill_cursors_does_not_end_the_stream() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        let primary = world.primary();
        let get_more = doc! {
            "configureFailPoint": "failGetMoreAfterCursorCheckout",
            "mode": { "times": 1 },
            "data": { "errorCode": 6 },
        };
        world.deployment.fail_command(primary, &get_more).unwrap();
        world.fail(&["killCursors"], 1, doc! { "closeConnection": true });
        assert_eq!(world.keys(stream, 2), [1, 2]);
        assert_eq!(world.commands_named("killCursors").len(), 1);
        assert!(world.machine(stream).stats().resumes >= 1);
    }
}

/// Prose test 17.
#[test]
fn before_its_first_event_a_stream_resumes_with_start_after() {
    for mut options in both() {
        let mut world = World::replica_set();
        let token = invalidate_token(&mut world);
        options.start_after = Some(token.clone());
        let stream = world.watching(&collection("shop", "orders"), options);
        world.fail_get_more(43);
        world.try_nothing(stream);
        let stages = world.stages();
        assert_eq!(stages[0], doc! { "startAfter": document(&token) });
        assert_eq!(stages[1].keys().collect::<Vec<_>>(), ["startAfter"]);
        world.insert_orders(5..6);
        let mut seen = Vec::new();
        while seen.last() != Some(&5) {
            seen.push(key_of(&world.event(stream)));
        }
        assert_eq!(seen, [5]);
    }
}

/// Prose test 18.
#[test]
fn after_its_first_event_a_stream_resumes_with_resume_after() {
    for mut options in both() {
        let mut world = World::replica_set();
        options.start_after = Some(invalidate_token(&mut world));
        let stream = world.watching(&collection("shop", "orders"), options);
        world.insert_orders(5..6);
        assert_eq!(world.keys(stream, 1), [5]);
        world.kill_all_cursors();
        world.insert_orders(6..7);
        assert_eq!(world.keys(stream, 1), [6]);
        assert_eq!(world.stages()[1].keys().collect::<Vec<_>>(), ["resumeAfter"]);
    }
}

/// Spec text: the resuming aggregate carries the same lsid.
#[test]
fn a_stream_stays_in_one_session_over_all_its_resumes() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        world.kill_all_cursors();
        assert_eq!(world.keys(stream, 2), [1, 2]);
        let now = world.now;
        let primary = world.primary();
        world.deployment.crash(now, primary);
        world.insert_orders(3..4);
        assert_eq!(world.keys(stream, 1), [3]);
        let commands = world.commands();
        assert!(commands.len() >= 5, "{commands:?}");
        for command in &commands {
            assert_eq!(command.get("lsid"), commands[0].get("lsid"), "{command}");
            assert!(command.contains_key("lsid"));
        }
    }
}

/// Spec text: killCursors only to the cursor's own server.
#[test]
fn a_cursor_is_killed_at_its_own_server_and_nowhere_else() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        let owner = world.primary();
        let cursor = world.last_command("getMore").get_i64("getMore").unwrap();
        // The old primary asks to be left, and keeps its cursor.
        let now = world.now;
        world.deployment.step_down(now);
        let fault = doc! { "errorCode": 10107, "errorLabels": ["ResumableChangeStreamError"] };
        world.fail_at(owner, &["getMore"], 1, fault);
        assert_eq!(world.keys(stream, 2), [1, 2]);
        let now = world.now;
        world.deployment.crash(now, owner);
        world.insert_orders(3..4);
        assert_eq!(world.keys(stream, 1), [3]);
        let kills: Vec<_> = world
            .records()
            .filter(|record| record.name == "killCursors")
            .collect();
        for kill in &kills {
            let killed = kill.body.get_array("cursors").unwrap()[0].as_i64().unwrap();
            assert_eq!(kill.member == owner, killed == cursor, "{kill:?}");
        }
        assert_eq!(kills.len(), 1, "{kills:?}");
    }
}

/// Spec text: after a broken connection the old cursor's server may be out of reach; the cursor is not killed elsewhere.
#[test]
fn a_cursor_of_a_crashed_server_is_killed_nowhere() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        let (now, owner) = (world.now, world.primary());
        world.deployment.crash(now, owner);
        assert_eq!(world.keys(stream, 2), [1, 2]);
        assert_eq!(world.commands_named("killCursors"), Vec::<Document>::new());
    }
}

/// Spec text: any number of resumes in a row without events, each after a successful aggregate.
#[test]
fn resumes_follow_each_other_without_end_and_without_haste() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        world.fail(&["getMore"], 20, doc! { "errorCode": 43 });
        // A first batch would be an event between the resumes.
        world.rewrite_replies(|reply| {
            if let Ok(cursor) = reply.get_document_mut("cursor")
                && let Ok(batch) = cursor.get_array_mut("firstBatch")
            {
                assert!(batch.len() <= 2);
            }
        });
        let start = world.now;
        let (mut attempts, mut events) = (Vec::new(), Vec::new());
        while events.len() < 2 {
            match world.next_update(stream).unwrap().unwrap() {
                Update::Resuming(resuming) => attempts.push(resuming.attempt),
                Update::Change(event) => events.push(key_of(&event)),
                _ => {}
            }
        }
        assert_eq!(events, [1, 2]);
        // Nothing more happens, and the failures go on.
        let mut resumes = attempts.len();
        while resumes < 20 {
            match world.next_update(stream).unwrap().unwrap() {
                Update::Resuming(resuming) => {
                    resumes += 1;
                    attempts.push(resuming.attempt);
                }
                Update::Change(event) => panic!("{event:?}"),
                _ => {}
            }
        }
        assert_eq!(attempts, (1..=20).collect::<Vec<_>>());
        assert!(world.now - start > Duration::from_secs(5));
        world.insert_orders(3..4);
        assert_eq!(world.keys(stream, 1), [3]);
    }
}

/// Spec text: a failed aggregate of a resume ends the stream with its error.
#[test]
fn a_resume_whose_aggregate_fails_ends_the_stream_with_that_error() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        let token = world.token(stream);
        world.fail(&["aggregate"], 1, doc! { "errorCode": 2 });
        world.kill_all_cursors();
        let error = world.failure(stream);
        assert_eq!(error.code(), Some(2));
        assert_eq!(document(error.resume_token().unwrap()), token);
        world.advance(Duration::from_secs(60));
        assert_eq!(world.commands_named("aggregate").len(), 2);
        assert_eq!(world.network.open_connections(), 0);
    }
}

/// Every scope resumes in its own shape.
#[test]
fn streams_of_every_scope_resume_in_their_own_shape() {
    for (scope, target, db) in [
        (collection("shop", "orders"), bson::Bson::from("orders"), "shop"),
        (database("shop"), 1.into(), "shop"),
        (changestream_core::Scope::Cluster, 1.into(), "admin"),
    ] {
        for options in both() {
            let mut world = World::replica_set();
            let stream = world.watching(&scope, options);
            world.insert_orders(0..1);
            assert_eq!(world.keys(stream, 1), [0]);
            world.kill_all_cursors();
            world.insert_orders(1..2);
            assert_eq!(world.keys(stream, 1), [1]);
            let aggregates = world.commands_named("aggregate");
            assert_eq!(aggregates.len(), 2);
            for aggregate in aggregates {
                assert_eq!(aggregate.get("aggregate"), Some(&target));
                assert_eq!(aggregate.get_str("$db").unwrap(), db);
            }
            let stages = world.stages();
            assert_eq!(without_start(&stages[1]), stages[0]);
        }
    }
}

/// The same over wires that cut everywhere, with every fault there is, and the same by a seed.
#[test]
fn faults_of_every_kind_lose_and_repeat_nothing_and_a_seed_decides_all() {
    let run = |seed: u8, options: WatchOptions| {
        let mut world = World::new(Deployment::replica_set(3), [seed; 32]);
        world.network.conditions.longest_piece = Some(40);
        let stream = world.watching(&collection("shop", "orders"), options);
        let mut next = 0;
        for round in 0..24 {
            world.insert_orders(next..next + 3);
            next += 3;
            let now = world.now;
            match round % 6 {
                0 => world.kill_all_cursors(),
                1 => world.fail(&["getMore"], 1, doc! { "closeConnection": true }),
                2 => world.fail_get_more(91),
                3 => {
                    let primary = world.primary();
                    world.network.reset(now, primary);
                }
                4 => world.deployment.step_down(now),
                _ => world.fail(
                    &["getMore"],
                    1,
                    doc! { "blockConnection": true, "blockTimeMS": 100_000 },
                ),
            }
            assert_eq!(world.keys(stream, 2), [next - 3, next - 2]);
            if let Tried::Event(event) = world.try_next(stream) {
                assert_eq!(key_of(&event), next - 1);
            } else {
                assert_eq!(world.keys(stream, 1), [next - 1]);
            }
        }
        world.close(stream);
        world.advance(Duration::from_secs(10));
        assert_eq!(world.network.open_connections(), 0);
        world.fingerprint()
    };
    for seed in 0..8 {
        for options in both() {
            assert_eq!(run(seed, options.clone()), run(seed, options));
        }
    }
    assert_ne!(run(1, exact()), run(2, exact()));
}

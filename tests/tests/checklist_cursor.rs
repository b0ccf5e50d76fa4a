//! The behaviour checklist: iterating, trying, and closing.
//!
//! Not here:
//! - pymongo test_csot ("after a timeout in next() the stream is alive"): `timeoutMS` is not carried out yet. What
//!   stands in for it until then: a demand can be taken back at any step, see
//!   `a_demand_that_is_taken_back_loses_nothing`.
//! - drop-safety of futures: those are of the adapters, whose tests have it. Here it is the machine's part.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bson::doc;
use changestream_core::client::Demand;
use changestream_core::event::OperationType;
use changestream_core::{Scope, Session, Update, WatchOptions};
use changestream_sim::Deployment;
use changestream_tests::world::{Tried, World, both, collection, database, exact, key_of};

/// pymongo test_try_next.
#[test]
fn a_try_brings_nothing_without_events_and_an_event_once_there_is_one() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.try_nothing(stream);
        world.insert_orders(0..2);
        assert_eq!(key_of(&world.try_event(stream)), 0);
        assert_eq!(key_of(&world.try_event(stream)), 1);
        world.try_nothing(stream);
        world.try_nothing(stream);
    }
}

/// pymongo test_try_next_runs_one_getmore.
#[test]
fn a_try_is_worth_exactly_one_get_more() {
    let (mut world, stream) = World::watching_orders(exact());
    for tries in 1..4 {
        world.try_nothing(stream);
        assert_eq!(world.commands_named("getMore").len(), tries);
    }
    world.insert_orders(0..3);
    for id in 0..3 {
        assert_eq!(key_of(&world.try_event(stream)), id);
        assert_eq!(world.commands_named("getMore").len(), 4);
    }
    world.try_nothing(stream);
    assert_eq!(world.commands_named("getMore").len(), 5);
    world.advance(Duration::from_secs(60));
    assert_eq!(world.commands_named("getMore").len(), 5);
}

/// The same with batches fetched ahead: a try waits for at most one.
#[test]
fn a_try_waits_for_no_more_than_one_await_time() {
    let (mut world, stream) = World::watching_orders(WatchOptions::default());
    world.insert_orders(0..1);
    world.event(stream);
    for _ in 0..5 {
        let start = world.now;
        world.try_nothing(stream);
        assert!(world.now - start < Duration::from_millis(1100));
    }
    assert!(world.commands_named("getMore").len() <= 7);
}

/// pymongo test_try_next: after the loss of the cursor a getMore and an aggregate, and no further getMore.
#[test]
fn a_try_that_has_to_resume_is_over_after_the_aggregate() {
    let (mut world, stream) = World::watching_orders(exact());
    world.try_nothing(stream);
    world.kill_all_cursors();
    world.forget_commands();
    world.try_nothing(stream);
    assert_eq!(world.command_names(), ["getMore", "aggregate"]);
    world.try_nothing(stream);
    assert_eq!(world.command_names(), ["getMore", "aggregate", "getMore"]);
    world.insert_orders(0..1);
    assert_eq!(key_of(&world.try_event(stream)), 0);
}

/// The same where the aggregate that resumes brings the events.
#[test]
fn a_try_that_has_to_resume_brings_what_the_aggregate_brings() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.try_nothing(stream);
        world.kill_all_cursors();
        world.insert_orders(0..2);
        assert_eq!(key_of(&world.try_event(stream)), 0);
        assert_eq!(key_of(&world.try_event(stream)), 1);
    }
}

/// pymongo test_iteration: many batches, and an invalidate event stops it.
#[test]
fn many_batches_arrive_in_order_until_an_invalidate_event_ends_them() {
    for mut options in both() {
        options.batch_size = Some(2);
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders(0..10);
        world.run("shop", doc! { "drop": "orders" });
        assert_eq!(world.keys(stream, 10), (0..10).collect::<Vec<_>>());
        assert_eq!(world.event(stream).operation_type(), Some(OperationType::Drop));
        assert_eq!(
            world.event(stream).operation_type(),
            Some(OperationType::Invalidate)
        );
        assert!(world.next(stream).is_none());
        assert!(world.next(stream).is_none());
    }
}

/// pymongo test_next_blocks.
#[test]
fn a_wait_goes_over_several_empty_batches_and_wakes_on_an_event() {
    for mut options in both() {
        options.max_await_time = Some(Duration::from_millis(250));
        let (mut world, stream) = World::watching_orders(options);
        world.demand(stream, Demand::Next);
        let mut idle = 0;
        for _ in 0..5 {
            let Some(Ok(Update::Idle(_))) = world.next_update(stream) else {
                panic!("nothing has happened")
            };
            idle += 1;
        }
        assert_eq!(idle, 5);
        world.demand(stream, Demand::Next);
        world.advance(Duration::from_millis(100));
        let inserted = world.now;
        world.insert_orders(7..8);
        assert_eq!(key_of(&world.event(stream)), 7);
        assert!(world.now - inserted < Duration::from_millis(50));
        assert!(world.commands_named("getMore").len() >= 6);
    }
}

/// Rust driver: `next_if_any` and `next` on the same stream.
#[test]
fn tries_and_waits_mix() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders(0..4);
        assert_eq!(key_of(&world.event(stream)), 0);
        assert_eq!(key_of(&world.try_event(stream)), 1);
        assert_eq!(key_of(&world.event(stream)), 2);
        assert_eq!(key_of(&world.try_event(stream)), 3);
        world.try_nothing(stream);
        world.insert_orders(4..6);
        assert_eq!(key_of(&world.event(stream)), 4);
        assert_eq!(key_of(&world.try_event(stream)), 5);
    }
}

/// Rust driver: the drop of the watched collection must not spin.
#[test]
fn a_dropped_collection_ends_the_stream_without_another_command() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders(0..1);
        world.event(stream);
        world.run("shop", doc! { "drop": "orders" });
        assert_eq!(world.event(stream).operation_type(), Some(OperationType::Drop));
        assert_eq!(
            world.event(stream).operation_type(),
            Some(OperationType::Invalidate)
        );
        assert!(!world.machine(stream).has_buffered());
        assert!(world.next(stream).is_none());
        assert!(matches!(world.try_next(stream), Tried::End(Ok(()))));
        world.advance(Duration::from_secs(60));
        assert!(!world.machine(stream).is_alive());
        assert_eq!(world.commands_named("aggregate").len(), 1);
        // There is no cursor any more that could be killed.
        assert_eq!(world.command_names().last().unwrap(), "endSessions");
        assert_eq!(world.commands_named("killCursors").len(), 0);
        assert_eq!(world.open_cursors(), 0);
        assert_eq!(world.network.open_connections(), 0);
    }
}

/// pymongo test_close_while_iterating: a close ends a wait at once, and kills the cursor that the getMore waits on.
#[test]
fn a_close_ends_a_wait_at_once() {
    for mut options in both() {
        options.max_await_time = Some(Duration::from_secs(60));
        let (mut world, stream) = World::watching_orders(options);
        world.demand(stream, Demand::Next);
        world.advance(Duration::from_secs(2));
        assert!(!world.has_something(stream));
        let start = world.now;
        world.close(stream);
        assert!(world.now - start < Duration::from_millis(100));
        assert!(world.next(stream).is_none());
        world.advance(Duration::from_secs(1));
        assert_eq!(world.open_cursors(), 0);
        assert_eq!(world.network.open_connections(), 0);
        assert_eq!(
            world.command_names(),
            ["aggregate", "getMore", "killCursors", "endSessions"]
        );
    }
}

/// pymongo test_concurrent_close: the getMore that the killCursors woke fails, and nobody is told.
#[test]
fn the_error_that_a_close_provokes_is_nobodys_business() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.demand(stream, Demand::Next);
        world.advance(Duration::from_millis(100));
        world.fail(&["killCursors", "endSessions"], 2, doc! { "errorCode": 237 });
        world.close(stream);
        assert!(world.next(stream).is_none());
    }
}

/// A close at any moment leaves neither cursor nor connection behind.
#[test]
fn a_close_at_any_step_leaves_nothing_behind() {
    for options in both() {
        for steps in 0..60 {
            let mut world = World::new(Deployment::replica_set(2), [5; 32]);
            let stream = world.watch(&collection("shop", "orders"), options.clone());
            world.demand(stream, Demand::Next);
            world.advance(Duration::ZERO);
            for step in 0..steps {
                world.step();
                if step == 20 {
                    world.insert_orders(0..3);
                }
                if step % 9 == 8 {
                    world.demand(stream, Demand::Next);
                }
            }
            world.close(stream);
            world.advance(Duration::from_secs(10));
            assert_eq!(world.network.open_connections(), 0, "{steps} steps");
            // An aggregate that was under way ends with its session.
            assert_eq!(world.open_cursors(), 0, "{steps} steps");
        }
    }
}

/// A close when the server is out of reach ends at its deadline.
#[test]
fn a_close_of_an_unreachable_server_ends_at_its_deadline() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.demand(stream, Demand::Next);
        world.advance(Duration::from_millis(100));
        for member in 0..3 {
            world.network.cut_off(member);
        }
        let start = world.now;
        world.close(stream);
        assert!(world.now - start <= Duration::from_secs(5));
        assert!(world.next(stream).is_none());
    }
}

/// A session that the user gave is never ended.
#[test]
fn a_session_of_the_users_outlives_the_stream() {
    let mut options = exact();
    options.session = Some(Session::with_id([9; 16]));
    let (mut world, stream) = World::watching_orders(options);
    world.close(stream);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.command_names(), ["aggregate", "killCursors"]);
    for command in world.commands() {
        assert_eq!(
            command.get_document("lsid").unwrap().get("id").unwrap(),
            &bson::Bson::from(bson::Uuid::from_bytes([9; 16]))
        );
    }
}

/// pymongo test_async_cancellation, the machine's part: what was demanded and is not wanted any more is kept.
#[test]
fn a_demand_that_is_taken_back_loses_nothing() {
    for options in both() {
        for period in 1..12 {
            let mut world = World::new(Deployment::replica_set(3), [period; 32]);
            world.network.conditions.longest_piece = Some(200);
            let stream = world.watching(&collection("shop", "orders"), options.clone());
            let (mut seen, mut inserted, mut taken) = (Vec::new(), 0, 0_u32);
            while seen.len() < 20 {
                if inserted < 20 && taken % 3 == 0 {
                    world.insert_orders(inserted..inserted + 2);
                    inserted += 2;
                }
                if taken % 11 == 7 {
                    world.kill_all_cursors();
                }
                let demand = if taken % 2 == 0 {
                    Demand::Next
                } else {
                    Demand::TryNext
                };
                world.demand(stream, demand);
                world.advance(Duration::ZERO);
                for _ in 0..period {
                    if world.has_something(stream) {
                        break;
                    }
                    world.step();
                }
                world.demand(stream, Demand::None);
                taken += 1;
                assert!(taken < 10_000, "{seen:?}");
                while let Some(update) = world.take_update(stream) {
                    if let Update::Change(event) = update {
                        seen.push(key_of(&event));
                    }
                }
            }
            assert_eq!(
                seen,
                (0..20).collect::<Vec<_>>(),
                "taken back after {period} steps"
            );
        }
    }
}

/// The same, with the token: at every moment a new stream from it continues exactly after what was handed over.
#[test]
fn the_token_is_right_at_every_moment() {
    for mut options in both() {
        options.batch_size = Some(3);
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders(0..10);
        let mut seen = 0;
        while seen < 10 {
            world.demand(stream, Demand::Next);
            world.step();
            while let Some(update) = world.take_update(stream) {
                if let Update::Change(event) = update {
                    assert_eq!(key_of(&event), seen);
                    seen += 1;
                }
            }
            let mut from_here = exact();
            from_here.resume_after = world.machine(stream).resume_token().cloned();
            let other = world.watching(&collection("shop", "orders"), from_here);
            match world.try_next(other) {
                Tried::Event(event) => assert_eq!(key_of(&event), seen),
                Tried::Nothing(_) => assert_eq!(seen, 10),
                Tried::TimedOut(error) => panic!("{error}"),
                Tried::End(end) => panic!("{end:?}"),
            }
            world.close(other);
        }
    }
}

/// Streams of every scope are idle without a sound: nothing is sent while nobody asks.
#[test]
fn a_stream_that_nobody_asks_sends_nothing() {
    for scope in [collection("shop", "orders"), database("shop"), Scope::Cluster] {
        for options in both() {
            let mut world = World::replica_set();
            let stream = world.watching(&scope, options);
            world.forget_commands();
            world.advance(Duration::from_secs(600));
            assert_eq!(world.all_records().count(), 0);
            world.insert_orders(0..1);
            assert_eq!(key_of(&world.event(stream)), 0);
        }
    }
}

//! `timeoutMS` (Client Side Operations Timeout specification): what its test files expect of change streams, one test each,
//! and what they leave open.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bson::{Document, doc};
use changestream_core::{Error, ErrorKind, Scope, WatchOptions};
use changestream_sim::Deployment;
use changestream_tests::world::{
    Conditions, StreamId, Tried, World, both, collection, database, exact, key_of, stage,
};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn timed(mut options: WatchOptions, milliseconds: u64) -> WatchOptions {
    options.timeout = Some(ms(milliseconds));
    options
}

fn orders() -> Scope {
    collection("shop", "orders")
}

fn block(milliseconds: u32) -> Document {
    doc! { "blockConnection": true, "blockTimeMS": milliseconds }
}

fn scopes() -> [Scope; 3] {
    [orders(), database("shop"), Scope::Cluster]
}

/// The stream times out, and lives.
#[track_caller]
fn times_out(world: &mut World, stream: StreamId) -> Error {
    let error = world.failure(stream);
    assert!(error.is_timeout(), "{error:?}");
    assert!(world.machine(stream).is_alive());
    error
}

/// Without what is sent unasked and left out of command monitoring by the files.
fn names(world: &World) -> Vec<String> {
    let mut names = world.command_names();
    names.retain(|name| name != "killCursors");
    names
}

/// A stream that is opened by that client.
fn by_client(world: &mut World, more: &str, scope: &Scope, options: WatchOptions) -> StreamId {
    let uri = world.deployment.uri() + more;
    world.watch_by(&uri, None, scope, options).unwrap()
}

mod change_streams {
    use super::*;

    #[test]
    fn error_if_max_await_time_is_greater_than_or_equal_to_timeout() {
        for wait in [10, 5] {
            let mut world = World::replica_set();
            let mut options = timed(exact(), 5);
            options.max_await_time = Some(ms(wait));
            let uri = world.deployment.uri();
            let error = world.watch_by(&uri, None, &orders(), options).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::InvalidArgument { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("timeoutMS"), "{error}");
        }
        let mut world = World::replica_set();
        for timeout in [0, 6] {
            let mut options = timed(exact(), timeout);
            options.max_await_time = Some(ms(5));
            let uri = world.deployment.uri();
            world.watch_by(&uri, None, &orders(), options).unwrap();
        }
    }

    #[test]
    fn timeout_applied_to_initial_aggregate() {
        let mut world = World::replica_set();
        world.fail(&["aggregate"], 1, block(250));
        let stream = world.watch(&orders(), timed(exact(), 200));
        let begun = world.now;
        let error = world.open(stream).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(world.now - begun <= ms(200));
        assert!(world.last_command("aggregate").contains_key("maxTimeMS"));
        assert_eq!(names(&world), ["aggregate"]);
        assert!(!world.machine(stream).is_alive());
    }

    #[test]
    fn timeout_is_refreshed_for_get_more_if_max_await_time_is_not_set() {
        let mut world = World::replica_set();
        world.fail(&["aggregate", "getMore"], 2, block(30));
        let stream = world.watching(&orders(), timed(exact(), 1050));
        world.try_nothing(stream);
        assert_eq!(names(&world), ["aggregate", "getMore"]);
        assert!(world.last_command("aggregate").contains_key("maxTimeMS"));
        assert!(!world.last_command("getMore").contains_key("maxTimeMS"));
    }

    #[test]
    fn timeout_is_refreshed_for_get_more_if_max_await_time_is_set() {
        let mut world = World::replica_set();
        world.fail(&["aggregate", "getMore"], 2, block(150));
        let mut options = timed(exact(), 200);
        options.batch_size = Some(2);
        options.max_await_time = Some(ms(1));
        let stream = world.watching(&orders(), options);
        world.try_nothing(stream);
        assert_eq!(names(&world), ["aggregate", "getMore"]);
        assert!(world.last_command("aggregate").contains_key("maxTimeMS"));
        assert_eq!(world.last_command("getMore").get_i64("maxTimeMS").unwrap(), 1);
    }

    #[test]
    fn timeout_applies_to_full_resume_attempt_in_a_next_call() {
        let mut world = World::replica_set();
        let stream = world.watching(&orders(), timed(exact(), 200));
        let mut fault = block(120);
        fault.insert("errorCode", 7);
        fault.insert("errorLabels", ["ResumableChangeStreamError"]);
        world.fail(&["getMore", "aggregate"], 2, fault);
        let begun = world.now;
        times_out(&mut world, stream);
        assert!(world.now - begun <= ms(200));
        assert_eq!(names(&world), ["aggregate", "getMore", "aggregate"]);
        assert!(!world.last_command("getMore").contains_key("maxTimeMS"));
        assert!(world.last_command("aggregate").contains_key("maxTimeMS"));
    }

    #[test]
    fn change_stream_can_be_iterated_again_if_previous_iteration_times_out() {
        let mut world = World::replica_set();
        let mut options = timed(exact(), 200);
        options.max_await_time = Some(ms(1));
        let stream = world.watching(&orders(), options);
        world.fail(&["getMore"], 1, block(250));
        times_out(&mut world, stream);
        world.try_nothing(stream);
        assert_eq!(names(&world), ["aggregate", "getMore", "aggregate", "getMore"]);
        assert!(stage(&world.last_command("aggregate")).contains_key("resumeAfter"));
    }

    #[test]
    fn timeout_is_refreshed_for_get_more_failure() {
        let mut world = World::replica_set();
        world.fail(&["getMore"], 1, block(250));
        let stream = world.watching(&orders(), timed(exact(), 200));
        times_out(&mut world, stream);
        assert_eq!(names(&world), ["aggregate", "getMore"]);
    }
}

/// global-timeoutMS.json, override-operation-timeoutMS.json.
#[test]
fn timeout_can_be_configured_on_a_client_and_for_an_operation_and_set_to_0_on_either() {
    for scope in scopes() {
        for (on_client, on_stream, blocked, expected) in [
            (Some(250), None, 350, Some(250)),
            (Some(0), None, 15, None),
            (Some(10), Some(1000), 15, Some(1000)),
            (Some(10), Some(0), 15, None),
        ] {
            let mut world = World::replica_set();
            world.fail(&["aggregate"], 2, block(blocked));
            let mut options = exact();
            options.timeout = on_stream.map(ms);
            let more = on_client.map_or_else(String::new, |limit: u64| format!("&timeoutMS={limit}"));
            let stream = by_client(&mut world, &more, &scope, options);
            let opened = world.open(stream);
            assert_eq!(names(&world), ["aggregate"]);
            let max_time = world.last_command("aggregate").get_i64("maxTimeMS").ok();
            assert_eq!(max_time.is_some(), expected.is_some());
            if blocked == 350 {
                assert!(opened.unwrap_err().is_timeout());
            } else {
                opened.unwrap();
            }
            assert!(max_time <= expected.map(i64::from));
        }
    }
}

/// retryability-timeoutMS.json.
mod retryability {
    use super::*;

    #[test]
    fn timeout_applies_to_whole_operation_not_individual_attempts() {
        for scope in scopes() {
            let mut world = World::new(Deployment::replica_set(1), [1; 32]);
            let mut fault = block(60);
            fault.insert("errorCode", 7);
            fault.insert("errorLabels", ["RetryableWriteError"]);
            world.fail(&["aggregate"], 4, fault);
            let stream = by_client(&mut world, "&timeoutMS=100", &scope, exact());
            let begun = world.now;
            let error = world.open(stream).unwrap_err();
            assert!(error.is_timeout(), "{error}");
            assert!(world.now - begun <= ms(100));
            assert_eq!(names(&world).len(), 2);
        }
    }

    #[test]
    fn operation_is_retried_multiple_times_for_non_zero_and_for_zero_timeout() {
        for scope in scopes() {
            for timeout in [1000, 0] {
                let mut world = World::new(Deployment::replica_set(1), [1; 32]);
                world.fail(
                    &["aggregate"],
                    2,
                    doc! { "errorCode": 7, "errorLabels": ["RetryableWriteError"] },
                );
                world.watching(&scope, timed(exact(), timeout));
                let aggregates = world.commands_named("aggregate");
                assert_eq!(aggregates.len(), 3);
                for aggregate in aggregates {
                    assert_eq!(aggregate.contains_key("maxTimeMS"), timeout > 0);
                }
            }
        }
    }

    #[test]
    fn without_retry_reads_nothing_is_retried_however_much_time_there_is() {
        let mut world = World::replica_set();
        world.fail(&["aggregate"], 1, doc! { "errorCode": 7 });
        let stream = by_client(&mut world, "&retryReads=false", &orders(), timed(exact(), 1000));
        assert_eq!(world.open(stream).unwrap_err().code(), Some(7));
        assert_eq!(names(&world), ["aggregate"]);
    }
}

/// deprecated-options.json.
#[test]
fn socket_timeout_wait_queue_timeout_and_w_timeout_are_ignored_if_timeout_is_set() {
    for scope in scopes() {
        for option in ["socketTimeoutMS=1", "waitQueueTimeoutMS=1", "wTimeoutMS=1"] {
            let mut world = World::replica_set();
            world.fail(&["aggregate", "getMore"], 2, block(5));
            let stream = by_client(&mut world, &format!("&{option}"), &scope, timed(exact(), 100_000));
            world.open(stream).unwrap();
            world.try_nothing(stream);
            assert_eq!(names(&world), ["aggregate", "getMore"], "{option}");
            let aggregate = world.last_command("aggregate");
            assert!(aggregate.contains_key("maxTimeMS") && !aggregate.contains_key("writeConcern"));
        }
    }
}

/// legacy-timeouts.json.
#[test]
fn older_timeouts_are_not_used_to_derive_a_max_time() {
    for option in ["socketTimeoutMS", "waitQueueTimeoutMS", "wTimeoutMS"] {
        let mut world = World::replica_set();
        let stream = by_client(&mut world, &format!("&{option}=50000"), &orders(), exact());
        world.open(stream).unwrap();
        world.try_nothing(stream);
        for command in world.commands() {
            assert!(!command.contains_key("maxTimeMS"), "{command}");
        }
    }
}

/// Without `timeoutMS`, `socketTimeoutMS` limits how long a reply may take, and is a network error.
#[test]
fn without_timeout_the_socket_timeout_holds() {
    let mut world = World::replica_set();
    world.fail(&["aggregate"], 1, block(250));
    let stream = by_client(
        &mut world,
        "&socketTimeoutMS=50&retryReads=false",
        &orders(),
        exact(),
    );
    let error = world.open(stream).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Network { timed_out: true, .. }),
        "{error}"
    );
    assert!(!error.is_timeout());
}

/// No limit is no reason to wait for a peer that is gone: nobody else would find that out.
#[test]
fn without_a_limit_an_aggregate_whose_answer_is_lost_is_sent_again() {
    let mut world = World::new(Deployment::replica_set(1), [1; 32]);
    let stream = world.watching(&orders(), timed(exact(), 0));
    world.fail(&["aggregate"], 2, block(3_600_000));
    let begun = world.now;
    world.deployment.drop_connections(begun, 0);
    world.insert_orders([1]);
    assert_eq!(key_of(&world.event(stream)), 1);
    assert!(world.now - begun < ms(1_000_000));
    assert_eq!(world.commands_named("aggregate").len(), 4);
}

#[test]
fn without_a_limit_a_server_that_takes_long_is_given_twice_the_time_again_and_again() {
    let mut world = World::new(Deployment::replica_set(1), [1; 32]);
    world.fail(&["aggregate"], 100, block(1_000_000));
    let stream = world.watch(&orders(), timed(exact(), 0));
    world.open(stream).unwrap();
    assert_eq!(names(&world), ["aggregate"; 3]);
}

/// error-transformations.json.
#[test]
fn the_servers_max_time_expired_is_a_timeout_whose_cause_is_the_servers_error() {
    for limit in [100_000, 0] {
        let mut world = World::replica_set();
        world.fail(&["aggregate"], 1, doc! { "errorCode": 50 });
        let stream = world.watch(&orders(), timed(exact(), limit));
        let error = world.open(stream).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.code(), Some(50));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains(&cause), "{error}");
        assert_eq!(names(&world), ["aggregate"], "it is not retried");
    }
}

#[test]
fn a_get_more_that_the_server_gave_up_is_a_timeout_and_the_next_call_resumes() {
    for options in both() {
        let mut world = World::replica_set();
        let stream = world.watching(&orders(), timed(options, 100_000));
        world.insert_orders(0..1);
        assert_eq!(world.keys(stream, 1), [0]);
        world.fail(&["getMore"], 1, doc! { "errorCode": 50 });
        world.forget_commands();
        assert_eq!(times_out(&mut world, stream).code(), Some(50));
        assert!(
            !names(&world).contains(&"aggregate".to_owned()),
            "not in the same call"
        );
        world.insert_orders(1..3);
        assert_eq!(world.keys(stream, 2), [1, 2]);
        assert_eq!(world.commands_named("aggregate").len(), 1);
    }
}

/// CSOT prose test 5, "Blocking Iteration Methods", change streams.
#[test]
fn a_call_has_its_time_for_all_of_its_get_mores() {
    let mut world = World::replica_set();
    let mut options = timed(exact(), 20);
    options.max_await_time = Some(ms(1));
    let stream = by_client(&mut world, "", &orders(), options);
    world.open(stream).unwrap();
    world.fail(&["getMore"], 1000, block(15));
    let begun = world.now;
    times_out(&mut world, stream);
    assert_eq!(world.now - begun, ms(20));
    assert_eq!(names(&world), ["aggregate", "getMore", "getMore"]);
}

/// CSOT prose test 8, "Server Selection".
#[test]
fn selection_is_limited_by_the_shorter_of_its_own_and_the_operations_timeout() {
    for (more, longest) in [
        ("&serverSelectionTimeoutMS=10", 15),
        ("&timeoutMS=10&serverSelectionTimeoutMS=20", 15),
        ("&timeoutMS=20&serverSelectionTimeoutMS=10", 15),
        ("&timeoutMS=0&serverSelectionTimeoutMS=10", 15),
    ] {
        let mut world = World::replica_set();
        let uri = format!("mongodb://invalid/?{}", more.trim_start_matches('&'));
        let stream = world.watch_by(&uri, None, &orders(), exact()).unwrap();
        let begun = world.now;
        let error = world.open(stream).unwrap_err();
        assert!(world.now - begun <= ms(longest), "{more}");
        assert_eq!(
            error.is_timeout(),
            more.contains("timeoutMS=2") || more.contains("&timeoutMS"),
            "{error}"
        );
        assert!(error.to_string().contains("no suitable server"), "{error}");
    }
}

/// CSOT prose test 9, "endSession", and "Cursors": a close has its own time.
#[test]
fn closing_has_a_timeout_of_its_own_and_tells_the_server() {
    let mut world = World::replica_set();
    let stream = world.watching(&orders(), timed(exact(), 3000));
    assert_eq!(world.machine(stream).close_limit(), ms(3000));
    world.close(stream);
    let max_time = world.last_command("killCursors").get_i64("maxTimeMS").unwrap();
    assert!(max_time > 0);
    let mut world = World::replica_set();
    let stream = world.watching(&orders(), exact());
    assert_eq!(world.machine(stream).close_limit(), ms(5000));
    world.close(stream);
    assert!(!world.last_command("killCursors").contains_key("maxTimeMS"));
}

/// Nothing is lost, nothing repeated: a getMore that is answered between two calls is used by the second.
#[test]
fn an_answer_that_comes_after_the_timeout_is_delivered_by_the_next_call_without_a_resume() {
    for options in both() {
        let mut world = World::replica_set();
        let stream = world.watching(&orders(), timed(options, 200));
        world.fail(&["getMore"], 1, block(250));
        world.insert_orders(0..2);
        times_out(&mut world, stream);
        world.advance(ms(100));
        assert_eq!(world.keys(stream, 2), [0, 1]);
        assert_eq!(world.commands_named("aggregate").len(), 1);
    }
}

#[test]
fn what_was_fetched_ahead_is_delivered_after_a_timeout_in_order() {
    let mut world = World::replica_set();
    let mut options = timed(WatchOptions::default(), 200);
    options.batch_size = Some(2);
    options.prefetch_batches = 3;
    let stream = world.watching(&orders(), options);
    let mut seen = Vec::new();
    world.insert_orders(0..10);
    for round in 0..40 {
        if round % 4 == 0 {
            world.fail(&["getMore"], 1, block(330));
        }
        match world.next(stream) {
            Some(Ok(event)) => seen.push(key_of(&event)),
            Some(Err(error)) => assert!(error.is_timeout(), "{error}"),
            None => panic!("it ended"),
        }
        if seen.len() == 10 {
            break;
        }
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}

/// "The subsequent `next` call MUST perform a resume attempt"; its aggregate's errors are told.
#[test]
fn the_error_of_the_aggregate_that_resumes_after_a_timeout_is_told() {
    let mut world = World::replica_set();
    let stream = world.watching(&orders(), timed(exact(), 200));
    world.fail(&["getMore"], 1, block(250));
    times_out(&mut world, stream);
    world.fail(&["aggregate"], 1, doc! { "errorCode": 286 });
    let error = world.failure(stream);
    assert!(matches!(error.kind(), ErrorKind::HistoryLost(_)), "{error}");
    assert!(!world.machine(stream).is_alive());
}

#[test]
fn a_resume_that_times_out_is_made_anew_by_the_next_call() {
    let mut world = World::replica_set();
    let stream = world.watching(&orders(), timed(exact(), 200));
    world.insert_orders(0..1);
    world.fail(&["getMore"], 1, doc! { "errorCode": 43 });
    world.fail(&["aggregate"], 1, block(250));
    // One fail point takes the other's place: both at once.
    let mut fault = block(150);
    fault.insert("errorCode", 43);
    world.fail(&["getMore", "aggregate"], 2, fault);
    times_out(&mut world, stream);
    assert_eq!(world.keys(stream, 1), [0]);
}

#[test]
fn a_try_times_out_as_a_call_does() {
    let mut world = World::replica_set();
    let stream = world.watching(&orders(), timed(exact(), 200));
    let begun = world.now;
    let tried = world.try_next(stream);
    assert!(
        matches!(&tried, Tried::TimedOut(error) if error.is_timeout()),
        "{tried:?}"
    );
    assert_eq!(
        world.now - begun,
        ms(200),
        "the server waits for one second where nothing is said"
    );
}

#[test]
fn the_server_is_not_asked_to_wait_longer_than_the_call_lasts() {
    let mut world = World::replica_set();
    let mut options = timed(exact(), 250);
    options.max_await_time = Some(ms(100));
    let stream = world.watching(&orders(), options);
    times_out(&mut world, stream);
    let waits: Vec<_> = world
        .commands_named("getMore")
        .iter()
        .map(|get_more| get_more.get_i64("maxTimeMS").unwrap())
        .collect();
    assert_eq!(waits[..2], [100, 100]);
    assert!(waits[2] < 50, "{waits:?}");
    world.insert_orders(0..1);
    assert_eq!(world.keys(stream, 1), [0]);
    assert_eq!(
        world.commands_named("aggregate").len(),
        1,
        "nothing was left unanswered"
    );
}

#[test]
fn nothing_is_sent_that_cannot_be_answered_in_time() {
    let mut world = World::replica_set();
    world.network.conditions = Conditions {
        delay: ms(30),
        jitter: ms(0),
        longest_piece: None,
    };
    let stream = world.watching(&orders(), timed(exact(), 100_000));
    // Two hellos make a shortest round trip of 60 ms known.
    let snapshot = world.machine(stream).snapshot();
    let uri = world.deployment.uri();
    let again = world
        .watch_by(&uri, Some(snapshot), &orders(), timed(exact(), 200))
        .unwrap();
    world.open(again).unwrap();
    let snapshot = world.machine(again).snapshot();
    world.forget_commands();
    let hasty = world
        .watch_by(&uri, Some(snapshot), &orders(), timed(exact(), 120))
        .unwrap();
    let error = world.open(hasty).unwrap_err();
    assert!(
        error.is_timeout() && error.to_string().contains("not sent"),
        "{error}"
    );
    assert!(world.commands_named("aggregate").is_empty());
}

#[test]
fn a_dropped_call_costs_nothing_and_the_next_has_all_of_its_time() {
    let mut world = World::replica_set();
    let stream = world.watching(&orders(), timed(exact(), 5000));
    assert!(world.next_update_within(stream, ms(600)).is_none());
    world.advance(Duration::from_secs(60));
    world.insert_orders(0..1);
    assert_eq!(world.keys(stream, 1), [0]);
    assert_eq!(world.commands_named("aggregate").len(), 1);
}

#[test]
fn streams_of_one_session_have_each_their_own_time() {
    let mut world = World::replica_set();
    let session = changestream_core::Session::new(&mut changestream_core::random::Random::new([4; 32]));
    let mut hasty = timed(exact(), 200);
    hasty.session = Some(session.clone());
    let mut patient = exact();
    patient.session = Some(session);
    let hasty = world.watching(&orders(), hasty);
    let patient = world.watching(&orders(), patient);
    times_out(&mut world, hasty);
    world.insert_orders(0..1);
    for stream in [hasty, patient] {
        assert_eq!(world.keys(stream, 1), [0]);
    }
    let lsids: std::collections::BTreeSet<_> = world
        .commands()
        .iter()
        .map(|command| command.get("lsid").unwrap().to_string())
        .collect();
    assert_eq!(lsids.len(), 1);
}

/// A partition, and calls that are shorter than it takes to find that out.
#[test]
fn calls_that_are_too_short_to_resume_in_get_there_together() {
    for options in both() {
        let mut world = World::new(Deployment::replica_set(3), [5; 32]);
        let stream = world.watching(&orders(), timed(options, 1500));
        world.insert_orders(0..1);
        assert_eq!(world.keys(stream, 1), [0]);
        let primary = world.primary();
        world.deployment.crash(world.now, primary);
        let mut timeouts = 0;
        let mut inserted = false;
        let event = loop {
            if !inserted && world.deployment.primary().is_some() {
                world.insert_orders(1..2);
                inserted = true;
            }
            match world.next(stream) {
                Some(Ok(event)) => break event,
                Some(Err(error)) => {
                    assert!(error.is_timeout(), "{error}");
                    timeouts += 1;
                    assert!(timeouts < 100);
                }
                None => panic!("it ended"),
            }
        };
        assert_eq!(key_of(&event), 1);
    }
}

//! Client backpressure: what its test files, and the prose tests of Retryable Reads on it, expect of change streams.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bson::{Document, doc};
use changestream_core::{ReadPreference, ReadPreferenceMode, Scope};
use changestream_sim::Deployment;
use changestream_tests::world::{World, collection, database, exact};

fn overload(code: i32) -> Document {
    doc! { "errorCode": code, "errorLabels": ["RetryableError", "SystemOverloadedError"] }
}

fn orders() -> Scope {
    collection("shop", "orders")
}

/// A set of one member, so that every attempt meets the fail point, and a stream by that client.
fn opened(more: &str, scope: &Scope, times: i32, fault: Document) -> (World, Result<(), Option<i32>>) {
    let mut world = World::new(Deployment::replica_set(1), [1; 32]);
    world.fail(&["aggregate"], times, fault);
    let uri = world.deployment.uri() + more;
    let stream = world.watch_by(&uri, None, scope, exact()).unwrap();
    let result = world.open(stream).map_err(|error| error.code());
    (world, result)
}

/// backpressure-retry-loop.json.
#[test]
fn create_change_stream_retries_using_the_operation_loop_and_not_without_retry_reads() {
    for scope in [orders(), database("shop"), Scope::Cluster] {
        let (world, result) = opened("", &scope, 2, overload(2));
        result.unwrap();
        assert_eq!(world.command_names(), ["aggregate"; 3]);
        let (world, result) = opened("&retryReads=false", &scope, 1, overload(2));
        assert_eq!(result, Err(Some(2)));
        assert_eq!(world.command_names(), ["aggregate"]);
    }
}

/// Backpressure prose tests 3 and 4.
#[test]
fn an_overload_is_retried_twice_or_as_often_as_max_adaptive_retries_says() {
    for (more, attempts) in [
        ("", 3),
        ("&maxAdaptiveRetries=1", 2),
        ("&maxAdaptiveRetries=0", 1),
    ] {
        let (world, result) = opened(more, &orders(), 100, overload(462));
        assert_eq!(result, Err(Some(462)));
        assert_eq!(world.command_names().len(), attempts, "{more}");
    }
}

/// Backpressure prose test 1: at most 0.2 s and 0.4 s.
#[test]
fn retries_of_an_overload_wait_a_random_part_of_growing_pauses() {
    let mut longest = Duration::ZERO;
    let mut shortest = Duration::MAX;
    for seed in 0..40 {
        let mut world = World::new(Deployment::replica_set(1), [seed; 32]);
        world.fail(&["aggregate"], 2, overload(462));
        let begun = world.now;
        world.watching(&orders(), exact());
        longest = longest.max(world.now - begun);
        shortest = shortest.min(world.now - begun);
    }
    assert!(
        longest < Duration::from_millis(600 + 100) && longest > Duration::from_millis(400),
        "{longest:?}"
    );
    assert!(shortest < Duration::from_millis(200), "{shortest:?}");
}

/// Retryable reads prose test 5: no pause for other errors.
#[test]
fn other_errors_are_retried_without_a_pause() {
    let (world, result) = opened("", &orders(), 1, doc! { "errorCode": 91 });
    result.unwrap();
    assert_eq!(world.command_names().len(), 2);
    let mut world = World::new(Deployment::replica_set(1), [1; 32]);
    world.fail(&["aggregate"], 1, doc! { "errorCode": 6 });
    let begun = world.now;
    world.watching(&orders(), exact());
    assert!(
        world.now - begun < Duration::from_millis(100),
        "{:?}",
        world.now - begun
    );
}

/// Retryable reads prose test 4: an overload raises the limit of the whole operation.
#[test]
fn after_an_overload_other_errors_count_against_its_limit() {
    let mut world = World::new(Deployment::replica_set(1), [1; 32]);
    world.fail(&["aggregate"], 1, overload(462));
    let stream = world.watch(&orders(), exact());
    world.run_until(|world| world.command_names().len() == 1);
    world.fail(&["aggregate"], 100, doc! { "errorCode": 6 });
    assert_eq!(world.open(stream).unwrap_err().code(), Some(6));
    assert_eq!(world.command_names().len(), 3);
}

/// getMore-retried.json.
#[test]
fn get_mores_are_retried_and_that_is_no_resume() {
    let mut world = World::new(Deployment::replica_set(1), [1; 32]);
    let stream = world.watching(&orders(), exact());
    world.fail(&["getMore"], 2, overload(2));
    world.insert_orders(0..1);
    assert_eq!(world.keys(stream, 1), [0]);
    assert_eq!(
        world.command_names(),
        ["aggregate", "getMore", "getMore", "getMore"]
    );
}

/// getMore-retried.json.
#[test]
fn get_mores_are_retried_twice_and_then_the_cursor_is_killed() {
    let mut world = World::new(Deployment::replica_set(1), [1; 32]);
    let stream = world.watching(&orders(), exact());
    world.fail(&["getMore"], 100, overload(2));
    assert_eq!(world.failure(stream).code(), Some(2));
    world.advance(Duration::from_millis(10));
    let names = world.command_names();
    assert_eq!(
        names[..5],
        ["aggregate", "getMore", "getMore", "getMore", "killCursors"].map(str::to_owned)
    );
}

/// Retryable reads prose tests 3.1, 3.2 and 3.3.
#[test]
fn a_replica_set_is_retargeted_for_an_overload_where_that_is_enabled_and_never_else() {
    for (more, fault, elsewhere) in [
        ("&enableOverloadRetargeting=true", overload(6), true),
        (
            "&enableOverloadRetargeting=true",
            doc! { "errorCode": 6, "errorLabels": ["RetryableError"] },
            false,
        ),
        ("", overload(6), false),
    ] {
        let mut world = World::new(Deployment::replica_set(3), [2; 32]);
        let primary = world.primary();
        world.fail_at(primary, &["aggregate"], 1, fault);
        let mut options = exact();
        options.read_preference = Some(ReadPreference::new(ReadPreferenceMode::PrimaryPreferred));
        let uri = world.deployment.uri() + more;
        let stream = world.watch_by(&uri, None, &orders(), options).unwrap();
        world.open(stream).unwrap();
        let asked: Vec<_> = world.records().map(|record| record.member).collect();
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0], primary);
        assert_eq!(asked[1] != primary, elsewhere, "{more}");
    }
}

/// Retryable reads, "Selecting the server for retry".
#[test]
fn where_no_server_is_found_for_a_retry_the_first_error_is_told() {
    let mut world = World::new(Deployment::replica_set(1), [1; 32]);
    world.fail(
        &["aggregate"],
        1,
        doc! { "errorCode": 91, "closeConnection": false },
    );
    let uri = world.deployment.uri() + "&serverSelectionTimeoutMS=2000";
    let stream = world.watch_by(&uri, None, &orders(), exact()).unwrap();
    world.run_until(|world| world.command_names().len() == 1);
    // The error arrives; the server is left alone for half a second after that.
    world.advance(Duration::from_millis(20));
    world.deployment.crash(world.now, 0);
    assert_eq!(world.open(stream).unwrap_err().code(), Some(91));
}

/// What a service behind a load balancer answers that does so and so to hello, asked by a client of these options.
fn behind_a_balancer(more: &str, fault: Document, times: i32) -> Result<usize, changestream_core::Error> {
    let balanced = Deployment::sharded(1, 1).server_version("6.0").load_balanced();
    let mut world = World::new(balanced, [1; 32]);
    world.fail(&["hello", "isMaster"], times, fault);
    let uri = world.deployment.uri() + more;
    let stream = world.watch_by(&uri, None, &orders(), exact())?;
    world.open(stream)?;
    Ok(world.open_cursors())
}

/// "Drivers MUST add the error labels" where the network fails before hello is answered, and an error with them is retried
/// as often as a refusal with them.
#[test]
fn a_connection_that_breaks_before_hello_is_answered_counts_as_an_overload() {
    let closed = || doc! { "closeConnection": true };
    assert_eq!(behind_a_balancer("", closed(), 2).unwrap(), 1);
    let late = doc! { "blockConnection": true, "blockTimeMS": 5000 };
    assert_eq!(behind_a_balancer("&connectTimeoutMS=300", late, 2).unwrap(), 1);
    for more in ["", "&maxAdaptiveRetries=0"] {
        let error = behind_a_balancer(more, closed(), 100).unwrap_err();
        assert!(error.has_label("SystemOverloadedError") && error.has_label("RetryableError"));
        assert!(!error.has_label("ResumableChangeStreamError"));
    }
    assert!(behind_a_balancer("&maxAdaptiveRetries=1", closed(), 2).is_err());
}

#[test]
fn a_refusal_of_hello_and_a_connection_that_was_never_open_are_no_overload() {
    let error = behind_a_balancer("&retryReads=false", doc! { "errorCode": 11600 }, 1).unwrap_err();
    assert!(!error.has_label("SystemOverloadedError"));
    let mut world = World::new(
        Deployment::sharded(1, 1).server_version("6.0").load_balanced(),
        [1; 32],
    );
    let uri = world.deployment.uri();
    let (_, options) = uri.split_once('?').unwrap();
    let nobody = format!("mongodb://127.0.0.1:1/?{options}");
    let stream = world.watch_by(&nobody, None, &orders(), exact()).unwrap();
    assert!(!world.open(stream).unwrap_err().has_label("SystemOverloadedError"));
}

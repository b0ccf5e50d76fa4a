//! The behaviour checklist: neighbouring specifications, as far as a stream meets them: retryable reads, step-down,
//! server selection, SDAM.
//!
//! Not here:
//! - retryable reads prose tests 2.1 and 2.2 (another mongos): in `checklist_mongos.rs`.
//! - retryable reads 3.1 to 3.3, 4 and 5, backpressure 1, 3 and 4: in `overload.rs`.
//! - retryable reads 1 (PoolClearedError), CMAP 5 (checkOutFailed): a stream has no pool, hence no such error or event.
//! - CSOT 5: in `timeouts.rs`. CSOT 4 (background connections): there are none.
//! - DNS 1 to 4, SRV polling 1 to 13: in `changestream-core`, `tests/client/seedlist.rs` and `rescanning.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Bson, doc};
use changestream_core::{ErrorKind, ReadPreference, ReadPreferenceMode};
use changestream_sim::Deployment;
use changestream_tests::world::{World, both, collection, exact, key_of};

/// Retryable reads, changeStreams-*: one retry of the aggregate that opens a stream.
#[test]
fn an_aggregate_that_opens_a_stream_is_retried_once() {
    for fault in [
        doc! { "errorCode": 11600 },
        doc! { "errorCode": 11602 },
        doc! { "errorCode": 10107 },
        doc! { "errorCode": 13435 },
        doc! { "errorCode": 13436 },
        doc! { "errorCode": 189 },
        doc! { "errorCode": 91 },
        doc! { "errorCode": 7 },
        doc! { "errorCode": 6 },
        doc! { "errorCode": 89 },
        doc! { "errorCode": 9001 },
        doc! { "closeConnection": true },
    ] {
        for times in 1..=2 {
            let mut world = World::new(Deployment::replica_set(1), [1; 32]);
            world.fail(&["aggregate"], times, fault.clone());
            let stream = world.watch(&collection("shop", "orders"), exact());
            let opened = world.open(stream);
            assert_eq!(opened.is_ok(), times == 1, "{fault}: {opened:?}");
            assert_eq!(world.commands_named("aggregate").len(), 2);
            let lsids: BTreeSet<_> = world
                .commands()
                .iter()
                .map(|c| c.get("lsid").unwrap().to_string())
                .collect();
            assert_eq!(lsids.len(), 1);
        }
    }
}

/// SDAM: a server older than 4.2, the oldest that the specifications support today, is refused before anything is asked
/// of it, with what it speaks and what is needed.
#[test]
fn a_server_that_is_too_old_is_refused_with_what_is_needed() {
    for config in [
        Deployment::replica_set(1),
        Deployment::sharded(1, 1),
        Deployment::standalone(),
    ] {
        let mut world = World::new(config.server_version("4.0"), [1; 32]);
        let stream = world.watch(&collection("shop", "orders"), exact());
        let error = world.open(stream).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::ServerSelection { .. }),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains("reports wire version 7"), "{text}");
        assert!(text.contains("requires at least 8 (MongoDB 4.2)"), "{text}");
        assert_eq!(world.commands_named("aggregate"), []);
    }
}

/// Retryable reads: `retryReads=false`, and errors that are not retryable.
#[test]
fn what_is_not_to_be_retried_is_not() {
    for (more, code) in [("&retryReads=false", 91), ("", 2), ("", 11601), ("", 50)] {
        let mut world = World::replica_set();
        world.fail(&["aggregate"], 1, doc! { "errorCode": code });
        let uri = world.deployment.uri() + more;
        let stream = world
            .watch_by(&uri, None, &collection("shop", "orders"), exact())
            .unwrap();
        assert_eq!(world.open(stream).unwrap_err().code(), Some(code));
        assert_eq!(world.commands_named("aggregate").len(), 1);
    }
}

/// Retryable reads: the aggregate of a resume is a retryable read as well; a getMore is not.
#[test]
fn the_aggregate_of_a_resume_is_retried_and_a_get_more_never() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        let fault = doc! { "errorCode": 91, "errorLabels": ["ResumableChangeStreamError"] };
        world.fail(&["getMore", "aggregate"], 2, fault);
        world.insert_orders([0]);
        assert_eq!(world.keys(stream, 1), [0]);
        let names = world.command_names();
        let expected = ["aggregate", "getMore", "killCursors", "aggregate", "aggregate"];
        assert_eq!(names[..5], expected.map(str::to_owned));
    }
}

/// Retryable reads 2.2, with a secondary in place of the mongos.
#[test]
fn a_retried_aggregate_takes_the_same_server_where_there_is_no_other() {
    let mut world = World::new(Deployment::replica_set(2), [1; 32]);
    let mut options = exact();
    options.read_preference = Some(ReadPreference::new(ReadPreferenceMode::Secondary));
    world.fail(&["aggregate"], 1, doc! { "errorCode": 6 });
    let stream = world.watch(&collection("shop", "orders"), options);
    world.open(stream).unwrap();
    let asked: Vec<_> = world.records().map(|record| record.member).collect();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
}

/// Connections survive step-down: getMore iteration.
#[test]
fn a_get_more_survives_a_step_down() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders([0]);
        assert_eq!(world.keys(stream, 1), [0]);
        let (now, old) = (world.now, world.primary());
        world.deployment.step_down(now);
        world.insert_orders([1]);
        assert_ne!(world.primary(), old);
        assert_eq!(world.keys(stream, 1), [1]);
        assert_eq!(world.commands_named("aggregate").len(), 1);
        let connections: BTreeSet<_> = world.records().map(|record| record.connection).collect();
        assert_eq!(connections.len(), 1);
    }
}

/// Whether the connection over which a getMore failed with that code is used again.
fn keeps_its_connection_after(code: i32, version: &str) -> bool {
    let mut world = World::new(Deployment::replica_set(1).server_version(version), [1; 32]);
    let stream = world.watching(&collection("shop", "orders"), exact());
    world.fail_get_more(code);
    world.insert_orders([0]);
    assert_eq!(world.keys(stream, 1), [0]);
    let connections: Vec<_> = world
        .records()
        .filter(|record| record.name == "aggregate")
        .map(|record| record.connection)
        .collect();
    assert_eq!(connections.len(), 2);
    connections[0] == connections[1]
}

/// Connections survive step-down: not primary keeps the pool.
#[test]
fn a_server_that_is_no_primary_keeps_its_connection() {
    for version in ["4.2", "4.4", "7.0"] {
        assert!(keeps_its_connection_after(10107, version));
        assert!(keeps_its_connection_after(13436, version));
    }
}

/// Connections survive step-down: shutting down and interrupted at shutdown clear the pool.
#[test]
fn a_server_that_shuts_down_loses_its_connection() {
    for version in ["4.2", "4.4", "7.0"] {
        assert!(!keeps_its_connection_after(91, version));
        assert!(!keeps_its_connection_after(11600, version));
    }
}

/// SDAM: a network error marks the server unknown, so that the resume does not pick it from memory.
#[test]
fn a_server_that_broke_the_connection_is_checked_before_it_is_chosen_again() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        let (now, primary) = (world.now, world.primary());
        world.deployment.crash(now, primary);
        world.insert_orders([0]);
        let (resumes, event) = world.resumes_until_event(stream);
        assert_eq!((resumes, key_of(&event)), (1, 0));
        assert_ne!(world.member_of_last("aggregate"), primary);
    }
}

/// SDAM: silence is no proof that a server is gone; a getMore that is not answered costs one connection.
#[test]
fn a_timeout_leaves_the_server_known() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.fail(
            &["getMore"],
            1,
            doc! { "blockConnection": true, "blockTimeMS": 600_000 },
        );
        world.insert_orders([0]);
        assert_eq!(world.keys(stream, 1), [0]);
        let members: BTreeSet<_> = world.records().map(|record| record.member).collect();
        assert_eq!(members.len(), 1);
        assert_eq!(world.commands_named("aggregate").len(), 2);
    }
}

/// Server selection: a set without primary for longer than serverSelectionTimeoutMS ends the stream, with its token.
#[test]
fn a_resume_without_a_primary_ends_after_the_selection_timeout() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders([0]);
        world.event(stream);
        let token = world.token(stream);
        let now = world.now;
        for member in 0..2 {
            world.deployment.crash(now, member);
        }
        world.advance(Duration::from_secs(15));
        let start = world.now;
        let error = world.failure(stream);
        assert!(
            matches!(error.kind(), ErrorKind::ServerSelection { .. }),
            "{error}"
        );
        let waited = world.now - start;
        assert!(
            waited >= Duration::from_secs(29) && waited < Duration::from_secs(45),
            "{waited:?}"
        );
        assert_eq!(
            changestream_tests::world::document(error.resume_token().unwrap()),
            token
        );
    }
}

/// Server selection: a set that elects within that time is waited for.
#[test]
fn a_resume_waits_for_an_election() {
    for options in both() {
        let mut world = World::new(
            Deployment::replica_set(3).election_timeout(Duration::from_secs(20)),
            [1; 32],
        );
        let stream = world.watching(&collection("shop", "orders"), options);
        world.insert_orders([0]);
        world.event(stream);
        let (now, primary) = (world.now, world.primary());
        world.deployment.crash(now, primary);
        world.demand(stream, changestream_core::client::Demand::Next);
        world.advance(Duration::from_secs(5));
        world.insert_orders([1]);
        assert_eq!(world.keys(stream, 1), [1]);
    }
}

/// Read preference: on a replica set `$readPreference` is sent where it is not primary, tags and staleness and all.
#[test]
fn the_read_preference_goes_along() {
    let mut world = World::replica_set();
    let mut options = exact();
    let mut preference = ReadPreference::new(ReadPreferenceMode::SecondaryPreferred);
    preference.max_staleness = Some(Duration::from_secs(120));
    options.read_preference = Some(preference);
    let stream = world.watching(&collection("shop", "orders"), options);
    world.insert_orders([0]);
    assert_eq!(world.keys(stream, 1), [0]);
    assert_eq!(
        world.last_command("aggregate").get("$readPreference"),
        Some(&Bson::from(
            doc! { "mode": "secondaryPreferred", "maxStalenessSeconds": 120_i64 }
        ))
    );
}

/// Read preference: a direct connection to a secondary says that a secondary may answer.
#[test]
fn a_direct_connection_reads_from_a_secondary() {
    let mut world = World::replica_set();
    let secondary = (world.primary() + 1) % 3;
    let uri = format!(
        "mongodb://{}/?directConnection=true",
        world.deployment.address(secondary).unwrap()
    );
    let stream = world
        .watch_by(&uri, None, &collection("shop", "orders"), exact())
        .unwrap();
    world.open(stream).unwrap();
    world.insert_orders([0]);
    assert_eq!(world.keys(stream, 1), [0]);
    assert_eq!(world.member_of_last("aggregate"), secondary);
    assert_eq!(
        world.last_command("aggregate").get("$readPreference"),
        Some(&Bson::from(doc! { "mode": "primaryPreferred" }))
    );
}

/// SDAM: a stream that knows the topology from another one needs no scan.
#[test]
fn a_new_stream_needs_no_scan_where_another_has_scanned() {
    let (mut world, first) = World::watching_orders(exact());
    let snapshot = world.machine(first).snapshot();
    let uri = world.deployment.uri();
    world.forget_commands();
    let second = world
        .watch_by(&uri, Some(snapshot), &collection("shop", "orders"), exact())
        .unwrap();
    world.open(second).unwrap();
    let connections: BTreeSet<_> = world.all_records().map(|record| record.connection).collect();
    assert_eq!(connections.len(), 1);
    world.insert_orders([0]);
    assert_eq!(world.keys(second, 1), [0]);
}

//! `loadBalanced=true`: what the test files of the Load Balancers specification expect of change streams, and what its text
//! says besides.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use bson::{Document, doc};
use changestream_core::client::ClientSettings;
use changestream_core::connection::ClientMetadata;
use changestream_core::monitoring::{ConnectionEvent, EventKind};
use changestream_core::{ConnectionString, ReadPreference, ReadPreferenceMode, WatchOptions};
use changestream_sim::Deployment;
use changestream_tests::world::{StreamId, World, both, collection, exact, key_of};

/// Two mongos behind a balancer that leads each connection to the next one.
fn balanced() -> World {
    World::new(
        Deployment::sharded(1, 2).server_version("6.0").load_balanced(),
        [1; 32],
    )
}

fn watching(options: WatchOptions) -> (World, StreamId) {
    let mut world = balanced();
    let stream = world.watching(&collection("shop", "orders"), options);
    (world, stream)
}

/// The connections that commands of that name came over.
fn connections(world: &World, name: &str) -> BTreeSet<changestream_sim::ConnectionId> {
    let records = world.records().filter(|record| record.name == name);
    records.map(|record| record.connection).collect()
}

/// non-lb-connection-establishment.json.
#[test]
fn operations_against_non_load_balanced_clusters_fail_if_the_uri_says_load_balanced() {
    for config in [Deployment::sharded(1, 1), Deployment::standalone()] {
        let mut world = World::new(config.server_version("6.0"), [1; 32]);
        let uri = world.deployment.uri();
        let by = |world: &mut World, balanced: bool| {
            let uri = format!("{uri}?loadBalanced={balanced}");
            let stream = world
                .watch_by(&uri, None, &collection("shop", "orders"), exact())
                .unwrap();
            world.open(stream)
        };
        let error = by(&mut world, true).unwrap_err().to_string();
        let text = "Driver attempted to initialize in load balancing mode, but the server does not support this mode";
        assert!(error.contains(text), "{error}");
        let without = by(&mut world, false);
        assert!(without.is_ok() || without.unwrap_err().code() == Some(40573));
    }
}

/// cursors.json: "change streams pin to a connection".
#[test]
fn change_streams_pin_to_a_connection_and_are_closed_over_it() {
    for options in both() {
        let (mut world, stream) = watching(options);
        world.insert_orders(0..3);
        assert_eq!(world.keys(stream, 3), [0, 1, 2]);
        world.close(stream);
        let pinned = connections(&world, "aggregate");
        assert_eq!(pinned.len(), 1);
        assert_eq!(connections(&world, "getMore"), pinned);
        assert_eq!(connections(&world, "killCursors"), pinned);
        assert_eq!(world.open_cursors(), 0);
    }
}

/// One hello for each connection, which says `loadBalanced`; none to monitor.
#[test]
fn a_load_balancer_is_not_monitored() {
    let (mut world, stream) = watching(exact());
    world.insert_orders(0..1);
    assert_eq!(world.keys(stream, 1), [0]);
    world.advance(std::time::Duration::from_secs(60));
    let hellos: Vec<&Document> = world
        .all_records()
        .filter(|record| ["hello", "isMaster"].contains(&record.name.as_str()))
        .map(|record| &record.body)
        .collect();
    assert_eq!(hellos.len(), 1);
    assert_eq!(
        hellos[0].keys().next().unwrap(),
        "hello",
        "never the old name, not even the first time"
    );
    assert!(hellos[0].get_bool("loadBalanced").unwrap());
}

#[test]
fn after_a_lost_connection_the_stream_resumes_over_another_and_kills_nothing() {
    for options in both() {
        let (mut world, stream) = watching(options);
        world.insert_orders(0..1);
        assert_eq!(world.keys(stream, 1), [0]);
        let member = world.member_of_last("aggregate");
        world.fail_at(member, &["getMore"], 1, doc! { "closeConnection": true });
        world.insert_orders(1..3);
        assert_eq!(world.keys(stream, 2), [1, 2]);
        assert_eq!(connections(&world, "aggregate").len(), 2);
        assert!(
            world.commands_named("killCursors").is_empty(),
            "another connection may lead elsewhere"
        );
    }
}

#[test]
fn a_resumable_error_kills_the_cursor_over_its_own_connection() {
    let (mut world, stream) = watching(exact());
    world.insert_orders(0..1);
    assert_eq!(world.keys(stream, 1), [0]);
    let fault = doc! { "errorCode": 133, "errorLabels": ["ResumableChangeStreamError"] };
    world.fail(&["getMore"], 1, fault);
    world.insert_orders(1..3);
    assert_eq!(world.keys(stream, 2), [1, 2]);
    let killed = connections(&world, "killCursors");
    assert_eq!(killed.len(), 1);
    assert!(connections(&world, "aggregate").is_superset(&killed));
}

/// sdam-error-handling.json: a service that shuts down is not asked over the old connection.
#[test]
fn a_service_that_shuts_down_is_left() {
    let (mut world, stream) = watching(exact());
    let fault = doc! { "errorCode": 91, "errorLabels": ["ResumableChangeStreamError"] };
    let member = world.member_of_last("aggregate");
    world.fail_at(member, &["getMore"], 1, fault);
    world.insert_orders(0..1);
    assert_eq!(world.keys(stream, 1), [0]);
    assert_eq!(connections(&world, "aggregate").len(), 2);
}

/// event-monitoring.json: "poolClearedEvent events include serviceId".
#[test]
fn what_is_told_of_cleared_connections_names_the_service() {
    let mut world = balanced();
    let uri: ConnectionString = world.deployment.uri().parse().unwrap();
    let settings = ClientSettings::new(uri.options, ClientMetadata::new()).unwrap();
    let settings = Arc::new(settings.with_monitoring());
    let stream = world
        .watch_with(&settings, None, &collection("shop", "orders"), exact())
        .unwrap();
    world.open(stream).unwrap();
    let member = world.member_of_last("aggregate");
    world.fail_at(member, &["getMore"], 1, doc! { "closeConnection": true });
    world.insert_orders(0..1);
    assert_eq!(world.keys(stream, 1), [0]);
    let events = world.take_events();
    let cleared = events.iter().filter_map(|(_, event)| match &event.kind {
        EventKind::Connection(ConnectionEvent::PoolCleared { service_id, .. }) => Some(*service_id),
        _ => None,
    });
    let cleared: Vec<_> = cleared.collect();
    assert!(matches!(cleared[..], [Some(_)]), "{cleared:?}");
}

/// sdam-error-handling.json: "errors during the initial connection hello are ignored" by the topology, and told.
#[test]
fn an_error_of_the_first_hello_is_told() {
    let mut world = balanced();
    world.fail(&["hello", "isMaster"], 2, doc! { "errorCode": 11600 });
    let uri = world.deployment.uri() + "&retryReads=false";
    let stream = world
        .watch_by(&uri, None, &collection("shop", "orders"), exact())
        .unwrap();
    assert_eq!(world.open(stream).unwrap_err().code(), Some(11600));
}

/// server-selection.json.
#[test]
fn the_read_preference_is_sent() {
    let mut options = exact();
    options.read_preference = Some(ReadPreference::new(ReadPreferenceMode::SecondaryPreferred));
    let (world, _) = watching(options);
    let aggregate = world.last_command("aggregate");
    let preference = aggregate.get_document("$readPreference").unwrap();
    assert_eq!(preference, &doc! { "mode": "secondaryPreferred" });
    assert!(aggregate.contains_key("lsid"));
}

#[test]
fn a_late_get_more_is_left_with_its_connection() {
    let mut options = exact();
    options.timeout = Some(std::time::Duration::from_millis(300));
    let (mut world, stream) = watching(options);
    let member = world.member_of_last("aggregate");
    world.fail_at(
        member,
        &["getMore"],
        1,
        doc! { "blockConnection": true, "blockTimeMS": 2000 },
    );
    assert!(world.failure(stream).is_timeout());
    world.insert_orders(0..1);
    let event = (0..50).find_map(|_| match world.next(stream) {
        Some(Err(error)) if error.is_timeout() => None,
        other => other,
    });
    assert_eq!(key_of(&event.unwrap().unwrap()), 0);
    assert!(connections(&world, "aggregate").len() > 1);
    assert!(world.commands_named("killCursors").is_empty());
}

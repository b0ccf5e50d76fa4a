//! The behaviour checklist: causal consistency, by the numbers of the specification's prose tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, Timestamp, doc};
use changestream_core::client::ClientSettings;
use changestream_core::connection::ClientMetadata;
use changestream_core::stream::ClusterTime;
use changestream_core::{
    CommandOptions, ConnectionString, ReadConcern, ReadPreference, ReadPreferenceMode, RunCommand, Session,
    WatchOptions,
};
use changestream_sim::Deployment;
use changestream_tests::world::{World, both, collection, exact};

fn session() -> Session {
    Session::with_id([9; 16])
}

fn within(session: &Session, mut options: WatchOptions) -> WatchOptions {
    options.session = Some(session.clone());
    options
}

/// A ping in the session, and the operation time of its reply.
fn ping(world: &mut World, session: &Session, command: &Document) -> Option<Timestamp> {
    let uri: ConnectionString = world.deployment.uri().parse().unwrap();
    let settings = ClientSettings::new(uri.options, ClientMetadata::new()).unwrap();
    let client = world.commands_with(Arc::new(settings), None).unwrap();
    let options = CommandOptions::default().session(session.clone());
    world.start_command(client, RunCommand::new("admin", command, options).unwrap());
    let reply = world.reply(client);
    world.close(client);
    let reply = reply.ok()?.to_document().unwrap();
    reply.get_timestamp("operationTime").ok()
}

/// The read concern of each aggregate.
fn concerns(world: &World) -> Vec<Option<Document>> {
    let aggregates = world.commands_named("aggregate");
    let concern = |aggregate: &Document| aggregate.get_document("readConcern").ok().cloned();
    aggregates.iter().map(concern).collect()
}

/// Prose tests 1 and 2.
#[test]
fn a_new_session_has_seen_nothing_and_waits_for_nothing() {
    let session = session();
    assert_eq!(session.operation_time(), None);
    assert!(session.cluster_time().is_none());
    let (world, _) = World::watching_orders(within(&session, exact()));
    assert_eq!(concerns(&world), [None]);
}

/// Prose test 3.
#[test]
fn every_reply_moves_a_session_errors_too() {
    let mut world = World::replica_set();
    let session = session();
    let first = ping(&mut world, &session, &doc! { "ping": 1 });
    assert!(first.is_some());
    assert_eq!(session.operation_time(), first);
    world.insert_orders([1]);
    assert_eq!(ping(&mut world, &session, &doc! { "nonsense": 1 }), None);
    let second = session.operation_time();
    assert!(second > first, "{second:?} is not after {first:?}");
    // Clones are the same session.
    let (clone, before) = (session.clone(), session.cluster_time().unwrap().time());
    world.insert_orders([2]);
    let stream = world.watching(&collection("shop", "orders"), within(&clone, exact()));
    assert!(session.operation_time() > second);
    world.insert_orders([3]);
    world.event(stream);
    assert!(session.cluster_time().unwrap().time() > before);
}

/// Prose tests 4 and 5, and 8: there is no level but the server's own.
#[test]
fn a_stream_reads_after_what_its_session_has_seen() {
    for options in both() {
        let mut world = World::replica_set();
        world.insert_orders([1]);
        let session = session();
        let seen = ping(&mut world, &session, &doc! { "ping": 1 }).unwrap();
        let stream = world.watching(&collection("shop", "orders"), within(&session, options));
        assert_eq!(concerns(&world), [Some(doc! { "afterClusterTime": seen })]);
        world.insert_orders([2]);
        assert_eq!(world.keys(stream, 1), [2]);
        let get_mores = world.commands_named("getMore");
        assert!(
            get_mores
                .iter()
                .all(|command| !command.contains_key("readConcern"))
        );
        assert!(!get_mores.is_empty());
    }
}

/// The aggregate of a resume is a read of the session like any other.
#[test]
fn a_resume_reads_after_what_the_session_has_seen_by_then() {
    let session = session();
    let (mut world, stream) = World::watching_orders(within(&session, exact()));
    world.insert_orders([1]);
    assert_eq!(world.keys(stream, 1), [1]);
    let seen = session.operation_time().unwrap();
    world.kill_all_cursors();
    world.insert_orders([2]);
    assert_eq!(world.keys(stream, 1), [2]);
    let concerns = concerns(&world);
    let [None, Some(concern)] = concerns.as_slice() else {
        panic!("{concerns:?}")
    };
    assert!(concern.get_timestamp("afterClusterTime").unwrap() >= seen);
}

/// Prose test 6.
#[test]
fn without_causal_consistency_a_stream_waits_for_nothing() {
    let mut world = World::replica_set();
    let session = session().causally_consistent(false);
    assert!(ping(&mut world, &session, &doc! { "ping": 1 }).is_some());
    assert!(session.operation_time().is_some());
    world.watching(&collection("shop", "orders"), within(&session, exact()));
    assert_eq!(concerns(&world), [None]);
}

/// Sessions that nobody gave are never causally consistent (Causal Consistency, "MongoClient changes").
#[test]
fn an_implicit_session_waits_for_nothing_not_even_in_a_resume() {
    let (mut world, stream) = World::watching_orders(exact());
    world.insert_orders([1]);
    assert_eq!(world.keys(stream, 1), [1]);
    world.kill_all_cursors();
    world.insert_orders([2]);
    assert_eq!(world.keys(stream, 1), [2]);
    assert_eq!(concerns(&world), [None, None]);
}

/// Prose tests 7 and 11.
#[test]
fn a_deployment_without_cluster_times_is_told_none() {
    let mut world = World::new(Deployment::standalone(), [1; 32]);
    let session = session();
    assert_eq!(ping(&mut world, &session, &doc! { "ping": 1 }), None);
    assert_eq!(session.operation_time(), None);
    let stream = world.watch(&collection("shop", "orders"), within(&session, exact()));
    world.open(stream).unwrap_err();
    assert_eq!(concerns(&world), [None]);
    assert!(!world.last_command("aggregate").contains_key("$clusterTime"));
}

/// Prose test 9.
#[test]
fn a_read_concern_of_the_users_keeps_its_level() {
    let mut world = World::replica_set();
    let session = session();
    let seen = ping(&mut world, &session, &doc! { "ping": 1 }).unwrap();
    let mut options = within(&session, exact());
    options.read_concern = Some(ReadConcern::new("majority"));
    world.watching(&collection("shop", "orders"), options);
    assert_eq!(
        concerns(&world),
        [Some(doc! { "level": "majority", "afterClusterTime": seen })]
    );
}

/// What it is for: a stream on a secondary that lags starts where the session has been, not before.
#[test]
fn a_stream_on_a_lagging_secondary_starts_after_what_the_session_has_seen() {
    let mut world = World::replica_set();
    for member in 0..3 {
        if Some(member) != world.deployment.primary() {
            world
                .deployment
                .lag(world.now, member, Duration::from_millis(700));
        }
    }
    let session = session();
    world.run("shop", doc! { "insert": "orders", "documents": [{ "_id": 1 }] });
    ping(&mut world, &session, &doc! { "ping": 1 }).unwrap();
    let mut options = within(&session, exact());
    options.read_preference = Some(ReadPreference::new(ReadPreferenceMode::Secondary));
    let stream = world.watching(&collection("shop", "orders"), options);
    world.insert_orders([2]);
    assert_eq!(world.keys(stream, 1), [2]);
}

/// A session goes on in another client with the times of one that was used elsewhere.
#[test]
fn a_session_can_be_advanced_to_what_another_has_seen() {
    let mut world = World::replica_set();
    let elsewhere = session();
    world.insert_orders([1]);
    ping(&mut world, &elsewhere, &doc! { "ping": 1 }).unwrap();
    let (time, cluster_time) = (
        elsewhere.operation_time().unwrap(),
        elsewhere.cluster_time().unwrap(),
    );

    let here = Session::with_id([7; 16]);
    here.advance_operation_time(time);
    here.advance_operation_time(Timestamp {
        time: 1,
        increment: 1,
    });
    assert_eq!(here.operation_time(), Some(time));
    here.advance_cluster_time(cluster_time.clone());
    let old = RawDocumentBuf::try_from(&doc! { "clusterTime": Timestamp { time: 1, increment: 1 } }).unwrap();
    here.advance_cluster_time(ClusterTime::new(&old).unwrap());
    assert_eq!(here.cluster_time(), Some(cluster_time.clone()));

    world.watching(&collection("shop", "orders"), within(&here, exact()));
    assert_eq!(concerns(&world), [Some(doc! { "afterClusterTime": time })]);
    // What the client has learned by its hellos may be newer.
    let sent = world.last_command("aggregate");
    let sent = sent.get_document("$clusterTime").unwrap();
    assert!(sent.get_timestamp("clusterTime").unwrap() >= cluster_time.time());
}

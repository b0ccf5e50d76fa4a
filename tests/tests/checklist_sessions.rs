//! The behaviour checklist: sessions and cluster time, handshakes.
//!
//! Not here:
//! - sessions prose test 2 (sessions are reused last in, first out): a stream has one session from its first command
//!   to its last, and ends it; there is no pool to draw from.
//! - sessions prose test 14 (implicit sessions only after check-out): the same. What it is for, no session without
//!   a connection, is `no_session_is_spoken_of_before_a_connection_is_chosen`.
//! - handshake: the nine environments and the limit of 512 bytes are pure and tested in changestream-core
//!   (`the_environments_of_the_handshake_specification`, `what_does_not_fit_in_512_bytes_is_left_out_in_the_specified_order`,
//!   `the_limit_is_used_to_the_last_byte`).
//! - heartbeatFrequencyMS 500 when streaming, RTT on a connection of its own, heartbeatStarted before the socket opens:
//!   a stream has no monitoring connections; it scans when it needs a server, as single-threaded clients do.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bson::{Document, doc};
use changestream_core::{Scope, WatchOptions};
use changestream_sim::Deployment;
use changestream_tests::world::{World, both, collection, database, exact};

/// Sessions prose test 11.
#[test]
fn aggregate_get_more_and_kill_cursors_share_one_implicit_session() {
    for scope in [collection("shop", "orders"), database("shop"), Scope::Cluster] {
        for options in both() {
            let mut world = World::replica_set();
            let stream = world.watching(&scope, options);
            world.insert_orders([1]);
            world.event(stream);
            world.try_nothing(stream);
            world.close(stream);
            world.advance(Duration::from_secs(1));
            let commands = world.commands();
            let (end, others) = commands.split_last().unwrap();
            let lsid = others[0].get_document("lsid").unwrap();
            assert!(
                others
                    .iter()
                    .all(|command| command.get_document("lsid").unwrap() == lsid)
            );
            assert_eq!(others.last().unwrap().keys().next().unwrap(), "killCursors");
            assert_eq!(end.get_array("endSessions").unwrap(), &[lsid.clone().into()]);
            assert!(!end.contains_key("lsid"));
        }
    }
}

/// Two streams are never in the same implicit session.
#[test]
fn streams_have_sessions_of_their_own() {
    let mut world = World::replica_set();
    for _ in 0..5 {
        world.watching(&collection("shop", "orders"), exact());
    }
    let sessions: BTreeSet<String> = world
        .commands_named("aggregate")
        .iter()
        .map(|a| a.get("lsid").unwrap().to_string())
        .collect();
    assert_eq!(sessions.len(), 5);
}

/// Sessions prose test 14, what of it makes sense here.
#[test]
fn no_session_is_spoken_of_before_a_connection_is_chosen() {
    let (world, _) = World::watching_orders(exact());
    for record in world.all_records() {
        let is_handshake = !matches!(record.name.as_str(), "aggregate" | "getMore");
        assert_eq!(record.body.contains_key("lsid"), !is_handshake, "{}", record.name);
    }
}

/// Sessions prose test 18.
#[test]
fn a_server_without_sessions_is_sent_none() {
    for options in both() {
        let mut world = World::replica_set();
        world.rewrite_replies(|reply| {
            reply.remove("logicalSessionTimeoutMinutes");
        });
        let stream = world.watching(&collection("shop", "orders"), options);
        world.insert_orders([1]);
        world.event(stream);
        world.kill_all_cursors();
        world.insert_orders([2]);
        assert_eq!(world.keys(stream, 1), [2]);
        world.close(stream);
        world.advance(Duration::from_secs(1));
        assert!(
            world
                .commands()
                .iter()
                .all(|command| !command.contains_key("lsid"))
        );
        assert!(world.commands_named("endSessions").is_empty());
        assert_eq!(world.commands_named("killCursors").len(), 1);
    }
}

/// Sessions prose test 19.
#[test]
fn a_session_of_the_users_where_there_are_none_is_an_error() {
    let mut world = World::replica_set();
    world.rewrite_replies(|reply| {
        reply.remove("logicalSessionTimeoutMinutes");
    });
    let mut options = exact();
    options.session = Some(changestream_core::Session::with_id([9; 16]));
    let stream = world.watch(&collection("shop", "orders"), options);
    let error = world.open(stream).unwrap_err();
    assert!(error.to_string().contains("does not support sessions"), "{error}");
    assert!(world.command_names().is_empty());
}

/// Sessions prose test 3.
#[test]
fn every_command_gossips_the_newest_cluster_time_seen() {
    for options in both() {
        let mut world = World::replica_set();
        // What the deployment has told streams, in order; the world takes no longer than that to hand it over.
        let told = Rc::new(RefCell::new(Vec::<Document>::new()));
        let teller = Rc::clone(&told);
        world.rewrite_replies(move |reply| {
            if let Ok(time) = reply.get_document("$clusterTime") {
                teller.borrow_mut().push(time.clone());
            }
        });
        let stream = world.watching(&collection("shop", "orders"), options);
        for id in 0..5 {
            world.insert_orders([id]);
            assert_eq!(world.keys(stream, 1), [id]);
            world.advance(Duration::from_secs(2));
        }
        world.close(stream);
        world.advance(Duration::from_secs(1));
        let sent: Vec<Document> = world
            .commands()
            .iter()
            .map(|c| c.get_document("$clusterTime").unwrap().clone())
            .collect();
        let told = told.borrow();
        let time = |document: &Document| document.get_timestamp("clusterTime").unwrap();
        assert!(sent.len() >= 7);
        assert!(sent.is_sorted_by_key(time));
        assert!(time(sent.last().unwrap()) > time(&sent[0]));
        // The whole document goes back, signature and all.
        assert!(sent.iter().all(|document| told.contains(document)));
    }
}

/// Sessions prose test 3: a stream learns the cluster time that others of its client have seen.
#[test]
fn a_new_stream_gossips_what_others_have_seen() {
    let (mut world, first) = World::watching_orders(exact());
    for id in 0..3 {
        world.insert_orders([id]);
        world.event(first);
    }
    let snapshot = world.machine(first).snapshot();
    let seen = world
        .last_command("getMore")
        .get_document("$clusterTime")
        .unwrap()
        .get_timestamp("clusterTime")
        .unwrap();
    let uri = world.deployment.uri();
    let second = world
        .watch_by(&uri, Some(snapshot), &collection("shop", "orders"), exact())
        .unwrap();
    world.open(second).unwrap();
    let aggregate = world.last_command("aggregate");
    assert!(
        aggregate
            .get_document("$clusterTime")
            .unwrap()
            .get_timestamp("clusterTime")
            .unwrap()
            >= seen
    );
}

/// Sessions prose test 20.
#[test]
fn hellos_do_not_gossip_the_cluster_time() {
    for options in both() {
        let (mut world, stream) = World::watching_orders(options);
        world.insert_orders([1]);
        world.event(stream);
        // Further hellos, over new connections and over old ones.
        let now = world.now;
        world.deployment.step_down(now);
        world.fail_get_more(10107);
        world.insert_orders([2]);
        assert_eq!(world.keys(stream, 1), [2]);
        let hellos: Vec<_> = world
            .all_records()
            .filter(|record| record.name.eq_ignore_ascii_case("ismaster") || record.name == "hello")
            .collect();
        assert!(hellos.len() > 3);
        for hello in hellos {
            assert!(!hello.body.contains_key("$clusterTime"), "{}", hello.body);
            assert!(!hello.body.contains_key("lsid"));
        }
    }
}

/// Handshake: the first message on every socket is a hello with the client's metadata.
#[test]
fn the_first_message_on_every_connection_is_a_hello_with_metadata() {
    for version in ["4.2", "4.4", "5.0", "8.0"] {
        let mut world = World::new(Deployment::replica_set(3).server_version(version), [1; 32]);
        let uri = format!("{}&appName=auditor", world.deployment.uri());
        let stream = world
            .watch_by(&uri, None, &collection("shop", "orders"), WatchOptions::default())
            .unwrap();
        world.open(stream).unwrap();
        world.insert_orders([1]);
        world.event(stream);
        let (now, primary) = (world.now, world.primary());
        world.deployment.crash(now, primary);
        world.insert_orders([2]);
        assert_eq!(world.keys(stream, 1), [2]);
        world.close(stream);
        world.advance(Duration::from_secs(1));
        let mut connections = BTreeSet::new();
        for record in world.all_records() {
            if !connections.insert(record.connection) {
                continue;
            }
            assert!(
                matches!(record.name.as_str(), "isMaster" | "ismaster" | "hello"),
                "{}",
                record.name
            );
            let client = record.body.get_document("client").unwrap();
            assert_eq!(
                client.get_document("driver").unwrap().get_str("name").unwrap(),
                "changestream"
            );
            assert_eq!(
                client
                    .get_document("application")
                    .unwrap()
                    .get_str("name")
                    .unwrap(),
                "auditor"
            );
        }
        assert!(connections.len() >= 4);
    }
}

/// Handshake: what the server says of itself and nobody knows is passed over.
#[test]
fn unknown_fields_of_a_hello_are_passed_over() {
    let mut world = World::replica_set();
    world.rewrite_replies(|reply| {
        if reply.contains_key("maxWireVersion") {
            reply.insert("maxWireVersion", 99);
            reply.insert("somethingNew", doc! { "of": ["any", { "form": 1 }] });
        }
    });
    let stream = world.watching(&collection("shop", "orders"), exact());
    world.insert_orders([1]);
    assert_eq!(world.keys(stream, 1), [1]);
}

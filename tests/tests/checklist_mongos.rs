//! The behaviour checklist: streams through mongos.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Bson, doc};
use changestream_core::{ErrorKind, WatchOptions};
use changestream_sim::Deployment;
use changestream_tests::name_service::Zone;
use changestream_tests::world::{StreamId, World, both, collection, document, exact, key_of};

/// Two shards behind so many mongos, with shop.orders on both shards. Idle shards write each second.
fn cluster(mongos: usize, seed: u8) -> World {
    let config = Deployment::sharded(2, mongos).noop_interval(Duration::from_secs(1));
    let mut world = World::new(config, [seed; 32]);
    world.run("admin", doc! { "enableSharding": "shop" });
    let key = doc! { "_id": "hashed" };
    world.run("admin", doc! { "shardCollection": "shop.orders", "key": key });
    world
}

fn watching(mongos: usize, seed: u8, options: WatchOptions) -> (World, StreamId) {
    let mut world = cluster(mongos, seed);
    let stream = world.watching(&collection("shop", "orders"), options);
    (world, stream)
}

/// The mongos that were asked for an aggregate, in order.
fn asked(world: &World) -> Vec<usize> {
    let aggregates = world.records().filter(|record| record.name == "aggregate");
    aggregates.map(|record| record.member).collect()
}

/// Retryable reads 2.1: retried on another mongos where there is one.
#[test]
fn a_retried_aggregate_goes_to_the_other_mongos() {
    for seed in 0..10 {
        let mut world = cluster(2, seed);
        world.fail(&["aggregate"], 1, doc! { "errorCode": 6 });
        let stream = world.watch(&collection("shop", "orders"), exact());
        // Each mongos fails one.
        assert_eq!(world.open(stream).unwrap_err().code(), Some(6));
        let asked = asked(&world);
        assert_eq!(asked.len(), 2);
        assert_ne!(asked[0], asked[1]);
    }
}

/// Retryable reads 2.2: retried on the same mongos where no other is available.
#[test]
fn a_retried_aggregate_goes_to_the_same_mongos_where_there_is_no_other() {
    for seed in 0..10 {
        let mut world = cluster(1, seed);
        world.fail(&["aggregate"], 1, doc! { "errorCode": 6 });
        world.watching(&collection("shop", "orders"), exact());
        assert_eq!(asked(&world), [0, 0]);
    }
    // The other one is down.
    for seed in 0..10 {
        let mut world = cluster(2, seed);
        let now = world.now;
        world.deployment.crash(now, 1);
        world.fail_at(0, &["aggregate"], 1, doc! { "errorCode": 6 });
        world.watching(&collection("shop", "orders"), exact());
        assert_eq!(asked(&world), [0, 0]);
    }
}

/// Events of all shards come in the order of cluster time.
#[test]
fn events_of_several_shards_come_in_order() {
    for options in both() {
        let (mut world, stream) = watching(2, 1, options);
        for id in 0..40 {
            world.insert_orders([id]);
        }
        assert_eq!(world.keys(stream, 40), (0..40).collect::<Vec<_>>());
        assert_eq!(asked(&world).len(), 1);
    }
}

/// A resume after the crash of the cursor's mongos goes to the other one, with the token of what was delivered.
#[test]
fn a_stream_resumes_on_the_other_mongos_after_a_crash() {
    for options in both() {
        for seed in 0..5 {
            let (mut world, stream) = watching(2, seed, options.clone());
            world.insert_orders(0..10);
            assert_eq!(world.keys(stream, 10), (0..10).collect::<Vec<_>>());
            let first = world.member_of_last("aggregate");
            let token = world.token(stream);
            let now = world.now;
            world.deployment.crash(now, first);
            world.insert_orders(10..20);
            let (resumes, event) = world.resumes_until_event(stream);
            assert_eq!((resumes, key_of(&event)), (1, 10));
            assert_eq!(world.keys(stream, 9), (11..20).collect::<Vec<_>>());
            assert_eq!(asked(&world), [first, 1 - first]);
            let resumed_after = world.stages().pop().unwrap();
            assert_eq!(resumed_after.get_document("resumeAfter").unwrap(), &token);
            // And back again.
            let now = world.now;
            world.deployment.restart(now, first);
            world.deployment.crash(now, 1 - first);
            world.insert_orders([20]);
            assert_eq!(world.keys(stream, 1), [20]);
            assert_eq!(asked(&world), [first, 1 - first, first]);
        }
    }
}

/// A cursor is its mongos' own: no getMore and no killCursors goes to the other.
#[test]
fn a_cursor_is_used_and_killed_at_its_own_mongos() {
    for seed in 0..10 {
        let (mut world, stream) = watching(2, seed, exact());
        for round in 0..5 {
            world.insert_orders([round]);
            assert_eq!(world.keys(stream, 1), [round]);
            world.fail_get_more(6);
        }
        world.stop_failing();
        world.close(stream);
        assert_eq!(world.open_cursors(), 0);
        let mut owner = None;
        for record in world.records() {
            match record.name.as_str() {
                "aggregate" => owner = Some(record.member),
                "getMore" => assert_eq!(Some(record.member), owner),
                _ => {}
            }
        }
        assert_eq!(
            world.commands_named("killCursors").len(),
            world.commands_named("aggregate").len()
        );
    }
}

/// On sharded clusters 286 and 280 come with the first getMore, not with the aggregate: they end the stream all the
/// same, after one attempt.
#[test]
fn a_lost_history_ends_a_stream_on_the_first_get_more() {
    for options in both() {
        let (mut world, stream) = watching(2, 1, options);
        world.insert_orders(0..10);
        assert_eq!(world.keys(stream, 10), (0..10).collect::<Vec<_>>());
        let token = world.token(stream);
        world.insert_orders(10..20);
        let mongos = world.member_of_last("aggregate");
        world.advance(Duration::from_secs(5));
        let now = world.now;
        world.deployment.crash(now, mongos);
        let last = world.deployment.last_write().unwrap();
        world.deployment.lose_history(now, last);
        let error = loop {
            match world.next(stream) {
                // What was fetched before.
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("the stream has to fail"),
            }
        };
        assert_eq!(error.code(), Some(286), "{error}");
        assert!(!matches!(error.kind(), ErrorKind::ServerSelection { .. }));
        assert!(
            document(error.resume_token().unwrap()).get_str("_data").unwrap()
                >= token.get_str("_data").unwrap()
        );
        assert_eq!(asked(&world).len(), 2);
        assert_eq!(world.records().last().unwrap().name, "getMore");
    }
}

/// A mongos that lost a shard fails the getMore; the stream goes on where all shards are reached.
#[test]
fn a_stream_leaves_a_mongos_that_lost_a_shard() {
    for options in both() {
        // The writer is at the other mongos.
        let (mut world, stream) = (0..)
            .map(|seed| watching(2, seed, options.clone()))
            .find(|(world, _)| world.member_of_last("aggregate") == 1)
            .unwrap();
        world.insert_orders([0]);
        assert_eq!(world.keys(stream, 1), [0]);
        let now = world.now;
        world.deployment.cut_off(now, 1, 1);
        world.insert_orders([1]);
        assert_eq!(world.keys(stream, 1), [1]);
        assert_eq!(world.member_of_last("aggregate"), 0);
    }
}

/// Whatever happens to mongos, cursors and shards: each event once, in order.
#[test]
fn nothing_is_lost_or_repeated_through_two_mongos() {
    for seed in 0..20 {
        let config = Deployment::sharded(2, 2)
            .shard_members(3)
            .noop_interval(Duration::from_secs(1));
        let mut world = World::new(config, [seed; 32]);
        world.run("admin", doc! { "enableSharding": "shop" });
        let key = doc! { "_id": "hashed" };
        world.run("admin", doc! { "shardCollection": "shop.orders", "key": key });
        let stream = world.watching(&collection("shop", "orders"), exact());
        for round in 0..12_u8 {
            let next = i32::from(round) * 6;
            world.insert_orders(next..next + 3);
            break_something(&mut world, usize::from(seed + round));
            // What was broken off is told to those concerned.
            world.advance(Duration::ZERO);
            world.insert_orders(next + 3..next + 6);
            assert_eq!(
                world.keys(stream, 6),
                (next..next + 6).collect::<Vec<_>>(),
                "seed {seed}"
            );
            let now = world.now;
            (0..2).for_each(|mongos| world.deployment.restart(now, mongos));
        }
        let lsids: BTreeSet<String> = world
            .commands_named("aggregate")
            .iter()
            .map(|c| c.get("lsid").map(Bson::to_string).unwrap())
            .collect();
        assert_eq!(lsids.len(), 1);
    }
}

fn break_something(world: &mut World, which: usize) {
    let now = world.now;
    let deployment = &mut world.deployment;
    match which % 6 {
        0 => deployment.crash(now, 0),
        1 => deployment.crash(now, 1),
        2 => world.kill_all_cursors(),
        3 => deployment.step_down(now),
        4 => (0..2).for_each(|mongos| deployment.drop_connections(now, mongos)),
        _ => {
            // The cursor on that member is lost, and the data is not.
            let primary = deployment
                .on_shard(now, 0, |shard| shard.primary())
                .flatten()
                .unwrap_or(0);
            deployment.on_shard(now, 0, |shard| shard.crash(now, primary));
            deployment.on_shard(now, 0, |shard| shard.restart(now, primary));
        }
    }
}

/// Polling SRV Records for mongos Discovery, where the mongos are really there, and gone.
#[test]
fn a_stream_moves_to_the_mongos_that_dns_lists_anew() {
    let mut world = cluster(3, 1);
    world.zone = listed(&world, 1);
    let (uri, orders) = (
        "mongodb+srv://cluster.0.0.1/?tls=false",
        collection("shop", "orders"),
    );
    let stream = world.watch_by(uri, None, &orders, exact()).unwrap();
    world.open(stream).unwrap();
    world.insert_orders(0..1);
    assert_eq!(world.keys(stream, 1), [0]);
    // Another one is listed from now on, and the old one is gone when the records have run out.
    world.zone = listed(&world, 2);
    world.advance(Duration::from_secs(61));
    let now = world.now;
    world.deployment.crash(now, 1);
    world.insert_orders(1..2);
    assert_eq!(world.keys(stream, 1), [1]);
    assert_eq!(asked(&world), [1, 2]);
    assert_eq!(world.machine(stream).topology().servers.len(), 1);
}

/// Records that list that mongos, for a minute. Its name is an address, below the domain 0.0.1.
fn listed(world: &World, mongos: usize) -> Zone {
    let address = world.deployment.address(mongos).unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();
    Zone::default().srv_for("_mongodb._tcp.cluster.0.0.1", host, port.parse().unwrap(), 60)
}

//! Streams on the simulated deployment: the whole client under a fake clock.

use std::time::Duration;

use bson::{Document, doc};
use changestream_core::{Scope, Update, WatchOptions};
use changestream_tests::world::World;

fn orders() -> Scope {
    Scope::Collection {
        database: "shop".into(),
        collection: "orders".into(),
    }
}

fn ids(world: &mut World, stream: changestream_tests::world::StreamId, count: usize) -> Vec<i32> {
    (0..count)
        .map(|_| {
            let event = world.event(stream);
            let key: Document = event.document_key().expect("a key").try_into().expect("BSON");
            key.get_i32("_id").expect("an id")
        })
        .collect()
}

#[test]
fn events_arrive_in_order() {
    let mut world = World::replica_set();
    let stream = world.watching(&orders(), WatchOptions::default());
    world.insert("shop", "orders", (0..10).map(|i| doc! { "_id": i }));
    assert_eq!(ids(&mut world, stream, 10), (0..10).collect::<Vec<_>>());
    world.close(stream);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.network.open_connections(), 0);
    assert_eq!(
        world.command_names(),
        ["aggregate", "getMore", "getMore", "killCursors", "endSessions"]
    );
}

#[test]
fn an_election_loses_and_repeats_nothing() {
    let mut world = World::replica_set();
    world.network.conditions.longest_piece = Some(50);
    let stream = world.watching(&orders(), WatchOptions::default());
    world.insert("shop", "orders", (0..10).map(|i| doc! { "_id": i }));
    assert_eq!(ids(&mut world, stream, 5), (0..5).collect::<Vec<_>>());
    let primary = world.deployment.primary().expect("a primary");
    let now = world.now;
    world.deployment.crash(now, primary);
    world.insert("shop", "orders", (10..20).map(|i| doc! { "_id": i }));
    let mut seen = Vec::new();
    let mut resumed = 0;
    while seen.len() < 15 {
        match world.next_update(stream) {
            Some(Ok(Update::Change(event))) => {
                seen.push(event.document_key().expect("a key").get_i32("_id").expect("id"))
            }
            Some(Ok(Update::Resumed { .. })) => resumed += 1,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, (5..20).collect::<Vec<_>>());
    assert_eq!(resumed, 1);
}

//! Cursors that commands open: what asks them for more goes to the server that has them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bson::{Document, doc};
use changestream_core::client::ClientSettings;
use changestream_core::connection::ClientMetadata;
use changestream_core::{CommandOptions, ConnectionString, ReadPreference, ReadPreferenceMode, RunCommand};
use changestream_sim::{Config, Deployment};
use changestream_tests::world::{StreamId, World};

/// A world with twenty orders, and a client in it that runs commands.
fn with_orders(config: Config) -> (World, StreamId) {
    let mut world = World::new(config, [1; 32]);
    world.insert_orders(0..20);
    // Replicated, where there is something to be replicated.
    world.advance(std::time::Duration::from_secs(1));
    let uri: ConnectionString = world.deployment.uri().parse().unwrap();
    let settings = ClientSettings::new(uri.options, ClientMetadata::new()).unwrap();
    let machine = world.commands_with(Arc::new(settings), None).unwrap();
    (world, machine)
}

fn run(world: &mut World, machine: StreamId, command: &Document, options: CommandOptions) -> Document {
    let command = RunCommand::new("shop", command, options).unwrap();
    world.start_command(machine, command);
    world.reply(machine).unwrap().to_document().unwrap()
}

/// All that a cursor gives, in batches of two, with pings between them.
fn read(world: &mut World, machine: StreamId, preference: ReadPreferenceMode) -> Vec<i32> {
    let options = || CommandOptions::default().read_preference(ReadPreference::new(preference));
    let find = doc! { "find": "orders", "sort": { "_id": 1 }, "batchSize": 2 };
    let mut reply = run(world, machine, &find, options());
    let mut keys = Vec::new();
    loop {
        let cursor = reply.get_document("cursor").unwrap();
        let batch = cursor
            .get_array("firstBatch")
            .or_else(|_| cursor.get_array("nextBatch"));
        let of = |order: &bson::Bson| order.as_document().unwrap().get_i32("_id").unwrap();
        keys.extend(batch.unwrap().iter().map(of));
        let id = cursor.get_i64("id").unwrap();
        if id == 0 {
            return keys;
        }
        run(world, machine, &doc! { "ping": 1 }, options());
        let more = doc! { "getMore": id, "collection": "orders", "batchSize": 2 };
        reply = run(world, machine, &more, options());
    }
}

#[test]
fn the_mongos_that_opened_a_cursor_is_asked_for_more() {
    let (mut world, machine) = with_orders(Deployment::sharded(2, 3));
    let keys = read(&mut world, machine, ReadPreferenceMode::Primary);
    assert_eq!(keys, (0..20).collect::<Vec<_>>());
}

#[test]
fn the_member_that_opened_a_cursor_is_asked_for_more() {
    let (mut world, machine) = with_orders(Deployment::replica_set(3));
    for mode in [ReadPreferenceMode::Nearest, ReadPreferenceMode::Secondary] {
        assert_eq!(read(&mut world, machine, mode), (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn a_cursor_is_killed_where_it_was_opened() {
    let (mut world, machine) = with_orders(Deployment::sharded(2, 3));
    for _ in 0..10 {
        let find = doc! { "find": "orders", "batchSize": 2 };
        let reply = run(&mut world, machine, &find, CommandOptions::default());
        let id = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
        let kill = doc! { "killCursors": "orders", "cursors": [id] };
        let reply = run(&mut world, machine, &kill, CommandOptions::default());
        assert_eq!(reply.get_array("cursorsKilled").unwrap(), &[id.into()]);
    }
}

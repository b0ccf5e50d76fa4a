//! What a client does, told to handlers.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use std::sync::{Arc, Mutex};

use changestream_driver::monitoring::{CommandStage, ConnectionEvent, Event, EventKind};
use support::World;
use support::server::Server;

/// The names of the commands that were sent, and by which stream.
fn started(events: &[Event]) -> Vec<(u64, &str)> {
    let started = events.iter().filter_map(|event| match &event.kind {
        EventKind::Command(command) => match command.stage {
            CommandStage::Started { .. } => Some((event.source, command.command_name.as_str())),
            _ => None,
        },
        _ => None,
    });
    started.collect()
}

#[test]
fn a_handler_is_told_of_what_each_stream_does() {
    let world = World::new(Server::new(1));
    let told = Arc::new(Mutex::new(Vec::new()));
    let client = {
        let told = told.clone();
        let handler = move |event: &Event| told.lock().unwrap().push(event.clone());
        world.client().monitor(handler)
    };
    for _ in 0..2 {
        let mut stream = world.run(client.watch().open()).unwrap();
        world.run(stream.next()).unwrap().unwrap();
        world.run(stream.close()).unwrap();
    }
    let told = told.lock().unwrap();
    let expected = |source| ["aggregate", "getMore", "killCursors", "endSessions"].map(|name| (source, name));
    let (first, second) = (told[0].source, told.last().unwrap().source);
    // Numbers of a process, so that those of two clients differ too.
    assert_ne!(first, second);
    assert_eq!(started(&told), [expected(first), expected(second)].concat());
    let of_connections = told
        .iter()
        .filter(|event| match &event.kind {
            EventKind::Connection(event) => matches!(event, ConnectionEvent::Closed { .. }),
            _ => false,
        })
        .count();
    assert!(of_connections >= 2);
}

#[test]
fn of_several_handlers_each_is_told_and_a_client_without_one_tells_nobody() {
    let world = World::new(Server::new(1));
    let told = Arc::new(Mutex::new([0, 0]));
    let counting = |index: usize| {
        let told = told.clone();
        move |_: &Event| told.lock().unwrap()[index] += 1
    };
    let plain = world.client();
    let client = plain.clone().monitor(counting(0)).monitor(counting(1));
    let _ = world.run(plain.watch().open()).unwrap();
    assert_eq!(*told.lock().unwrap(), [0, 0]);
    let _ = world.run(client.watch().open()).unwrap();
    let told = told.lock().unwrap();
    assert!(told[0] > 5 && told[0] == told[1], "{told:?}");
}

//! What a client does, told to handlers and to the log.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use changestream_driver::monitoring::{CommandStage, ConnectionEvent, Event, EventKind};
use support::World;
use support::server::Server;
use tracing::field::{Field, Visit};
use tracing::span;

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
    assert_eq!(started(&told), [expected(1), expected(2)].concat());
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

#[test]
fn the_log_names_what_the_specification_names_and_cuts_long_documents() {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let world = World::new(Server::new(1));
        let watch = world.client().watch().comment("long".repeat(1000));
        let mut stream = world.run(watch.open()).unwrap();
        world.run(stream.close()).unwrap();
    });
    let lines = log.0.lock().unwrap();
    let line = |target: &str, message: &str| {
        let start = format!("{target} {message} ");
        let found = lines.iter().find(|line| line.starts_with(&start));
        found.unwrap_or_else(|| panic!("no {start:?} in {lines:#?}"))
    };
    let command = line("changestream::command", "Command started");
    for field in [
        "commandName=\"aggregate\"",
        "databaseName=\"admin\"",
        "requestId=",
        "serverHost=\"db1\"",
    ] {
        assert!(command.contains(field), "{field}: {command}");
    }
    assert!(command.ends_with("...\""), "{command}");
    assert!(command.len() < 1500, "{command}");
    assert!(line("changestream::command", "Command succeeded").contains("durationMS="));
    line("changestream::connection", "Connection ready");
    line("changestream::topology", "Server heartbeat succeeded");
    line("changestream::topology", "Topology description changed");
}

/// A line for each event: target, message, and the other fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields += &format!(" {}={value:?}", field.name());
        }
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let target = event.metadata().target();
        let text = format!("{target} {}{}", line.message, line.fields);
        self.0.lock().unwrap().push(text);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

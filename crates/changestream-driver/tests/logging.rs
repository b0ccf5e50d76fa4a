//! What a client does, told to the log.
//!
//! One test, in a program of its own: `tracing` remembers what the first thread to come by a place thought of it, also
//! where that thread has no subscriber and the next one does.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use support::World;
use support::server::Server;
use tracing::field::{Field, Visit};
use tracing::span;

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

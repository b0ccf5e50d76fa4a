//! What a client does, told to the log.
//!
//! One test, in a program of its own: `tracing` remembers what the first thread to come by a place thought of it, also
//! where that thread has no subscriber and the next one does.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use changestream_driver::{Client, ConnectionString};
use support::World;
use support::server::{Server, URI};
use tracing::field::{Field, Visit};
use tracing::span;

#[test]
fn the_log_names_what_the_specification_names_and_cuts_long_documents() {
    let log = Log::default();
    let watched = |longest: Option<usize>, comment: String| {
        log.0.lock().unwrap().clear();
        tracing::subscriber::with_default(log.clone(), || {
            let world = World::new(Server::new(1));
            let mut parsed: ConnectionString = URI.parse().unwrap();
            parsed.options.log_max_document_length = longest;
            let client = Client::with_mode(world.clone(), parsed.options).unwrap();
            let mut stream = world.run(client.watch().comment(comment).open()).unwrap();
            world.run(stream.close()).unwrap();
        });
    };
    let command = || {
        let lines = log.0.lock().unwrap();
        let start = "changestream::command Command started ";
        let line = lines.iter().find(|line| line.starts_with(start)).unwrap();
        let (_, command) = line.split_once(" command=").unwrap();
        command.trim_matches('"').replace("\\\"", "\"")
    };

    // The prose tests of truncation: by an option, within a character, and off.
    watched(Some(5), String::new());
    assert_eq!(command(), "{\"agg...");
    let marked = "\u{1f600}".repeat(100);
    watched(Some(1_000_000), marked.clone());
    let all = command();
    assert!(all.contains(&marked) && all.ends_with('}'), "{all}");
    let first = all
        .chars()
        .position(|character| character == '\u{1f600}')
        .unwrap();
    watched(Some(first + 2), marked);
    assert!(command().ends_with("\u{1f600}\u{1f600}..."), "{}", command());

    watched(None, "long".repeat(1000));
    let cut = command();
    assert_eq!(cut.chars().count(), 1003, "{cut}");
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
    for field in [
        "topologyId=",
        "driverConnectionId=",
        "operation=\"aggregate\"",
        "selector=",
        "topologyDescription=",
    ] {
        let line = match field {
            "driverConnectionId=" => line("changestream::connection", "Connection ready"),
            _ => line("changestream::server_selection", "Server selection started"),
        };
        assert!(line.contains(field), "{field}: {line}");
    }
    line("changestream::server_selection", "Server selection succeeded");
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

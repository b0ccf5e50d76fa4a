//! Documents in a log: relaxed Extended JSON, cut at so many characters.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, doc, spec::BinarySubtype};
use changestream_core::client::ClientSettings;
use changestream_core::command::{CommandOptions, RunCommand};
use changestream_core::connection::ClientMetadata;
use changestream_core::monitoring::{CommandStage, EventKind, MonitoredDocument};
use changestream_core::{ConnectionString, Error};
use changestream_tests::world::World;

/// What is told of a command that says this.
fn told(comment: Bson) -> MonitoredDocument {
    let mut world = World::replica_set();
    let uri: ConnectionString = world.deployment.uri().parse().unwrap();
    let settings = ClientSettings::new(uri.options, ClientMetadata::new()).unwrap();
    let client = world
        .commands_with(Arc::new(settings.with_monitoring()), None)
        .unwrap();
    let command = doc! { "ping": 1, "comment": comment };
    let command = RunCommand::new("shop", &command, CommandOptions::default()).unwrap();
    world.start_command(client, command);
    let _: Result<_, Error> = world.reply(client);
    let started = world
        .take_events()
        .into_iter()
        .find_map(|(_, event)| match event.kind {
            EventKind::Command(command) => match command.stage {
                CommandStage::Started { command, .. } => Some(command),
                _ => None,
            },
            _ => None,
        });
    started.unwrap()
}

fn of_all_types() -> Document {
    doc! {
        "double": [1.0, -0.5, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY],
        "text": "a \"quoted\" \\ line\nof\ttext \u{1}\u{7f} \u{e4}\u{1f600}",
        "whole": [1_i32, 1_i64 << 40, i64::MIN],
        "decimal": "1.50E+7".parse::<Decimal128>().unwrap(),
        "flag": true,
        "nothing": Bson::Null,
        "id": ObjectId::from_bytes([7; 12]),
        "date": [
            DateTime::from_millis(1_700_000_000_123), DateTime::from_millis(-1), DateTime::from_millis(253_402_300_799_999),
        ],
        "timestamp": Timestamp { time: 7, increment: 9 },
        "bytes": Binary { subtype: BinarySubtype::Uuid, bytes: vec![0xab; 16] },
        "odd": Binary { subtype: BinarySubtype::UserDefined(0x80), bytes: vec![1, 2, 3, 4] },
        "pattern": Regex { pattern: "^a\"".try_into().unwrap(), options: "i".try_into().unwrap() },
        "code": Bson::JavaScriptCode("f()".to_owned()),
        "symbol": Bson::Symbol("s".to_owned()),
        "undefined": Bson::Undefined,
        "least": Bson::MinKey,
        "most": Bson::MaxKey,
        "empty": [{}, []],
        "nested": { "a": [{ "b": [1, 2, { "c": "d" }] }] },
    }
}

#[test]
fn a_document_is_shown_as_relaxed_extended_json() {
    let command = told(of_all_types().into());
    let shown: serde_json::Value = serde_json::from_str(&command.to_extended_json(usize::MAX)).unwrap();
    let document = Document::try_from(command.as_raw()).unwrap();
    let expected = Bson::Document(document).into_relaxed_extjson();
    assert_eq!(shown["comment"], expected["comment"]);
    assert_eq!(shown, expected);
}

#[test]
fn it_is_cut_at_a_character_and_says_so() {
    let command = told(of_all_types().into());
    let all: Vec<char> = command.to_extended_json(usize::MAX).chars().collect();
    assert_eq!(command.to_extended_json(all.len()).chars().count(), all.len());
    for longest in 0..all.len() {
        let cut: String = all[..longest].iter().collect::<String>() + "...";
        assert_eq!(command.to_extended_json(longest), cut, "{longest}");
    }
}

#[test]
fn what_nests_deeper_than_any_server_allows_is_not_followed() {
    let mut deep = Bson::Int32(1);
    for _ in 0..400 {
        deep = Bson::Array(vec![deep]);
    }
    let shown = told(deep).to_extended_json(usize::MAX);
    assert!(shown.contains("[[[[...]]]]"), "{shown}");
}

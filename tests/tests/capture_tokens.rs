//! Every resume token that a real server sent is explained, and says what its event says.
#![allow(clippy::wildcard_enum_match_arm, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bson::{Bson, Document, Timestamp};
use changestream_core::token::{TokenInfo, TokenKind};
use serde_json::Value;

/// The recorded files whose name ends so.
fn files(ending: &str) -> Vec<PathBuf> {
    let Some(folder) = changestream_tests::captures() else {
        return Vec::new();
    };
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "the folder of recorded conversations has none");
    files
}

#[test]
fn a_delivered_events_token_tells_its_time_and_its_document() {
    let mut seen = 0;
    for file in files(".expected.json") {
        let recorded: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for entry in recorded["log"].as_array().unwrap() {
            let Some(event) = entry.get("event").filter(|event| event.get("_id").is_some()) else {
                continue;
            };
            let Bson::Document(event) = Bson::try_from(event.clone()).unwrap() else {
                panic!("an event is a document");
            };
            compare(&event, &file.display().to_string());
            seen += 1;
        }
    }
    assert!(seen > 0 || changestream_tests::captures().is_none());
}

fn compare(event: &Document, file: &str) {
    let hex = event.get_document("_id").unwrap().get_str("_data").unwrap();
    let info = TokenInfo::from_hex(hex).unwrap();
    assert_eq!(info.not_understood, None, "{file}: {hex}");
    assert_eq!(info.kind, TokenKind::Event, "{file}: {hex}");
    let Timestamp { time, increment } = event.get_timestamp("clusterTime").unwrap();
    assert_eq!(info.cluster_time, Timestamp { time, increment }, "{file}: {hex}");
    let operation = event.get_str("operationType").unwrap();
    assert_eq!(info.from_invalidate, operation == "invalidate", "{file}: {hex}");
    if !event.contains_key("txnNumber") {
        assert_eq!(info.transaction_operation_index, 0, "{file}: {hex}");
    }
    let key = event.get_document("documentKey").ok().map(comparable);
    assert_eq!(info.document_key.as_ref().map(comparable), key, "{file}: {hex}");
}

/// Numbers without their type, which a token does not keep.
fn comparable(key: &Document) -> Document {
    let plain = |value: &Bson| match value {
        Bson::Int32(number) => Bson::Double(f64::from(*number)),
        Bson::Int64(number) => number.to_string().parse().map(Bson::Double).unwrap(),
        Bson::Document(inner) => Bson::Document(comparable(inner)),
        other => other.clone(),
    };
    key.iter()
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect()
}

#[test]
fn every_token_on_the_wire_is_explained_whole() {
    let mut tokens = BTreeSet::new();
    for file in files(".wire.jsonl") {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["dir"] != "s2c" {
                continue; // clients may make tokens up
            }
            if let Some(bytes) = line.get("bytes").and_then(Value::as_str) {
                tokens.extend(tokens_in(&BASE64_STANDARD.decode(bytes).unwrap()));
            }
        }
    }
    assert!(!tokens.is_empty() || changestream_tests::captures().is_none());
    let mut high_water_marks = 0;
    for hex in &tokens {
        let info = TokenInfo::from_hex(hex).unwrap();
        assert!(info.not_understood.is_none(), "{hex}: {info:?}");
        assert!(info.version == 1 || info.version == 2, "{hex}: {info:?}");
        high_water_marks += usize::from(info.kind == TokenKind::HighWaterMark);
    }
    assert!(high_water_marks > 0 || tokens.is_empty());
}

/// What stands in each string element named `_data`.
fn tokens_in(message: &[u8]) -> Vec<String> {
    const ELEMENT: &[u8] = b"\x02_data\0";
    let starts = message
        .windows(ELEMENT.len())
        .enumerate()
        .filter(|(_, window)| *window == ELEMENT);
    starts
        .filter_map(|(at, _)| {
            let rest = &message[at + ELEMENT.len()..];
            let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
            Some(String::from_utf8_lossy(rest.get(4..4 + length - 1)?).into_owned())
        })
        .collect()
}

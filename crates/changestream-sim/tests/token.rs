//! Resume tokens: a real server's, and hostile ones.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests; an environment variable names the recordings"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, Timestamp, doc};
use changestream_sim::keystring::{self, TypeBits};
use changestream_sim::token::{EncodedToken, ResumeTokenData, Subject, TokenType, TokenVersion};

/// Every token of the recorded conversations with the event whose `_id` it is, if it is one's.
#[expect(clippy::print_stderr, reason = "a skipped test must never be silent")]
fn recorded() -> BTreeMap<String, Option<Document>> {
    let folder = std::env::var_os("CHANGESTREAM_CAPTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures"),
        PathBuf::from,
    );
    let mut tokens = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!(
            "skipped: no {}; set CHANGESTREAM_CAPTURES to where the files are",
            folder.display()
        );
        return tokens;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with(".expected.json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let value = Bson::try_from(serde_json::from_str::<serde_json::Value>(&text).unwrap()).unwrap();
        collect(&value, &mut tokens);
    }
    tokens
}

fn collect(value: &Bson, tokens: &mut BTreeMap<String, Option<Document>>) {
    if let Bson::Array(items) = value {
        items.iter().for_each(|item| collect(item, tokens));
    }
    let Some(document) = value.as_document() else {
        return;
    };
    if let Some(Bson::String(data)) = document.get("_data") {
        tokens.entry(data.clone()).or_default();
    }
    if let (Some(id), true) = (document.get("_id"), document.contains_key("operationType")) {
        let data = id.as_document().unwrap().get_str("_data").unwrap();
        tokens.insert(data.to_owned(), Some(document.clone()));
    }
    document.iter().for_each(|(_, value)| collect(value, tokens));
}

#[test]
fn every_recorded_token_decodes_and_encodes_to_the_same_bytes() {
    for (data, event) in recorded() {
        // Some were made up by the scenario that provokes the server's refusal.
        let Ok(token) = ResumeTokenData::decode(&data) else {
            assert!(event.is_none(), "{data}");
            continue;
        };
        assert_eq!(
            token.encode(),
            EncodedToken {
                data: data.clone(),
                type_bits: None
            }
        );
        assert_eq!(token.version, TokenVersion::V1);
        let Some(event) = event else {
            continue;
        };
        assert_eq!(token.token_type, TokenType::Event, "{data}");
        if let Ok(time) = event.get_timestamp("clusterTime") {
            assert_eq!(token.cluster_time, time);
        }
        if let Ok(kind) = event.get_str("operationType") {
            assert_eq!(token.from_invalidate, kind == "invalidate");
        }
        if let Ok(key) = event.get_document("documentKey") {
            assert_eq!(token.identifier.as_ref(), Some(key), "{data}");
        }
    }
}

#[test]
fn a_token_built_from_its_event_is_the_recorded_one() {
    for (data, event) in recorded() {
        let (Ok(token), Some(event)) = (ResumeTokenData::decode(&data), event) else {
            continue;
        };
        let Ok(kind) = event.get_str("operationType") else {
            continue;
        };
        let subject = match event.get_document("documentKey") {
            Ok(key) => Subject::DocumentKey(key.clone()),
            Err(_) => Subject::Nothing,
        };
        let built = ResumeTokenData::event(TokenVersion::V1, token.cluster_time, token.uuid, kind, subject)
            .in_transaction(token.txn_op_index);
        let built = if kind == "invalidate" {
            built.invalidating()
        } else {
            built
        };
        assert_eq!(built.encode().data, data, "{kind}");
    }
}

const TIME: Timestamp = Timestamp {
    time: 0x6B03_0F15,
    increment: 1,
};

fn keys() -> Vec<Document> {
    let mut keys = vec![
        doc! { "_id": "text" },
        doc! { "_id": "with\0nul" },
        doc! { "_id": "" },
        doc! { "_id": ObjectId::from_bytes([7; 12]) },
        doc! { "_id": Binary { subtype: BinarySubtype::Uuid, bytes: vec![9; 16] } },
        doc! { "_id": Binary { subtype: BinarySubtype::Generic, bytes: vec![1; 300] } },
        doc! { "_id": true },
        doc! { "_id": Bson::Null },
        doc! { "_id": Bson::MinKey, "b": Bson::MaxKey },
        doc! { "_id": DateTime::from_millis(-5) },
        doc! { "_id": TIME },
        doc! { "_id": { "a": [1, "x", { "y": 2_i64 }], "b": { "c": 1.5 } } },
        doc! { "sk": "k", "_id": 5 },
        doc! { "_id": Bson::Symbol("s".into()), "n": -0.0 },
    ];
    for number in [
        0,
        1,
        -1,
        63,
        64,
        127,
        128,
        255,
        256,
        -64,
        -128,
        65_535,
        1 << 20,
        i32::MAX,
        i32::MIN,
    ] {
        keys.push(doc! { "_id": number });
        keys.push(doc! { "_id": i64::from(number) });
        keys.push(doc! { "_id": f64::from(number) + 0.25 });
        keys.push(doc! { "_id": f64::from(number) });
    }
    for number in [i64::MAX, i64::MIN, i64::MIN + 1, 1 << 53, (1 << 53) + 1, 1 << 62] {
        keys.push(doc! { "_id": number });
    }
    for number in [
        0.1,
        -0.1,
        1e-70,
        1e-300,
        5e-324,
        -5e-324,
        1e18,
        1e19,
        1e300,
        -1e300,
        f64::MAX,
        f64::INFINITY,
    ] {
        keys.push(doc! { "_id": number });
    }
    for number in [
        "0",
        "-0E+3",
        "1",
        "1.0",
        "1.50",
        "0.1",
        "-0.1",
        "123456.789",
        "1E+3",
        "9007199254740993",
        "0.25",
    ] {
        keys.push(doc! { "_id": Bson::Decimal128(number.parse().unwrap()) });
    }
    keys.push(doc! { "_id": Bson::Decimal128("Infinity".parse().unwrap()) });
    keys
}

#[test]
fn a_key_of_any_type_comes_back_with_its_type() {
    for version in [TokenVersion::V1, TokenVersion::V2] {
        for key in keys() {
            let subject = Subject::DocumentKey(key.clone());
            let token = ResumeTokenData::event(version, TIME, Some([3; 16]), "insert", subject);
            let back = ResumeTokenData::from_document(&token.to_document()).unwrap();
            assert_eq!(back, token, "{key}");
            assert_eq!(format!("{back:?}"), format!("{token:?}"), "the sign of zero too");
        }
    }
}

#[test]
fn type_bits_are_those_of_a_server() {
    // From public examples: a double `_id` of the shell in a version 1 token has "QA==", a byte 40.
    let token = |key| {
        ResumeTokenData::event(
            TokenVersion::V1,
            TIME,
            Some([3; 16]),
            "insert",
            Subject::DocumentKey(key),
        )
        .encode()
    };
    assert_eq!(token(doc! { "_id": 1 }).type_bits, None);
    assert_eq!(token(doc! { "_id": "x" }).type_bits, None);
    assert_eq!(token(doc! { "_id": 1.0 }).type_bits, Some(vec![0x40]));
    assert_eq!(token(doc! { "_id": 1_i64 }).type_bits, Some(vec![0x81, 0x80]));
    let same = |key| token(key).data;
    assert_eq!(same(doc! { "_id": 1 }), same(doc! { "_id": 1.0 }));
}

#[test]
fn bytes_compare_as_the_values_do() {
    let rising: Vec<Bson> = vec![
        Bson::MinKey,
        Bson::Null,
        Bson::Double(f64::NEG_INFINITY),
        Bson::Double(-1e300),
        Bson::Int64(i64::MIN),
        Bson::Int64(i64::MIN + 1),
        Bson::Int32(-257),
        Bson::Double(-256.5),
        Bson::Int32(-256),
        Bson::Double(-1.5),
        Bson::Int32(-1),
        Bson::Double(-0.5),
        Bson::Double(-5e-324),
        Bson::Int32(0),
        Bson::Double(5e-324),
        Bson::Double(1e-300),
        Bson::Double(1e-70),
        Bson::Double(0.5),
        Bson::Int32(1),
        Bson::Double(1.25),
        Bson::Double(1.5),
        Bson::Int64(2),
        Bson::Int32(127),
        Bson::Double(127.5),
        Bson::Int32(128),
        Bson::Int64(i64::MAX),
        Bson::Double(1e19),
        Bson::Double(f64::INFINITY),
        Bson::String(String::new()),
        Bson::String("a".into()),
        Bson::String("a\0".into()),
        Bson::String("ab".into()),
        Bson::Document(doc! {}),
        Bson::Document(doc! { "a": 1 }),
        Bson::Document(doc! { "a": 1, "b": 1 }),
        Bson::Document(doc! { "a": "x" }),
        Bson::Array(vec![]),
        Bson::Boolean(false),
        Bson::Boolean(true),
        Bson::DateTime(DateTime::from_millis(-1)),
        Bson::DateTime(DateTime::from_millis(1)),
        Bson::Timestamp(TIME),
        Bson::MaxKey,
    ];
    for pair in rising.windows(2) {
        let bytes = |value: &Bson| keystring::encode(std::slice::from_ref(value)).bytes;
        assert!(bytes(&pair[0]) < bytes(&pair[1]), "{} < {}", pair[0], pair[1]);
    }
}

#[test]
fn a_position_sorts_before_the_events_of_its_time_and_an_invalidate_after_its_event() {
    for version in [TokenVersion::V1, TokenVersion::V2] {
        let position = ResumeTokenData::high_water_mark(version, TIME);
        let event = ResumeTokenData::event(version, TIME, Some([3; 16]), "drop", Subject::Nothing);
        let invalidate = event.clone().invalidating();
        let later = ResumeTokenData::high_water_mark(version, Timestamp { increment: 2, ..TIME });
        for pair in [position, event, invalidate, later].windows(2) {
            assert!(pair[0].compare(&pair[1]).is_lt());
        }
    }
}

#[test]
fn high_water_marks_are_those_of_the_servers() {
    let of = |version| ResumeTokenData::high_water_mark(version, TIME).encode().data;
    assert_eq!(of(TokenVersion::V1), "826B030F15000000012B0229296E04");
    assert_eq!(of(TokenVersion::V2), "826B030F15000000012B0429296E1404");
}

#[test]
fn a_bad_token_is_refused_with_the_servers_code() {
    let cases = [
        ("zz", 9, "resume token string was not a valid hex string"),
        ("826", 9, "resume token string was not a valid hex string"),
        ("", 40649, "invalid empty resume token"),
        (
            "826300000000000000",
            50796,
            "Resume Token does not contain version",
        ),
        (
            "8263000000000000006E04",
            50854,
            "Invalid resume token: wrong type for version",
        ),
        (
            "8263000000000000002B0604",
            50795,
            "Invalid Resume Token: only supports version 0, 1 and 2",
        ),
        (
            "8263000000000000002B0204",
            51055,
            "Resume Token does not contain tokenType",
        ),
        (
            "8263000000000000002B022B0204",
            51057,
            "Token type 1 not recognized",
        ),
        (
            "8263000000000000002B022904",
            50793,
            "Resume Token does not contain txnOpIndex",
        ),
        (
            "8263000000000000002B02292904",
            50872,
            "Resume Token does not contain fromInvalidate",
        ),
        (
            "8263000000000000002B0429296E04",
            6_189_500,
            "Expected UUID or null",
        ),
        (
            "8263000000000000002B042C0100296E1404",
            6_189_501,
            "Expected an eventIdentifier for an event resume token",
        ),
    ];
    for (data, code, message) in cases {
        let error = ResumeTokenData::decode(data).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message), "{data}");
    }
    let error = ResumeTokenData::from_document(&doc! { "x": 1 }).unwrap_err();
    assert_eq!(error.code, 40647);
    assert_eq!(
        error.message,
        "Bad resume token: _data of missing or of wrong type. Expected string, got {x: 1}"
    );
    let error = ResumeTokenData::from_document(&doc! { "_data": "82", "_typeBits": 1 }).unwrap_err();
    assert_eq!(error.code, 40648);
}

#[test]
fn a_mangled_token_is_an_error_or_another_token_and_never_a_panic() {
    for key in keys() {
        let token = ResumeTokenData::event(
            TokenVersion::V2,
            TIME,
            Some([3; 16]),
            "insert",
            Subject::DocumentKey(key),
        );
        let encoded = token.fragment(1).encode();
        for at in (0..encoded.data.len()).take(200) {
            for digit in ["0", "8", "F"] {
                let mut mangled = encoded.clone();
                mangled.data.replace_range(at..=at, digit);
                let _ = mangled.decode();
            }
            let mut cut = encoded.clone();
            cut.data.truncate(at);
            let _ = cut.decode();
        }
        for bits in [
            vec![0x80],
            vec![0xFF],
            vec![0x7F],
            vec![0x82, 0xFF, 0xFF],
            vec![0x80, 1, 0, 0, 0, 0xFF],
        ] {
            let _ = EncodedToken {
                data: encoded.data.clone(),
                type_bits: Some(bits),
            }
            .decode();
        }
    }
}

#[test]
fn a_token_nested_without_end_is_refused() {
    for opening in [[80_u8].as_slice(), &[70, 70, 0]] {
        let bytes = opening.repeat(100_000);
        assert!(keystring::decode(&bytes, &TypeBits::default()).is_err());
    }
}

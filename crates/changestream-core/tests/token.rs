//! What stands in resume tokens.

#![allow(clippy::unwrap_used, reason = "tests")]

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Timestamp, Uuid, doc};
use changestream_core::ResumeToken;
use changestream_core::event::OperationType;
use changestream_core::token::{TokenInfo, TokenKind};

const UUID: &str = "40F9A34BB4064C96A38F06AB76E96584";

fn hex_token(hex: &str) -> ResumeToken {
    ResumeToken::try_from(doc! { "_data": hex }).unwrap()
}

/// An event's token of version 1 whose document key is the object with these fields.
fn with_key(fields: &str) -> String {
    format!("826B030F15000000012B022C0100296E5A1004{UUID}46{fields}0004")
}

/// The document key's `_id`, where the key is decoded whole.
fn key(fields: &str) -> Bson {
    let info = TokenInfo::from_hex(&with_key(fields)).unwrap();
    assert_eq!(info.not_understood, None, "{fields}");
    info.document_key.unwrap().remove("_id").unwrap()
}

#[test]
fn a_token_is_stored_by_serde_and_read_again_whatever_it_is() {
    let document =
        doc! { "_data": "82", "_typeBits": Binary { subtype: BinarySubtype::Generic, bytes: vec![1] } };
    for value in [
        Bson::Document(document),
        Bson::String("82".to_owned()),
        Bson::Int64(7),
    ] {
        let raw = bson::RawBson::try_from(value.clone()).unwrap();
        let token = ResumeToken::from_raw_bson(raw);
        let stored = bson::serialize_to_vec(&doc! { "at": value }).unwrap();
        assert_eq!(
            bson::serialize_to_vec(&Checkpoint { at: token.clone() }).unwrap(),
            stored
        );
        assert_eq!(
            bson::deserialize_from_slice::<Checkpoint>(&stored).unwrap().at,
            token
        );
        let whole = bson::deserialize_from_slice(&stored).unwrap();
        assert_eq!(
            bson::deserialize_from_document::<Checkpoint>(whole).unwrap().at,
            token
        );

        let mut event = bson::rawdoc! { "_id": { "_data": "82" } };
        event.append(bson::raw::cstr!("at"), token.as_raw_bson());
        let event = changestream_core::ChangeEvent::from_raw(event).unwrap();
        assert_eq!(event.decode::<Checkpoint>().unwrap().at, token);
    }
    let token = hex_token("82");
    let json = serde_json::to_string(&token).unwrap();
    assert_eq!(json, r#"{"_data":"82"}"#);
    assert_eq!(serde_json::from_str::<ResumeToken>(&json).unwrap(), token);
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Checkpoint {
    at: ResumeToken,
}

#[test]
fn an_events_token_names_its_document() {
    let info = TokenInfo::from_hex(&with_key("1E5F6964002B02")).unwrap();
    assert_eq!(
        info.cluster_time,
        Timestamp {
            time: 0x6B03_0F15,
            increment: 1
        }
    );
    assert_eq!(info.version, 1);
    assert_eq!(info.kind, TokenKind::Event);
    assert_eq!(info.transaction_operation_index, 0);
    assert!(!info.from_invalidate);
    assert_eq!(
        info.collection_uuid,
        Some(Uuid::parse_str("40f9a34b-b406-4c96-a38f-06ab76e96584").unwrap())
    );
    assert_eq!(info.document_key, Some(doc! { "_id": 1 }));
    assert_eq!((info.fragment, info.not_understood), (None, None));
}

#[test]
fn high_water_marks_of_both_versions_are_told_from_events() {
    for (hex, version) in [
        ("826B030FB2000000072B0229296E04", 1),
        ("826B030FB2000000072B0429296E1404", 2),
    ] {
        let info = hex_token(hex).explain().unwrap();
        assert_eq!((info.kind, info.version), (TokenKind::HighWaterMark, version));
        assert_eq!(
            (info.collection_uuid, info.document_key, info.not_understood),
            (None, None, None)
        );
    }
}

#[test]
fn an_invalidate_events_token_says_so() {
    let info = TokenInfo::from_hex(&format!("826B030F15000000012B022C0100296F5A1004{UUID}04")).unwrap();
    assert!(info.from_invalidate);
    assert_eq!((info.document_key, info.not_understood), (None, None));
}

#[test]
fn a_position_within_a_transaction_is_told() {
    let info = TokenInfo::from_hex(&format!(
        "826B030F15000000012B022C01002B046E5A1004{UUID}461E5F6964002B020004"
    ));
    assert_eq!(info.unwrap().transaction_operation_index, 2);
}

#[test]
fn version_2_names_the_operation_and_the_fragment() {
    let insert = "826275077A000000012B042C0100296E5A1004BFFDB617400E486099007C0E0048B305463C6F7065726174696F6E54797065\
                  003C696E736572740046646F63756D656E744B65790046645F696400646275077A2F3159F971E405C60000";
    let info = TokenInfo::from_hex(&format!("{insert}04")).unwrap();
    assert_eq!(info.operation_type, Some(OperationType::Insert));
    let key = info.document_key.unwrap();
    assert_eq!(
        key.get_object_id("_id").unwrap().to_hex(),
        "6275077a2f3159f971e405c6"
    );
    assert_eq!((info.fragment, info.not_understood), (None, None));

    let fragment = TokenInfo::from_hex(&format!("{insert}2B0204")).unwrap();
    assert_eq!((fragment.fragment, fragment.not_understood), (Some(1), None));
}

#[test]
fn every_type_of_id_is_decoded() {
    assert_eq!(key("1E5F69640029"), Bson::Int32(0));
    assert_eq!(key("1E5F6964002B0E"), Bson::Int32(7));
    assert_eq!(key("1E5F6964002C0258"), Bson::Int32(300));
    assert_eq!(key("1E5F69640027FD"), Bson::Int32(-1));
    assert_eq!(key("1E5F69640026FDFF"), Bson::Int32(-256));
    assert_eq!(key("1E5F6964002F0200000000"), Bson::Int64(1 << 32));
    assert_eq!(key("1E5F69640032FFFFFFFFFFFFFFFE"), Bson::Int64(i64::MAX));
    assert_eq!(key("1E5F6964002B0380000000000000"), Bson::Double(1.5));
    assert_eq!(key("1E5F69640027FC7FFFFFFFFFFFFF"), Bson::Double(-1.5));
    assert_eq!(key("1E5F69640033FFFFFFFFFFFFFFFF"), Bson::Double(f64::INFINITY));
    assert!(matches!(key("1E5F6964001E"), Bson::Double(nan) if nan.is_nan()));
    assert_eq!(key("3C5F6964003C61626300"), Bson::from("abc"));
    assert_eq!(key("3C5F6964003C6100FF6200"), Bson::from("a\0b"));
    assert_eq!(key("6E5F6964006F"), Bson::from(true));
    assert_eq!(key("145F69640014"), Bson::Null);
    assert_eq!(
        key("785F6964007880000000000003E8"),
        bson::DateTime::from_millis(1000).into()
    );
    assert_eq!(
        key("825F69640082000000050000000A"),
        Timestamp {
            time: 5,
            increment: 10
        }
        .into()
    );
    assert_eq!(
        key("465F69640046 3C70003C7100 00".replace(' ', "").as_str()),
        doc! { "p": "q" }.into()
    );
    assert_eq!(
        key("505F696400502B023C780000"),
        Bson::Array(vec![1.into(), "x".into()])
    );
    let bytes = Binary {
        subtype: BinarySubtype::Generic,
        bytes: vec![1, 2],
    };
    assert_eq!(key("5A5F6964005A02000102"), bytes.into());
}

#[test]
fn doubles_of_extreme_size_are_decoded() {
    let hex = "8265523992000000012B022C0100296E5A1004754B35D306B342E8BA0A3DE71005B66446465F6964004650666F6F0050337F78\
               F63E7958E8661F808709C186A717992A6083F43058818C1A289F7C0BCFA77E73E500000004";
    let info = TokenInfo::from_hex(hex).unwrap();
    assert_eq!(info.not_understood, None);
    let foo = info.document_key.unwrap().remove("_id").unwrap();
    assert_eq!(foo, doc! { "foo": [2e307, -2e307, 2e-307, -2e-307] }.into());
}

#[test]
fn the_layout_of_servers_before_4_2_is_read_too() {
    let binary = |hex: &str| {
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        ResumeToken::try_from(doc! { "_data": Binary { subtype: BinarySubtype::Generic, bytes } }).unwrap()
    };
    let server_3_6 = binary(&format!(
        "825B54C4C20000000146645F696400645B54C4C2A0B1C2D3E4F50617005A1004{UUID}04"
    ));
    assert_eq!(
        server_3_6.cluster_time(),
        Some(Timestamp {
            time: 0x5B54_C4C2,
            increment: 1
        })
    );
    let server_4_0 =
        hex_token(&format!("825B5826D1000000012929 5A1004{UUID}461E5F6964002B020004").replace(' ', ""));
    for token in [server_3_6, server_4_0] {
        let info = token.explain().unwrap();
        assert_eq!((info.version, info.kind), (0, TokenKind::Event));
        assert!(info.document_key.is_some() && info.collection_uuid.is_some());
        assert_eq!(info.not_understood, None);
    }
}

#[test]
fn the_cluster_time_is_had_without_reading_the_rest() {
    let time = Some(Timestamp {
        time: 0x6B03_0FB2,
        increment: 7,
    });
    assert_eq!(hex_token("826B030FB2000000072B0229296E04").cluster_time(), time);
    assert_eq!(hex_token("826b030fb200000007").cluster_time(), time);
    assert_eq!(
        hex_token("826B030FB200000007 and whatever a later server appends").cluster_time(),
        time
    );
    for other in [
        "",
        "82",
        "016B030FB200000007",
        "826B030FB20000000",
        "ü26B030FB200000007",
        "8G6B030FB200000007",
    ] {
        assert_eq!(hex_token(other).cluster_time(), None, "{other}");
    }
}

#[test]
fn tokens_of_other_databases_are_refused_with_a_reason() {
    for (token, reason) in [
        (doc! { "_data": "0163A1F2" }, "cluster time"),
        (doc! { "_data": "not hexadecimal" }, "hexadecimal"),
        (doc! { "_data": "826" }, "hexadecimal"),
        (doc! { "_data": 7 }, "Int32"),
        (doc! { "shard": "x" }, "`_data`"),
    ] {
        let token = ResumeToken::try_from(token).unwrap();
        let error = token.explain().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert_eq!(token.cluster_time(), None);
    }
    let token = ResumeToken::from_raw_bson(bson::RawBson::String("82".to_owned()));
    assert!(token.explain().is_err());
}

#[test]
fn what_is_not_understood_leaves_the_rest_explained() {
    let newer = TokenInfo::from_hex("826B030FB2000000072B2A29296E04").unwrap();
    assert_eq!(newer.cluster_time.increment, 7);
    assert!(newer.not_understood.unwrap().contains("version is 21"));

    let decimal = TokenInfo::from_hex(&with_key("1E5F6964002B0380000000000001")).unwrap();
    assert!(decimal.collection_uuid.is_some());
    assert!(decimal.not_understood.unwrap().contains("decimal"));

    let more = TokenInfo::from_hex("826B030FB2000000072B0429296E1446002B022B0204").unwrap();
    assert!(more.not_understood.unwrap().contains("more follows"));
}

#[test]
fn no_changed_or_missing_byte_of_a_token_makes_anything_panic() {
    let good = with_key(
        "1E5F6964002B0380000000000000 3C61003C6100FF6200 506200502B026F00 5A63005A02000102"
            .replace(' ', "")
            .as_str(),
    );
    for at in 0..good.len() / 2 {
        let _ = hex_token(&good[..at * 2]).explain();
        for byte in 0..=255_u8 {
            let token = hex_token(&format!("{}{byte:02X}{}", &good[..at * 2], &good[at * 2 + 2..]));
            let _ = (token.explain(), token.cluster_time());
        }
    }
}

#[test]
fn nesting_and_repetition_without_end_are_bounded() {
    let deep = TokenInfo::from_hex(&format!(
        "826B030F15000000012B022C0100296E14{}",
        "466100".repeat(100_000)
    ))
    .unwrap();
    assert!(deep.not_understood.is_some());
    let deep = TokenInfo::from_hex(&with_key(&format!("505F69640050{}", "50".repeat(100_000)))).unwrap();
    assert!(deep.not_understood.unwrap().contains("nests deeper"));
    let long = TokenInfo::from_hex(&with_key(&format!("505F69640050{}", "6E".repeat(1_000_000)))).unwrap();
    assert!(long.not_understood.unwrap().contains("more values"));
}

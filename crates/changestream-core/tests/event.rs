//! Events as their consumer sees them.

#![allow(clippy::unwrap_used, reason = "tests")]

use bson::Utf8Lossy;
use bson::raw::{RawArrayBuf, RawBson, cstr};
use bson::serde_helpers::HumanReadable;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, RawDocumentBuf, Timestamp, Uuid, doc, rawdoc};
use changestream_core::event::{
    ChangeEvent, ChangeStreamDocument, ExtendedJson, FieldState, MissingToken, NsType, OperationType,
    UpdateDescription,
};
use changestream_core::{Error, ErrorKind, ResumeToken};
use serde::Deserialize;

fn event(document: &Document) -> ChangeEvent {
    ChangeEvent::from_raw(RawDocumentBuf::try_from(document).unwrap()).unwrap()
}

fn update() -> Document {
    doc! {
        "_id": { "_data": "826B030F8A00000002" },
        "operationType": "update",
        "clusterTime": Timestamp { time: 1_795_362_698, increment: 2 },
        "wallTime": DateTime::from_millis(1_795_362_698_123),
        "fullDocument": { "_id": 1, "items": [{ "price": 2 }, { "price": "free" }] },
        "fullDocumentBeforeChange": null,
        "ns": { "db": "shop", "coll": "orders", "later": "addition" },
        "documentKey": { "_id": 1, "region": "eu" },
        "updateDescription": {
            "updatedFields": { "a.b": 1 },
            "removedFields": ["c", "d"],
            "truncatedArrays": [{ "field": "e", "newSize": 3 }],
            "disambiguatedPaths": { "a.0": ["a", "0"] },
        },
        "lsid": { "id": Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] } },
        "txnNumber": 5_i64,
        "splitEvent": { "fragment": 1, "of": 2 },
        "collectionUUID": Uuid::from_bytes([9; 16]),
    }
}

fn updated(event: &ChangeEvent) -> UpdateDescription<'_> {
    event.update_description().unwrap()
}

#[test]
fn every_kind_of_value_decodes_as_the_library_decodes_it() {
    let document = doc! {
        "double": 1.5, "text": "é", "nested": { "a": [1, { "b": [] }], "empty": {} }, "list": ["x", 2_i64, Bson::Null],
        "generic": Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] }),
        "other": Bson::Binary(Binary { subtype: BinarySubtype::UserDefined(0x80), bytes: vec![3] }),
        "uuid": Uuid::from_bytes([7; 16]), "undefined": Bson::Undefined,
        "id": bson::oid::ObjectId::from_bytes([0xab; 12]), "yes": true, "no": false,
        "date": DateTime::from_millis(-5), "null": Bson::Null,
        "regex": Bson::RegularExpression(bson::Regex { pattern: cstr!("a.b").into(), options: cstr!("i").into() }),
        "code": Bson::JavaScriptCode("f()".into()), "symbol": Bson::Symbol("s".into()),
        "scoped": Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code: "g()".into(), scope: doc! { "x": 1 } }),
        "int": 3_i32, "time": Timestamp { time: 9, increment: 4 }, "long": i64::MIN,
        "decimal": "1.25".parse::<bson::Decimal128>().unwrap(), "min": Bson::MinKey, "max": Bson::MaxKey,
    };
    let whole = doc! { "_id": { "_data": "82" }, "fullDocument": document.clone() };
    let event = ChangeEvent::from_raw(RawDocumentBuf::try_from(&whole).unwrap()).unwrap();
    assert_eq!(event.decode::<Document>().unwrap(), whole);
    assert_eq!(event.full_document_as::<Document>().unwrap().unwrap(), document);
    let typed: ChangeStreamDocument<Document> = event.decode().unwrap();
    assert_eq!(typed.full_document.as_ref(), Some(&document));
    assert_eq!(typed.id.as_ref(), Some(event.resume_token()));
    let library: ChangeStreamDocument<Document> =
        bson::deserialize_from_slice(event.as_raw().as_bytes()).unwrap();
    assert_eq!(typed, library);

    let raw = RawDocumentBuf::try_from(&document).unwrap();
    assert_eq!(event.full_document_as::<RawDocumentBuf>().unwrap().unwrap(), raw);
    // What JSON knows nothing of is left out.
    let mut named = document;
    for name in ["generic", "decimal"] {
        named.remove(name);
    }
    let raw_named = RawDocumentBuf::try_from(&named).unwrap();
    let library: serde_json::Value = bson::deserialize_from_slice(raw_named.as_bytes()).unwrap();
    let ours: serde_json::Value = around(&raw_named).full_document_as().unwrap().unwrap();
    assert_eq!(ours, library);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Kinds<'a> {
        double: f64,
        text: &'a str,
        uuid: Uuid,
        id: bson::oid::ObjectId,
        date: DateTime,
        null: Option<i32>,
        int: i64,
        time: Timestamp,
        decimal: bson::Decimal128,
        generic: Binary,
        list: (String, i64, Option<bool>),
    }
    let library: Kinds<'_> = bson::deserialize_from_slice(raw.as_bytes()).unwrap();
    assert_eq!(event.full_document_as::<Kinds<'_>>().unwrap().unwrap(), library);
}

/// A document of one field of that type and those bytes.
fn field_of(kind: u8, value: &[u8]) -> RawDocumentBuf {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&[kind, b'x', 0]);
    bytes.extend_from_slice(value);
    bytes.push(0);
    let length = i32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    RawDocumentBuf::from_bytes(bytes).unwrap()
}

fn around(document: &RawDocumentBuf) -> ChangeEvent {
    let mut event = rawdoc! { "_id": { "_data": "82" } };
    event.append(cstr!("fullDocument"), document.clone());
    ChangeEvent::from_raw(event).unwrap()
}

#[test]
fn values_that_servers_no_longer_make_decode_as_the_library_decodes_them() {
    let pointer = [&[4, 0, 0, 0][..], b"a.b\0", &[7; 12]].concat();
    let old_binary = [7, 0, 0, 0, 2, 3, 0, 0, 0, 1, 2, 3];
    for (kind, value) in [(0x0c, &pointer[..]), (0x05, &old_binary[..]), (0x06, &[])] {
        let document = field_of(kind, value);
        let library: Document = bson::deserialize_from_slice(document.as_bytes()).unwrap();
        let ours = around(&document).full_document_as::<Document>();
        assert_eq!(ours.unwrap().unwrap(), library);
    }
}

#[test]
fn a_value_whose_bytes_are_no_such_value_is_a_failure_at_its_place() {
    let wrong: [(u8, &[u8]); 7] = [
        (0x02, b"\x02\0\0\0ab"),
        (0x05, &[4, 0, 0, 0, 2, 9, 0, 0, 0]),
        (0x08, &[2]),
        (0x0b, b"\xff\0\0"),
        (0x0c, b"\x02\0\0\0aaaaaaaaaaaaaa"),
        (0x0d, b"\x02\0\0\0\xff\0"),
        (0x0f, b"\x0e\0\0\0\x09\0\0\0a\0\0\0\0\0"),
    ];
    for (kind, value) in wrong {
        let event = around(&field_of(kind, value));
        let error = event.full_document_as::<Document>().unwrap_err();
        assert_eq!(error.path(), Some("fullDocument.x"), "{kind:#x}: {error}");
        assert!(error.message().contains("malformed"), "{kind:#x}: {error}");
    }
}

#[test]
fn the_librarys_own_wrappers_decode_as_the_library_decodes_them() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Wrapped {
        texts: Vec<Utf8Lossy<String>>,
        uuids: Vec<Uuid>,
        readable: HumanReadable<bson::oid::ObjectId>,
        raw: RawBson,
        list: RawArrayBuf,
        inner: RawDocumentBuf,
        code: Marked,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Marked {
        #[serde(rename = "$code")]
        code: Text,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Text(String);
    let document = doc! {
        "texts": ["one", "t?o"],
        "uuids": [Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16])],
        "readable": bson::oid::ObjectId::from_bytes([3; 12]),
        "raw": 1_i64, "list": [1, "x"], "inner": { "a": [{}] }, "code": Bson::JavaScriptCode("f()".into()),
    };
    let mut bytes = document.to_vec().unwrap();
    let at = bytes.windows(3).position(|text| text == b"t?o").unwrap();
    bytes[at + 1] = 0xff;
    let document = RawDocumentBuf::from_bytes(bytes).unwrap();
    let library: Wrapped = bson::deserialize_from_slice(document.as_bytes()).unwrap();
    let ours: Wrapped = around(&document).full_document_as().unwrap().unwrap();
    assert_eq!(ours, library);

    let other = event(&doc! { "_id": 1, "fullDocument": {
        "uuids": [Binary { subtype: BinarySubtype::UuidOld, bytes: vec![1; 16] }],
    } });
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only decoding is of interest")]
    struct Uuids {
        uuids: Vec<Uuid>,
    }
    let error = other.full_document_as::<Uuids>().unwrap_err();
    assert_eq!(error.path(), Some("fullDocument.uuids[0]"));
    assert!(error.message().contains("subtype"), "{error}");
}

#[derive(Debug, PartialEq, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Line(i32, i32),
    Box { width: i32 },
}

#[test]
fn an_enum_is_a_string_or_a_document_of_its_variant() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Drawing {
        shapes: Vec<Shape>,
    }
    let drawing = |shapes: Vec<Bson>| event(&doc! { "_id": 1, "fullDocument": { "shapes": shapes } });
    let good = drawing(vec![
        "Nothing".into(),
        doc! { "Circle": 1.5 }.into(),
        doc! { "Line": [1, 2] }.into(),
        doc! { "Box": { "width": 3 } }.into(),
    ]);
    assert_eq!(
        good.full_document_as::<Drawing>().unwrap().unwrap().shapes,
        [
            Shape::Nothing,
            Shape::Circle(1.5),
            Shape::Line(1, 2),
            Shape::Box { width: 3 }
        ]
    );
    for (shape, path) in [
        (Bson::Int32(1), "[0]"),
        (doc! {}.into(), "[0]"),
        (doc! { "Nothing": 1 }.into(), "[0]"),
        (doc! { "Star": 1 }.into(), "[0]"),
        (doc! { "Circle": "x" }.into(), "[0].Circle"),
        (doc! { "Line": [1, "x"] }.into(), "[0].Line[1]"),
        (doc! { "Box": { "width": true } }.into(), "[0].Box.width"),
    ] {
        let error = drawing(vec![shape.clone()])
            .full_document_as::<Drawing>()
            .unwrap_err();
        assert_eq!(
            error.path(),
            Some(format!("fullDocument.shapes{path}").as_str()),
            "{shape}: {error}"
        );
    }
}

#[test]
fn each_field_of_an_update_has_its_accessor() {
    let event = event(&update());
    assert_eq!(event.operation_type(), Some(OperationType::Update));
    assert_eq!(event.cluster_time().unwrap().increment, 2);
    assert_eq!(event.wall_time().unwrap().timestamp_millis(), 1_795_362_698_123);
    assert_eq!(
        event.full_document().present().unwrap().get_i32("_id").unwrap(),
        1
    );
    assert_eq!(event.full_document_before_change(), FieldState::Null);
    assert_eq!(event.namespace().unwrap().to_string(), "shop.orders");
    assert_eq!(event.document_key().unwrap().get_str("region").unwrap(), "eu");
    assert_eq!(event.lsid().unwrap().iter().count(), 1);
    assert_eq!(event.txn_number(), Some(5));
    let split = event.split_event().unwrap();
    assert_eq!((split.fragment, split.of, split.is_last()), (1, 2, false));
    assert_eq!(event.collection_uuid(), Some(Uuid::from_bytes([9; 16])));
    assert_eq!(
        event.resume_token(),
        &ResumeToken::try_from(doc! { "_data": "826B030F8A00000002" }).unwrap()
    );
}

#[test]
fn what_an_update_changed_is_read_on_demand() {
    let event = event(&update());
    let changed = updated(&event);
    assert_eq!(changed.updated_fields().unwrap().get_i32("a.b").unwrap(), 1);
    assert_eq!(changed.removed_fields().collect::<Vec<_>>(), ["c", "d"]);
    let truncated: Vec<_> = changed
        .truncated_arrays()
        .map(|a| (a.field, a.new_size))
        .collect();
    assert_eq!(truncated, [("e", 3)]);
    assert!(changed.disambiguated_paths().unwrap().get_array("a.0").is_ok());
}

#[test]
fn ddl_events_are_as_readable_as_changes() {
    let rename = event(&doc! {
        "_id": { "_data": "82" }, "operationType": "rename",
        "ns": { "db": "shop", "coll": "a" }, "to": { "db": "shop", "coll": "b" },
        "operationDescription": { "to": { "db": "shop", "coll": "b" } },
    });
    assert_eq!(rename.to().unwrap().coll, Some("b"));
    assert!(rename.operation_description().unwrap().get_document("to").is_ok());
    let create = event(&doc! { "_id": 1, "operationType": "create", "nsType": "timeseries" });
    assert_eq!(create.ns_type(), Some(NsType::Timeseries));
    let dropped = event(&doc! { "_id": 1, "operationType": "dropDatabase", "ns": { "db": "shop" } });
    assert_eq!(dropped.namespace().unwrap().coll, None);
    assert_eq!(dropped.namespace().unwrap().to_string(), "shop");
}

#[test]
fn every_operation_type_is_named_as_the_server_names_it() {
    for name in [
        "insert",
        "update",
        "replace",
        "delete",
        "invalidate",
        "drop",
        "dropDatabase",
        "rename",
        "createIndexes",
        "dropIndexes",
        "modify",
        "create",
        "shardCollection",
        "reshardCollection",
        "refineCollectionShardKey",
        "addedInTheFuture",
    ] {
        let kind = event(&doc! { "_id": 1, "operationType": name })
            .operation_type()
            .unwrap();
        assert_eq!(kind.to_string(), name);
        assert_eq!(
            matches!(kind, OperationType::Other(_)),
            name == "addedInTheFuture"
        );
    }
}

#[test]
fn a_field_that_is_absent_or_of_another_type_is_none() {
    let names = [
        "operationType",
        "ns",
        "nsType",
        "to",
        "documentKey",
        "fullDocument",
        "fullDocumentBeforeChange",
        "updateDescription",
        "clusterTime",
        "wallTime",
        "lsid",
        "txnNumber",
        "splitEvent",
        "operationDescription",
        "collectionUUID",
    ];
    let mut replaced = doc! { "_id": { "_data": "82" } };
    for name in names {
        replaced.insert(name, true);
    }
    for document in [doc! { "_id": { "_data": "82" } }, replaced] {
        let event = event(&document);
        assert_eq!(event.operation_type(), None);
        assert_eq!(event.namespace(), None);
        assert_eq!(event.ns_type(), None);
        assert_eq!(event.to(), None);
        assert_eq!(event.document_key(), None);
        assert!(event.full_document().is_absent());
        assert!(event.full_document_before_change().is_absent());
        assert_eq!(event.update_description(), None);
        assert_eq!(event.cluster_time(), None);
        assert_eq!(event.wall_time(), None);
        assert_eq!(event.lsid(), None);
        assert_eq!(event.txn_number(), None);
        assert_eq!(event.split_event(), None);
        assert_eq!(event.operation_description(), None);
        assert_eq!(event.collection_uuid(), None);
    }
}

#[test]
fn any_other_field_can_be_asked_for_by_its_name() {
    let event = event(&doc! { "_id": 1, "enriched": "by a pipeline" });
    assert_eq!(
        event.get("enriched").unwrap().unwrap().as_str(),
        Some("by a pipeline")
    );
    assert_eq!(event.get("nothing").unwrap(), None);
}

#[test]
fn a_malformed_field_is_named() {
    let mut bytes = rawdoc! { "_id": 1, "operationType": "insert" }.into_bytes();
    let text = bytes.windows(6).position(|w| w == b"insert").unwrap();
    bytes[text] = 0xFF;
    let event = ChangeEvent::from_raw(RawDocumentBuf::from_bytes(bytes).unwrap()).unwrap();
    assert_eq!(event.operation_type(), None);
    let error = event.get("operationType").unwrap_err();
    assert_eq!(error.field(), Some("operationType"));
    assert!(error.to_string().contains("`operationType`"), "{error}");
}

#[test]
fn an_event_without_id_is_refused_as_the_specification_says() {
    let error = ChangeEvent::from_raw(rawdoc! { "operationType": "insert" }).unwrap_err();
    assert_eq!(error, MissingToken);
    assert!(matches!(Error::from(error).kind(), ErrorKind::MissingResumeToken));
}

#[test]
fn a_token_may_be_any_value() {
    let event = event(&doc! { "operationType": "insert", "_id": "of another database" });
    assert_eq!(
        event.resume_token().as_raw_bson().as_str(),
        Some("of another database")
    );
}

#[derive(Debug, Deserialize)]
struct Order<'a> {
    #[serde(rename = "_id")]
    id: i32,
    #[serde(borrow)]
    note: Option<&'a str>,
}

#[test]
fn full_documents_decode_into_types_that_borrow_from_the_event() {
    let inserted = event(&doc! { "_id": 1, "fullDocument": { "_id": 4, "note": "n" } });
    let order: Order<'_> = inserted.full_document_as().unwrap().unwrap();
    assert_eq!((order.id, order.note), (4, Some("n")));
    for none in [doc! { "_id": 1 }, doc! { "_id": 1, "fullDocument": null }] {
        assert!(event(&none).full_document_as::<Order<'_>>().unwrap().is_none());
    }
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only decoding is of interest")]
struct Priced {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only decoding is of interest")]
struct Item {
    price: i32,
}

#[test]
fn a_decode_failure_gives_the_event_back_and_says_where_it_failed() {
    let event = event(&update());
    let error = event.full_document_as::<Priced>().unwrap_err();
    assert_eq!(error.path(), Some("fullDocument.items[1].price"));
    assert_eq!(error.event(), &event);
    assert_eq!(error.resume_token(), event.resume_token());
    assert!(error.to_string().contains("items[1].price"), "{error}");
    let general = Error::from(error.clone());
    assert!(matches!(general.kind(), ErrorKind::Decode { .. }));
    assert_eq!(general.resume_token(), Some(event.resume_token()));
    assert_eq!(error.into_event(), event);
}

#[test]
fn a_full_document_that_is_no_document_is_a_decode_failure() {
    let event = event(&doc! { "_id": 1, "fullDocument": "projected" });
    let error = event.full_document_as::<Document>().unwrap_err();
    assert_eq!(error.path(), Some("fullDocument"));
    assert!(error.message().contains("String"), "{error}");
}

#[test]
fn the_ready_type_holds_every_field_and_lacks_any() {
    let all: ChangeStreamDocument = event(&update()).decode().unwrap();
    assert_eq!(all.operation_type, Some(OperationType::Update));
    assert_eq!(all.ns.unwrap().coll.unwrap(), "orders");
    assert_eq!(all.full_document_before_change, None);
    let changed = all.update_description.unwrap();
    assert_eq!(changed.removed_fields, ["c", "d"]);
    assert_eq!(changed.truncated_arrays.unwrap()[0].new_size, 3);
    assert_eq!(all.split_event.unwrap().of, 2);
    assert_eq!(all.collection_uuid, Some(Uuid::from_bytes([9; 16])));
    assert_eq!(all.txn_number, Some(5));

    let bare: ChangeStreamDocument<Document> = event(&doc! { "_id": 1 }).decode().unwrap();
    assert!(bare.id.is_some());
    assert_eq!(bare.operation_type, None);

    let update_lookup_of_a_deleted_document = event(&doc! { "_id": 1, "fullDocument": null });
    let decoded: ChangeStreamDocument = update_lookup_of_a_deleted_document.decode().unwrap();
    assert_eq!(decoded.full_document, None);
}

#[test]
fn a_document_whose_fields_are_named_as_in_extended_json_is_given_as_it_is_stored() {
    let stored =
        doc! { "_id": 1, "raw": { "$oid": "not an ObjectId" }, "date": { "$date": { "$numberLong": "x" } } };
    let event = event(&doc! { "_id": { "_data": "82" }, "fullDocument": stored.clone() });
    let typed: ChangeStreamDocument = event.decode().unwrap();
    assert_eq!(typed.full_document, Some(stored));
}

#[test]
fn the_ready_type_is_read_from_json_as_well() {
    let json = r#"{ "documentKey": { "_id": 1 }, "fullDocument": null, "lsid": { "a": [true] },
        "updateDescription": { "updatedFields": { "a.b": "c" } } }"#;
    let typed: ChangeStreamDocument = serde_json::from_str(json).unwrap();
    assert_eq!(typed.document_key, Some(doc! { "_id": 1 }));
    assert_eq!(
        (typed.full_document, typed.lsid),
        (None, Some(doc! { "a": [true] }))
    );
    assert_eq!(
        typed.update_description.unwrap().updated_fields,
        doc! { "a.b": "c" }
    );
}

#[test]
fn a_document_is_decoded_however_deep_servers_let_it_nest() {
    let nested = |levels: usize| (0..levels).fold(doc! {}, |inner, _| doc! { "a": inner });
    for levels in [1, 31, 32, 33, 100, 200] {
        let event = event(&doc! { "_id": 1, "fullDocument": nested(levels) });
        let typed: ChangeStreamDocument = event.decode().unwrap();
        assert_eq!(typed.full_document, Some(nested(levels)), "{levels} levels");
        // The library's own way of making a `Document` takes much stack in builds without optimization.
        if levels <= 100 {
            let general: Document = event.decode().unwrap();
            assert_eq!(general.get_document("fullDocument").unwrap(), &nested(levels));
        }
    }
}

#[test]
fn texts_of_any_length_and_documents_of_any_size_are_decoded_as_they_are() {
    for len in (0..=300).chain([1 << 15, (1 << 15) + 200]) {
        let stored = doc! { "ä": "x".repeat(len), "name": "é".repeat(len), "with zeros": "\0".repeat(len), "": len as i64 };
        let event = event(&doc! { "_id": 1, "fullDocument": stored.clone() });
        let typed: ChangeStreamDocument = event.decode().unwrap();
        assert_eq!(typed.full_document, Some(stored), "{len}");
    }
    for fields in (0..=40).chain([56, 57, 447, 448, 449, 895, 896, 897, 3000]) {
        let stored: Document = (0..fields)
            .map(|field| (field.to_string(), Bson::Int32(field)))
            .collect();
        let event = event(&doc! { "_id": 1, "fullDocument": stored.clone() });
        let typed: ChangeStreamDocument = event.decode().unwrap();
        let made = typed.full_document.unwrap();
        assert!(made.iter().eq(stored.iter()), "{fields} in their order");
        assert!(
            made.keys().all(|key| made.get(key) == stored.get(key)),
            "{fields} found"
        );
    }
}

#[test]
fn of_fields_with_one_name_the_last_counts_at_the_place_of_the_first() {
    let mut twice = rawdoc! { "a": "1", "b": 2 };
    twice.append(cstr!("a"), "3");
    let event = ChangeEvent::from_raw(rawdoc! { "_id": 1, "fullDocument": twice.clone() }).unwrap();
    let typed: ChangeStreamDocument = event.decode().unwrap();
    let made = typed.full_document.unwrap();
    assert_eq!(made, Document::try_from(twice).unwrap());
    assert!(made.into_iter().eq(doc! { "a": "3", "b": 2 }));
}

#[test]
fn a_string_that_is_none_is_told_with_its_place() {
    let good = rawdoc! { "_id": 1, "fullDocument": { "name": "text", "next": 1 } };
    let at = good
        .as_bytes()
        .windows(5)
        .position(|window| window == b"name\0")
        .unwrap();
    let (length, text) = (at + 5, at + 9);
    // A length of zero, one that takes in what follows, one that is negative, no zero at the end, no UTF-8 in text and name.
    let changes = [
        (length, 0),
        (length, 6),
        (length + 3, 0x80),
        (text + 4, b'x'),
        (text, 0xff),
        (at, 0xff),
    ];
    for (at, byte) in changes {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] = byte;
        let Ok(event) = RawDocumentBuf::from_bytes(bytes).map(ChangeEvent::from_raw) else {
            continue;
        };
        let error = event.unwrap().decode::<ChangeStreamDocument>().unwrap_err();
        assert!(
            error.path().unwrap().starts_with("fullDocument"),
            "{at}, {byte}: {error}"
        );
    }
}

#[test]
fn what_is_wrong_within_a_document_is_told_with_its_place() {
    let good = doc! { "_id": 1, "fullDocument": { "list": [{ "name": "Zürich" }] } };
    let mut bytes = good.to_vec().unwrap();
    let at = bytes.windows(2).position(|pair| pair == "ü".as_bytes()).unwrap();
    bytes[at] = 0xff;
    let event = ChangeEvent::from_raw(RawDocumentBuf::from_bytes(bytes).unwrap()).unwrap();
    let error = event.decode::<ChangeStreamDocument>().unwrap_err();
    assert!(error.path().unwrap().starts_with("fullDocument"), "{error}");
    assert!(error.message().to_lowercase().contains("utf-8"), "{error}");
    let error = event.to_extended_json(ExtendedJson::Relaxed).unwrap_err();
    assert!(error.to_string().contains("fullDocument.list.0.name"), "{error}");
}

#[test]
fn extended_json_keeps_the_order_of_fields() {
    let event = event(&doc! {
        "_id": { "_data": "82" }, "operationType": "insert", "clusterTime": Timestamp { time: 1, increment: 2 },
        "fullDocument": { "z": 1_i64, "a": 1.5 },
    });
    assert_eq!(
        event.to_extended_json(ExtendedJson::Relaxed).unwrap(),
        r#"{"_id":{"_data":"82"},"operationType":"insert","clusterTime":{"$timestamp":{"t":1,"i":2}},"fullDocument":{"z":1,"a":1.5}}"#
    );
    assert!(
        event
            .to_extended_json(ExtendedJson::Canonical)
            .unwrap()
            .ends_with(r#""fullDocument":{"z":{"$numberLong":"1"},"a":{"$numberDouble":"1.5"}}}"#)
    );
}

#[test]
fn an_owned_event_is_equal_and_elsewhere() {
    let event = event(&update());
    let at = event.as_raw().as_bytes().as_ptr();
    let clone = event.clone();
    assert_eq!(clone.as_raw().as_bytes().as_ptr(), at, "a clone copies nothing");
    let owned = event.clone().into_owned();
    assert_eq!(owned, event);
    assert_eq!(owned.resume_token(), event.resume_token());
    assert_ne!(owned.as_raw().as_bytes().as_ptr(), at);
}

#[test]
fn an_event_is_small_to_move_and_can_go_to_other_threads() {
    fn assert_thread_safe<T: Send + Sync + 'static>() {}
    assert_thread_safe::<ChangeEvent>();
    assert_thread_safe::<changestream_core::event::DecodeError>();
    assert!(size_of::<ChangeEvent>() <= 64, "{}", size_of::<ChangeEvent>());
}

/// Everything that can be asked of an event.
fn ask_everything(event: &ChangeEvent) {
    let _ = format!("{event:?} {:?}", event.resume_token());
    let _ = event.operation_type();
    let _ = event.namespace().map(|ns| ns.to_string());
    let _ = (
        event.ns_type(),
        event.to(),
        event.document_key(),
        event.full_document(),
    );
    let _ = (
        event.full_document_before_change(),
        event.cluster_time(),
        event.wall_time(),
    );
    let _ = (
        event.lsid(),
        event.txn_number(),
        event.split_event(),
        event.operation_description(),
    );
    let _ = (event.collection_uuid(), event.get("nothing"));
    if let Some(changed) = event.update_description() {
        let _ = (changed.updated_fields(), changed.disambiguated_paths());
        let _ = (
            changed.removed_fields().count(),
            changed.truncated_arrays().count(),
        );
    }
    let _ = event.decode::<Document>();
    let _ = event.decode::<ChangeStreamDocument>();
    let _ = event.full_document_as::<Priced>();
    let _ = event.to_extended_json(ExtendedJson::Relaxed);
    let _ = event.to_extended_json(ExtendedJson::Canonical);
    let _ = (
        event.resume_token().cluster_time(),
        event.resume_token().explain(),
    );
    let _ = event.clone().into_owned();
}

#[test]
fn no_changed_byte_of_an_event_makes_anything_panic() {
    let mut document = update();
    document.insert(
        "scoped",
        Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
            code: "f()".to_owned(),
            scope: doc! { "x": 1 },
        }),
    );
    document.insert(
        "regex",
        bson::Regex {
            pattern: "a".try_into().unwrap(),
            options: "i".try_into().unwrap(),
        },
    );
    let good = RawDocumentBuf::try_from(&document).unwrap().into_bytes();
    for at in 4..good.len() {
        for value in [0, 5, 0x7F, 0xFF, good[at].wrapping_add(1)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            if let Ok(event) = RawDocumentBuf::from_bytes(bytes).map(ChangeEvent::from_raw) {
                event.iter().for_each(ask_everything);
            }
        }
    }
}

#[test]
fn an_event_cut_at_any_byte_makes_nothing_panic() {
    let good = RawDocumentBuf::try_from(&update()).unwrap().into_bytes();
    for length in 5..good.len() {
        let mut bytes = good[..length].to_vec();
        bytes[..4].copy_from_slice(&i32::try_from(length).unwrap().to_le_bytes());
        bytes[length - 1] = 0;
        let event = RawDocumentBuf::from_bytes(bytes)
            .map(ChangeEvent::from_raw)
            .unwrap();
        event.iter().for_each(ask_everything);
    }
}

#[test]
fn nesting_without_end_is_refused_where_it_would_exhaust_the_stack() {
    let mut inner = rawdoc! {};
    for _ in 0..20_000 {
        let mut outer = RawDocumentBuf::new();
        outer.append(cstr!("a"), inner);
        inner = outer;
    }
    let mut document = rawdoc! { "_id": { "_data": "82" } };
    document.append(cstr!("fullDocument"), inner);
    let event = ChangeEvent::from_raw(document).unwrap();
    ask_everything(&event);
    let error = event.decode::<Document>().unwrap_err();
    assert!(error.to_string().contains("nests deeper"), "{error}");
    assert!(event.to_extended_json(ExtendedJson::Relaxed).is_err());

    // Where the look ahead begins stands code, whose scope nests on.
    let scope = event.full_document().present().unwrap().to_owned();
    let code = bson::raw::RawJavaScriptCodeWithScope {
        code: "f()".into(),
        scope,
    };
    let mut inner = RawDocumentBuf::new();
    inner.append(cstr!("c"), code);
    for _ in 0..40 {
        let mut outer = RawDocumentBuf::new();
        outer.append(cstr!("a"), inner);
        inner = outer;
        let error = around(&inner).decode::<Document>().unwrap_err();
        assert!(error.to_string().contains("nests deeper"), "{error}");
    }

    let reply = changestream_core::stream::CommandReply::parse(event.as_raw().as_bytes().to_vec().into());
    let error = reply.unwrap().to_document().unwrap_err();
    assert!(error.to_string().contains("nests deeper"), "{error}");

    let mut list = RawArrayBuf::new();
    for _ in 0..20_000 {
        let mut outer = RawArrayBuf::new();
        outer.push(list);
        list = outer;
    }
    let token = ResumeToken::from_raw_bson(RawBson::Array(list));
    assert!(format!("{token:?}").contains("nests deeper"));
    assert!(token.to_bson().is_err());

    let mut token = RawDocumentBuf::new();
    token.append(cstr!("_id"), event.full_document().present().unwrap().to_owned());
    ask_everything(&ChangeEvent::from_raw(token).unwrap());
}

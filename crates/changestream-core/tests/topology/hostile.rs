//! Hello replies that no server sends.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{DateTime, RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use changestream_core::random::Random;
use changestream_core::topology::{
    HelloReply, MAX_ADDRESS, MAX_HOSTS, MAX_LIST, MAX_SERVERS, MAX_TEXT, SelectionCriteria, ServerType,
    TopologyVersion,
};

use crate::world::{World, address};

/// A reply with each field that is read.
fn complete() -> RawDocumentBuf {
    rawdoc! {
        "ok": 1.0, "isWritablePrimary": true, "ismaster": true, "secondary": false, "arbiterOnly": false,
        "hidden": false, "passive": false, "isreplicaset": false, "msg": "hi", "setName": "rs", "setVersion": 3,
        "electionId": ObjectId::from_bytes([1; 12]), "hosts": ["A:27017", "b", "[::1]:5", "/run/x.sock"],
        "passives": ["p"], "arbiters": ["q"], "primary": "a:27017", "me": "a:27017", "tags": { "dc": "ny" },
        "minWireVersion": 0, "maxWireVersion": 25_i64,
        "lastWrite": { "opTime": 1, "lastWriteDate": DateTime::from_millis(7) },
        "logicalSessionTimeoutMinutes": 30,
        "topologyVersion": { "processId": ObjectId::from_bytes([2; 12]), "counter": 6_i64 },
        "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "helloOk": true, "connectionId": 5,
        "serviceId": ObjectId::from_bytes([3; 12]), "saslSupportedMechs": ["SCRAM-SHA-1", "X"],
        "compression": ["zstd"], "errmsg": "none", "code": 0, "errorLabels": ["L"],
    }
}

#[test]
fn each_field_is_read() {
    let reply = HelloReply::parse(&complete()).unwrap();
    assert!(reply.ok && reply.is_writable_primary && reply.hello_ok);
    let mut hidden = complete();
    for name in [
        bson::cstr!("passive"),
        bson::cstr!("hidden"),
        bson::cstr!("secondary"),
    ] {
        hidden.append(name, true);
    }
    let hidden = HelloReply::parse(&hidden).unwrap();
    assert!(hidden.passive && hidden.hidden && hidden.secondary && !reply.passive && !reply.hidden);
    assert_eq!(reply.error_message.as_deref(), Some("none"));
    assert_eq!(
        (reply.code, reply.error_labels.as_slice()),
        (Some(0), &["L".to_owned()][..])
    );
    assert_eq!(reply.set_name.as_deref(), Some("rs"));
    assert_eq!(reply.set_version, Some(3));
    let hosts: Vec<_> = reply.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a:27017", "b:27017", "[::1]:5", "/run/x.sock"]);
    assert_eq!(reply.passives, [address("p")]);
    assert_eq!(reply.arbiters, [address("q")]);
    assert_eq!(reply.primary, Some(address("a")));
    assert_eq!(reply.tags["dc"], "ny");
    assert_eq!(reply.max_wire_version, 25);
    assert_eq!(reply.last_write_date, Some(DateTime::from_millis(7)));
    assert_eq!(reply.logical_session_timeout_minutes, Some(30));
    let process_id = ObjectId::from_bytes([2; 12]);
    let version = TopologyVersion {
        process_id,
        counter: 6,
    };
    assert_eq!(reply.topology_version, Some(version));
    assert_eq!(reply.max_bson_object_size, Some(16_777_216));
    assert_eq!(reply.max_message_size_bytes, Some(48_000_000));
    assert_eq!(reply.connection_id, Some(5));
    assert_eq!(reply.service_id, Some(ObjectId::from_bytes([3; 12])));
    assert_eq!(reply.sasl_supported_mechs, ["SCRAM-SHA-1", "X"]);
    assert_eq!(reply.compression, ["zstd"]);
}

#[test]
fn is_writable_primary_goes_before_ismaster() {
    let of = |reply: RawDocumentBuf| HelloReply::parse(&reply).unwrap().is_writable_primary;
    assert!(!of(rawdoc! { "ismaster": true, "isWritablePrimary": false }));
    assert!(!of(rawdoc! { "isWritablePrimary": false, "ismaster": true }));
    assert!(of(rawdoc! { "ismaster": true }));
}

#[test]
fn a_field_of_another_type_is_as_one_that_is_absent() {
    let names: Vec<String> = complete()
        .iter()
        .map(|field| field.unwrap().0.as_str().to_owned())
        .collect();
    for wrong in [bson::Bson::Null, bson::Bson::MaxKey, bson::Bson::Double(f64::NAN)] {
        let mut reply = bson::Document::new();
        for name in &names {
            reply.insert(name, wrong.clone());
        }
        let reply = RawDocumentBuf::try_from(&reply).unwrap();
        assert_eq!(HelloReply::parse(&reply).unwrap(), HelloReply::default());
    }
}

#[test]
fn numbers_out_of_range_are_as_absent() {
    let reply = rawdoc! { "ok": 1, "maxWireVersion": i64::MAX, "setVersion": 1e300, "maxBsonObjectSize": -1,
    "maxMessageSizeBytes": 0, "code": i64::MIN };
    let reply = HelloReply::parse(&reply).unwrap();
    assert_eq!((reply.max_wire_version, reply.set_version), (0, None));
    assert_eq!(
        (reply.max_bson_object_size, reply.max_message_size_bytes),
        (None, None)
    );
    assert_eq!(reply.code, None);
}

#[test]
fn a_million_hosts_are_cut_to_the_bound() {
    let hosts: RawArrayBuf = (0..1_000_000).map(|number| format!("h{number}")).collect();
    let mut reply = complete();
    reply.append(bson::cstr!("hosts"), hosts);
    let many: RawArrayBuf = (0..10_000).map(|number| number.to_string()).collect();
    reply.append(bson::cstr!("compression"), many.clone());
    reply.append(bson::cstr!("saslSupportedMechs"), many);
    reply.append(bson::cstr!("setName"), "x".repeat(MAX_TEXT + 1));
    reply.append(bson::cstr!("me"), "x".repeat(MAX_ADDRESS + 1));
    let reply = HelloReply::parse(&reply).unwrap();
    assert_eq!(reply.hosts.len(), MAX_HOSTS);
    assert_eq!(reply.compression.len(), MAX_LIST);
    assert_eq!(reply.sasl_supported_mechs.len(), MAX_LIST);
    assert_eq!((reply.set_name, reply.me), (None, None));
}

#[test]
fn a_refusal_is_told_with_its_code_and_on_one_line_of_bounded_length() {
    let said = |reply: RawDocumentBuf| {
        let mut world = World::new(&["a"]);
        world.checks();
        world.hello("a", &reply);
        world
            .topology
            .server(&address("a"))
            .unwrap()
            .error
            .clone()
            .unwrap()
    };
    assert_eq!(
        said(rawdoc! { "ok": 0, "errmsg": "not now", "code": 91 }),
        "hello was refused: not now (code 91)"
    );
    assert_eq!(
        said(rawdoc! { "ok": 0, "errmsg": "not now" }),
        "hello was refused: not now"
    );
    assert_eq!(said(rawdoc! { "ok": 0 }), "hello was refused: no message");
    let cut = |text: String| {
        let reply = HelloReply::parse(&rawdoc! { "ok": 0, "errmsg": text }).unwrap();
        reply.error_message.unwrap()
    };
    assert_eq!(cut("x".repeat(MAX_TEXT)), "x".repeat(MAX_TEXT));
    assert_eq!(cut("x".repeat(MAX_TEXT + 1)), "x".repeat(MAX_TEXT));
    assert_eq!(cut("ä".repeat(MAX_TEXT)), "ä".repeat(MAX_TEXT / 2));
    assert_eq!(
        cut(format!("x{}", "ä".repeat(MAX_TEXT))),
        format!("x{}", "ä".repeat(MAX_TEXT / 2 - 1))
    );
    assert_eq!(cut("one\ntwo".to_owned()), "one two");
}

#[test]
fn a_hello_that_is_no_document_is_an_error_that_says_so() {
    let mut bytes = rawdoc! { "ok": 1 }.into_bytes();
    bytes[4] = 0x7e;
    let error = HelloReply::parse(RawDocument::from_bytes(&bytes).unwrap()).unwrap_err();
    assert!(
        error.to_string().starts_with("malformed hello reply: "),
        "{error}"
    );
    assert!(error.to_string().len() > "malformed hello reply: ".len());
}

#[test]
fn a_deep_document_is_not_descended_into() {
    let mut deep = rawdoc! { "x": 1 };
    for _ in 0..2_000 {
        let mut outer = RawDocumentBuf::new();
        outer.append(bson::cstr!("lastWrite"), deep);
        deep = outer;
    }
    assert_eq!(HelloReply::parse(&deep).unwrap(), HelloReply::default());
}

#[test]
fn members_that_keep_naming_others_do_not_grow_the_topology_without_end() {
    let mut world = World::new(&["h0"]);
    let mut named = 1;
    for _ in 0..400 {
        let Some(name) = world.checks().pop() else {
            world.pass(60_000);
            continue;
        };
        let hosts: RawArrayBuf = (named..named + 100).map(|n| format!("h{n}")).collect();
        named += 100;
        let reply =
            rawdoc! { "ok": 1, "secondary": true, "setName": "rs", "hosts": hosts, "maxWireVersion": 25 };
        world.hello(&name, &reply);
    }
    assert_eq!(world.servers().len(), MAX_SERVERS);
}

#[test]
fn mangled_replies_never_panic_whatever_they_do_to_the_topology() {
    let mut random = Random::new([5; 32]);
    let whole = complete().into_bytes();
    let mut accepted = 0;
    for _ in 0..6_000 {
        let bytes = mangle(&whole, &mut random);
        let Ok(document) = RawDocument::from_bytes(&bytes) else {
            continue;
        };
        let Ok(reply) = HelloReply::parse(document) else {
            continue;
        };
        accepted += 1;
        let mut world = World::new(&["a", "b"]);
        world.checks();
        let round_trip = Some(Duration::MAX);
        world
            .topology
            .handle_hello(world.now, &address("a"), reply.clone(), round_trip);
        world
            .topology
            .handle_hello(world.now, &address("b"), reply, round_trip);
        let criteria = SelectionCriteria::default();
        let _ = world.topology.select(&criteria, &mut random);
        let message = world.topology.selection_error_message(&criteria);
        assert!(!message.chars().any(char::is_control));
        let known = world.topology.description().servers.values();
        assert!(
            known
                .filter(|server| server.server_type == ServerType::RsPrimary)
                .count()
                <= 1
        );
    }
    assert!(accepted > 500, "the mangling leaves too little: {accepted}");
}

/// Changes a few bytes, and now and then cuts the end off, keeping the length field and the terminator right.
fn mangle(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=random.below(4) {
        let at = 4 + random.below(bytes.len() - 5);
        bytes[at] = random.next_u64() as u8;
    }
    if random.below(4) == 0 {
        bytes.truncate(5 + random.below(bytes.len() - 5));
        let last = bytes.len() - 1;
        bytes[last] = 0;
    }
    let length = i32::try_from(bytes.len()).unwrap().to_le_bytes();
    bytes[..4].copy_from_slice(&length);
    bytes
}

//! What events carry beyond the change itself.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use changestream_sim::Deployment;
use world::{World, batch};

/// What a stream with expanded events says of these commands; the collection has been written to.
fn expanded(version: &str, before: Vec<Document>, commands: Vec<Document>) -> Vec<Document> {
    let mut w = World::new(Deployment::replica_set(3).server_version(version));
    let c = w.connect(0);
    w.insert(c, 0);
    for command in before {
        w.ok(c, command);
    }
    let (cursor, _) = w.watch(c, doc! { "showExpandedEvents": true }, vec![]);
    for command in commands {
        w.ok(c, command);
    }
    batch(&w.get_more(c, cursor, 100))
}

fn update(set: Document) -> Document {
    doc! { "update": "c", "updates": [{ "q": { "_id": 1 }, "u": { "$set": set } }] }
}

#[test]
fn ambiguous_paths_are_taken_apart_where_expanded_events_are_wanted() {
    let document = doc! { "_id": 1, "a": { "0": [{ "7": 1 }] }, "list": [{ "b": 1 }] };
    let insert = doc! { "insert": "c", "documents": [document] };
    let updates = vec![
        update(doc! { "a.0.0.7": 2 }),
        update(doc! { "list.0.b": 2 }),
        doc! { "update": "c", "updates": [{ "q": { "_id": 1 }, "u": { "$unset": { "a.0": "" } } }] },
    ];
    let told = |version| -> Vec<Option<Document>> {
        let events = expanded(version, vec![insert.clone()], updates.clone());
        let descriptions = events
            .iter()
            .map(|e| e.get_document("updateDescription").unwrap());
        descriptions
            .map(|d| d.get_document("disambiguatedPaths").ok().cloned())
            .collect()
    };
    assert_eq!(
        told("7.0"),
        [
            Some(doc! { "a.0.0.7": ["a", "0", 0, "7"] }),
            Some(doc! {}),
            Some(doc! { "a.0": ["a", "0"] }),
        ]
    );
    assert_eq!(told("6.0"), [None, None, None]);
}

#[test]
fn indexes_are_described_in_the_catalogues_order() {
    let index = doc! { "name": "ab", "sparse": true, "unique": 1, "key": { "a": 1, "b": -1 } };
    let events = expanded(
        "7.0",
        vec![],
        vec![doc! { "createIndexes": "c", "indexes": [index] }],
    );
    let description = events[0].get_document("operationDescription").unwrap();
    let stored = doc! { "v": 2, "unique": true, "key": { "a": 1, "b": -1 }, "name": "ab", "sparse": true };
    assert_eq!(description, &doc! { "indexes": [stored] });
}

#[test]
fn a_modified_collections_state_before_stands_beside_the_description() {
    let events = expanded(
        "7.0",
        vec![],
        vec![doc! { "collMod": "c", "changeStreamPreAndPostImages": { "enabled": true } }],
    );
    let event = &events[0];
    assert_eq!(
        event.get_document("operationDescription").unwrap(),
        &doc! { "changeStreamPreAndPostImages": { "enabled": true } }
    );
    let uuid = event.get("collectionUUID").unwrap().clone();
    assert_eq!(
        event.get_document("stateBeforeChange").unwrap(),
        &doc! { "collectionOptions": { "uuid": uuid } }
    );
}

#[test]
fn a_capped_collections_sizes_are_whole_and_its_own_index_comes_last() {
    let mut w = World::new(Deployment::replica_set(1).server_version("7.0"));
    let c = w.connect(0);
    let reply = w.ok(
        c,
        doc! {
            "aggregate": 1, "pipeline": [{ "$changeStream": { "showExpandedEvents": true } }], "cursor": {},
        },
    );
    let cursor = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
    w.ok(
        c,
        doc! { "create": "capped", "capped": true, "size": 4000.0, "max": 10 },
    );
    let reply = w.ok(c, doc! { "getMore": cursor, "collection": "$cmd.aggregate" });
    assert_eq!(
        batch(&reply)[0].get_document("operationDescription").unwrap(),
        &doc! {
            "capped": true, "size": 4096_i64, "max": 10_i64,
            "idIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
        }
    );
}

#[test]
fn a_transactions_session_is_logged_with_its_owner() {
    let mut w = World::replica_set(3);
    let c = w.connect(0);
    w.insert(c, 0);
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    let id = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: vec![7; 16],
    };
    let lsid = doc! { "id": id.clone() };
    w.ok(
        c,
        doc! {
            "insert": "c", "documents": [{ "_id": 1 }], "lsid": lsid.clone(), "txnNumber": 1_i64,
            "autocommit": false, "startTransaction": true,
        },
    );
    w.admin(
        c,
        doc! { "commitTransaction": 1, "lsid": lsid, "txnNumber": 1_i64, "autocommit": false },
    );
    let event = batch(&w.get_more(c, cursor, 100)).remove(0);
    let told = event.get_document("lsid").unwrap();
    assert_eq!(told.keys().collect::<Vec<_>>(), ["id", "uid"]);
    assert_eq!(told.get("id"), Some(&Bson::Binary(id)));
    // SHA-256 of nothing: nobody has logged in.
    assert!(
        matches!(told.get("uid"), Some(Bson::Binary(uid)) if uid.bytes.starts_with(&[0xe3, 0xb0, 0xc4, 0x42]) && uid.bytes.len() == 32)
    );
}

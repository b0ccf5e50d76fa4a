//! A `$match` looks at encoded events, of which it decodes what it needs; it has to find what it finds in whole ones.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use bson::{Document, Regex, doc};
use changestream_sim::Deployment;
use world::{World, batch};

#[test]
fn a_match_on_encoded_events_selects_what_a_match_on_whole_ones_does() {
    let pattern = Regex {
        pattern: bson::raw::CString::try_from("^upd").unwrap(),
        options: bson::raw::CString::try_from("").unwrap(),
    };
    let filters = [
        doc! {},
        doc! { "operationType": "insert" },
        doc! { "operationType": { "$in": ["delete", "replace"] } },
        doc! { "operationType": pattern },
        doc! { "fullDocument.a": { "$gte": 2 } },
        doc! { "fullDocument.a": 1, "fullDocument": { "$exists": true } },
        doc! { "fullDocument": { "_id": 1, "a": 1 } },
        doc! { "fullDocument.list": 3 },
        doc! { "fullDocument.list.b": { "$gt": 1 } },
        doc! { "fullDocument.list.0.b": 2 },
        doc! { "fullDocument.list": { "$elemMatch": { "b": 2, "c": null } } },
        doc! { "fullDocument.deep.er": { "$exists": false } },
        doc! { "fullDocument.deep": doc! { "er": 5 } },
        doc! { "$or": [{ "documentKey._id": 1 }, { "updateDescription.updatedFields.a": 9 }] },
        doc! { "$nor": [{ "documentKey._id": { "$mod": [2, 0] } }] },
        doc! { "updateDescription.removedFields": "a" },
        doc! { "nothing.of.the.kind": null },
        doc! { "$expr": { "$eq": ["$fullDocument.a", 1] } },
        doc! { "ns.coll": "c", "ns": { "$type": "object" } },
    ];
    let mut w = World::new(Deployment::replica_set(1).server_version("8.0"));
    let c = w.connect(0);
    w.ok(c, doc! { "create": "c" });
    let cursors = filters.map(|filter| {
        let found = doc! { "$match": filter.clone() };
        let (quick, _) = w.watch(c, doc! {}, vec![found.clone()]);
        // A stage behind it needs whole events.
        let (whole, _) = w.watch(c, doc! {}, vec![found, doc! { "$unset": "nothing" }]);
        (filter, quick, whole)
    });
    let documents = [
        doc! { "_id": 1, "a": 1 },
        doc! { "_id": 2, "a": 2.5, "list": [1, 2, 3], "deep": { "er": 5 } },
        doc! { "_id": 3, "list": [{ "b": 2 }, { "b": 1, "c": 1 }], "deep": [{ "er": 5 }] },
        doc! { "_id": 4, "a": null, "list": { "0": { "b": 2 } } },
    ];
    w.ok(c, doc! { "insert": "c", "documents": documents.to_vec() });
    for (q, u) in [
        (1, doc! { "$set": { "a": 9 } }),
        (2, doc! { "$unset": { "a": "" } }),
        (3, doc! { "b": 1 }),
    ] {
        w.ok(
            c,
            doc! { "update": "c", "updates": [{ "q": { "_id": q }, "u": u }] },
        );
    }
    w.ok(
        c,
        doc! { "delete": "c", "deletes": [{ "q": { "_id": 4 }, "limit": 1 }] },
    );
    for (filter, quick, whole) in cursors {
        let events = |w: &mut World, cursor| -> Vec<Document> { batch(&w.get_more(c, cursor, 1)) };
        let (quick, whole) = (events(&mut w, quick), events(&mut w, whole));
        assert_eq!(quick, whole, "{filter}");
    }
}

#[test]
fn a_project_of_encoded_events_leaves_what_a_project_of_whole_ones_does() {
    let stages = [
        doc! { "$project": { "fullDocument": 1 } },
        doc! { "$project": { "ns": 1, "operationType": true, "nothing": 1 } },
        doc! { "$project": { "fullDocument": 0, "clusterTime": 0 } },
        doc! { "$unset": ["ns", "documentKey"] },
        doc! { "$project": { "fullDocument.a": 1 } },
        doc! { "$project": { "kind": "$operationType" } },
    ];
    let mut w = World::new(Deployment::replica_set(1).server_version("8.0"));
    let c = w.connect(0);
    w.ok(c, doc! { "create": "c" });
    let cursors = stages.map(|stage| {
        let found = doc! { "$match": { "operationType": "insert" } };
        let (quick, _) = w.watch(c, doc! {}, vec![found.clone(), stage.clone()]);
        let whole = doc! { "$addFields": { "_id": "$_id" } };
        let (whole, _) = w.watch(c, doc! {}, vec![found, whole, stage.clone()]);
        (stage, quick, whole)
    });
    w.ok(
        c,
        doc! { "insert": "c", "documents": [{ "_id": 1, "a": 1, "b": [1] }, { "_id": 2 }] },
    );
    for (stage, quick, whole) in cursors {
        let (quick, whole) = (batch(&w.get_more(c, quick, 1)), batch(&w.get_more(c, whole, 1)));
        assert_eq!(quick.len(), 2);
        assert_eq!(quick, whole, "{stage}");
    }
    let (dropped, _) = w.watch(c, doc! {}, vec![doc! { "$project": { "_id": 0 } }]);
    w.insert(c, 3);
    let refused = w.run(c, doc! { "getMore": dropped, "collection": "c" });
    assert_eq!(world::code(&refused), 280);
}

//! Pipelines of change streams and of ordinary aggregates.
#![allow(clippy::unwrap_used, reason = "tests")]

use bson::{Bson, Document, doc};
use changestream_sim::query::pipeline::{Pipeline, stages_of};

fn event() -> Document {
    doc! {
        "_id": { "_data": "82" },
        "operationType": "update",
        "ns": { "db": "d", "coll": "c" },
        "documentKey": { "_id": 1 },
        "list": [{ "a": 1, "b": 2 }, { "a": 3 }, 4],
    }
}

#[test]
fn stages_do_to_an_event_what_a_server_does() {
    let cases: Vec<(Vec<Document>, Option<Document>)> = vec![
        (vec![doc! { "$match": { "operationType": "insert" } }], None),
        (
            vec![doc! { "$match": { "ns.coll": { "$in": ["b", "c"] } } }],
            Some(event()),
        ),
        (
            vec![doc! { "$project": { "documentKey": 1 } }],
            Some(doc! { "_id": { "_data": "82" }, "documentKey": { "_id": 1 } }),
        ),
        (
            vec![doc! { "$project": { "_id": 0, "list.a": 1, "x": "$ns.db", "y.z": { "$literal": 1 } } }],
            Some(doc! { "list": [{ "a": 1 }, { "a": 3 }], "x": "d", "y": { "z": 1 } }),
        ),
        (
            vec![
                doc! { "$project": { "list.a": 0, "ns": { "db": false }, "documentKey": 0, "operationType": 0 } },
            ],
            Some(doc! { "_id": { "_data": "82" }, "ns": { "coll": "c" }, "list": [{ "b": 2 }, {}, 4] }),
        ),
        (
            vec![
                doc! { "$unset": ["list", "ns", "documentKey"] },
                doc! { "$set": { "n.m": 1, "operationType": "x" } },
            ],
            Some(doc! { "_id": { "_data": "82" }, "operationType": "x", "n": { "m": 1 } }),
        ),
        (
            vec![
                doc! { "$addFields": { "ns.coll": "$$REMOVE", "list": { "$size": "$list" } } },
                doc! { "$unset": "documentKey" },
            ],
            Some(
                doc! { "_id": { "_data": "82" }, "operationType": "update", "ns": { "db": "d" }, "list": 3 },
            ),
        ),
        (
            vec![doc! { "$replaceRoot": { "newRoot": "$ns" } }],
            Some(doc! { "db": "d", "coll": "c" }),
        ),
        (
            vec![doc! { "$replaceWith": { "$mergeObjects": ["$documentKey", { "op": "$operationType" }] } }],
            Some(doc! { "_id": 1, "op": "update" }),
        ),
        (
            vec![doc! { "$redact": { "$cond": [{ "$eq": ["$coll", "c"] }, "$$PRUNE", "$$DESCEND"] } }],
            Some({
                let mut pruned = event();
                pruned.remove("ns");
                pruned
            }),
        ),
    ];
    for (stages, expected) in cases {
        let pipeline = Pipeline::parse_change_stream(&stages).unwrap();
        assert_eq!(pipeline.apply(event()).unwrap(), expected, "{stages:?}");
    }
}

#[test]
fn a_bad_change_stream_pipeline_is_refused_in_the_servers_words() {
    let cases = [
        (
            doc! { "$unsupported": "foo" },
            40324,
            "Unrecognized pipeline stage name: '$unsupported'",
        ),
        (
            doc! {},
            40323,
            "A pipeline stage specification object must contain exactly one field.",
        ),
        (
            doc! { "$match": {}, "$project": {} },
            40323,
            "A pipeline stage specification object must contain exactly one field.",
        ),
        (
            doc! { "$group": { "_id": 1 } },
            20,
            "$group is not permitted in a $changeStream pipeline",
        ),
        (
            doc! { "$lookup": {} },
            20,
            "$lookup is not permitted in a $changeStream pipeline",
        ),
        (
            doc! { "$changeStream": {} },
            40602,
            "$changeStream is only valid as the first stage in a pipeline.",
        ),
        (
            doc! { "$match": 1 },
            15959,
            "the match filter must be an expression in an object",
        ),
        (
            doc! { "$project": 1 },
            15969,
            "$project specification must be an object",
        ),
        (
            doc! { "$project": {} },
            51272,
            "Invalid $project :: caused by :: projection specification must have at least one field",
        ),
        (
            doc! { "$project": { "a": 1, "b": 0 } },
            31254,
            "Invalid $project :: caused by :: Cannot do exclusion on field b in inclusion projection",
        ),
        (
            doc! { "$project": { "a": 0, "b": 1 } },
            31253,
            "Invalid $project :: caused by :: Cannot do inclusion on field b in exclusion projection",
        ),
        (
            doc! { "$project": { "a": 1, "a.b": 1 } },
            31250,
            "Invalid $project :: caused by :: Path collision at a.b remaining portion b",
        ),
        (
            doc! { "$set": { "a": { "$nope": 1 } } },
            168,
            "Invalid $set :: caused by :: Unrecognized expression '$nope'",
        ),
        (
            doc! { "$changeStreamSplitLargeEvent": 1 },
            7_182_800,
            "$changeStreamSplitLargeEvent spec should be an empty object",
        ),
    ];
    for (stage, code, message) in cases {
        let error = Pipeline::parse_change_stream(std::slice::from_ref(&stage)).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message), "{stage}");
    }
}

#[test]
fn splitting_large_events_is_recognised_as_the_last_stage_only() {
    let split = doc! { "$changeStreamSplitLargeEvent": {} };
    let pipeline = Pipeline::parse_change_stream(&[doc! { "$match": {} }, split.clone()]).unwrap();
    assert!(pipeline.splits_large_events());
    assert_eq!(pipeline.apply(event()).unwrap(), Some(event()));
    assert_eq!(
        Pipeline::parse_change_stream(&[split.clone(), doc! { "$match": {} }])
            .unwrap_err()
            .code,
        7_182_802
    );
    assert_eq!(Pipeline::parse_aggregate(&[split]).unwrap_err().code, 20);
}

#[test]
fn an_ordinary_aggregate_runs_over_all_documents() {
    let documents: Vec<Document> = (0..6)
        .map(|n| doc! { "_id": n, "kind": if n % 2 == 0 { "even" } else { "odd" }, "list": [n, n + 1] })
        .collect();
    let run = |stages: &[Document]| {
        Pipeline::parse_aggregate(stages)
            .unwrap()
            .run(documents.clone())
            .unwrap()
    };
    assert_eq!(
        run(&[doc! { "$group": {
            "_id": "$kind", "n": { "$sum": 1 }, "total": { "$sum": "$_id" }, "mean": { "$avg": "$_id" },
            "first": { "$first": "$_id" }, "last": { "$last": "$_id" }, "most": { "$max": "$_id" },
            "all": { "$push": "$_id" },
        } }]),
        [
            doc! { "_id": "even", "n": 3, "total": 6, "mean": 2.0, "first": 0, "last": 4, "most": 4, "all": [0, 2, 4] },
            doc! { "_id": "odd", "n": 3, "total": 9, "mean": 3.0, "first": 1, "last": 5, "most": 5, "all": [1, 3, 5] },
        ]
    );
    assert_eq!(
        run(&[
            doc! { "$sort": { "_id": -1 } },
            doc! { "$skip": 1 },
            doc! { "$limit": 1 },
            doc! { "$unwind": "$list" }
        ]),
        [
            doc! { "_id": 4, "kind": "even", "list": 4 },
            doc! { "_id": 4, "kind": "even", "list": 5 }
        ]
    );
    assert_eq!(
        run(&[doc! { "$match": { "_id": { "$gt": 2 } } }, doc! { "$count": "n" }]),
        [doc! { "n": 3 }]
    );
    assert_eq!(
        run(&[doc! { "$match": { "_id": 99 } }, doc! { "$count": "n" }]),
        [] as [Document; 0]
    );
    assert_eq!(
        Pipeline::parse_aggregate(&[doc! { "$lookup": {} }])
            .unwrap_err()
            .code,
        115
    );
}

#[test]
fn a_pipeline_is_an_array_of_documents() {
    assert_eq!(stages_of(&Bson::Int32(1)).unwrap_err().code, 14);
    assert_eq!(
        stages_of(&Bson::Array(vec![Bson::Int32(1)])).unwrap_err().code,
        14
    );
    assert_eq!(
        stages_of(&Bson::Array(vec![Bson::Document(doc! { "a": 1 })])).unwrap(),
        [doc! { "a": 1 }]
    );
}

//! Updates and what a change stream says of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use bson::{Bson, DateTime, Document, Timestamp, bson, doc};
use changestream_sim::error::CommandError;
use changestream_sim::keys::{check_id, document_key};
use changestream_sim::query::filter::Filter;
use changestream_sim::query::update::{Change, Dialect, Update, UpdateContext, Updated};

const TIME: Timestamp = Timestamp {
    time: 7,
    increment: 1,
};

fn context(dialect: Dialect) -> UpdateContext {
    UpdateContext::new(dialect, DateTime::from_millis(1000), TIME)
}

fn apply(update: impl Into<Bson>, document: &Document, dialect: Dialect) -> Result<Updated, CommandError> {
    Update::parse(&update.into(), &[])?.apply(document, &context(dialect))
}

/// The new document and the description of an update that is expected to be one.
fn described(update: impl Into<Bson>, document: &Document, dialect: Dialect) -> (Document, Document) {
    let updated = apply(update, document, dialect).unwrap();
    let Change::Update(description) = updated.change else {
        panic!("not an update: {:?}", updated.change);
    };
    (updated.document, description.to_document(dialect))
}

#[test]
fn operators_change_the_document_and_say_so_as_4_4_does() {
    let cases = [
        // The recorded conversation "collection-crud" has this one.
        (
            doc! { "$set": { "a": 2, "b.c": [1, 2, { "d": 3 }] }, "$unset": { "s": 1 } },
            doc! { "_id": 1, "a": 1, "s": "é" },
            doc! { "_id": 1, "a": 2, "b": { "c": [1, 2, { "d": 3 }] } },
            doc! { "a": 2, "b.c": [1, 2, { "d": 3 }] },
            vec!["s"],
        ),
        (
            doc! { "$inc": { "a": 2, "n": 1 } },
            doc! { "a": 1 },
            doc! { "a": 3, "n": 1 },
            doc! { "a": 3, "n": 1 },
            vec![],
        ),
        (
            doc! { "$inc": { "a": 1 } },
            doc! { "a": i32::MAX },
            doc! { "a": 2_147_483_648_i64 },
            doc! { "a": 2_147_483_648_i64 },
            vec![],
        ),
        (
            doc! { "$mul": { "a": 2.5, "n": 3 } },
            doc! { "a": 2 },
            doc! { "a": 5.0, "n": 0 },
            doc! { "a": 5.0, "n": 0 },
            vec![],
        ),
        (
            doc! { "$min": { "a": 1, "b": 9 }, "$max": { "c": 9 } },
            doc! { "a": 2, "b": 3, "c": 4 },
            doc! { "a": 1, "b": 3, "c": 9 },
            doc! { "a": 1, "c": 9 },
            vec![],
        ),
        (
            doc! { "$rename": { "a": "b.c" } },
            doc! { "a": 1 },
            doc! { "b": { "c": 1 } },
            doc! { "b.c": 1 },
            vec!["a"],
        ),
        (
            doc! { "$currentDate": { "d": true, "t": { "$type": "timestamp" } } },
            doc! {},
            doc! { "d": DateTime::from_millis(1000), "t": TIME },
            doc! { "d": DateTime::from_millis(1000), "t": TIME },
            vec![],
        ),
        (
            doc! { "$push": { "a": 3 } },
            doc! { "a": [1, 2] },
            doc! { "a": [1, 2, 3] },
            doc! { "a.2": 3 },
            vec![],
        ),
        (
            doc! { "$push": { "a": 3 } },
            doc! {},
            doc! { "a": [3] },
            doc! { "a": [3] },
            vec![],
        ),
        (
            doc! { "$push": { "a": { "$each": [3, 4], "$position": 0 } } },
            doc! { "a": [1] },
            doc! { "a": [3, 4, 1] },
            doc! { "a": [3, 4, 1] },
            vec![],
        ),
        (
            doc! { "$push": { "a": { "$each": [0], "$sort": 1, "$slice": 2 } } },
            doc! { "a": [2, 1] },
            doc! { "a": [0, 1] },
            doc! { "a": [0, 1] },
            vec![],
        ),
        (
            doc! { "$push": { "a": { "$each": [5], "$slice": -2 } } },
            doc! { "a": [1, 2] },
            doc! { "a": [2, 5] },
            doc! { "a": [2, 5] },
            vec![],
        ),
        (
            doc! { "$addToSet": { "a": { "$each": [1, 2, 2] } } },
            doc! { "a": [1] },
            doc! { "a": [1, 2] },
            doc! { "a": [1, 2] },
            vec![],
        ),
        (
            doc! { "$pop": { "a": 1 } },
            doc! { "a": [1, 2] },
            doc! { "a": [1] },
            doc! { "a": [1] },
            vec![],
        ),
        (
            doc! { "$pop": { "a": -1 } },
            doc! { "a": [1, 2] },
            doc! { "a": [2] },
            doc! { "a": [2] },
            vec![],
        ),
        (
            doc! { "$pull": { "a": { "$gt": 1 } } },
            doc! { "a": [1, 2, 3] },
            doc! { "a": [1] },
            doc! { "a": [1] },
            vec![],
        ),
        (
            doc! { "$pull": { "a": { "k": 1 } } },
            doc! { "a": [{ "k": 1, "l": 2 }, 5] },
            doc! { "a": [5] },
            doc! { "a": [5] },
            vec![],
        ),
        (
            doc! { "$pullAll": { "a": [1, 3] } },
            doc! { "a": [1, 2, 3] },
            doc! { "a": [2] },
            doc! { "a": [2] },
            vec![],
        ),
        (
            doc! { "$bit": { "a": { "or": 5, "and": 4 } } },
            doc! { "a": 3 },
            doc! { "a": 4 },
            doc! { "a": 4 },
            vec![],
        ),
        (
            doc! { "$set": { "a.1": 9, "a.3": 8 } },
            doc! { "a": [1, 2] },
            doc! { "a": [1, 9, Bson::Null, 8] },
            doc! { "a.1": 9, "a.3": 8 },
            vec![],
        ),
        (
            doc! { "$set": { "a.0.b": 9 } },
            doc! { "a": [{ "b": 1 }] },
            doc! { "a": [{ "b": 9 }] },
            doc! { "a.0.b": 9 },
            vec![],
        ),
        // Names, not the order of the command, decide the order of new fields.
        (
            doc! { "$set": { "z": 1, "b": 2 } },
            doc! {},
            doc! { "b": 2, "z": 1 },
            doc! { "b": 2, "z": 1 },
            vec![],
        ),
        (
            doc! { "$set": { "a": 1_i64 } },
            doc! { "a": 1 },
            doc! { "a": 1_i64 },
            doc! { "a": 1_i64 },
            vec![],
        ),
    ];
    for (update, before, after, fields, removed) in cases {
        let (document, description) = described(update.clone(), &before, Dialect::Legacy);
        assert_eq!(document, after, "{update}");
        assert_eq!(
            description,
            doc! { "updatedFields": fields, "removedFields": removed },
            "{update}"
        );
    }
}

#[test]
fn the_order_of_new_fields_is_kept_in_the_bytes() {
    let (document, description) = described(doc! { "$set": { "z": 1, "b": 2 } }, &doc! {}, Dialect::Legacy);
    assert_eq!(document.keys().collect::<Vec<_>>(), ["b", "z"]);
    assert_eq!(
        description
            .get_document("updatedFields")
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["b", "z"]
    );
}

#[test]
fn from_5_0_on_a_created_path_is_one_new_field_and_an_unset_element_is_a_null() {
    let of = |update: Document, before: Document| described(update, &before, Dialect::Delta).1;
    assert_eq!(
        of(doc! { "$set": { "b.c": 1, "b.d": 2 } }, doc! { "a": 1 }),
        doc! { "updatedFields": { "b": { "c": 1, "d": 2 } }, "removedFields": [], "truncatedArrays": [] }
    );
    assert_eq!(
        of(doc! { "$unset": { "a.0": 1 } }, doc! { "a": [1, 2] }),
        doc! { "updatedFields": { "a.0": Bson::Null }, "removedFields": [], "truncatedArrays": [] }
    );
}

#[test]
fn what_changes_nothing_is_no_change() {
    let document = doc! { "_id": 1, "a": 1, "l": [1, 2] };
    let cases = [
        doc! { "$set": { "a": 1 } },
        doc! { "$inc": { "a": 0 } },
        doc! { "$unset": { "x": 1, "a.b": 1 } },
        doc! { "$max": { "a": 0 } },
        doc! { "$pull": { "l": 9 } },
        doc! { "$pop": { "x": 1 } },
        doc! { "$addToSet": { "l": 2 } },
        doc! { "$setOnInsert": { "q": 1 } },
        doc! { "$rename": { "x": "y" } },
        doc! { "$push": { "l": { "$each": [] } } },
        doc! { "_id": 1, "a": 1, "l": [1, 2] },
        doc! { "a": 1, "l": [1, 2] },
    ];
    for update in cases {
        let updated = apply(update.clone(), &document, Dialect::Legacy).unwrap();
        assert_eq!(
            (updated.document, updated.change),
            (document.clone(), Change::None),
            "{update}"
        );
    }
}

#[test]
fn a_replacement_keeps_the_id_and_puts_it_first() {
    let updated = apply(doc! { "z": 9 }, &doc! { "_id": 1, "a": 1 }, Dialect::Legacy).unwrap();
    assert_eq!(
        (updated.document, updated.change),
        (doc! { "_id": 1, "z": 9 }, Change::Replace)
    );
}

/// Makes a document larger than a description of a few changes in it.
const LONG: &str =
    "a value so long that the whole document is larger than what the log says of the changes in it";

#[test]
fn a_pipeline_update_is_a_replacement_to_4_4_and_a_description_from_5_0_on() {
    let before =
        doc! { "_id": 1, "a": 1, "kept": LONG, "gone": 1, "l": [1, 2, 3], "o": { "x": 1, "y": 2, "z": 3 } };
    let update = bson!([
        { "$set": { "a": { "$add": ["$a", 1] }, "l": [1, 9], "o.x": 5, "n": "$$NOW" } },
        { "$unset": "gone" },
    ]);
    let after = doc! { "_id": 1, "a": 2, "kept": LONG, "l": [1, 9], "o": { "x": 5, "y": 2, "z": 3 }, "n": DateTime::from_millis(1000) };
    let legacy = apply(update.clone(), &before, Dialect::Legacy).unwrap();
    assert_eq!((legacy.document, legacy.change), (after.clone(), Change::Replace));
    let (document, description) = described(update, &before, Dialect::Delta);
    assert_eq!(document, after);
    let fields = description.get_document("updatedFields").unwrap();
    assert_eq!(
        fields,
        &doc! { "a": 2, "l": [1, 9], "o.x": 5, "n": DateTime::from_millis(1000) }
    );
    assert_eq!(
        description.get_array("removedFields").unwrap(),
        &[Bson::String("gone".into())]
    );
}

#[test]
fn a_pipeline_that_changes_most_of_a_small_document_is_a_replacement_to_every_server() {
    let update = bson!([{ "$set": { "a": 2, "b": 3 } }]);
    for dialect in [Dialect::Legacy, Dialect::Delta] {
        let updated = apply(update.clone(), &doc! { "_id": 1, "a": 1 }, dialect).unwrap();
        assert_eq!(updated.change, Change::Replace);
    }
}

#[test]
fn a_long_array_that_is_cut_is_told_as_truncated() {
    let items: Vec<Bson> = (0..50).map(|n| Bson::String(format!("item {n}"))).collect();
    let before = doc! { "_id": 1, "l": items.clone() };
    let kept = items[..40].to_vec();
    let update = bson!([{ "$set": { "l": { "$literal": kept.clone() } } }]);
    let (document, description) = described(update, &before, Dialect::Delta);
    assert_eq!(document, doc! { "_id": 1, "l": kept });
    assert_eq!(
        description,
        doc! { "updatedFields": {}, "removedFields": [], "truncatedArrays": [{ "field": "l", "newSize": 40 }] }
    );
}

#[test]
fn positional_operators_find_their_elements() {
    let document = doc! { "_id": 1, "a": [{ "k": 1 }, { "k": 2 }, { "k": 2 }] };
    let filter = Filter::parse(&doc! { "a.k": 2 }).unwrap();
    let update = Update::parse(&bson!({ "$set": { "a.$.k": 9 } }), &[]).unwrap();
    let at = context(Dialect::Legacy).at_position(filter.match_position(&document).unwrap());
    let updated = update.apply(&document, &at).unwrap();
    assert_eq!(
        updated.document,
        doc! { "_id": 1, "a": [{ "k": 1 }, { "k": 9 }, { "k": 2 }] }
    );
    let error = update.apply(&document, &context(Dialect::Legacy)).unwrap_err();
    assert_eq!(
        error.message,
        "The positional operator did not find the match needed from the query."
    );

    let with_filters = |update: Bson, filters: &[Document]| {
        let updated = Update::parse(&update, filters)
            .unwrap()
            .apply(&document, &context(Dialect::Legacy))
            .unwrap();
        let Change::Update(description) = updated.change else {
            panic!("no change")
        };
        (updated.document, description.updated_fields)
    };
    // More than one element changed: the array is logged; only one concerned: the path itself.
    let all = doc! { "a": [{ "k": 2 }, { "k": 3 }, { "k": 3 }] };
    assert_eq!(with_filters(bson!({ "$inc": { "a.$[].k": 1 } }), &[]).1, all);
    assert_eq!(
        with_filters(bson!({ "$set": { "a.$[x].k": 5 } }), &[doc! { "x.k": 1 }]).1,
        doc! { "a.0.k": 5 }
    );
    // Several concerned, one of them changed: that element.
    assert_eq!(
        with_filters(bson!({ "$max": { "a.$[].k": 2 } }), &[]).1,
        doc! { "a.0": { "k": 2 } }
    );
}

#[test]
fn a_bad_update_is_refused_in_the_servers_words() {
    let document = doc! { "_id": 1, "a": 1, "s": "x", "l": [1], "o": { "p": 1 } };
    let cases = [
        (
            bson!({ "$foo": { "a": 1 } }),
            9,
            "Unknown modifier: $foo. Expected a valid update modifier or pipeline-style update specified as an array",
        ),
        (
            bson!({ "$set": 1 }),
            9,
            "Modifiers operate on fields but we found type int instead. For example: {$mod: {<field>: ...}} not {$set: 1}",
        ),
        (
            bson!({ "a": 1, "$set": { "b": 1 } }),
            52,
            "The dollar ($) prefixed field '$set' in '$set' is not valid for storage.",
        ),
        (
            bson!({ "$set": { "a": 1 }, "$inc": { "a": 1 } }),
            40,
            "Updating the path 'a' would create a conflict at 'a'",
        ),
        (
            bson!({ "$set": { "a.b": 1, "a": 1 } }),
            40,
            "Updating the path 'a' would create a conflict at 'a'",
        ),
        (
            bson!({ "$set": { "a": 1, "a.b": 1 } }),
            40,
            "Updating the path 'a.b' would create a conflict at 'a'",
        ),
        (
            bson!({ "$set": { "a.b": 1 } }),
            28,
            "Cannot create field 'b' in element {a: 1}",
        ),
        (
            bson!({ "$set": { "l.b": 1 } }),
            28,
            "Cannot create field 'b' in element {l: [ 1 ]}",
        ),
        (
            bson!({ "$set": { "_id": 2 } }),
            66,
            "Performing an update on the path '_id' would modify the immutable field '_id'",
        ),
        (
            bson!({ "$unset": { "_id": 1 } }),
            66,
            "Performing an update on the path '_id' would modify the immutable field '_id'",
        ),
        (
            bson!({ "_id": 2, "a": 1 }),
            66,
            "After applying the update, the (immutable) field '_id' was found to have been altered to _id: 2",
        ),
        (
            bson!([{ "$set": { "_id": 2 } }]),
            66,
            "After applying the update, the (immutable) field '_id' was found to have been altered to _id: 2",
        ),
        (
            bson!({ "$inc": { "s": 1 } }),
            14,
            "Cannot apply $inc to a value of non-numeric type. {_id: 1} has the field 's' of non-numeric type string",
        ),
        (
            bson!({ "$inc": { "a": "x" } }),
            14,
            "Cannot increment with non-numeric argument: {a: \"x\"}",
        ),
        (
            bson!({ "$push": { "a": 1 } }),
            2,
            "The field 'a' must be an array but is of type int in document {_id: 1}",
        ),
        (
            bson!({ "$addToSet": { "a": 1 } }),
            2,
            "Cannot apply $addToSet to non-array field. Field named 'a' has non-array type int",
        ),
        (
            bson!({ "$pop": { "a": 1 } }),
            14,
            "Path 'a' contains an element of non-array type 'int'",
        ),
        (
            bson!({ "$pull": { "a": 1 } }),
            2,
            "Cannot apply $pull to a non-array value",
        ),
        (
            bson!({ "$set": { "": 1 } }),
            56,
            "The update path '' contains an empty field name, which is not allowed.",
        ),
        (
            bson!({ "$set": { "a.$x": 1 } }),
            52,
            "The dollar ($) prefixed field '$x' in 'a.$x' is not valid for storage.",
        ),
        (
            bson!({ "$set": { "$": 1 } }),
            2,
            "Cannot have positional (i.e. '$') element in the first position in path '$'",
        ),
        (
            bson!({ "$set": { "x.$[]": 1 } }),
            2,
            "The path 'x' must exist in the document in order to apply array updates.",
        ),
        (
            bson!({ "$set": { "a.$[]": 1 } }),
            2,
            "Cannot apply array updates to non-array element a: 1",
        ),
        (
            bson!({ "$set": { "l.$[i]": 1 } }),
            2,
            "No array filter found for identifier 'i' in path 'l.$[i]'",
        ),
        (
            bson!({ "$rename": { "a": "a" } }),
            2,
            "The source and target field for $rename must differ: a: \"a\"",
        ),
        (
            bson!([{ "$match": {} }]),
            72,
            "$match is not allowed to be used within an update",
        ),
        (
            bson!(5),
            9,
            "Update argument must be either an object or an array",
        ),
    ];
    for (update, code, message) in cases {
        let error = apply(update.clone(), &document, Dialect::Legacy).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message), "{update}");
    }
    let unused = Update::parse(&bson!({ "$set": { "a": 1 } }), &[doc! { "x": 1 }]).unwrap_err();
    assert_eq!(
        unused.message,
        "The array filter for identifier 'x' was not used in the update { $set: { a: 1 } }"
    );
}

#[test]
fn an_upsert_starts_from_the_querys_equalities() {
    let upsert = |query: Document, update: Bson| {
        let context = context(Dialect::Legacy);
        Update::parse(&update, &[])
            .unwrap()
            .upsert(&Filter::parse(&query).unwrap(), &context)
    };
    assert_eq!(
        upsert(
            doc! { "a.b": 1, "_id": 7, "c": { "$gt": 1 } },
            bson!({ "$setOnInsert": { "n": 1 }, "$inc": { "k": 2 } })
        )
        .unwrap(),
        doc! { "_id": 7, "a": { "b": 1 }, "k": 2, "n": 1 }
    );
    assert_eq!(
        upsert(doc! { "_id": 7, "x": 1 }, bson!({ "y": 2 })).unwrap(),
        doc! { "_id": 7, "y": 2 }
    );
    assert_eq!(
        upsert(doc! { "x": 1 }, bson!({ "$set": { "_id": 3 } })).unwrap(),
        doc! { "_id": 3, "x": 1 }
    );
    assert_eq!(
        upsert(doc! { "x": 1 }, bson!([{ "$set": { "y": "$x" } }])).unwrap(),
        doc! { "x": 1, "y": 1 }
    );
    assert_eq!(
        upsert(doc! { "_id": 1 }, bson!({ "_id": 2 })).unwrap_err().code,
        66
    );
    assert_eq!(
        upsert(
            doc! { "$and": [{ "x": 1 }, { "x": 2 }] },
            bson!({ "$set": { "y": 1 } })
        )
        .unwrap_err()
        .code,
        54
    );
}

#[test]
fn a_document_key_is_the_shard_key_and_then_the_id() {
    let document = doc! { "_id": 1, "z": { "y": 2 }, "a": 3 };
    assert_eq!(document_key(&document, None), doc! { "_id": 1 });
    let key = document_key(&document, Some(&doc! { "z.y": 1, "missing": 1 }));
    assert_eq!(key.keys().collect::<Vec<_>>(), ["z.y", "_id"]);
    assert_eq!(
        document_key(&document, Some(&doc! { "_id": "hashed" })),
        doc! { "_id": 1 }
    );
    assert_eq!(check_id(&bson!([1])).unwrap_err().code, 53);
    assert_eq!(check_id(&bson!({ "$a": 1 })).unwrap_err().code, 52);
    check_id(&bson!({ "a": 1 })).unwrap();
}

#[test]
fn an_update_nested_without_end_is_refused() {
    let mut value = bson!({ "a": 1 });
    for _ in 0..500 {
        value = bson!({ "a": value });
    }
    assert_eq!(
        apply(bson!({ "$set": { "x": value } }), &doc! {}, Dialect::Legacy)
            .unwrap_err()
            .code,
        15
    );
    let long = vec!["a"; 10_000].join(".");
    assert_eq!(
        apply(bson!({ "$set": { long: 1 } }), &doc! {}, Dialect::Legacy)
            .unwrap_err()
            .code,
        15
    );
    let error = apply(
        bson!({ "$set": { "l.99999999999": 1 } }),
        &doc! { "l": [] },
        Dialect::Legacy,
    )
    .unwrap_err();
    assert_eq!(error.code, 33);
}

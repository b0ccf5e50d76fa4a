//! Filters, comparison and projections, as a server has them.
#![allow(clippy::unwrap_used, reason = "tests")]

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, Timestamp, doc};
use changestream_sim::query::compare::{compare, equal};
use changestream_sim::query::filter::Filter;
use changestream_sim::query::sort::SortPattern;

fn matches(filter: Document, document: Document) -> bool {
    Filter::parse(&filter).unwrap().matches(&document)
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

#[test]
fn values_sort_by_type_bracket_and_numbers_across_types() {
    let rising = [
        Bson::MinKey,
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::Double(f64::NEG_INFINITY),
        decimal("-1E+400"),
        Bson::Int64(i64::MIN),
        decimal("-1.5"),
        Bson::Int32(-1),
        Bson::Int32(0),
        decimal("0.1"),
        Bson::Double(0.1),
        Bson::Int32(1),
        Bson::Int64((1 << 53) + 1),
        Bson::Double(9_007_199_254_740_994.0),
        decimal("9007199254740994.5"),
        Bson::Int64(i64::MAX),
        Bson::Double(9_223_372_036_854_775_808.0),
        Bson::Double(f64::MAX),
        decimal("1E+400"),
        Bson::Double(f64::INFINITY),
        Bson::String("a".into()),
        Bson::String("b".into()),
        Bson::Document(doc! {}),
        Bson::Document(doc! { "b": 1 }),
        Bson::Document(doc! { "a": "x" }),
        Bson::Array(vec![]),
        Bson::Array(vec![Bson::Int32(1)]),
        Bson::ObjectId(ObjectId::from_bytes([1; 12])),
        Bson::Boolean(false),
        Bson::Boolean(true),
        Bson::DateTime(DateTime::from_millis(1)),
        Bson::Timestamp(Timestamp {
            time: 1,
            increment: 1,
        }),
        Bson::MaxKey,
    ];
    for (at, left) in rising.iter().enumerate() {
        for (other, right) in rising.iter().enumerate() {
            assert_eq!(compare(left, right), at.cmp(&other), "{left:?} and {right:?}");
        }
    }
    assert!(equal(&Bson::Int32(1), &decimal("1.00")));
    assert!(equal(&Bson::Int32(0), &Bson::Double(-0.0)));
    assert!(!equal(
        &Bson::Document(doc! { "a": 1, "b": 2 }),
        &Bson::Document(doc! { "b": 2, "a": 1 })
    ));
}

#[test]
fn filters_match_what_a_server_matches() {
    let id = ObjectId::from_bytes([5; 12]);
    let yes = [
        (doc! {}, doc! { "a": 1 }),
        (doc! { "a": 1 }, doc! { "a": 1_i64 }),
        (doc! { "a": 1 }, doc! { "a": [3, 1] }),
        (doc! { "a": [3, 1] }, doc! { "a": [3, 1] }),
        (doc! { "a": [3, 1] }, doc! { "a": [[3, 1], 2] }),
        (doc! { "a.b": 1 }, doc! { "a": { "b": 1 } }),
        (doc! { "a.b": 1 }, doc! { "a": [{ "b": 2 }, { "b": [0, 1] }] }),
        (doc! { "a.1": 5 }, doc! { "a": [4, 5] }),
        (doc! { "a.1.b": 5 }, doc! { "a": [4, { "b": 5 }] }),
        (doc! { "a": Bson::Null }, doc! { "b": 1 }),
        (doc! { "a": Bson::Null }, doc! { "a": Bson::Null }),
        (doc! { "a.b": Bson::Null }, doc! { "a": 4 }),
        (doc! { "a.b": Bson::Null }, doc! { "a": [{ "b": 1 }, {}] }),
        (doc! { "a": { "b": 1 } }, doc! { "a": { "b": 1.0 } }),
        (doc! { "a": { "$gt": 1, "$lt": 3 } }, doc! { "a": 2 }),
        (doc! { "a": { "$gt": 1, "$lt": 3 } }, doc! { "a": [0, 5] }),
        (doc! { "a": { "$gte": Bson::Null } }, doc! {}),
        (doc! { "a": { "$gt": Bson::MinKey } }, doc! { "a": "x" }),
        (doc! { "a": { "$ne": 1 } }, doc! {}),
        (doc! { "a": { "$in": [1, Bson::Null] } }, doc! {}),
        (doc! { "a": { "$in": [1, 2] } }, doc! { "a": [9, 2] }),
        (doc! { "a": { "$nin": [1, 2] } }, doc! { "a": 3 }),
        (doc! { "a": { "$exists": true } }, doc! { "a": Bson::Null }),
        (doc! { "a": { "$exists": false } }, doc! { "b": 1 }),
        (doc! { "a": { "$type": "string" } }, doc! { "a": ["x"] }),
        (doc! { "a": { "$type": "array" } }, doc! { "a": [] }),
        (doc! { "a": { "$type": ["number", 2] } }, doc! { "a": 1.5 }),
        (doc! { "a": { "$mod": [4, 1] } }, doc! { "a": 9 }),
        (
            doc! { "a": { "$regex": "^ab", "$options": "i" } },
            doc! { "a": "ABC" },
        ),
        (doc! { "a": { "$not": { "$regex": "^ab" } } }, doc! { "a": "xyz" }),
        (doc! { "a": { "$not": { "$gt": 1 } } }, doc! {}),
        (doc! { "a": { "$size": 2 } }, doc! { "a": [1, 2] }),
        (doc! { "a": { "$all": [1, 2] } }, doc! { "a": [2, 3, 1] }),
        (
            doc! { "a": { "$all": [{ "$elemMatch": { "b": 1 } }] } },
            doc! { "a": [{ "b": 1 }] },
        ),
        (
            doc! { "a": { "$elemMatch": { "b": 1, "c": 2 } } },
            doc! { "a": [{ "b": 1, "c": 2 }] },
        ),
        (
            doc! { "a": { "$elemMatch": { "$gt": 1, "$lt": 3 } } },
            doc! { "a": [0, 2] },
        ),
        (doc! { "a": { "$bitsAllSet": [0, 2] } }, doc! { "a": 5 }),
        (doc! { "$or": [{ "a": 1 }, { "b": 2 }] }, doc! { "b": 2 }),
        (doc! { "$nor": [{ "a": 1 }, { "b": 2 }] }, doc! { "c": 2 }),
        (
            doc! { "$and": [{ "a": 1 }, { "b": 2 }], "$comment": "both" },
            doc! { "a": 1, "b": 2 },
        ),
        (doc! { "$expr": { "$gt": ["$a", "$b"] } }, doc! { "a": 2, "b": 1 }),
        (
            doc! { "$expr": { "$in": ["$ns.coll", ["a", "b"]] } },
            doc! { "ns": { "coll": "b" } },
        ),
        (doc! { "_id": { "$gte": id } }, doc! { "_id": id }),
        (doc! { "a": f64::NAN }, doc! { "a": f64::NAN }),
    ];
    for (filter, document) in yes {
        assert!(
            matches(filter.clone(), document.clone()),
            "{filter} should match {document}"
        );
    }
}

#[test]
fn filters_leave_out_what_a_server_leaves_out() {
    let no = [
        (doc! { "a": 1 }, doc! { "a": "1" }),
        (doc! { "a": 1 }, doc! { "a": [[1]] }),
        (doc! { "a.b": 1 }, doc! { "a": [[{ "b": 1 }]] }),
        (doc! { "a.b": Bson::Null }, doc! { "a": [] }),
        (doc! { "a.b": Bson::Null }, doc! { "a": [1, 2] }),
        (doc! { "a": { "$gt": 1 } }, doc! { "a": "x" }),
        (doc! { "a": { "$gt": 1 } }, doc! {}),
        (doc! { "a": { "$gte": f64::NAN } }, doc! { "a": 1 }),
        (doc! { "a": { "$ne": 1 } }, doc! { "a": [1, 2] }),
        (doc! { "a": { "$nin": [1] } }, doc! { "a": [1, 2] }),
        (doc! { "a": { "$exists": false } }, doc! { "a": Bson::Null }),
        (doc! { "a": { "$size": 1 } }, doc! { "a": [[1, 2], 3] }),
        (doc! { "a": { "$all": [] } }, doc! { "a": [] }),
        (
            doc! { "a": { "$elemMatch": { "b": 1, "c": 2 } } },
            doc! { "a": [{ "b": 1 }, { "c": 2 }] },
        ),
        (
            doc! { "a": { "$elemMatch": { "$gt": 1, "$lt": 3 } } },
            doc! { "a": [0, 5] },
        ),
        (doc! { "a": { "$regex": "^ab" } }, doc! { "a": "ABC" }),
        (doc! { "$expr": { "$eq": ["$a", Bson::Null] } }, doc! {}),
        (doc! { "a": { "b": 1 } }, doc! { "a": { "b": 1, "c": 2 } }),
    ];
    for (filter, document) in no {
        assert!(
            !matches(filter.clone(), document.clone()),
            "{filter} should not match {document}"
        );
    }
}

#[test]
fn a_bad_filter_is_refused_in_the_servers_words() {
    let cases = [
        (doc! { "a": { "$foo": 1 } }, 2, "unknown operator: $foo"),
        (doc! { "$foo": 1 }, 2, "unknown top level operator: $foo"),
        (doc! { "$and": 1 }, 2, "$and must be an array"),
        (doc! { "$or": [] }, 2, "$and/$or/$nor must be a nonempty array"),
        (
            doc! { "$or": [1] },
            2,
            "$or/$and/$nor entries need to be full objects",
        ),
        (doc! { "a": { "$in": 1 } }, 2, "$in needs an array"),
        (doc! { "a": { "$not": 1 } }, 2, "$not needs a regex or a document"),
        (doc! { "a": { "$options": "i" } }, 2, "$options needs a $regex"),
        (doc! { "a": { "$regex": 1 } }, 2, "$regex has to be a string"),
        (
            doc! { "a": { "$type": "nope" } },
            2,
            "Unknown type name alias: nope",
        ),
        (doc! { "a": { "$mod": [0, 1] } }, 2, "divisor cannot be 0"),
        (doc! { "a": { "$elemMatch": 1 } }, 2, "$elemMatch needs an Object"),
        (doc! { "a": { "$gt": 1, "b": 2 } }, 2, "unknown operator: b"),
        (
            doc! { "$expr": { "$foo": 1 } },
            168,
            "Unrecognized expression '$foo'",
        ),
        (doc! { "$where": "1" }, 115, "the simulated server has no $where"),
    ];
    for (filter, code, message) in cases {
        let error = Filter::parse(&filter).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message), "{filter}");
    }
    assert_eq!(
        Filter::parse(&doc! { "a": { "$regex": "(?=x)" } })
            .unwrap_err()
            .code,
        51091
    );
    assert_eq!(
        Filter::parse(&doc! { "a": { "$regex": "x", "$options": "q" } })
            .unwrap_err()
            .code,
        51108
    );
    assert_eq!(
        Filter::parse(&doc! { "a": { "$regex": "((a{500}){500}){500}" } })
            .unwrap_err()
            .code,
        51091
    );
}

#[test]
fn a_filter_nested_without_end_is_refused() {
    let mut filter = doc! { "a": 1 };
    for _ in 0..1000 {
        filter = doc! { "$and": [filter] };
    }
    assert_eq!(Filter::parse(&filter).unwrap_err().code, 2);
}

#[test]
fn the_matched_index_is_the_one_that_the_positional_operator_means() {
    let cases = [
        (doc! { "a": 2 }, doc! { "a": [1, 2, 2] }, Some(Some(1))),
        (
            doc! { "a.b": 2 },
            doc! { "a": [{ "b": 1 }, { "b": [0, 2] }] },
            Some(Some(1)),
        ),
        (
            doc! { "a": { "$elemMatch": { "$gt": 1 } } },
            doc! { "a": [1, 3] },
            Some(Some(1)),
        ),
        (doc! { "b": 1 }, doc! { "b": 1, "a": [1] }, Some(None)),
        (doc! { "b": 2 }, doc! { "b": 1 }, None),
    ];
    for (filter, document, expected) in cases {
        let found = Filter::parse(&filter).unwrap().match_position(&document);
        assert_eq!(found, expected, "{filter}");
    }
}

#[test]
fn the_equalities_of_a_filter_are_what_every_match_has() {
    let filter = Filter::parse(&doc! {
        "_id": 1, "a.b": { "$eq": 2 }, "$and": [{ "c": 3 }], "$or": [{ "d": 4 }, { "e": 5 }], "f": { "$gt": 6 },
        "g": { "$in": [7] },
    })
    .unwrap();
    let expected: Vec<(String, Bson)> = [("_id", 1), ("a.b", 2), ("c", 3), ("g", 7)]
        .map(|(path, value)| (path.to_owned(), Bson::Int32(value)))
        .to_vec();
    assert_eq!(filter.equalities(), expected);
}

#[test]
fn sorting_takes_an_arrays_extreme_and_null_for_what_is_absent() {
    let pattern = SortPattern::parse(&doc! { "a": 1, "b": -1 }).unwrap();
    let mut documents = vec![
        doc! { "a": [5, 2] },
        doc! { "a": 3 },
        doc! { "a": 1, "b": 1 },
        doc! { "a": 1, "b": 2 },
        doc! { "b": 9 },
    ];
    documents.sort_by(|left, right| pattern.compare(left, right));
    let expected = vec![
        doc! { "b": 9 },
        doc! { "a": 1, "b": 2 },
        doc! { "a": 1, "b": 1 },
        doc! { "a": [5, 2] },
        doc! { "a": 3 },
    ];
    assert_eq!(documents, expected);
    assert_eq!(SortPattern::parse(&doc! { "a": 2 }).unwrap_err().code, 15975);
}

#[test]
fn the_deepest_filter_that_is_allowed_fits_on_a_threads_stack() {
    let mut logical = doc! { "a": 1 };
    let mut expression = Bson::String("$a".into());
    let mut deep = Bson::Int32(1);
    for _ in 0..98 {
        logical = doc! { "$and": [logical] };
        expression = Bson::Document(doc! { "$not": [expression] });
        deep = Bson::Document(doc! { "a": [deep] });
    }
    let document = doc! { "a": deep.clone() };
    assert!(!Filter::parse(&logical).unwrap().matches(&document));
    assert!(
        Filter::parse(&doc! { "$expr": expression })
            .unwrap()
            .matches(&document)
    );
    assert!(Filter::parse(&doc! { "a": deep }).unwrap().matches(&document));
}

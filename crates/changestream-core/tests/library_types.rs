//! Events decoded into the types of `bson` that ask for more than serde can say.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use bson::oid::ObjectId;
use bson::raw::{RawArray, RawArrayBuf, RawBson, RawBsonRef, cstr};
use bson::serde_helpers::HumanReadable;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, RawDocument, RawDocumentBuf,
    Regex, Timestamp, Utf8Lossy, doc, rawdoc,
};
use changestream_core::ResumeToken;
use changestream_core::event::ChangeEvent;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// One value of each kind.
fn kinds() -> Vec<Bson> {
    let binary = |subtype| {
        Bson::Binary(Binary {
            subtype,
            bytes: vec![1, 2, 3],
        })
    };
    let regex = Regex {
        pattern: cstr!("^a").into(),
        options: cstr!("i").into(),
    };
    let with_scope = JavaScriptCodeWithScope {
        code: "g()".to_owned(),
        scope: doc! { "a": { "b": 1 } },
    };
    // There is no way to make one but to read one.
    let pointer = [&b"\x1c\0\0\0\x0cp\0\x04\0\0\0a.b\0"[..], &[7; 12], &[0]].concat();
    let pointer: Bson = bson::deserialize_from_slice::<Document>(&pointer)
        .unwrap()
        .remove("p")
        .unwrap();
    vec![
        Bson::Double(1.5),
        Bson::String("é".to_owned()),
        doc! { "a": [{}], "later": 1 }.into(),
        vec![Bson::Int32(1), vec![Bson::Null].into()].into(),
        binary(BinarySubtype::Generic),
        binary(BinarySubtype::BinaryOld),
        binary(BinarySubtype::Uuid),
        binary(BinarySubtype::UserDefined(0x80)),
        Bson::Undefined,
        ObjectId::from_bytes([9; 12]).into(),
        Bson::Boolean(true),
        DateTime::from_millis(-1).into(),
        Bson::Null,
        regex.into(),
        pointer,
        Bson::JavaScriptCode("f()".to_owned()),
        Bson::Symbol("s".to_owned()),
        with_scope.into(),
        Bson::Int32(-2),
        Bson::Timestamp(Timestamp {
            time: 5,
            increment: 6,
        }),
        Bson::Int64(3),
        Bson::Decimal128(Decimal128::from_bytes([8; 16])),
        Bson::MinKey,
        Bson::MaxKey,
    ]
}

fn around(document: &RawDocument) -> ChangeEvent {
    let mut event = rawdoc! { "_id": { "_data": "82" } };
    event.append(cstr!("fullDocument"), document.to_owned());
    ChangeEvent::from_raw(event).unwrap()
}

/// With each question mark in it made a byte that no UTF-8 has.
fn broken(document: &Document) -> RawDocumentBuf {
    let mut bytes = document.to_vec().unwrap();
    for byte in &mut bytes {
        if *byte == b'?' {
            *byte = 0xff;
        }
    }
    RawDocumentBuf::from_bytes(bytes).unwrap()
}

fn decoded<T: DeserializeOwned>(document: &RawDocument) -> T {
    around(document).full_document_as().unwrap().unwrap()
}

#[test]
fn raw_values_of_each_kind_are_what_they_were_in_lists_and_in_maps() {
    let document = rawdoc! { "list": RawArrayBuf::from_iter(kinds().into_iter().map(|kind| RawBson::try_from(kind).unwrap())) };
    let expected: Vec<RawBsonRef<'_>> = (document.get_array("list").unwrap().into_iter())
        .map(Result::unwrap)
        .collect();

    #[derive(Deserialize)]
    struct Lent<'a> {
        #[serde(borrow)]
        list: Vec<RawBsonRef<'a>>,
    }
    let event = around(&document);
    let lent: Lent<'_> = event.full_document_as().unwrap().unwrap();
    assert_eq!(lent.list, expected);

    let owned: BTreeMap<String, Vec<RawBson>> = decoded(&document);
    assert!(owned["list"].iter().map(RawBson::as_raw_bson_ref).eq(expected));

    let fields: RawDocumentBuf = kinds()
        .into_iter()
        .enumerate()
        .map(|(index, kind)| (format!("f{index:02}"), RawBson::try_from(kind).unwrap()))
        .fold(RawDocumentBuf::new(), |mut document, (key, value)| {
            document.append(&*bson::raw::CString::try_from(key).unwrap(), value);
            document
        });
    let map: BTreeMap<String, RawBson> = decoded(&fields);
    let library: BTreeMap<String, RawBson> = bson::deserialize_from_slice(fields.as_bytes()).unwrap();
    assert_eq!(map, library);
}

#[test]
fn a_raw_array_is_lent_and_nothing_else_is_one() {
    #[derive(Debug, Deserialize)]
    struct Lists<'a> {
        #[serde(borrow)]
        lists: Vec<&'a RawArray>,
    }
    let event = around(&rawdoc! { "lists": [[1, "x"], []] });
    let lists: Lists<'_> = event.full_document_as().unwrap().unwrap();
    assert_eq!(lists.lists.len(), 2);
    assert_eq!(lists.lists[0].get_str(1).unwrap(), "x");

    let list = RawArrayBuf::from_iter([1, 2]);
    for other in [
        RawBson::Int32(1),
        RawBson::Document(rawdoc! {}),
        RawBson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes: list.as_bytes().to_vec(),
        }),
    ] {
        let event = around(&rawdoc! { "lists": [[1], other.clone()] });
        let error = event.full_document_as::<Lists<'_>>().unwrap_err();
        assert_eq!(error.path(), Some("fullDocument.lists[1]"), "{other:?}: {error}");
    }
}

#[test]
fn each_value_of_a_long_list_is_found_once() {
    const LENGTH: usize = 100_000;

    // Going through the list once more for each of its values would take minutes.
    fn list_of<T: DeserializeOwned>(value: Bson) {
        #[derive(Deserialize)]
        struct List<T> {
            list: Vec<T>,
        }
        let document = RawDocumentBuf::try_from(&doc! { "list": vec![value; LENGTH] }).unwrap();
        assert_eq!(decoded::<List<T>>(&document).list.len(), LENGTH);
    }
    list_of::<RawBson>(Bson::Int32(1));
    list_of::<RawBson>(DateTime::from_millis(1).into());
    list_of::<RawArrayBuf>(Bson::Array(Vec::new()));
    list_of::<Utf8Lossy<String>>("x".into());
    list_of::<HumanReadable<i32>>(Bson::Int32(1));
}

#[test]
fn what_is_no_utf_8_is_replaced_within_the_wrapper_for_that_and_only_there() {
    let regex = Regex {
        pattern: cstr!("a?b").into(),
        options: cstr!("i").into(),
    };
    let with_scope = JavaScriptCodeWithScope {
        code: "??".to_owned(),
        scope: doc! { "a": "x?" },
    };
    let values = doc! {
        "text": "t?o", "code": Bson::JavaScriptCode("f?".into()), "symbol": Bson::Symbol("?".into()),
        "regex": regex, "scoped": with_scope, "list": ["?", ["a?"]], "number": 1,
    };
    let replaced: Utf8Lossy<Document> = decoded(&broken(&values));
    let regex = Regex {
        pattern: cstr!("a\u{fffd}b").into(),
        options: cstr!("i").into(),
    };
    let with_scope = JavaScriptCodeWithScope {
        code: "\u{fffd}\u{fffd}".to_owned(),
        scope: doc! { "a": "x\u{fffd}" },
    };
    assert_eq!(
        replaced.0,
        doc! {
            "text": "t\u{fffd}o", "code": Bson::JavaScriptCode("f\u{fffd}".into()),
            "symbol": Bson::Symbol("\u{fffd}".into()), "regex": regex, "scoped": with_scope,
            "list": ["\u{fffd}", ["a\u{fffd}"]], "number": 1,
        }
    );

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only decoding is of interest")]
    struct Half {
        lossy: Vec<Utf8Lossy<String>>,
        strict: Vec<String>,
    }
    let event = around(&broken(&doc! { "lossy": ["a", "?"], "strict": ["a", "?"] }));
    let error = event.full_document_as::<Half>().unwrap_err();
    assert_eq!(error.path(), Some("fullDocument.strict[1]"));
}

#[test]
fn a_failure_within_a_wrapper_of_the_library_names_its_place() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only decoding is of interest")]
    struct Wrapped<T> {
        lists: Vec<T>,
    }
    fn path_in<T: DeserializeOwned + Debug>() -> Option<String> {
        let event = around(&rawdoc! { "lists": [[1], [2, "x"]] });
        let error = event.full_document_as::<Wrapped<T>>().unwrap_err();
        error.path().map(str::to_owned)
    }
    let expected = Some("fullDocument.lists[1][1]".to_owned());
    assert_eq!(path_in::<Utf8Lossy<Vec<i32>>>(), expected);
    assert_eq!(path_in::<HumanReadable<Vec<i32>>>(), expected);
}

/// Whether its deserializer says that people read it.
#[derive(Debug, PartialEq)]
struct Readable(bool);

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let readable = deserializer.is_human_readable();
        serde::de::IgnoredAny::deserialize(deserializer)?;
        Ok(Self(readable))
    }
}

#[test]
fn only_what_stands_in_the_wrapper_for_that_is_told_that_people_read_it() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Both {
        people: HumanReadable<Inner>,
        machines: Inner,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        field: Readable,
        list: Vec<Readable>,
    }
    let inner = |readable| Inner {
        field: Readable(readable),
        list: vec![Readable(readable)],
    };
    let document =
        rawdoc! { "people": { "field": 1, "list": ["x"] }, "machines": { "field": 1, "list": ["x"] } };
    let both: Both = decoded(&document);
    assert_eq!(both.people.0, inner(true));
    assert_eq!(both.machines, inner(false));
}

#[test]
fn a_token_in_a_wrapper_is_the_token_that_it_is_without() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Tokens {
        plain: ResumeToken,
        lossy: Utf8Lossy<ResumeToken>,
        readable: HumanReadable<Vec<ResumeToken>>,
    }
    let token =
        rawdoc! { "_data": "82", "_typeBits": Binary { subtype: BinarySubtype::Generic, bytes: vec![1] } };
    let tokens: Tokens =
        decoded(&rawdoc! { "plain": token.clone(), "lossy": token.clone(), "readable": [token.clone()] });
    let expected = ResumeToken::from_raw_bson(RawBson::Document(token));
    assert_eq!(tokens.plain, expected);
    assert_eq!(tokens.lossy.0, expected);
    assert_eq!(tokens.readable.0, [expected]);
}

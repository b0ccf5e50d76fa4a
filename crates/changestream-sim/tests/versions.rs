//! What each server version refuses of change streams, and with which words.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Instant;

use bson::{Bson, Document, Timestamp, doc};
use changestream_sim::token::{ResumeTokenData, TokenVersion};
use changestream_sim::{BuildError, Deployment};
use world::World;

/// All that is modelled, and the patch releases at which something changes; in order.
const VERSIONS: [&str; 16] = [
    "4.0.6", "4.0", "4.2", "4.4", "4.4.2", "5.0", "6.0.8", "6.0.9", "6.0", "6.1", "6.3", "7.0", "8.0",
    "8.0.5", "8.1", "8.2",
];

/// A wish, the versions that grant it, and what the others say.
struct Case {
    what: &'static str,
    options: Document,
    stages: Vec<Document>,
    granted_by: &'static [&'static str],
    refusal: fn(&str) -> (i32, &'static str),
}

const ALL: &[&str] = &VERSIONS;
const NONE: &[&str] = &[];
const SINCE_4_2: &[&str] = &[
    "4.2", "4.4", "4.4.2", "5.0", "6.0.8", "6.0.9", "6.0", "6.1", "6.3", "7.0", "8.0", "8.0.5", "8.1", "8.2",
];
const SINCE_6_0: &[&str] = &[
    "6.0.8", "6.0.9", "6.0", "6.1", "6.3", "7.0", "8.0", "8.0.5", "8.1", "8.2",
];

fn cases() -> Vec<Case> {
    let plain = |what, options, granted_by, refusal| Case {
        what,
        options,
        stages: vec![],
        granted_by,
        refusal,
    };
    vec![
        plain("nothing special", doc! {}, ALL, |_| (0, "")),
        plain(
            "updateLookup",
            doc! { "fullDocument": "updateLookup" },
            ALL,
            |_| (0, ""),
        ),
        plain(
            "startAfter",
            doc! { "startAfter": some_token() },
            SINCE_4_2,
            |_| {
                (
                    40415,
                    "BSON field '$changeStream.startAfter' is an unknown field.",
                )
            },
        ),
        plain("resumeAfter", doc! { "resumeAfter": some_token() }, ALL, |_| {
            (0, "")
        }),
        plain(
            "expanded events",
            doc! { "showExpandedEvents": true },
            SINCE_6_0,
            |_| {
                (
                    40415,
                    "BSON field '$changeStream.showExpandedEvents' is an unknown field.",
                )
            },
        ),
        plain(
            "pre-images",
            doc! { "fullDocumentBeforeChange": "whenAvailable" },
            SINCE_6_0,
            |_| {
                (
                    40415,
                    "BSON field '$changeStream.fullDocumentBeforeChange' is an unknown field.",
                )
            },
        ),
        plain(
            "post-images",
            doc! { "fullDocument": "whenAvailable" },
            SINCE_6_0,
            |version| {
                if version <= "4.2" {
                    return (
                        40575,
                        "unrecognized value for the 'fullDocument' option to the $changeStream stage. Expected \"default\" \
                     or \"updateLookup\", got \"whenAvailable\"",
                    );
                }
                (
                    2,
                    "Enumeration value 'whenAvailable' for field '$changeStream.fullDocument' is not a valid value.",
                )
            },
        ),
        plain(
            "required post-images",
            doc! { "fullDocument": "required" },
            SINCE_6_0,
            |version| {
                if version <= "4.2" {
                    return (
                        40575,
                        "unrecognized value for the 'fullDocument' option to the $changeStream stage. Expected \"default\" \
                     or \"updateLookup\", got \"required\"",
                    );
                }
                (
                    2,
                    "Enumeration value 'required' for field '$changeStream.fullDocument' is not a valid value.",
                )
            },
        ),
        plain(
            "a field that no version knows",
            doc! { "nonsense": 1 },
            NONE,
            |_| (40415, "BSON field '$changeStream.nonsense' is an unknown field."),
        ),
        Case {
            what: "split events",
            options: doc! {},
            stages: vec![doc! { "$changeStreamSplitLargeEvent": {} }],
            granted_by: &["6.0.9", "6.0", "7.0", "8.0", "8.0.5", "8.1", "8.2"],
            refusal: |_| {
                (
                    40324,
                    "Unrecognized pipeline stage name: '$changeStreamSplitLargeEvent'",
                )
            },
        },
        Case {
            what: "a stage that no version knows",
            options: doc! {},
            stages: vec![doc! { "$nonsense": {} }],
            granted_by: NONE,
            refusal: |_| (40324, "Unrecognized pipeline stage name: '$nonsense'"),
        },
    ]
}

#[test]
fn each_version_grants_what_it_knows_and_refuses_the_rest_in_its_words() {
    for version in VERSIONS {
        let mut w = World::new(Deployment::replica_set(1).server_version(version));
        let c = w.connect(0);
        for case in cases() {
            let mut pipeline = vec![doc! { "$changeStream": case.options.clone() }];
            pipeline.extend(case.stages.clone());
            let reply = w.run(c, doc! { "aggregate": "c", "pipeline": pipeline, "cursor": {} });
            let expected = if case.granted_by.contains(&version) {
                (None, None)
            } else {
                let (code, message) = (case.refusal)(version);
                (Some(code), Some(message))
            };
            let told = (reply.get_i32("code").ok(), reply.get_str("errmsg").ok());
            assert_eq!(told, expected, "{version}: {}", case.what);
            let name = told.0.map(changestream_sim::error::code_name);
            assert_eq!(
                reply.get_str("codeName").ok(),
                name.as_deref(),
                "{version}: {}",
                case.what
            );
        }
    }
}

#[test]
fn a_comment_on_a_get_more_is_refused_before_4_4() {
    for version in VERSIONS {
        let mut w = World::new(Deployment::replica_set(1).server_version(version));
        let c = w.connect(0);
        let (cursor, _) = w.watch(c, doc! {}, vec![]);
        w.insert(c, 1);
        let reply = w.run(c, doc! { "getMore": cursor, "collection": "c", "comment": "why" });
        if version <= "4.2" {
            assert_eq!(reply.get_i32("code").ok(), Some(9), "{reply}");
            assert_eq!(reply.get_str("codeName").ok(), Some("FailedToParse"));
            let message = reply.get_str("errmsg").unwrap();
            assert!(message.starts_with("Failed to parse: { getMore: "), "{message}");
            assert!(message.ends_with("Unrecognized field 'comment'."), "{message}");
        } else {
            assert_eq!(reply.get_f64("ok").ok(), Some(1.0), "{version}: {reply}");
        }
    }
}

/// A moment before everything that a stream could miss.
fn some_token() -> Document {
    let start = Timestamp {
        time: 1_704_067_200,
        increment: 1,
    };
    ResumeTokenData::high_water_mark(TokenVersion::V1, start)
        .encode()
        .to_document()
}

#[test]
fn replies_have_a_token_of_their_own_since_4_0_7() {
    for version in VERSIONS.into_iter().chain(["4.0.7"]) {
        let mut w = World::new(Deployment::replica_set(1).server_version(version));
        let c = w.connect(0);
        let (cursor, opened) = w.watch(c, doc! {}, vec![]);
        w.insert(c, 1);
        let more = w.get_more(c, cursor, 100);
        let has = |reply: &Document| {
            let cursor = reply.get_document("cursor").unwrap_or(reply);
            cursor.contains_key("postBatchResumeToken")
        };
        assert_eq!(
            (has(&opened), has(&more)),
            (version != "4.0.6", version != "4.0.6"),
            "{version}"
        );
        assert_eq!(world::batch(&more).len(), 1);
    }
}

#[test]
fn expanded_create_events_say_what_was_created_since_8_0_5() {
    for version in ["8.0.4", "8.0.5", "8.1", "8.2"] {
        let mut w = World::new(Deployment::replica_set(1).server_version(version));
        let c = w.connect(0);
        let opened = w.ok(
            c,
            doc! {
                "aggregate": 1, "pipeline": [{ "$changeStream": { "showExpandedEvents": true } }], "cursor": {},
            },
        );
        let cursor = opened.get_document("cursor").unwrap().get_i64("id").unwrap();
        w.ok(c, doc! { "create": "plain" });
        w.ok(c, doc! { "create": "seen", "viewOn": "plain" });
        let get_more = doc! { "getMore": cursor, "collection": "$cmd.aggregate", "maxTimeMS": 100 };
        let events = world::batch(&w.ok(c, get_more));
        let kinds: Vec<_> = events.iter().map(|event| event.get_str("nsType").ok()).collect();
        let expected = match version {
            "8.0.4" => [None, None],
            _ => [Some("collection"), Some("view")],
        };
        assert_eq!(kinds, expected, "{version}");
    }
}

#[test]
fn what_is_not_modelled_is_told_so() {
    #[allow(clippy::disallowed_methods, reason = "an epoch for a test")]
    let now = Instant::now();
    for version in ["3.6", "4.1", "6.0.x", "6.0.1.2", "9.0", ""] {
        let built = Deployment::replica_set(1).server_version(version).build(now);
        assert_eq!(built.err(), Some(BuildError::Version(version.to_owned())));
    }
}

#[test]
fn a_patch_release_is_the_version_that_build_info_tells() {
    for (version, told, wire) in [
        ("4.0", "4.0.28", 7),
        ("6.0.9", "6.0.9", 17),
        ("6.2", "6.2.1", 19),
        ("4.4.29", "4.4.29", 9),
        ("8.1", "8.1.2", 26),
        ("8.2", "8.2.3", 27),
    ] {
        let mut w = World::new(Deployment::replica_set(1).server_version(version));
        let c = w.connect(0);
        let info = w.admin(c, doc! { "buildInfo": 1 });
        assert_eq!(info.get_str("version").ok(), Some(told));
        let numbers: Vec<i32> = told.split('.').map(|n| n.parse().unwrap()).chain([0]).collect();
        let array = info.get_array("versionArray").unwrap();
        assert_eq!(array, &numbers.into_iter().map(Bson::from).collect::<Vec<_>>());
        let hello = w.admin(c, doc! { "isMaster": 1 });
        assert_eq!(hello.get_i32("maxWireVersion").ok(), Some(wire));
    }
}

//! What clients should never send: every command with values of every type in every field, and messages that are
//! none. The server answers with an error or closes the connection, and goes on for all others.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod world;

use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, Timestamp, doc};
use changestream_core::random::Random;
use changestream_core::wire::{Flags, encode_op_msg};
use changestream_sim::{ConnectionId, Deployment};
use world::World;

/// A value of each type, and some that are at the end of what the type can hold.
fn values() -> Vec<Bson> {
    let binary = |subtype, length| Binary {
        subtype,
        bytes: vec![7; length],
    };
    vec![
        Bson::Double(1.5),
        Bson::Double(f64::NAN),
        Bson::Double(-1e300),
        Bson::from(""),
        Bson::from("c"),
        Bson::from("$a.\u{0}.b"),
        Bson::from(doc! {}),
        Bson::from(doc! { "a": 1, "$b": [], "": null }),
        Bson::Array(vec![]),
        Bson::Array(vec![1.into(), doc! { "$x": "y" }.into(), Bson::Null]),
        Bson::Array(vec![
            doc! { "q": 1, "u": [1], "limit": "x", "key": [], "name": 5 }.into(),
        ]),
        Bson::Binary(binary(BinarySubtype::Uuid, 16)),
        Bson::Binary(binary(BinarySubtype::Generic, 0)),
        Bson::Undefined,
        Bson::ObjectId(ObjectId::from_bytes([1; 12])),
        Bson::Boolean(true),
        Bson::DateTime(bson::DateTime::from_millis(i64::MIN)),
        Bson::Null,
        Bson::RegularExpression(bson::Regex {
            pattern: bson::raw::CString::try_from("(").unwrap(),
            options: bson::raw::CString::try_from("x").unwrap(),
        }),
        Bson::JavaScriptCode("1".into()),
        Bson::Symbol("s".into()),
        Bson::Int32(-1),
        Bson::Int32(0),
        Bson::Int32(i32::MIN),
        Bson::Timestamp(Timestamp {
            time: u32::MAX,
            increment: u32::MAX,
        }),
        Bson::Int64(1),
        Bson::Int64(i64::MAX),
        Bson::Int64(i64::MIN),
        Bson::Decimal128("NaN".parse().unwrap()),
        Bson::MinKey,
        Bson::MaxKey,
    ]
}

/// Each command in a form that the server takes; for those that are not here, their name with 1.
fn well_formed() -> Vec<Document> {
    let stream = doc! {
        "fullDocument": "default", "fullDocumentBeforeChange": "off", "resumeAfter": { "_data": "82" },
        "startAfter": { "_data": "82" }, "startAtOperationTime": Timestamp { time: 1, increment: 1 },
        "showExpandedEvents": true, "allChangesForCluster": false,
    };
    vec![
        doc! { "aggregate": "c", "pipeline": [{ "$changeStream": stream }], "cursor": { "batchSize": 1 }, "collation": {} },
        doc! { "aggregate": "c", "pipeline": [{ "$match": { "a": 1 } }, { "$group": { "_id": "$a" } }], "cursor": {} },
        doc! { "collMod": "c", "changeStreamPreAndPostImages": { "enabled": true }, "validator": {} },
        doc! { "configureFailPoint": "failCommand", "mode": "off", "data": { "failCommands": ["x"], "errorCode": 1 } },
        doc! { "count": "c", "query": {}, "skip": 0, "limit": 0 },
        doc! { "create": "d", "capped": false, "size": 1, "max": 1, "changeStreamPreAndPostImages": {} },
        doc! { "createIndexes": "c", "indexes": [{ "key": { "a": 1 }, "name": "a", "unique": true }] },
        doc! { "delete": "c", "deletes": [{ "q": {}, "limit": 1 }], "ordered": true },
        doc! { "distinct": "c", "key": "a", "query": {} },
        doc! { "dropIndexes": "c", "index": "a_1" },
        doc! { "endSessions": [{ "id": 1 }] },
        doc! { "find": "c", "filter": {}, "sort": {}, "projection": {}, "skip": 0, "limit": 1, "batchSize": 1, "singleBatch": true },
        doc! { "findAndModify": "c", "query": {}, "update": {}, "remove": false, "new": true, "upsert": true, "sort": {}, "fields": {}, "arrayFilters": [] },
        doc! { "getMore": 1_i64, "collection": "c", "batchSize": 1, "maxTimeMS": 1, "comment": 1 },
        doc! { "getParameter": "*", "comment": 1 },
        doc! { "hello": 1, "topologyVersion": {}, "maxAwaitTimeMS": 1, "client": {}, "compression": [], "saslSupportedMechs": "admin.a", "speculativeAuthenticate": {}, "helloOk": true },
        doc! { "isMaster": 1, "topologyVersion": {}, "maxAwaitTimeMS": 1, "client": { "application": {} }, "compression": ["zlib"], "speculativeAuthenticate": { "saslStart": 1 } },
        doc! { "insert": "c", "documents": [{ "_id": 1 }], "ordered": true, "stmtIds": [1] },
        doc! { "killCursors": "c", "cursors": [1_i64] },
        doc! { "listCollections": 1, "filter": {}, "nameOnly": true, "cursor": {} },
        doc! { "listDatabases": 1, "filter": {}, "nameOnly": true },
        doc! { "listIndexes": "c", "cursor": {} },
        doc! { "moveChunk": "db.c", "find": {}, "to": "sh1", "bounds": [] },
        doc! { "renameCollection": "db.c", "to": "db.e", "dropTarget": true },
        doc! { "replSetStepDown": 0, "force": true, "secondaryCatchUpPeriodSecs": 0 },
        doc! { "replSetFreeze": 0 },
        doc! { "saslContinue": 1, "conversationId": 1, "payload": "x" },
        doc! { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": "n,,n=a,r=b", "options": {} },
        doc! { "shardCollection": "db.c", "key": { "a": 1 }, "unique": false },
        doc! { "split": "db.c", "middle": { "a": 1 } },
        doc! { "update": "c", "updates": [{ "q": {}, "u": {}, "multi": false, "upsert": true, "arrayFilters": [] }], "ordered": true },
    ]
}

/// What any command may carry.
fn generic() -> Document {
    doc! {
        "lsid": { "id": 1 }, "txnNumber": 1_i64, "autocommit": false, "startTransaction": true, "readConcern": { "level": "majority" },
        "writeConcern": { "w": 1 }, "$clusterTime": {}, "$readPreference": {}, "maxTimeMS": 1, "apiVersion": "1",
    }
}

fn deployments() -> [World; 3] {
    let configs = [
        Deployment::replica_set(1).server_version("8.0"),
        Deployment::replica_set(1).server_version("4.0").user("a", "b"),
        Deployment::sharded(2, 1).server_version("6.0"),
    ];
    configs.map(World::new)
}

/// Sends it on a connection of its own.
fn survives(w: &mut World, command: &Document) {
    let connection = w.connect(0);
    let Ok(body) = RawDocumentBuf::try_from(command) else {
        return;
    };
    w.bytes(connection, &encode_op_msg(1, 0, Flags::NONE, &body, &[]));
    let answered = w.reply(connection);
    if let Some(reply) = &answered {
        assert!(reply.get_f64("ok").is_ok(), "{command}: {reply}");
        if reply.get_f64("ok").unwrap() == 0.0 {
            assert!(
                reply.get_i32("code").is_ok() && reply.contains_key("codeName"),
                "{command}: {reply}"
            );
        }
    }
    w.hang_up(connection);
}

fn lives(w: &mut World, after: &Document) {
    let connection = w.connect(0);
    let hello = w.admin(connection, doc! { "isMaster": 1 });
    assert!(hello.get_f64("ok").is_ok_and(|ok| ok == 1.0), "{after}: {hello}");
    w.hang_up(connection);
}

/// The names of all commands, as the server tells them.
fn names(w: &mut World, connection: ConnectionId) -> Vec<String> {
    let reply = w.admin(connection, doc! { "listCommands": 1 });
    let names = reply.get_document("commands").unwrap().keys().cloned();
    names.collect()
}

#[test]
fn every_command_survives_every_type_in_every_field() {
    let mut w = World::replica_set(1);
    let c = w.connect(0);
    let names = names(&mut w, c);
    assert!(names.len() > 50, "{names:?}");
    let known = well_formed();
    for known in &known {
        let name = known.keys().next().unwrap();
        assert!(names.contains(name) || name == "hello", "{name} is no command");
    }
    for w in &mut deployments() {
        for name in &names {
            let forms = known
                .iter()
                .filter(|form| form.contains_key(name) && form.keys().next() == Some(name));
            let mut forms: Vec<Document> = forms.cloned().collect();
            if forms.is_empty() {
                forms.push(doc! { name: 1 });
            }
            for (form, field) in forms
                .iter()
                .flat_map(|form| form.keys().map(move |field| (form, field)))
            {
                for (number, value) in values().into_iter().enumerate() {
                    let mut command = form.clone();
                    command.insert(field, value);
                    command.insert("$db", ["db", "admin"][number % 2]);
                    survives(w, &command);
                }
                lives(w, form);
            }
        }
    }
}

#[test]
fn every_command_survives_every_type_in_the_fields_of_all_commands() {
    let mut worlds = deployments();
    let mut random = Random::new([5; 32]);
    let (values, generic) = (values(), generic());
    for form in well_formed() {
        for field in generic.keys() {
            for (number, value) in values.iter().enumerate() {
                let mut command = form.clone();
                command.extend(generic.clone());
                command.insert(field, value.clone());
                // A part of the others, so that none hides all behind it.
                for other in generic.keys().filter(|other| *other != field) {
                    if random.below(2) == 0 {
                        command.remove(other);
                    }
                }
                command.insert("$db", "db");
                survives(&mut worlds[number % 3], &command);
            }
        }
        for w in &mut worlds {
            lives(w, &form);
        }
    }
}

#[test]
fn the_documents_inside_commands_survive_every_type_too() {
    let mut worlds = deployments();
    for form in well_formed() {
        for path in paths(&form) {
            for (number, value) in values().into_iter().enumerate() {
                let mut command = form.clone();
                replace(&mut command, &path, &value);
                let admin = form.contains_key("configureFailPoint");
                command.insert("$db", if admin { "admin" } else { "db" });
                survives(&mut worlds[number % 3], &command);
            }
        }
        for w in &mut worlds {
            lives(w, &form);
        }
    }
}

/// The places of all values in documents and arrays inside.
fn paths(document: &Document) -> Vec<Vec<String>> {
    fn inner(value: &Bson, path: &[String], found: &mut Vec<Vec<String>>) {
        let fields: Vec<(String, &Bson)> = match value {
            Bson::Document(d) => d.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Bson::Array(a) => a
                .iter()
                .enumerate()
                .map(|(i, value)| (i.to_string(), value))
                .collect(),
            _ => return,
        };
        for (key, value) in fields {
            let mut path = path.to_vec();
            path.push(key);
            inner(value, &path, found);
            found.push(path);
        }
    }
    let mut found = Vec::new();
    inner(&Bson::from(document.clone()), &[], &mut found);
    found.retain(|path| path.len() > 1);
    found
}

fn replace(document: &mut Document, path: &[String], value: &Bson) {
    let mut at = document.get_mut(&path[0]).unwrap();
    for part in &path[1..] {
        at = match at {
            Bson::Document(d) => d.get_mut(part).unwrap(),
            Bson::Array(a) => &mut a[part.parse::<usize>().unwrap()],
            _ => unreachable!("the path leads through documents and arrays"),
        };
    }
    *at = value.clone();
}

#[test]
fn an_unknown_command_is_told_so() {
    for w in &mut deployments() {
        let c = w.connect(0);
        for name in ["nonsense", "INSERT", "", "$where", "hello "] {
            let reply = w.run(c, doc! { name: 1 });
            assert_eq!(reply.get_i32("code").ok(), Some(59), "{reply}");
            assert_eq!(reply.get_str("codeName").ok(), Some("CommandNotFound"));
            assert_eq!(
                reply.get_str("errmsg").unwrap(),
                format!("no such command: '{name}'")
            );
        }
    }
}

#[test]
fn a_message_that_is_cut_waits_and_one_that_lies_ends_the_connection() {
    let body = RawDocumentBuf::try_from(&doc! { "ping": 1, "$db": "admin" }).unwrap();
    let message = encode_op_msg(1, 0, Flags::NONE, &body, &[]);
    for w in &mut deployments() {
        for cut in 0..message.len() {
            let c = w.connect(0);
            w.bytes(c, &message[..cut]);
            assert!(w.reply(c).is_none() && !w.ended.contains(&c), "cut at {cut}");
            w.hang_up(c);
        }
        // A length below a header's, above what is allowed, negative; an unknown opcode; a document longer than it is.
        for (at, bytes) in [
            (0, 15_i32),
            (0, 48_000_001),
            (0, i32::MAX),
            (0, -1),
            (12, 4711),
            (21, i32::MAX),
            (21, -5),
            (21, 4),
        ] {
            let mut wrong = message.to_vec();
            wrong[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
            let c = w.connect(0);
            w.bytes(c, &wrong);
            assert!(w.reply(c).is_none(), "{bytes} at {at}");
            assert!(w.ended.contains(&c), "{bytes} at {at}");
            lives(w, &doc! { "at": i32::try_from(at).unwrap(), "bytes": bytes });
        }
        let mut random = Random::new([3; 32]);
        for _ in 0..2_000 {
            let mut wrong = message.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(wrong.len());
                wrong[at] ^= 1 << random.below(8);
            }
            let c = w.connect(0);
            w.bytes(c, &wrong);
            let _ = w.reply(c);
            w.hang_up(c);
        }
        lives(w, &doc! {});
    }
}

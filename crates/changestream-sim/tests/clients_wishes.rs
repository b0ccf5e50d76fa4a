//! What clients ask of a server beside reading and writing: users, sessions, versions of the API, transactions' terms.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use bson::{Binary, Document, doc, spec::BinarySubtype};
use changestream_sim::{ConnectionId, Deployment};
use world::{World, batch, code, labels};

fn server(version: &str) -> (World, ConnectionId) {
    let mut w = World::new(Deployment::replica_set(1).server_version(version));
    let c = w.connect(0);
    (w, c)
}

fn lsid(n: u8) -> Document {
    doc! { "id": Binary { subtype: BinarySubtype::Uuid, bytes: vec![n; 16] } }
}

fn in_admin(mut command: Document) -> Document {
    command.insert("$db", "admin");
    command
}

fn users(w: &mut World, c: ConnectionId) -> Vec<String> {
    let reply = w.admin(c, doc! { "usersInfo": 1 });
    let users = reply.get_array("users").unwrap().iter();
    users
        .map(|u| u.as_document().unwrap().get_str("user").unwrap().to_owned())
        .collect()
}

#[test]
fn users_are_created_changed_listed_and_dropped_and_their_passwords_told_to_nobody() {
    let (mut w, c) = server("8.0");
    let create =
        doc! { "createUser": "ann", "pwd": "s3cret", "roles": ["root"], "mechanisms": ["SCRAM-SHA-256"] };
    w.admin(c, create.clone());
    assert_eq!(code(&w.run(c, in_admin(create))), 51003);
    w.admin(
        c,
        doc! { "createUser": "bob", "pwd": "s3cret", "roles": [{ "role": "root", "db": "admin" }] },
    );
    assert_eq!(users(&mut w, c), ["ann", "bob"]);
    let hello = w.admin(c, doc! { "hello": 1, "saslSupportedMechs": "admin.ann" });
    assert_eq!(
        hello.get_array("saslSupportedMechs").unwrap(),
        &vec!["SCRAM-SHA-256".into()]
    );
    w.admin(
        c,
        doc! { "updateUser": "ann", "pwd": "s3cret", "mechanisms": ["SCRAM-SHA-1"] },
    );
    let hello = w.admin(c, doc! { "hello": 1, "saslSupportedMechs": "admin.ann" });
    assert_eq!(
        hello.get_array("saslSupportedMechs").unwrap(),
        &vec!["SCRAM-SHA-1".into()]
    );
    w.admin(c, doc! { "dropUser": "ann" });
    assert_eq!(code(&w.run(c, in_admin(doc! { "dropUser": "ann" }))), 11);
    assert_eq!(
        w.admin(c, doc! { "dropAllUsersFromDatabase": 1 })
            .get_i32("n")
            .unwrap(),
        1
    );
    assert_eq!(users(&mut w, c), Vec::<String>::new());
    assert!(
        !w.deployment
            .commands()
            .any(|record| format!("{record:?}").contains("s3cret"))
    );
}

#[test]
fn a_user_that_the_server_could_not_hold_to_its_role_is_refused() {
    let (mut w, c) = server("8.0");
    let create = doc! { "createUser": "ann", "pwd": "x", "roles": ["read"] };
    assert_eq!(code(&w.run(c, in_admin(create))), 115);
    let elsewhere = doc! { "createUser": "ann", "pwd": "x", "roles": [{ "role": "root", "db": "admin" }] };
    assert_eq!(code(&w.run(c, elsewhere)), 115);
}

#[test]
fn who_must_log_in_learns_nothing_of_users_before() {
    let mut w = World::new(Deployment::replica_set(1).user("ann", "x"));
    let c = w.connect(0);
    assert_eq!(code(&w.run(c, in_admin(doc! { "usersInfo": 1 }))), 13);
    assert_eq!(
        code(&w.run(c, in_admin(doc! { "dropAllUsersFromDatabase": 1 }))),
        13
    );
}

#[test]
fn sessions_are_listed_until_they_end_or_time_out() {
    let (mut w, c) = server("8.0");
    let list =
        doc! { "aggregate": 1, "pipeline": [{ "$listLocalSessions": {} }, { "$limit": 5 }], "cursor": {} };
    let listed = |w: &mut World| -> Vec<Document> {
        let reply = w.admin(c, list.clone());
        let sessions = batch(&reply).into_iter();
        sessions
            .map(|session| doc! { "id": session.get_document("_id").unwrap().get("id").unwrap() })
            .collect()
    };
    assert!(listed(&mut w).is_empty());
    for n in [1, 2, 3] {
        w.ok(c, doc! { "ping": 1, "lsid": lsid(n) });
    }
    w.ok(c, doc! { "endSessions": [lsid(2)] });
    assert_eq!(listed(&mut w), [lsid(1), lsid(3)]);
    w.advance(Duration::from_secs(20 * 60));
    w.ok(c, doc! { "refreshSessions": [lsid(3)] });
    w.advance(Duration::from_secs(20 * 60));
    assert_eq!(listed(&mut w), [lsid(3)]);
    let on_collection = doc! { "aggregate": "c", "pipeline": [{ "$listLocalSessions": {} }], "cursor": {} };
    assert_eq!(code(&w.run(c, on_collection)), 73);
}

#[test]
fn commands_test_the_versions_of_the_api() {
    let config = Deployment::replica_set(1).server_version("8.0");
    let mut w = World::new(config.accept_api_version_2());
    let c = w.connect(0);
    let said = doc! { "apiVersion": "2", "apiStrict": true };
    let mut asked = doc! { "testVersion2": 1 };
    asked.extend(said.clone());
    let reply = w.ok(c, asked);
    for (field, value) in said {
        assert_eq!(reply.get(&field), Some(&value));
    }
    for granted in [
        doc! { "testDeprecationInVersion2": 1, "apiVersion": "1", "apiStrict": true, "apiDeprecationErrors": true },
        doc! { "testDeprecationInVersion2": 1, "apiVersion": "2", "apiStrict": true },
        doc! { "testVersions1And2": 1, "apiVersion": "2", "apiStrict": true },
        doc! { "testRemoval": 1, "apiVersion": "1", "apiStrict": true },
        doc! { "testDeprecation": 1, "apiVersion": "1" },
    ] {
        w.ok(c, granted);
    }
    for (refused, expected, text) in [
        (
            doc! { "testVersion2": 1, "apiVersion": "1", "apiStrict": true },
            323,
            "command testVersion2 is not in API Version 1",
        ),
        (
            doc! { "testDeprecationInVersion2": 1, "apiVersion": "2", "apiDeprecationErrors": true },
            324,
            "command testDeprecationInVersion2 is deprecated in API Version 2",
        ),
        (
            doc! { "ping": 1, "apiVersion": "2", "apiStrict": true },
            323,
            "command ping is not in API Version 2",
        ),
    ] {
        let reply = w.run(c, refused);
        assert_eq!(code(&reply), expected);
        assert!(reply.get_str("errmsg").unwrap().contains(text), "{reply}");
    }
    let (mut w, c) = server("4.4");
    assert_eq!(code(&w.run(c, doc! { "testVersion2": 1 })), 59);
}

#[test]
fn an_api_version_that_there_is_not_and_a_command_beyond_it_are_refused() {
    let (mut w, c) = server("8.0");
    w.ok(
        c,
        doc! { "ping": 1, "apiVersion": "1", "apiStrict": true, "apiDeprecationErrors": true },
    );
    for (command, expected) in [
        (doc! { "ping": 1, "apiVersion": "2" }, 322),
        (doc! { "ping": 1, "apiVersion": 1 }, 322),
        (doc! { "ping": 1, "apiStrict": true }, 4_886_600),
        (
            doc! { "distinct": "c", "key": "x", "apiVersion": "1", "apiStrict": true },
            323,
        ),
        (
            doc! {
                "aggregate": 1, "pipeline": [{ "$listLocalSessions": {} }], "cursor": {},
                "apiVersion": "1", "apiStrict": true,
            },
            323,
        ),
    ] {
        assert_eq!(code(&w.run(c, command.clone())), expected, "{command}");
    }
    w.ok(c, doc! { "distinct": "c", "key": "x", "apiVersion": "1" });
    let watch = doc! {
        "aggregate": "c", "pipeline": [{ "$changeStream": {} }], "cursor": {}, "apiVersion": "1", "apiStrict": true,
    };
    w.ok(c, watch);
}

fn in_transaction(mut command: Document, number: i64) -> Document {
    command.extend(doc! { "lsid": lsid(1), "txnNumber": number, "autocommit": false });
    command
}

#[test]
fn a_transaction_takes_no_write_concern_before_its_end_and_no_second_read_concern() {
    let (mut w, c) = server("8.0");
    w.insert(c, 0);
    let insert = |id: i32| doc! { "insert": "c", "documents": [{ "_id": id }] };
    let mut with_concern = in_transaction(insert(1), 1);
    with_concern.extend(doc! { "startTransaction": true, "writeConcern": { "w": 1 } });
    assert_eq!(code(&w.run(c, with_concern)), 72);

    let mut first = in_transaction(insert(1), 2);
    first.extend(doc! { "startTransaction": true, "readConcern": { "level": "snapshot" } });
    w.ok(c, first);
    let mut second = in_transaction(insert(2), 2);
    second.insert("readConcern", doc! { "level": "snapshot" });
    assert_eq!(code(&w.run(c, second)), 72);
}

#[test]
fn what_a_fail_point_does_to_a_transaction_is_labelled_as_if_it_had_happened() {
    let (mut w, c) = server("8.0");
    let transient = vec!["TransientTransactionError".to_owned()];
    let retryable = vec!["RetryableWriteError".to_owned()];
    for (n, name, error, expected) in [
        (1, "insert", 91, &transient),
        (2, "commitTransaction", 251, &transient),
        (3, "commitTransaction", 91, &retryable),
        (4, "commitTransaction", 50, &vec![]),
    ] {
        let point = doc! {
            "configureFailPoint": "failCommand", "mode": { "times": 1 },
            "data": { "failCommands": [name], "errorCode": error },
        };
        w.admin(c, point);
        let mut insert = in_transaction(doc! { "insert": "c", "documents": [{ "_id": n }] }, n);
        insert.insert("startTransaction", true);
        let mut failed = w.run(c, insert);
        if name == "commitTransaction" {
            failed = w.run(c, in_admin(in_transaction(doc! { "commitTransaction": 1 }, n)));
        }
        assert_eq!((code(&failed), &labels(&failed)), (error, expected), "{name}");
    }
}

#[test]
fn what_is_no_read_takes_no_read_concern_but_local_and_no_level_is_made_up() {
    let (mut w, c) = server("8.0");
    let with = |mut command: Document, level: &str| {
        command.insert("readConcern", doc! { "level": level });
        command
    };
    let insert = doc! { "insert": "c", "documents": [{ "_id": 1 }] };
    assert_eq!(code(&w.run(c, with(insert.clone(), "snapshot"))), 72);
    assert_eq!(
        code(&w.run(c, with(doc! { "listCollections": 1 }, "snapshot"))),
        72
    );
    assert_eq!(code(&w.run(c, with(doc! { "count": "c" }, "snapshot"))), 72);
    assert_eq!(code(&w.run(c, with(doc! { "find": "c" }, "newest"))), 2);
    w.ok(c, with(insert, "local"));
    w.ok(c, with(doc! { "find": "c" }, "majority"));
}

#[test]
fn a_transaction_builds_no_index_on_a_collection_that_was_there_before() {
    let (mut w, c) = server("8.0");
    w.insert(c, 0);
    let index = doc! { "key": { "a": 1 }, "name": "a_1" };
    let mut old = in_transaction(doc! { "createIndexes": "c", "indexes": [index.clone()] }, 1);
    old.insert("startTransaction", true);
    assert_eq!(code(&w.run(c, old)), 263);
    let mut new = in_transaction(doc! { "createIndexes": "n", "indexes": [index] }, 2);
    new.insert("startTransaction", true);
    w.ok(c, new);
}

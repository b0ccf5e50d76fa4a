//! Fail points, as the official drivers' tests configure them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use bson::{Document, doc};
use changestream_sim::{ConnectionId, Deployment};
use world::{World, code, labels};

/// A member of the version, with a document in `db.c`.
fn server(version: &str) -> (World, ConnectionId) {
    let mut w = World::new(Deployment::replica_set(1).server_version(version));
    let c = w.connect(0);
    w.insert(c, 0);
    (w, c)
}

fn fail_once(w: &mut World, c: ConnectionId, name: &str, data: Document) {
    w.admin(
        c,
        doc! { "configureFailPoint": name, "mode": { "times": 1 }, "data": data },
    );
}

#[test]
fn a_get_more_that_fails_before_it_begins_is_not_labelled_resumable_and_keeps_its_cursor() {
    let (mut w, c) = server("8.0");
    let (cursor, _) = w.watch(c, doc! {}, vec![]);
    let get_more = doc! { "getMore": cursor, "collection": "c" };
    let data = doc! { "failCommands": ["getMore"], "errorCode": 6 };
    fail_once(&mut w, c, "failCommand", data);
    let failed = w.run(c, get_more.clone());
    assert_eq!((code(&failed), labels(&failed)), (6, vec![]));
    w.insert(c, 1);
    assert_eq!(world::ids(&w.ok(c, get_more.clone())), [1]);

    fail_once(
        &mut w,
        c,
        "failGetMoreAfterCursorCheckout",
        doc! { "errorCode": 6 },
    );
    let failed = w.run(c, get_more.clone());
    assert_eq!(code(&failed), 6);
    assert_eq!(labels(&failed), ["ResumableChangeStreamError"]);
    assert_eq!(code(&w.run(c, get_more)), 43, "the cursor is lost");
}

#[test]
fn an_aggregate_that_fails_before_it_begins_is_labelled_resumable() {
    let (mut w, c) = server("8.0");
    let data = doc! { "failCommands": ["aggregate"], "errorCode": 6 };
    fail_once(&mut w, c, "failCommand", data);
    let failed = w.run(
        c,
        doc! { "aggregate": "c", "pipeline": [{ "$changeStream": {} }], "cursor": {} },
    );
    assert_eq!(labels(&failed), ["ResumableChangeStreamError"]);
}

#[test]
fn what_ends_a_stream_for_good_is_labelled_so_by_every_version() {
    for version in ["4.2", "4.4", "6.0", "8.0"] {
        let (mut w, c) = server(version);
        let (cursor, _) = w.watch(c, doc! {}, vec![doc! { "$project": { "_id": 0 } }]);
        w.insert(c, 1);
        let failed = w.run(c, doc! { "getMore": cursor, "collection": "c" });
        assert_eq!(code(&failed), 280, "{version}");
        assert_eq!(labels(&failed), ["NonResumableChangeStreamError"], "{version}");
    }
}

#[test]
fn a_write_concern_error_comes_in_the_place_of_waiting_for_the_majority() {
    let mut w = World::new(Deployment::replica_set(3).server_version("8.0"));
    let c = w.connect(0);
    let error = doc! { "code": 91, "errmsg": "Replication is being shut down" };
    let data = doc! { "failCommands": ["insert"], "writeConcernError": error.clone() };
    fail_once(&mut w, c, "failCommand", data);
    let insert = doc! { "insert": "c", "documents": [{ "_id": 1 }], "writeConcern": { "w": "majority" } };
    let reply = w.ok(c, insert);
    assert_eq!(reply.get_document("writeConcernError").unwrap(), &error);
    assert_eq!(reply.get_i32("n").unwrap(), 1);
}

#[test]
fn an_unknown_fail_point_is_refused_by_the_servers_code() {
    let (mut w, c) = server("8.0");
    let unknown = doc! { "configureFailPoint": "noSuchPoint", "mode": "alwaysOn", "$db": "admin" };
    let refused = w.run(c, unknown);
    assert_eq!(code(&refused), 191);
    assert_eq!(refused.get_str("codeName").unwrap(), "FailPointSetFailed");
}

#[test]
fn a_fail_point_for_an_application_meets_its_handshake_too_since_4_9() {
    for (version, meets) in [("4.4", false), ("4.4.7", true), ("8.0", true)] {
        let mut w = World::new(Deployment::replica_set(1).server_version(version));
        let admin = w.connect(0);
        let data = doc! { "failCommands": ["isMaster"], "appName": "a", "errorCode": 91 };
        fail_once(&mut w, admin, "failCommand", data);
        let fresh = w.connect(0);
        let client = doc! { "application": { "name": "a" } };
        let hello = doc! { "isMaster": 1, "client": client, "$db": "admin" };
        assert_eq!(
            w.run(fresh, hello.clone()).get_f64("ok").unwrap() == 0.0,
            meets,
            "{version}"
        );
        assert_eq!(
            w.run(fresh, hello).get_f64("ok").unwrap() == 1.0,
            meets,
            "{version}"
        );
    }
}

#[test]
fn a_retryable_write_is_lost_before_or_after_it_is_made_and_its_retry_tells_which() {
    let (mut w, admin) = server("8.0");
    let lsid = doc! { "id": bson::Uuid::from_bytes([1; 16]) };
    for (id, data) in [
        (1_i64, doc! {}),
        (2, doc! { "failBeforeCommitExceptionCode": 1 }),
        (
            3,
            doc! { "failBeforeCommitExceptionCode": 1, "closeConnection": false },
        ),
    ] {
        let kept = data.contains_key("failBeforeCommitExceptionCode");
        let open = data.contains_key("closeConnection");
        fail_once(&mut w, admin, "onPrimaryTransactionalWrite", data);
        let insert =
            doc! { "insert": "c", "documents": [{ "_id": id }], "lsid": lsid.clone(), "txnNumber": id };
        let c = w.connect(0);
        w.send(c, insert.clone());
        assert_eq!(w.ended.contains(&c), !open, "{id}");
        if let Some(reply) = w.reply(c) {
            assert!(open && reply.contains_key("writeErrors"), "{reply}");
        }
        let made = w.ok(admin, doc! { "count": "c", "query": { "_id": id } });
        assert_eq!(made.get_i32("n").unwrap(), i32::from(!kept), "{id}");
        let retried = w.ok(admin, insert);
        assert_eq!(retried.get_i32("n").unwrap(), 1, "{retried}");
        assert_eq!(retried.contains_key("retriedStmtIds"), !kept, "{retried}");
    }
}

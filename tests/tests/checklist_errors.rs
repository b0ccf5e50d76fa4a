//! The behaviour checklist: which errors are resumed from.
//!
//! Not here:
//! - the code list at wire versions below 8: the client refuses servers before 4.2. The stream machine's own test has
//!   them (`the_connections_wire_version_decides_between_label_and_code_list`).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bson::doc;
use changestream_core::ErrorKind;
use changestream_tests::world::{World, both, collection, document, exact, key_of};

/// Prose test 4.
#[test]
fn an_error_of_the_aggregate_is_never_resumed_from() {
    for code in [2, 43] {
        let mut world = World::replica_set();
        world.fail(&["aggregate"], 1, doc! { "errorCode": code });
        let stream = world.watch(&collection("shop", "orders"), exact());
        let error = world.open(stream).unwrap_err();
        assert_eq!(error.code(), Some(code));
        world.advance(Duration::from_secs(60));
        assert_eq!(world.command_names(), ["aggregate", "endSessions"]);
    }
}

/// Prose test 4: labelled as resumable, it is still an aggregate's.
#[test]
fn a_label_does_not_make_an_error_of_the_aggregate_resumable() {
    let mut world = World::replica_set();
    let labels = ["ResumableChangeStreamError"];
    world.fail(&["aggregate"], 1, doc! { "errorCode": 2, "errorLabels": labels });
    let stream = world.watch(&collection("shop", "orders"), exact());
    assert_eq!(world.open(stream).unwrap_err().code(), Some(2));
    assert_eq!(world.command_names(), ["aggregate"]);
}

/// Spec text: from 4.4 on the label decides, and CursorNotFound always.
#[test]
fn from_4_4_on_the_servers_label_decides() {
    let label = doc! { "errorLabels": ["ResumableChangeStreamError"] };
    let no_label = doc! { "errorLabels": [] };
    // The codes that a server before 4.4 would have meant do not count without their label.
    for (code, labels, resumes) in [
        (10107, &no_label, false),
        (91, &no_label, false),
        (280, &label, true),
        (1, &label, true),
        (43, &no_label, true),
        (50, &no_label, false),
    ] {
        let (mut world, stream) = World::under_way("4.4", exact());
        let mut fault = doc! { "errorCode": code };
        fault.extend(labels.clone());
        world.fail(&["getMore"], 1, fault);
        match world.next(stream) {
            Some(Ok(event)) if resumes => assert_eq!(key_of(&event), 1, "{code}"),
            Some(Err(error)) if !resumes => assert_eq!(error.code(), Some(code)),
            other => panic!("{code}: {other:?}"),
        }
    }
}

/// Spec text: before 4.4 a list of codes decides, and no label. 13388 is in it.
#[test]
fn before_4_4_a_list_of_codes_decides() {
    let listed = [
        6, 7, 43, 63, 89, 91, 133, 150, 189, 234, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436,
    ];
    let others = [1, 50, 136, 237, 280, 286, 10334, 11601];
    for (code, resumes) in listed
        .map(|code| (code, true))
        .into_iter()
        .chain(others.map(|code| (code, false)))
    {
        let (mut world, stream) = World::under_way("4.2", exact());
        let labels: &[&str] = if resumes {
            &[]
        } else {
            &["ResumableChangeStreamError"]
        };
        world.fail(&["getMore"], 1, doc! { "errorCode": code, "errorLabels": labels });
        match world.next(stream) {
            Some(Ok(event)) if resumes => assert_eq!(key_of(&event), 1, "{code}"),
            Some(Err(error)) if !resumes => assert_eq!(error.code(), Some(code)),
            other => panic!("{code}: {other:?}"),
        }
    }
}

/// Spec text: the wire version is that of the connection that ran the command, whatever later hellos say.
#[test]
fn the_wire_version_is_that_of_the_connection_that_ran_the_command() {
    let (mut world, stream) = World::under_way("4.2", exact());
    // Another connection would now find a 4.4 server.
    world.rewrite_replies(|reply| {
        if reply.contains_key("maxWireVersion") {
            reply.insert("maxWireVersion", 9);
        }
    });
    world.fail(&["getMore"], 1, doc! { "errorCode": 189, "errorLabels": [] });
    assert_eq!(world.keys(stream, 1), [1]);
}

/// The codes that no resume can mend end the stream on every version.
#[test]
fn errors_that_a_resume_cannot_mend_end_the_stream() {
    for version in ["4.2", "4.4", "7.0"] {
        for code in [286, 280, 260, 10334, 136, 237, 11601, 50] {
            let (mut world, stream) = World::under_way(version, exact());
            let token = world.token(stream);
            world.fail_get_more(code);
            let error = world.failure(stream);
            assert_eq!(error.code(), Some(code), "{version}");
            assert!(!error.is_resumable());
            assert_eq!(document(error.resume_token().unwrap()), token);
            world.advance(Duration::from_secs(10));
            assert_eq!(world.commands_named("aggregate").len(), 1);
            assert!(!world.machine(stream).is_alive());
        }
    }
}

/// A history that is lost is found out by the getMore or by the aggregate that resumes: either way it is the end.
#[test]
fn a_lost_history_is_the_end_and_says_so() {
    for options in both() {
        let (mut world, stream) = World::under_way("4.4", options);
        assert_eq!(world.keys(stream, 1), [1]);
        world.advance(Duration::from_secs(20));
        world.insert_orders(3..5);
        world.advance(Duration::from_secs(20));
        world.insert_orders(5..6);
        let (now, last) = (world.now, world.deployment.last_write().unwrap());
        world.deployment.lose_history(now, last);
        let error = loop {
            match world.next(stream) {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("the stream ended without a word"),
            }
        };
        assert!(matches!(error.kind(), ErrorKind::HistoryLost(_)), "{error}");
        assert!(error.resume_token().is_some());
    }
}

/// Command shape: with `batchSize: 0` the aggregate always succeeds and the history's loss comes with the first
/// getMore; an aggregate that succeeded does not make that resumable.
#[test]
fn a_lost_history_that_the_first_get_more_reports_is_no_reason_to_resume() {
    let mut world = World::replica_set();
    let mut options = exact();
    options.start_at_operation_time = world.deployment.last_write();
    options.batch_size = Some(0);
    world.advance(Duration::from_secs(30));
    world.insert_orders(0..1);
    let (now, last) = (world.now, world.deployment.last_write().unwrap());
    world.deployment.lose_history(now, last);
    let stream = world.watching(&collection("shop", "orders"), options);
    assert!(matches!(world.failure(stream).kind(), ErrorKind::HistoryLost(_)));
    assert_eq!(world.commands_named("aggregate").len(), 1);
}
